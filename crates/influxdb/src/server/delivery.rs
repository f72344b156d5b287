//! Takes one batch of lines to its end: every line is in the server, or refused for good with the server's words. It
//! tries for ever, splits what is refused as a whole down to the line, and holds while a setting is wrong.

use crate::config::Config;
use crate::error::Error;
use crate::manage;
use crate::secret::Secret;
use crate::server::dialect::{Place, has_older_way};
use crate::server::exchange::{Answer, NoAnswer};
use crate::server::http::{Http, Rested};
use crate::server::kind::{Recognised, ServerKind, shown_by_write, speaks_against};
use crate::server::outcome::{self, Outcome};
use crate::server::parts::{Parts, Piece, SEARCH_AFTER, Step, Stopped};
use crate::server::poison::Suspects;
use crate::server::probe;
use crate::server::recognise::{self, Shown};
use crate::server::refusal::moved;
use crate::server::retry::Backoff;
use crate::server::settle::{Seen, Settlement};
use crate::server::standing::Standing;
use crate::server::tls::Stamps;
use crate::server::translate::{Translated, translate};
use crate::server::vm_line::Takes;
use crate::server::watch::{Ignored, Watch};
use graylogic_durable::Batch;
use graylogic_line::Timestamp;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// After so many lines in a row that the server fails on, it is rather the server, whatever it took before.
const FAILED_IN_A_ROW_MAX: u32 = 64;
/// Lines that wait this long for a VictoriaMetrics are held against its limits again.
const LIMITS_EVERY: Duration = Duration::from_secs(60);
/// While a setting is wrong, a new token and new certificates are looked for this often.
const TOKEN_EVERY: Duration = Duration::from_secs(1);

/// What happens on the way.
#[derive(Debug)]
pub(crate) enum Event {
    /// The server does not take them at present; the client was closing already when `in_close` they were tried last.
    Retrying { reason: String, after: Duration, in_close: bool },
    /// The server will not take them until somebody changes a setting.
    Held { reason: String, setting: &'static str, after: Duration, in_close: bool },
    /// It takes them again.
    Ok,
}

/// Whether delivery goes on after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Onward {
    GoOn,
    /// The lines stay where they are.
    GiveUp,
}

/// Who hears of events, and says whether delivery goes on.
type Events<'a> = dyn FnMut(Event) -> Onward + 'a;

/// How the delivery of a batch ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Every line is in the server, or rejected.
    Settled(Delivered),
    /// Not every line is settled: they must be delivered again in their order, with others if there are any. So many of them
    /// are sent alone.
    Again { alone: usize },
}

/// Lines of a batch that were refused for good; all others are in the server.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    pub(crate) refused: Vec<(usize, String)>,
    /// Of those in the server, lines that had to go without some of their fields, and why.
    pub(crate) altered: Vec<(usize, String)>,
}

impl Delivered {
    /// Each line once, in the order of the places; one that was refused was not altered.
    fn in_order(mut self) -> Self {
        for named in [&mut self.refused, &mut self.altered] {
            named.sort_by_key(|r| r.0);
            named.dedup_by_key(|r| r.0);
        }
        self.altered.retain(|a| self.refused.binary_search_by_key(&a.0, |r| r.0).is_err());
        self
    }
}

/// Delivers batches to one server, and remembers what it learnt of it.
#[derive(Debug)]
pub(crate) struct Delivery {
    http: Http,
    place: Place,
    /// What the server is, or is taken for until it shows.
    kind: Option<ServerKind>,
    /// Whether it showed that, or will not show anything.
    is_sure: bool,
    /// What it showed itself to be last, and whether it has proven that it takes writes here.
    standing: Standing,
    /// What it was last, which may be forgotten in `kind`.
    last_kind: Option<ServerKind>,
    /// It has no other way than an older kind's.
    older_way: bool,
    config: Config,
    backoff: Backoff,
    gzip: bool,
    /// The server refused a longer body than this.
    bytes_max: usize,
    /// Where the server said that it takes writes.
    location: Option<String>,
    /// The token of the last request. Another lane may have found a new one since: they share it.
    tried: Secret,
    /// The files of certificates that were tried because they were new.
    files_tried: Option<Stamps>,
    /// Requests whose lines the server took.
    taken: u64,
    suspects: Suspects,
    /// Pauses between tries of lines that are suspects.
    rounds: Backoff,
    search: Option<Search>,
    /// Searches that found nothing that the server takes.
    searched: u32,
    troubled: bool,
    /// The client was closing already when the last try began.
    tried_in_close: bool,
    /// The bucket was made, and no answer has shown yet that it is there.
    created: bool,
    /// When what the server acknowledged has settled.
    settlement: Settlement,
}

