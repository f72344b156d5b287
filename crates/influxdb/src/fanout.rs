//! Gives a line to the lanes of its destinations, each for itself: one that is full or dead does not keep it from the
//! others. It knows lanes and rules, and neither targets nor threads.

use crate::clock;
use crate::error::Error;
use crate::lane::Lane;
use crate::notify::{Notifier, WriteError, WriteErrorKind};
use crate::route::Route;
use graylogic_durable::Refused;
use graylogic_line::{EncodeError, Timestamp};
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Who waits for room in any of several lanes looks at each for this time.
const ROOM_LOOK: Duration = Duration::from_millis(5);
/// A thread keeps a buffer for lines no longer than this.
const LINE_KEPT: usize = 64 << 10;

thread_local! {
    /// Where a line for several lanes is written.
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The rules of a client, each with its lanes.
#[derive(Debug)]
pub(crate) struct Router(pub(crate) Vec<(Route, Arc<[Arc<Lane>]>)>);

impl Router {
    /// The lanes of a reading; `None` when no rule fits it.
    pub(crate) fn lanes<K: AsRef<str>, V: AsRef<str>>(
        &self,
        measurement: &str,
        tags: &[(K, V)],
    ) -> Option<&Arc<[Arc<Lane>]>> {
        self.0.iter().find(|(route, _)| route.fits(measurement, tags)).map(|(_, lanes)| lanes)
    }
}

/// The timestamp of a reading: its own, or the next one of this process. A clock that was set back is reported.
#[inline]
pub(crate) fn stamp(time: Option<Timestamp>, lanes: &[Arc<Lane>], notifier: &Notifier) -> Timestamp {
    time.unwrap_or_else(|| {
        let stamp = clock::next();
        if let Some(step) = stamp.stepped_back {
            report_step(step, lanes, notifier);
        }
        stamp.time
    })
}

#[cold]
fn report_step(step: Duration, lanes: &[Arc<Lane>], notifier: &Notifier) {
    let reason = format!(
        "the system clock was set back by {:.1} s; readings without a timestamp get the new time from here on, which may \
         overwrite readings from before the step",
        step.as_secs_f64()
    );
    tracing::warn!(seconds = step.as_secs_f64(), "the system clock was set back");
    for lane in lanes {
        notifier.add(WriteError {
            kind: WriteErrorKind::ClockStepped,
            target: lane.target.clone(),
            bucket: lane.bucket.clone(),
            lines: 0,
            reason: reason.clone(),
            first: Vec::new(),
        });
    }
}

/// A lane that did not take a line.
type NotTaken<'a> = (usize, &'a Arc<Lane>, Refused<EncodeError>);

/// Gives the line that `encode` writes to each of the lanes, with its own time or the next one; returns at once. Calls
/// `taken` with the count of lines of each lane that took it. News tells of lanes that did not, when another did.
///
/// # Errors
/// When no lane took it.
#[inline]
pub(crate) fn give(
    lanes: &[Arc<Lane>],
    notifier: &Notifier,
    time: Option<Timestamp>,
    encode: impl FnOnce(Timestamp, &mut Vec<u8>) -> Result<(), EncodeError>,
    mut taken: impl FnMut(&Lane, u64),
) -> Result<(), Error> {
    match lanes {
        [lane] => lane.accept(stamp(time, lanes, notifier), encode).map(|lines| taken(lane, lines)),
        _ => give_several(lanes, notifier, time, encode, taken),
    }
}

/// The line is written once, and copied to each.
fn give_several(
    lanes: &[Arc<Lane>],
    notifier: &Notifier,
    time: Option<Timestamp>,
    encode: impl FnOnce(Timestamp, &mut Vec<u8>) -> Result<(), EncodeError>,
    taken: impl FnMut(&Lane, u64),
) -> Result<(), Error> {
    // Not there any more while the thread ends.
    let mut line = LINE.try_with(Cell::take).unwrap_or_default();
    line.clear();
    let encoded = encode(stamp(time, lanes, notifier), &mut line);
    let not_taken = offer(lanes.iter().enumerate(), encoded.as_ref().map(|()| &*line), taken);
    if line.capacity() <= LINE_KEPT {
        let _thread_ends = LINE.try_with(|kept| kept.set(line));
    }
    let not_taken = not_taken?;
    if not_taken.len() == lanes.len() {
        return Err(first_error(not_taken));
    }
    tell(notifier, not_taken);
    Ok(())
}

