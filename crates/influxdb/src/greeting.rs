//! The first ping of a server, for clients that do not insist on it: connecting does not wait for the answer, and whoever asks
//! the client how it goes, listens to it or reads its log learns of it before there is a line to deliver. It delivers nothing.

use crate::config::as_named;
use crate::error::{Error, Kind};
use crate::lane::Lane;
use crate::notify::{WriteError, WriteErrorKind};
use crate::server::exchange::NoAnswer;
use crate::server::http::{Http, Rested};
use crate::server::recognise::{self, Shown};
use crate::server::retry::Backoff;
use crate::worker::Works;
use graylogic_durable::caught;
use graylogic_line::Timestamp;
use std::sync::Arc;

/// Pings the server of a target on a thread of its own, until it answers, lines get through, or the client is closed.
pub(crate) fn greet(works: &Arc<Works>) -> Result<(), Error> {
    let Some(http) = works.http.clone().filter(|_| !works.config.is_strict()) else { return Ok(()) };
    let works = works.clone();
    let greeting = std::thread::Builder::new().name("influxdb-ping".into());
    let greeting = greeting.spawn(move || {
        // A program's logging may panic. What is missed is found out with the first line.
        let _panicked = caught(|| ping(&works, &http));
    });
    greeting.map_err(|e| Error::because(Kind::ConnectionFailed, "start the client's threads", e))?;
    Ok(())
}

fn ping(works: &Works, http: &Http) {
    let mut backoff = Backoff::new(Timestamp::now().as_nanos() as u64).hurried(works.config.hurry());
    let mut told: Option<String> = None;
    loop {
        // In the words, and with the exceptions, of those who ask before the first line.
        let answered = http.wait(recognise::shown(http, false)).unwrap_or(Err(NoAnswer::Stopped));
        if works.is_closing() {
            return;
        }
        let (reason, setting) = match answered {
            // Whoever answers is there; what it takes shows with the first line.
            Ok(shown) => {
                works.lanes().iter().for_each(|lane| lane.no_longer(told.as_deref()));
                match shown {
                    Shown::Is(found) => tracing::info!(server = http.base(), %found, "the server answers"),
                    _ => tracing::info!(
                        server = http.base(),
                        "the server answers, and does not show what it is"
                    ),
                }
                return;
            }
            Err(NoAnswer::Stopped) => return,
            Err(NoAnswer::Failed(reason)) => (reason, None),
            Err(NoAnswer::Unusable { reason, setting }) => (reason, Some(setting)),
        };
        let reason = as_named(&works.name, reason);
        let lanes = works.lanes();
        let gets_through = |lane: &Arc<Lane>| lane.status().last_success.is_some();
        if lanes.iter().any(gets_through) {
            return;
        }
        let after = backoff.next(None);
        lanes.iter().for_each(|lane| lane.not_reached(told.as_deref(), &reason, setting, after));
        if told.replace(reason.clone()).is_none() {
            report(works, &reason);
        }
        if http.rest(after, true, None) == Rested::Stopped || works.is_closing() {
            return;
        }
    }
}

fn report(works: &Works, reason: &str) {
    works.notifier.add(WriteError {
        kind: WriteErrorKind::Delayed,
        target: works.name.clone(),
        bucket: works.config.bucket().to_owned(),
        lines: 0,
        reason: reason.to_owned(),
        first: Vec::new(),
    });
    tracing::warn!(
        target_name = works.name,
        reason,
        "the server cannot be reached; the client goes on without it"
    );
}