/// Parts of lines that the server fails on are tried, to find out which it takes.
#[derive(Clone, Copy, Debug)]
struct Search {
    /// What the server had taken before.
    taken_before: u64,
    failed_in_a_row: u32,
}

/// The lines of a request.
struct Sent<'a> {
    /// As they were accepted, and in the words of the server.
    source: &'a Batch,
    batch: &'a Batch,
    /// Bytes of those that went out.
    length: usize,
}

impl Delivery {
    pub(crate) fn new(config: &Config, http: Http, bucket: &str, watch: Arc<Watch>) -> Self {
        let seed = Timestamp::now().as_nanos() as u64 ^ u64::from(std::process::id()) << 32;
        Self {
            gzip: !http.is_local(),
            http,
            place: Place { org: config.org().to_owned(), bucket: bucket.to_owned() },
            kind: None,
            is_sure: false,
            standing: Standing::default(),
            last_kind: None,
            older_way: false,
            config: config.clone(),
            backoff: Backoff::new(seed).hurried(config.hurry()),
            bytes_max: usize::MAX,
            location: None,
            tried: Secret::default(),
            files_tried: None,
            taken: 0,
            suspects: Suspects::new(config.hurry()),
            rounds: Backoff::new(seed.rotate_left(32)).hurried(config.hurry()),
            search: None,
            searched: 0,
            troubled: false,
            tried_in_close: false,
            created: false,
            settlement: Settlement::new(watch, config.settle_time(), config.hurry()),
        }
    }

    /// The thread that delivers panicked somewhere on the way: what may be half done is done anew.
    pub(crate) fn start_afresh(&mut self) {
        self.forget();
        self.http.renew();
        self.suspects.forget();
    }

    /// How often the server should be looked at, when it is one that acknowledges what it may lose or ignore.
    pub(crate) fn look_every(&self) -> Option<Duration> {
        (self.last_kind == Some(ServerKind::VictoriaMetrics)).then(|| self.settlement.look_every())
    }

    /// Whether what the server acknowledges settles some time later.
    pub(crate) fn settles_later(&self) -> bool {
        self.look_every().is_some() && self.settlement.takes_time()
    }

    /// Before the first line is sent: the run of the server that will acknowledge it, when its lines settle later.
    pub(crate) fn begin(&mut self) -> Option<u64> {
        let kind = self.recognised().ok()?;
        let settles = kind == ServerKind::VictoriaMetrics && self.settlement.takes_time();
        if settles { self.settlement.begin(&self.http) } else { None }
    }

    /// Looks whether the server has run on since lines began to settle.
    pub(crate) fn look(&mut self) -> Seen {
        match self.last_kind {
            Some(ServerKind::VictoriaMetrics) => self.settlement.look(&self.http),
            // Another server is there now, which has none of these lines.
            _ => Seen::Restarted { by: None },
        }
    }

    /// Rows that the server ignored without naming them, if no other lane reported it.
    pub(crate) fn take_ignored(&self) -> Vec<Ignored> {
        self.settlement.take_ignored()
    }

