//! Whether annotated CSV came to its end: servers end an answer with an empty line, and one that failed on the way with its
//! error. Without that the connection broke off, however well it was closed. Pure; must not know what the lines say
//! otherwise.

/// The header of the block that says why an answer ends early, from the first column's name on.
const ERROR: &[u8] = b",error,reference";

/// Follows an answer, in pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// The beginning of the line that has not ended: enough to know it by.
    line: Vec<u8>,
    /// Whether the last line was empty, and whether a block is an error's.
    is_blank: bool,
    is_error: bool,
}

impl Ending {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            // A return more than the header has.
            let room = (ERROR.len() + 1).saturating_sub(self.line.len());
            let text = part.strip_suffix(b"\n");
            let kept = text.unwrap_or(part);
            self.line.extend_from_slice(&kept[..kept.len().min(room)]);
            if text.is_some() {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        self.is_blank = line.is_empty();
        // Nothing of interest comes after it.
        self.is_error |= line == ERROR;
        self.line.clear();
    }

    /// Whether what came is an answer to its end.
    pub(crate) fn is_whole(&self) -> bool {
        self.line.is_empty() && (self.is_blank || self.is_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_whole(pieces: &[&[u8]]) -> bool {
        let mut ending = Ending::default();
        pieces.iter().for_each(|piece| ending.feed(piece));
        ending.is_whole()
    }

    #[test]
    fn every_recorded_answer_is_whole_and_none_without_its_end() {
        let mut count = 0;
        for folder in ["flux-csv", "flux-typed"] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(folder);
            for entry in std::fs::read_dir(folder).expect("fixtures") {
                let path = entry.expect("an entry").path();
                if path.extension().is_none_or(|e| e != "csv") {
                    continue;
                }
                let answer = std::fs::read(&path).expect("a recording");
                let name = path.display();
                // The answer to a query that asked for none.
                if answer.is_empty() {
                    continue;
                }
                // Answers that were asked for without a header do not name their errors.
                if !name.to_string().contains("header-false") {
                    assert!(is_whole(&[&answer]), "{name}");
                    for at in 0..answer.len() {
                        assert!(is_whole(&[&answer[..at], &answer[at..]]), "{name} in two pieces at {at}");
                    }
                    count += 1;
                }
                // Cut at the end of any line but the last of a block.
                for (at, _) in answer.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                    let cut = &answer[..=at];
                    let ends_a_block = cut.ends_with(b"\n\r\n") || cut == b"\r\n";
                    let is_error = String::from_utf8_lossy(cut).contains(",error,reference\r\n");
                    assert_eq!(is_whole(&[cut]), ends_a_block || is_error, "{name} cut at {at}");
                }
            }
        }
        assert!(count > 40, "{count} recordings");
    }

    #[test]
    fn what_is_cut_is_not_whole() {
        for cut in [
            "",
            "\r",
            "a\r\n",
            "a\r\n\r",
            ",result,table\r\n,_result,0\r\n",
            ",error,referenc\r\n",
            "x,error,reference\r\n",
        ] {
            assert!(!is_whole(&[cut.as_bytes()]), "{cut:?}");
        }
        for whole in [
            "\r\n",
            "\n",
            "a\n\n",
            "a\r\n\r\n",
            "a\r\n\r\n,error,reference\r\n,no,\r\n",
            "a\r\n\r\n,error,reference\r\n,no,\r\n\r\nmore\r\n",
        ] {
            assert!(is_whole(&[whole.as_bytes()]), "{whole:?}");
        }
    }
}
