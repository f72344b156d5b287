//! The client against the recorded answers of a real InfluxDB 2.8: what the recordings say that is good arrives, what they
//! say that is refused is a dead letter with the server's words, and what is a setting's fault waits for it.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[allow(dead_code, reason = "each test uses a part of it")]
mod hostile;
#[allow(dead_code, reason = "shared with a test of the answers alone")]
mod recorded;

use graylogic_durable::{DeadLetter, Lane, LaneOptions, Lines, RealDisk, Spool};
use graylogic_influxdb::{Client, Config, Health, Stats};
use hostile::{Do, Hostile};
use recorded::{Fate, Step, writes};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);

fn config(server: &Hostile, spool: &Path) -> Config {
    // An address of this machine that does not look like one: what goes there may be compressed.
    Config::remote(&format!("http://0.0.0.0:{}", server.at.port()))
        .unwrap()
        .with_token("secret")
        .with_spool(Some(spool.to_owned()))
        .with_quick_batches(100, Duration::from_millis(5))
        .with_hurry(100)
}

fn lane(config: &Config) -> Lane {
    let spool = Spool::open(Arc::new(RealDisk), config.spool_folder().unwrap()).unwrap();
    spool.lane(config.bucket(), LaneOptions::default()).unwrap().0
}

/// Leaves the lines in the spool, as an earlier client would: many of them no client of ours would encode.
fn leave(config: &Config, lines: &[Vec<u8>]) {
    let mut all = Lines::default();
    lines.iter().for_each(|line| all.push(&[&line[..], b"\n"].concat()));
    let lane = lane(config);
    assert_eq!(lane.append(&all).unwrap().count, lines.len());
    lane.sync().unwrap();
}

/// Where a request went, and its lines.
type Seen = (String, Vec<Vec<u8>>);

/// A server that goes on as the recording's did.
struct Recorded {
    server: Hostile,
    stored: Arc<Mutex<Vec<Vec<u8>>>>,
    /// The requests that it judged: not those it answered by the script.
    seen: Arc<Mutex<Vec<Seen>>>,
    mended: Arc<AtomicBool>,
}

impl Recorded {
    fn new(step: &Step) -> Self {
        let (stored, seen): (Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>) = Default::default();
        let mended = Arc::new(AtomicBool::new(false));
        let (keeps, sees, is_mended) = (stored.clone(), seen.clone(), mended.clone());
        let (answer, status, fate, all) = (step.answer(), step.status, step.fate.clone(), step.lines.clone());
        let server = Hostile::judging(move |request| {
            if request.target == "/api/v2/write" {
                // It is asked what it is, and says nothing.
                return Some((hostile::answer("404 Not Found", "", ""), Vec::new()));
            }
            let lines = recorded::lines(&request.body);
            sees.lock().unwrap().push((request.target.clone(), lines.clone()));
            let is_bad = |line: &Vec<u8>| {
                let place = all.iter().position(|l| l == line);
                matches!(&fate, Fate::Settled(fates) if place.is_none_or(|p| fates[p].is_some()))
            };
            let says_so = match fate {
                Fate::Settled(_) => lines.iter().any(is_bad),
                Fate::Held(_) => !is_mended.load(Ordering::Relaxed),
                // Those answer once or twice, by the script.
                _ => false,
            };
            // Of a request that it takes in part, the rest is in.
            if !says_so || status == 422 {
                keeps.lock().unwrap().extend(lines.into_iter().filter(|l| !is_bad(l)));
            }
            says_so.then(|| (answer.clone(), Vec::new()))
        });
        let times = match step.fate {
            Fate::Again => 2,
            Fate::Plain | Fate::Elsewhere(_) => 1,
            _ => 0,
        };
        server.will(vec![Do::Answer(step.answer()); times]);
        Self { server, stored, seen, mended }
    }

    /// The lines that it has, each once, in order.
    fn stored(&self) -> Vec<Vec<u8>> {
        let mut lines = self.stored.lock().unwrap().clone();
        lines.sort();
        lines.dedup();
        lines
    }
}

fn comes(mut what: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + SOON;
    while !what() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    what()
}

fn conserved(stats: &Stats) -> bool {
    let gone = stats.delivered + stats.rejected + stats.dropped + stats.damaged;
    stats.accepted + stats.recovered == gone + stats.waiting
}