    /// Delivers the lines of a batch, however long it takes.
    pub(crate) fn deliver(&mut self, source: &Batch, events: &mut Events<'_>) -> Result<Ending, Stopped> {
        let mut delivered = Delivered::default();
        let mut translated: Option<(ServerKind, Option<Translated>)> = None;
        // What a VictoriaMetrics takes depends on the time of day, and may not be known yet.
        let mut good_until = None::<Instant>;
        // Lines that the server of now cannot hold: one that comes in its place may.
        let mut unheld: Vec<usize> = Vec::new();
        let mut parts = Parts { pieces: self.first_pieces(source), ..Parts::default() };
        self.search = None;
        while let Some(mut piece) = parts.pieces.pop() {
            if piece.places.is_empty() || self.is_condemned(&piece, source, &mut delivered) {
                continue;
            }
            self.tried_in_close = self.http.is_closing();
            let kind = match self.recognised() {
                Ok(kind) => kind,
                Err(why) => {
                    parts.put_back(self.after_silence(why, piece, events))?;
                    continue;
                }
            };
            // Another server may be there since the last piece.
            if translated.as_ref().is_none_or(|t| t.0 != kind)
                || good_until.is_some_and(|t| t <= Instant::now())
            {
                let takes = match kind {
                    ServerKind::VictoriaMetrics => self.settlement.takes(&self.http),
                    _ => Takes::default(),
                };
                let good_for = if takes.is_known { LIMITS_EVERY } else { Duration::ZERO };
                good_until = (kind == ServerKind::VictoriaMetrics).then(|| Instant::now() + good_for);
                translated = Some((kind, translate(kind, source, &takes)));
                piece.places.append(&mut unheld);
                piece.places.sort_unstable();
            }
            let words = translated.as_ref().and_then(|t| t.1.as_ref());
            if let Some(words) = words {
                let is_refused = |p: &mut usize| words.refused.binary_search_by_key(p, |r| r.0).is_ok();
                unheld.extend(piece.places.extract_if(.., is_refused));
            }
            let batch = words.map_or(source, |w| &w.batch);
            let length: usize = piece.places.iter().map(|&i| batch.line(i).len()).sum();
            if length == 0 {
                continue;
            }
            if length > self.bytes_max && piece.places.len() > 1 {
                parts.split(piece);
                continue;
            }
            let altered = words.map_or(&[][..], |w| &w.altered);
            let goes_out = |a: &&(usize, String)| piece.places.binary_search(&a.0).is_ok();
            let altered: Vec<_> = altered.iter().filter(goes_out).cloned().collect();
            let was_suspect = piece.is_suspect;
            let step = match self.send(kind, batch, &piece) {
                Ok(answer) => {
                    let sent = Sent { source, batch, length };
                    let step = self.after_answer(&answer, &sent, piece, &mut delivered, events);
                    if let Some(found) = speaks_against(kind, &answer) {
                        self.is_another(found);
                    }
                    step
                }
                Err(why) => self.after_silence(why, piece, events),
            };
            if matches!(step, Step::Done) {
                // What of them was refused is taken out at the end.
                delivered.altered.extend(altered);
                parts.out_of_order |= was_suspect && source.len() > 1;
            }
            parts.put_back(step)?;
        }
        if !parts.aside.is_empty() {
            self.pause_between_rounds(events)?;
        }
        if !parts.aside.is_empty() || parts.out_of_order {
            return Ok(Ending::Again { alone: self.suspects.len() });
        }
        if let Some((_, Some(words))) = translated {
            unheld.sort_unstable();
            let left = words.refused.into_iter().filter(|r| unheld.binary_search(&r.0).is_ok());
            delivered.refused.extend(left);
        }
        self.suspects.forget();
        self.rounds.reset();
        self.searched = 0;
        Ok(Ending::Settled(delivered.in_order()))
    }