/// Like [`give`], and waits for room: in any lane while none took the line, and then in those that block.
pub(crate) async fn give_waiting(
    lanes: &[Arc<Lane>],
    notifier: &Notifier,
    time: Option<Timestamp>,
    encode: impl FnOnce(Timestamp, &mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), Error> {
    let mut line = Vec::new();
    let encoded = encode(stamp(time, lanes, notifier), &mut line);
    let (room, mut rooms) = mpsc::channel(lanes.len().max(1));
    let mut asked = vec![false; lanes.len()];
    let mut is_taken = false;
    let mut left: Vec<(usize, &Arc<Lane>)> = lanes.iter().enumerate().collect();
    loop {
        let not_taken =
            offer(left.iter().copied(), encoded.as_ref().map(|()| &*line), |_, _| is_taken = true)?;
        let waits =
            |(_, lane, why): &NotTaken<'_>| matches!(why, Refused::Full(_)) && (!is_taken || lane.blocks);
        let (waiting, gone): (Vec<_>, Vec<_>) = not_taken.into_iter().partition(waits);
        if is_taken {
            tell(notifier, gone);
        } else if waiting.is_empty() {
            return Err(first_error(gone));
        }
        if waiting.is_empty() {
            return Ok(());
        }
        left = waiting.into_iter().map(|(i, lane, _)| (i, lane)).collect();
        for (i, lane) in &left {
            if !std::mem::replace(&mut asked[*i], true) {
                lane.when_room(*i, &room);
            }
        }
        match rooms.recv().await {
            Some((i, true)) => asked[i] = false,
            // Closed: nobody takes it any more.
            _ if !is_taken => return Err(Error::closed()),
            _ => {
                tell(notifier, left.into_iter().map(|(i, lane)| (i, lane, Refused::Closed)).collect());
                return Ok(());
            }
        }
    }
}

/// Waits until one of the lanes takes lines, all are closed, or the time is up; tells whether one does.
pub(crate) fn wait_for_room(lanes: &[Arc<Lane>], until: Instant) -> bool {
    if let [lane] = lanes {
        return lane.queue.wait_for_room(until);
    }
    while !lanes.iter().all(|lane| lane.queue.is_closing()) {
        for lane in lanes {
            let soon = (Instant::now() + ROOM_LOOK).min(until);
            if lane.queue.wait_for_room(soon) {
                return true;
            }
        }
        if Instant::now() >= until {
            break;
        }
    }
    false
}

/// Offers a line to lanes and returns those that did not take it: they are full, or closed.
fn offer<'a>(
    lanes: impl Iterator<Item = (usize, &'a Arc<Lane>)>,
    line: Result<&[u8], &EncodeError>,
    mut taken: impl FnMut(&Lane, u64),
) -> Result<Vec<NotTaken<'a>>, Error> {
    let mut not_taken = Vec::new();
    for (i, lane) in lanes {
        let accepted = lane.queue.accept(|out| {
            out.extend_from_slice(line.map_err(Clone::clone)?);
            Ok(())
        });
        match accepted {
            Ok(lines) => taken(lane, lines),
            Err(why @ (Refused::Full(_) | Refused::Closed)) => not_taken.push((i, lane, why)),
            // The line itself: no lane takes it, and one has counted it.
            Err(invalid) => return Err(lane.error(invalid)),
        }
    }
    Ok(not_taken)
}

fn first_error(not_taken: Vec<NotTaken<'_>>) -> Error {
    let first = not_taken.into_iter().next();
    first.map_or_else(Error::closed, |(_, lane, why)| lane.error(why))
}

/// Tells of lanes that did not take a line which another one has: the caller does not hear of it.
fn tell(notifier: &Notifier, not_taken: Vec<NotTaken<'_>>) {
    for (_, lane, why) in not_taken {
        let reason = match why {
            Refused::Full(disk) => lane.why_full(&disk),
            _ => "the client was closed meanwhile".to_owned(),
        };
        notifier.add(WriteError {
            kind: WriteErrorKind::Dropped,
            target: lane.target.clone(),
            bucket: lane.bucket.clone(),
            lines: 1,
            reason,
            first: Vec::new(),
        });
    }
}
