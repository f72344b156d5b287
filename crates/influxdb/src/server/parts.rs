//! The parts of a batch on its way: which lines go out together, in what order, and what is left of them after an answer. Pure; it
//! knows neither servers nor answers.

/// After so many faults of the server on the same lines, parts of them are tried.
pub(crate) const SEARCH_AFTER: u32 = 5;

/// It was stopped: the fate of the lines in flight is unknown.
#[derive(Debug)]
pub(crate) struct Stopped;

/// Lines of a batch that go out together, by their places in ascending order.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) places: Vec<usize>,
    pub(crate) faults: u32,
    /// One line alone, on which the server fails.
    pub(crate) is_suspect: bool,
}

impl Piece {
    pub(crate) fn of(places: Vec<usize>) -> Self {
        Self { places, faults: 0, is_suspect: false }
    }
}

/// How a piece goes on after an answer.
pub(crate) enum Step {
    Done,
    Again(Piece),
    /// In another round.
    Aside(Piece),
    Split(Piece),
    /// The second half first.
    SplitFromBehind(Piece),
    /// Together with all the others but suspects.
    Regroup(Piece),
    /// These of its lines by themselves, then the others.
    Apart(Piece, Vec<usize>),
    Stopped,
}

/// The parts of a batch on its way.
#[derive(Default)]
pub(crate) struct Parts {
    /// Still to be sent, the next one last.
    pub(crate) pieces: Vec<Piece>,
    /// Suspects that stay for another round.
    pub(crate) aside: Vec<Piece>,
    /// Some were sent before others that come before them: of two values for one time the older one may have won.
    pub(crate) out_of_order: bool,
}

impl Parts {
    /// Where what is left of a piece goes.
    pub(crate) fn put_back(&mut self, step: Step) -> Result<(), Stopped> {
        match step {
            Step::Done => {}
            Step::Again(piece) => self.pieces.push(piece),
            Step::Aside(piece) => self.aside.push(piece),
            Step::Split(piece) => self.split(piece),
            Step::SplitFromBehind(piece) => {
                self.out_of_order = true;
                self.split(piece);
                let length = self.pieces.len();
                self.pieces.swap(length - 1, length - 2);
            }
            Step::Regroup(mut piece) => {
                for other in self.pieces.extract_if(.., |other| !other.is_suspect) {
                    piece.places.extend(other.places);
                }
                piece.places.sort_unstable();
                self.pieces.push(piece);
            }
            Step::Apart(mut piece, apart) => {
                piece.places.retain(|p| apart.binary_search(p).is_err());
                self.pieces.push(Piece { faults: 0, ..piece });
                self.pieces.push(Piece::of(apart));
            }
            Step::Stopped => return Err(Stopped),
        }
        Ok(())
    }

    /// Two pieces of one of several lines; the first half goes out first. In a search neither is tried as often again.
    pub(crate) fn split(&mut self, mut piece: Piece) {
        let second = piece.places.split_off(piece.places.len() / 2);
        let faults = if piece.faults >= SEARCH_AFTER { SEARCH_AFTER } else { 0 };
        self.pieces.push(Piece { faults, ..Piece::of(second) });
        self.pieces.push(Piece { faults, ..Piece::of(piece.places) });
    }
}