    /// The kind of the server, which is asked when nobody knows. One that does not show it is taken for InfluxDB 2, whose
    /// way of writing most others read, until it fails; when it may only be in the way of showing it, for what it was
    /// before, and asked again next time.
    fn recognised(&mut self) -> Result<ServerKind, NoAnswer> {
        // Another lane may have found another server at this address since.
        if let Some(known) = self.http.recognised() {
            self.is_sure = true;
            self.standing.kind = Some(known.kind);
            return Ok(self.learnt(known.kind));
        }
        if let Some(kind) = self.kind.filter(|_| self.is_sure) {
            return Ok(kind);
        }
        self.tried = self.http.token();
        let asking = recognise::shown(&self.http, self.last_kind.is_none());
        let shown = self.http.wait(asking).unwrap_or(Err(NoAnswer::Stopped))?;
        self.is_sure = !matches!(shown, Shown::Unknown);
        match &shown {
            Shown::Is(found) => self.standing.kind = Some(found.kind),
            Shown::Hidden => self.standing.kind = None,
            // A proxy answered: the server behind it is probably the one of before.
            Shown::Unknown => {}
        }
        Ok(match shown {
            Shown::Is(found) => self.learnt(found.kind),
            Shown::Hidden => self.learnt(ServerKind::InfluxDb2),
            Shown::Unknown => self.learnt(self.last_kind.unwrap_or(ServerKind::InfluxDb2)),
        })
    }

    /// The server is of this kind. What was learnt of one of another kind is forgotten.
    fn learnt(&mut self, kind: ServerKind) -> ServerKind {
        if self.last_kind.replace(kind).is_some_and(|last| last != kind) {
            (self.gzip, self.bytes_max) = (!self.http.is_local(), usize::MAX);
            (self.location, self.older_way) = (None, false);
            (self.standing.is_proven, self.standing.shows_itself) = (false, false);
        }
        self.kind = Some(kind);
        kind
    }

    fn send(&mut self, kind: ServerKind, batch: &Batch, piece: &Piece) -> Result<Answer, NoAnswer> {
        let mut body = Vec::with_capacity(batch.bytes.len());
        if piece.places.len() == batch.len() {
            body.extend_from_slice(&batch.bytes);
        } else {
            piece.places.iter().for_each(|&i| body.extend_from_slice(batch.line(i)));
        }
        self.tried = self.http.token();
        let mut request = match self.older_way {
            true => self.place.write_in_older_way(kind, body, self.gzip),
            false => self.place.write(kind, body, self.gzip),
        };
        request.location.clone_from(&self.location);
        self.http.send(request)
    }

    fn after_silence(&mut self, why: NoAnswer, piece: Piece, events: &mut Events<'_>) -> Step {
        self.settlement.broke();
        match why {
            NoAnswer::Stopped => Step::Stopped,
            NoAnswer::Failed(reason) => self.retry(reason, None, piece, events),
            NoAnswer::Unusable { reason, setting } => self.hold(reason, setting, piece, events),
        }
    }

    /// What was learnt may be of another server than answers at this address next time.
    fn forget(&mut self) {
        (self.kind, self.location, self.older_way) = (None, None, false);
        (self.standing.is_proven, self.standing.shows_itself) = (false, false);
        self.http.set_recognised(None);
    }

    /// The server is of another kind than it was taken for. When the configuration says what it is, it is asked again, and the
    /// lane held if that is true.
    fn is_another(&mut self, found: Recognised) {
        self.forget();
        if self.http.configured().is_none() {
            self.http.set_recognised(Some(found));
        }
    }

