//! Lines that a test writes, some of which a server refuses, and what became of them: counted, and told by their difference. It
//! knows nothing of what the server does meanwhile.

use crate::campaign::Toll;
use crate::hostile::{Hostile, answer, message};
use graylogic_influxdb::{Client, Config, Level, Point, Stats, Timestamp, WriteError, WriteErrorKind};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const SOON: Duration = Duration::from_secs(60);
/// Lines of a request.
pub const BATCH_LINES: u64 = 20;

pub fn config(server: &Hostile, spool: &Path) -> Config {
    Config::remote(&server.url())
        .unwrap()
        .with_token("secret")
        .with_spool(Some(spool.to_owned()))
        .with_quick_batches(BATCH_LINES as usize, Duration::from_millis(20))
        .with_hurry(100)
}

pub fn conserved(toll: &mut Toll, stats: &Stats) {
    let gone = stats.delivered + stats.rejected + stats.dropped + stats.damaged;
    toll.expect(stats.accepted + stats.recovered == gone + stats.waiting, || {
        format!("lines are counted twice or not at all: {stats:?}")
    });
}

/// Waits for something that should come soon; tells whether it did.
pub fn comes(mut what: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + SOON;
    while Instant::now() < until {
        if what() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    what()
}

pub fn write(client: &Client, numbers: std::ops::Range<i64>) {
    Plan::of(numbers).write(client);
}

pub fn line(i: i64) -> String {
    Plan::of(0..0).line(i)
}

/// Lines that are written, and those of them that are refused for good.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub numbers: std::ops::Range<i64>,
    pub bad: Vec<i64>,
    /// Every line has so many bytes more, and some have even more.
    pub padding: usize,
    pub long: Vec<(i64, usize)>,
}

impl Plan {
    pub fn of(numbers: std::ops::Range<i64>) -> Self {
        Self { numbers, ..Self::default() }
    }

    pub fn text(&self, i: i64) -> Option<String> {
        let long = self.long.iter().find(|(at, _)| *at == i).map_or(0, |(_, bytes)| *bytes);
        (self.padding + long > 0).then(|| "x".repeat(self.padding + long))
    }

    pub fn line(&self, i: i64) -> String {
        let text = self.text(i).map_or_else(String::new, |t| format!(",t=\"{t}\""));
        format!("m,d=a\\ b f={i}.0{text} {}", 1_000_000 + i)
    }

    pub fn write(&self, client: &Client) {
        for i in self.numbers.clone() {
            let mut point = Point::new("m").tag("d", "a b").field("f", i as f64);
            if let Some(text) = self.text(i) {
                point = point.field("t", text);
            }
            client.write_point_at(&point, Timestamp::from_nanos(1_000_000 + i)).unwrap();
        }
    }

    pub fn good(&self) -> Vec<String> {
        let bad: HashSet<i64> = self.bad.iter().copied().collect();
        self.numbers.clone().filter(|i| !bad.contains(i)).map(|i| self.line(i)).collect()
    }

    /// Counts what a server has otherwise than it should. What came twice came again; what came first came in order.
    pub fn judge(&self, toll: &mut Toll, stored: &[String]) {
        let good = self.good();
        let places: HashMap<&str, usize> = good.iter().enumerate().map(|(i, l)| (l.as_str(), i)).collect();
        let mut came = vec![false; good.len()];
        let mut next = 0;
        for line in stored {
            let place = places.get(line.as_str()).copied();
            toll.expect(place.is_some(), || format!("stored, but not written or refused: {line:.200}"));
            let Some(place) = place else { continue };
            if !std::mem::replace(&mut came[place], true) {
                toll.expect(place >= next, || format!("out of order: {line:.200}"));
                next = place + 1;
            }
        }
        let lost = came.iter().filter(|c| !**c).count();
        let first = came.iter().position(|c| !c).map_or("", |i| good[i].as_str());
        toll.lose(lost as u64, || format!("{first:.200} and others"));
    }

    /// Counts what the dead letters of a closed spool have otherwise than they should.
    pub fn judge_dead(&self, toll: &mut Toll, config: &Config) {
        let folder = config.spool_folder().unwrap();
        let spool = graylogic_durable::Spool::open(Arc::new(graylogic_durable::RealDisk), folder).unwrap();
        let options = graylogic_durable::LaneOptions::default();
        let dead = spool.lane(config.bucket(), options).unwrap().0.dead().unwrap();
        let mut kept: Vec<String> =
            dead.iter().map(|d| String::from_utf8_lossy(&d.line).trim_end().to_owned()).collect();
        kept.sort();
        let mut expected: Vec<String> = self.bad.iter().map(|i| self.line(*i)).collect();
        expected.sort();
        toll.expect(kept == expected, || {
            format!("{} dead letters in place of {}", kept.len(), expected.len())
        });
        toll.expect(dead.iter().all(|d| !d.reason.is_empty()), || "a dead letter has no reason".to_owned());
    }
}