/// Sends the lines of a step through a client and judges what became of them.
fn check(step: &Step) {
    let name = &step.name;
    let recorded = Recorded::new(step);
    let spool = tempfile::tempdir().unwrap();
    let config = config(&recorded.server, spool.path());
    leave(&config, &step.lines);
    let client = Client::connect(&config).unwrap();
    if let Fate::Held(setting) = step.fate {
        held(step, &client, setting);
        recorded.mended.store(true, Ordering::Relaxed);
    }
    // A flush is for lines of this client; these are of an earlier one.
    assert!(comes(|| client.stats().waiting == 0), "{name}: {:?}", client.stats());
    let stats = client.stats();
    assert_eq!(client.close(SOON).unwrap().spooled, 0, "{name}");
    drop(client);

    let fates = match &step.fate {
        Fate::Settled(fates) => fates.clone(),
        _ => vec![None; step.lines.len()],
    };
    let of = |is_refused: bool| {
        let fitting = step.lines.iter().zip(&fates).filter(move |(_, f)| f.is_some() == is_refused);
        let mut lines: Vec<Vec<u8>> = fitting.map(|(line, _)| line.clone()).collect();
        lines.sort();
        lines
    };
    let (good, bad) = (of(false), of(true));
    // What came again overwrote itself.
    let mut once = good.clone();
    once.dedup();
    assert_eq!(recorded.stored(), once, "{name}");
    assert_eq!((stats.delivered, stats.rejected), (good.len() as u64, bad.len() as u64), "{name}");
    assert!(conserved(&stats), "{name}: {stats:?}");
    dead_letters(step, &fates, &lane(&config).dead().unwrap());

    let seen = recorded.seen.lock().unwrap();
    let requests = recorded.server.seen.lock().unwrap().requests;
    match &step.fate {
        Fate::Again => {
            assert_eq!(requests, 3, "{name}: twice refused, then taken");
            let said = stats.last_error.as_ref().is_some_and(|e| e.contains(&step.message));
            assert!(said, "{name}: {:?}", stats.last_error);
        }
        Fate::Plain => assert_eq!(requests, 2, "{name}: once more, not compressed"),
        Fate::Elsewhere(place) => {
            assert_eq!(seen.iter().map(|s| &s.0).collect::<Vec<_>>(), [place], "{name}");
        }
        // What a 400 quotes is known at once: the rest follows in one request.
        Fate::Settled(_) if step.status == 400 => {
            assert_eq!(requests, 1 + usize::from(!good.is_empty()), "{name}");
        }
        _ => {}
    }
}

/// Waits until the client holds the lines, and looks at what it says to whoever asks.
fn held(step: &Step, client: &Client, setting: &str) {
    let name = &step.name;
    if !step.lines.is_empty() {
        let expected = Health::Held(setting.to_owned());
        assert!(comes(|| client.stats().health == expected), "{name}: {:?}", client.stats());
        let trouble = client.stats().trouble.unwrap_or_default();
        assert!(trouble.contains(&step.message), "{name}: {trouble}");
    }
    let asked = client.health_check(SOON).expect_err(name).to_string();
    assert!(asked.contains(&step.message), "{name}: {asked}");
    assert!(asked.ends_with(&format!("check influxdb.{setting}")), "{name}: {asked}");
    assert_eq!(client.stats().rejected, 0, "{name}: nothing is refused because of a setting");
}

/// The dead letters are the refused lines, each with the server's words.
fn dead_letters(step: &Step, fates: &[Option<String>], dead: &[DeadLetter]) {
    let refused: Vec<(&Vec<u8>, &String)> =
        step.lines.iter().zip(fates).filter_map(|(line, words)| Some((line, words.as_ref()?))).collect();
    assert_eq!(dead.len(), refused.len(), "{}", step.name);
    for (line, words) in refused {
        let letter = dead.iter().find(|d| d.line.strip_suffix(b"\n") == Some(line));
        // Long reasons are cut, never within the first 400 characters.
        let words: String = words.chars().take(400).collect();
        let is_right = letter.is_some_and(|l| l.reason.contains(&words));
        assert!(is_right, "{}: {:?} in place of {words}", step.name, letter.map(|l| &l.reason));
    }
}

#[test]
fn every_line_of_a_recorded_write_has_the_fate_it_had() {
    let steps = writes();
    // Enough of each to be worth the name; the rest is data.
    assert!(steps.len() > 150, "{} steps", steps.len());
    // A client sends nothing when it has nothing.
    steps.iter().filter(|step| !step.lines.is_empty()).for_each(check);
}

#[test]
fn a_health_check_is_answered_as_the_recording_has_it() {
    // A check sends no line: these steps did not either.
    let empty: Vec<Step> = writes().into_iter().filter(|s| s.lines.is_empty() && !s.is_gzip).collect();
    assert!(empty.iter().any(|s| s.status == 204) && empty.iter().any(|s| s.status != 204));
    for step in empty {
        let recorded = Recorded::new(&step);
        let spool = tempfile::tempdir().unwrap();
        let client = Client::connect(&config(&recorded.server, spool.path())).unwrap();
        match step.fate {
            Fate::Held(setting) => held(&step, &client, setting),
            _ => client.health_check(SOON).unwrap(),
        }
    }
}