    fn after_answer(
        &mut self,
        answer: &Answer,
        sent: &Sent<'_>,
        mut piece: Piece,
        delivered: &mut Delivered,
        events: &mut Events<'_>,
    ) -> Step {
        let now = Timestamp::now().as_nanos() / 1_000_000_000;
        if answer.status >= 400 && self.standing.hides_in(answer) {
            // Its words about lines count once it has taken an empty write.
            (self.standing.is_proven, self.standing.shows_itself) = (false, false);
        }
        let outcome = outcome::read(answer, sent.batch, &piece.places, self.gzip, self.standing, now);
        if outcome.proves_the_place() {
            self.standing.is_proven = true;
        }
        if outcome.is_a_verdict() {
            self.lets_through(&outcome, sent, &piece, events);
        }
        match outcome {
            Outcome::Delivered => {
                self.standing.shows_itself |= shown_by_write(answer).is_some();
                // A limit may be gone again: it is tried now and then, one time in forty or so.
                if sent.length > self.bytes_max / 2 {
                    self.bytes_max = self.bytes_max.saturating_add(self.bytes_max / 64 + 1);
                }
                Step::Done
            }
            Outcome::Dropped(named) => {
                delivered.refused.extend(named);
                Step::Done
            }
            Outcome::Partial { named, suspects, .. }
                if named.is_empty() && (1..piece.places.len()).contains(&suspects.len()) =>
            {
                Step::Apart(piece, suspects)
            }
            Outcome::Partial { named, reason, .. } if named.is_empty() => {
                refuse_or_split(piece, reason, delivered)
            }
            Outcome::Unnamed(reason) => refuse_or_split(piece, reason, delivered),
            Outcome::Unproven(reason) => self.prove(reason, piece, events),
            // What the answer names is not all there may be: of a shard, of a list that was cut. Sending the rest again
            // changes nothing in the server, and tells.
            Outcome::Refused(named) | Outcome::Partial { named, .. } => {
                piece.places.retain(|p| named.binary_search_by_key(p, |n| n.0).is_err());
                delivered.refused.extend(named);
                Step::Again(piece)
            }
            Outcome::TooLarge(reason) => {
                let length = sent.length;
                self.bytes_max = self.bytes_max.min(length.saturating_sub(1)).min(length / 2 + 1).max(1);
                refuse_or_split(piece, reason, delivered)
            }
            Outcome::NotGzip => {
                self.gzip = false;
                Step::Again(piece)
            }
            Outcome::Held { setting: "url", .. } if !self.older_way && has_older_way(self.kind, answer) => {
                self.older_way = true;
                Step::Again(piece)
            }
            Outcome::Held { reason, setting } => {
                if self.standing.hides_in(answer) {
                    self.forget();
                }
                self.hold(reason, setting, piece, events)
            }
            Outcome::Redirect(location) => self.redirected(&location, piece, events),
            Outcome::Retry { reason, after, server_fault: false } => {
                piece.faults = 0;
                self.retry(reason, after, piece, events)
            }
            Outcome::Retry { reason, after, server_fault: true } => {
                self.after_fault(reason, after, piece, sent, events)
            }
        }
    }

    /// The server read the lines of a request, whatever became of them.
    fn lets_through(&mut self, outcome: &Outcome, sent: &Sent<'_>, piece: &Piece, events: &mut Events<'_>) {
        self.backoff.reset();
        self.created = false;
        if let ([only], true) = (&piece.places[..], piece.is_suspect) {
            self.suspects.clear_of(sent.source.line(*only));
        }
        if matches!(outcome, Outcome::Delivered | Outcome::Dropped(_) | Outcome::Partial { .. }) {
            self.taken += 1;
            self.suspects.others_taken();
            if let Some(search) = &mut self.search {
                search.failed_in_a_row = 0;
            }
        }
        if self.suspects.is_empty() && std::mem::take(&mut self.troubled) {
            events(Event::Ok);
        }
    }

    /// Tells lines that a server rejects without naming them from an address at which nothing takes lines: a server that
    /// takes an empty write has judged the lines.
    fn prove(&mut self, reason: String, piece: Piece, events: &mut Events<'_>) -> Step {
        let kind = self.kind.unwrap_or(ServerKind::InfluxDb2);
        match probe::empty_write(&self.http, &self.place, kind, None) {
            Ok(answer) if self.standing.takes_writes(&answer) => {
                self.standing.is_proven = true;
                Step::Again(piece)
            }
            Ok(answer) => {
                let status = answer.status;
                let reason = format!(
                    "{reason}; it answers {status} to an empty write as well, so no line is at fault"
                );
                self.hold(reason, "url", piece, events)
            }
            Err(why) => self.after_silence(why, piece, events),
        }
    }