/// Writes the lines of a plan, waits until all are delivered or refused, and counts what is otherwise.
pub fn check(toll: &mut Toll, server: &Hostile, config: &Config, plan: &Plan) {
    let Some(client) = toll.opened(Client::connect(config)) else { return };
    let errors: Arc<Mutex<Vec<WriteError>>> = Arc::default();
    let heard = errors.clone();
    client.set_on_error(move |e| heard.lock().unwrap().push(e.clone()));
    plan.write(&client);
    finish(toll, client, server, config, plan);
    let errors = errors.lock().unwrap();
    let refused: Vec<&WriteError> = errors.iter().filter(|e| e.kind == WriteErrorKind::Rejected).collect();
    let told: u64 = refused.iter().map(|e| e.lines).sum();
    toll.expect(told == plan.bad.len() as u64, || format!("the callback heard of {told} refused lines"));
    let bad: Vec<String> = plan.bad.iter().map(|i| plan.line(*i)).collect();
    for told in refused.iter().flat_map(|e| &e.first) {
        let start = told.text.trim_end_matches('…');
        toll.expect(bad.iter().any(|b| b.starts_with(start)), || format!("refused: {}", told.text));
    }
}

/// Delivers what a client has, closes it, and counts what is otherwise than planned.
pub fn finish(toll: &mut Toll, client: Client, server: &Hostile, config: &Config, plan: &Plan) {
    let flushed = client.flush(Level::Delivered, SOON);
    toll.expect(flushed.is_ok(), || format!("{:?}: {:?}", flushed, client.stats()));
    let stats = client.stats();
    conserved(toll, &stats);
    toll.expect(stats.rejected as usize == plan.bad.len(), || {
        format!("{} lines are refused: {:?}", stats.rejected, stats.last_error)
    });
    let report = client.close(SOON).unwrap();
    toll.expect((report.spooled, report.dropped) == (0, 0), || format!("left behind: {report:?}"));
    drop(client);
    plan.judge(toll, &server.stored());
    plan.judge_dead(toll, config);
}

/// Refuses lines as InfluxDB does: by its quoted lines, its counts, or not saying which.
pub fn judge(style: &'static str, plan: &Plan) -> Hostile {
    let bad: HashSet<String> = plan.bad.iter().map(|i| plan.line(*i)).collect();
    Hostile::judging(move |request| {
        let lines = &request.lines;
        let hit: Vec<&String> = lines.iter().filter(|l| bad.contains(*l)).collect();
        if hit.is_empty() {
            return None;
        }
        let quoted = |n: usize| {
            let all: Vec<String> =
                hit.iter().take(n).map(|l| format!("unable to parse '{l}': bad timestamp")).collect();
            all.join("\n")
        };
        let partial = format!(
            "failure writing points to database: partial write: field type conflict: input field \"f\" on measurement \"m\" is type float, already exists as type string dropped={}",
            hit.len()
        );
        let refusal = match style {
            "v2" => message("400 Bad Request", &quoted(usize::MAX)),
            "v2 one by one" => message("400 Bad Request", &quoted(1)),
            "v2 with 500" => message("500 Internal Server Error", &quoted(usize::MAX)),
            "v2 unknown line" => message("400 Bad Request", "unable to parse 'm,x=y f=? 1': bad number"),
            "unnamed 400" => message("400 Bad Request", "something is wrong"),
            "unnamed 422" => message("422 Unprocessable Entity", "no"),
            "partial 422" => message("422 Unprocessable Entity", &partial),
            "partial 500" => message("500 Internal Server Error", &partial),
            "partial v1" => {
                let error = format!("partial write: {} dropped=0", quoted(usize::MAX));
                answer("400 Bad Request", "", &serde_json::json!({ "error": error }).to_string())
            }
            "partial v3" => {
                let number = |l: &str| lines.iter().position(|r| r == l).unwrap() + 1;
                let data: Vec<_> = hit
                    .iter()
                    .map(|l| serde_json::json!({ "original_line": l, "line_number": number(l), "error_message": "no" }))
                    .collect();
                let body =
                    serde_json::json!({ "error": "partial write of line protocol occurred", "data": data });
                answer("400 Bad Request", "", &body.to_string())
            }
            other => panic!("{other}"),
        };
        let kept = match style.starts_with("partial") {
            true => lines.iter().filter(|l| !bad.contains(*l)).cloned().collect(),
            false => Vec::new(),
        };
        Some((refusal, kept))
    })
}

/// The date so many seconds from now, as a header has it.
pub fn http_date(from_now: i64) -> String {
    let [date, _, _] = http_dates(from_now);
    date
}

/// The same in the form of today, and in the two older ones.
pub fn http_dates(from_now: i64) -> [String; 3] {
    let unix = Timestamp::now().as_nanos() / 1_000_000_000 + from_now;
    let (days, rest) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    // From days to a date of the Gregorian calendar, in years that begin in March.
    let era_day = days + 719_468;
    let century = (4 * era_day + 3) / 146_097;
    let of_century = era_day - 146_097 * century / 4;
    let year = (4 * of_century + 3) / 1461;
    let of_year = of_century - 1461 * year / 4;
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let names = ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];
    let year = 100 * century + year + i64::from(month >= 10);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    let name = names[month as usize];
    [
        format!("Sun, {day:02} {name} {year} {clock} GMT"),
        format!("Sunday, {day:02}-{name}-{:02} {clock} GMT", year % 100),
        format!("Sun {name} {day:2} {clock} {year}"),
    ]
}