    /// Follows once, to the same server only.
    fn redirected(&mut self, location: &str, piece: Piece, events: &mut Events<'_>) -> Step {
        if self.location.is_none() && self.http.is_same_server(location) {
            self.location = Some(location.to_owned());
            return Step::Again(piece);
        }
        let answer = Answer { status: 307, location: Some(location.to_owned()), ..Answer::default() };
        let reason = format!("the server does not take writes here: {}", moved(&answer).unwrap_or_default());
        self.hold(reason, "url", piece, events)
    }

    fn retry(
        &mut self,
        reason: String,
        asked: Option<Duration>,
        piece: Piece,
        events: &mut Events<'_>,
    ) -> Step {
        self.forget();
        self.troubled = true;
        self.suspects.interrupted();
        let after = self.backoff.next(asked);
        if events(Event::Retrying { reason, after, in_close: self.tried_in_close }) == Onward::GiveUp {
            return Step::Stopped;
        }
        // What the server asked for is not ours to shorten.
        let hastens = asked.is_none().then(Instant::now);
        match self.http.rest(after, self.tried_in_close, hastens) {
            Rested::Stopped => Step::Stopped,
            Rested::Whole | Rested::CutShort => Step::Again(piece),
        }
    }

    /// Waits for somebody to change a setting; a new token and new certificates are tried at once, and a bucket is made where
    /// that is allowed.
    fn hold(
        &mut self,
        mut reason: String,
        setting: &'static str,
        piece: Piece,
        events: &mut Events<'_>,
    ) -> Step {
        self.troubled = true;
        self.suspects.interrupted();
        // One that was made and is still not there: no sooner again than it is tried again.
        let just_created = std::mem::take(&mut self.created);
        if setting == "bucket" && self.config.creates_buckets() && !just_created {
            match self.create_bucket() {
                Some(Ok(())) => {
                    self.created = true;
                    return Step::Again(piece);
                }
                Some(Err(why)) => reason = format!("{reason}; and it could not be made: {why}"),
                None => {}
            }
        }
        self.forget();
        let mut left = self.backoff.held();
        let reason = format!("{reason}{}", self.remedy(&reason, setting));
        if events(Event::Held { reason, setting, after: left, in_close: self.tried_in_close })
            == Onward::GiveUp
        {
            return Step::Stopped;
        }
        let since = Instant::now();
        while !left.is_zero() {
            let pause = left.min(TOKEN_EVERY);
            match self.http.rest(pause, self.tried_in_close, Some(since)) {
                Rested::Stopped => return Step::Stopped,
                Rested::CutShort => left = Duration::ZERO,
                Rested::Whole => left -= pause,
            }
            if let Some(token) = self.config.token_now() {
                self.http.set_token(token);
            }
            if self.http.token() != self.tried || self.http.has_new_files(&mut self.files_tried) {
                self.backoff.reset();
                break;
            }
        }
        Step::Again(piece)
    }
}

impl Delivery {
    /// What somebody can do about a setting, unless the reason says it already.
    fn remedy(&self, reason: &str, setting: &str) -> String {
        match setting {
            _ if reason.contains(&format!("influxdb.{setting}")) => String::new(),
            "token" => format!("; check influxdb.token: {}", self.config.token_way()),
            "bucket" => "; make it, or check influxdb.bucket".to_owned(),
            setting => format!("; check influxdb.{setting}"),
        }
    }

    /// Makes the bucket; `None` where the server makes its own, and when somebody stopped it.
    fn create_bucket(&self) -> Option<Result<(), Error>> {
        if !matches!(self.kind, Some(ServerKind::InfluxDb1 | ServerKind::InfluxDb2)) {
            return None;
        }
        let made = manage::create_missing(&self.http, &self.place.org, &self.place.bucket);
        self.http.wait(made).ok()
    }
}

fn refuse_or_split(piece: Piece, reason: String, delivered: &mut Delivered) -> Step {
    if let [only] = piece.places[..] {
        delivered.refused.push((only, reason));
        return Step::Done;
    }
    Step::Split(piece)
}

impl Delivery {
    /// The lines that are no suspects together, in their order, before each of the suspects.
    fn first_pieces(&self, source: &Batch) -> Vec<Piece> {
        let is_suspect = |place: &usize| self.suspects.contains(source.line(*place));
        let (suspects, others): (Vec<usize>, Vec<usize>) = match self.suspects.is_empty() {
            true => (Vec::new(), (0..source.len()).collect()),
            false => (0..source.len()).partition(is_suspect),
        };
        let alone = |place| Piece { is_suspect: true, ..Piece::of(vec![place]) };
        suspects.into_iter().rev().map(alone).chain([Piece::of(others)]).collect()
    }

    /// Whether it is a line that is proven to be why the server failed: then it is rejected, and not tried again.
    fn is_condemned(&self, piece: &Piece, source: &Batch, delivered: &mut Delivered) -> bool {
        let ([only], true) = (&piece.places[..], piece.is_suspect) else { return false };
        let verdict = self.suspects.verdict(source.line(*only));
        let is_condemned = verdict.is_some();
        delivered.refused.extend(verdict.map(|reason| (*only, reason)));
        is_condemned
    }

    /// The server failed on lines. After some tries parts of them are sent: if it takes any, those on which it fails alone are
    /// suspects, which are tried beside others for minutes. If it takes none, it is the server that is broken.
    fn after_fault(
        &mut self,
        reason: String,
        after: Option<Duration>,
        mut piece: Piece,
        sent: &Sent<'_>,
        events: &mut Events<'_>,
    ) -> Step {
        let alone = match piece.places[..] {
            [only] => Some(sent.source.line(only)),
            _ => None,
        };
        if let Some(line) = alone.filter(|_| piece.is_suspect) {
            self.suspects.failed(line, &reason, Instant::now());
            return Step::Aside(piece);
        }
        piece.faults += 1;
        if piece.faults < SEARCH_AFTER {
            self.suspects.others_failed();
            return self.retry(reason, after, piece, events);
        }
        let Some(line) = alone else {
            let search = Search { taken_before: self.taken, failed_in_a_row: 0 };
            self.search.get_or_insert(search);
            let from_behind = match self.searched {
                0 => false,
                1 => true,
                _ => self.backoff.coin(),
            };
            return if from_behind { Step::SplitFromBehind(piece) } else { Step::Split(piece) };
        };
        // One line that is not known to be among others that the server takes.
        if sent.source.len() == 1 {
            self.suspects.others_failed();
            self.suspects.failed(line, &reason, Instant::now());
            return Step::Aside(piece);
        }
        let search = self.search.as_mut();
        let is_taking = search.is_some_and(|search| {
            search.failed_in_a_row += 1;
            self.taken > search.taken_before && search.failed_in_a_row <= FAILED_IN_A_ROW_MAX
        });
        if is_taking {
            self.suspects.failed(line, &reason, Instant::now());
            piece.is_suspect = true;
            return Step::Aside(piece);
        }
        self.suspects.others_failed();
        (self.search, self.searched) = (None, self.searched.saturating_add(1));
        // One more try of all of them before the next search.
        piece.faults = SEARCH_AFTER - 1;
        match self.retry(reason, after, piece, events) {
            Step::Again(piece) => Step::Regroup(piece),
            step => step,
        }
    }

    /// Suspects are left: they are tried again later, beside others.
    fn pause_between_rounds(&mut self, events: &mut Events<'_>) -> Result<(), Stopped> {
        let reason = self.suspects.reason().unwrap_or("the server failed").to_owned();
        let after = self.rounds.next(None);
        self.troubled = true;
        if events(Event::Retrying { reason, after, in_close: self.tried_in_close }) == Onward::GiveUp {
            return Err(Stopped);
        }
        // The proof takes minutes, whoever waits: others are not sent more often for that.
        match self.http.rest(after, self.tried_in_close, None) {
            Rested::Stopped => Err(Stopped),
            Rested::Whole | Rested::CutShort => Ok(()),
        }
    }
}
