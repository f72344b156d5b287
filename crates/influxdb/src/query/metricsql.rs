//! A question in MetricsQL, for VictoriaMetrics. How readings are named there is in `server/naming.rs`. A
//! time a whole millisecond, and a window looks back: at a moment `t` it is `(t - length, t]`. So a window
//! `[start, stop)` is asked for at its last millisecond, with its own length.

use super::answer::Answer;
use super::ask::{Ask, FORM, form};
use super::earlier::{self, decider};
use super::{Aggregate, CheckedQuery, Shape, TagTest, Windows, abbreviated};
use crate::error::Error;
use crate::server::naming::{BUCKET, MEASUREMENT, PART, label_of_tag, metric, tag_of_label};
use graylogic_store::Value;
use serde_json::Value as Json;
use std::collections::VecDeque;

/// Windows of a request: the server keeps an answer of at most 30,000 points of a series, and we a whole document.
const WINDOWS_PER_ASK: i64 = 2_000;
/// Requests of a question.
const ASKS_MAX: i64 = 10_000;
/// Rows of a line of readings.
const ROWS_PER_LINE: &str = "10000";
/// Rollups that reach back to the epoch find nothing.
const EARLIEST_MS: i64 = 86_400_000;
/// What the server can name as a time.
const LATEST_MS: i64 = 9_223_372_036_000;
/// The longest window, so that one can be asked for at the beginning of time.
const LENGTH_MAX_MS: i64 = LATEST_MS / 2;
#[derive(Debug)]
pub(crate) struct MetricsQl {
    /// The label `db`, no tag of the answer.
    db: Option<String>,
    /// The selector of the series.
    selector: String,
    /// `[start, stop)` in milliseconds, inside what the server can hold.
    range: (i64, i64),
    left: VecDeque<Part>,
    /// What was asked for last.
    asked: Option<Part>,
    /// Whether it was answered.
    is_answered: bool,
    /// Times of the oldest and newest reading, as the server says.
    bounds: (Option<i64>, Option<i64>),
    /// Of the latest readings: their series, whether an earlier version wrote it, the values and then the times.
    latest: Vec<(usize, bool, bool, f64)>,
    /// Windows of series that an earlier version wrote too.
    windows: earlier::Windows,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    Readings,
    Latest,
    /// The times of the oldest and newest reading, so that a range of centuries is not cut into windows.
    Bounds,
    /// `count` windows of the same length, the last millisecond of the first being `last`.
    Windows {
        last: i64,
        length: i64,
        step: i64,
        count: i64,
        /// What decides between two parts of a window is asked for, not its values.
        decides: bool,
    },
}

impl MetricsQl {
    pub(crate) fn new(query: &CheckedQuery, db: Option<&str>) -> Result<Self, Error> {
        // Readings are at whole milliseconds: those of the range are in its first whole one to its last.
        let ms = |nanos: i64| nanos.div_euclid(1_000_000) + i64::from(nanos.rem_euclid(1_000_000) > 0);
        let range = (ms(query.start()).max(EARLIEST_MS), ms(query.stop()).min(LATEST_MS));
        let mut left = VecDeque::new();
        if range.0 < range.1 {
            match query.shape {
                Shape::Readings => left.push_back(Part::Readings),
                Shape::Latest => left.push_back(Part::Latest),
                Shape::Windows { windows, .. } => {
                    let windows = in_ms(query, windows, range)?;
                    if count(windows, range) > WINDOWS_PER_ASK || windows.every > LENGTH_MAX_MS {
                        left.push_back(Part::Bounds);
                    } else {
                        left = parts(windows, range);
                    }
                }
            }
        }
        let selector = selector(query, db);
        let db = db.map(str::to_owned);
        Ok(Self {
            db,
            selector,
            range,
            left,
            asked: None,
            is_answered: false,
            bounds: (None, None),
            latest: Vec::new(),
            windows: earlier::Windows::default(),
        })
    }

    pub(crate) fn next_ask(&mut self, query: &CheckedQuery) -> Option<Ask> {
        let part = self.left.pop_front()?;
        self.asked = Some(part);
        self.is_answered = false;
        let (start, stop) = self.range;
        let of_all = format!("{}[{}ms]", self.selector, stop - start);
        let (path, pairs) = match part {
            Part::Readings => {
                let pairs = vec![
                    ("match[]", self.selector.clone()),
                    ("start", seconds(start)),
                    ("end", seconds(stop - 1)),
                    ("reduce_mem_usage", "1".to_owned()),
                    ("max_rows_per_line", ROWS_PER_LINE.to_owned()),
                ];
                ("/api/v1/export", pairs)
            }
            Part::Latest => {
                let text = union(
                    ("value", &format!("last_over_time({of_all}) keep_metric_names")),
                    ("time", &format!("tlast_over_time({of_all}) keep_metric_names")),
                );
                (
                    "/api/v1/query",
                    vec![("query", text), ("time", seconds(stop - 1)), ("nocache", "1".to_owned())],
                )
            }
            Part::Bounds => {
                let text = union(
                    ("first", &format!("min(tfirst_over_time({of_all}))")),
                    ("last", &format!("max(tlast_over_time({of_all}))")),
                );
                (
                    "/api/v1/query",
                    vec![("query", text), ("time", seconds(stop - 1)), ("nocache", "1".to_owned())],
                )
            }
            Part::Windows { last, length, step, count, decides } => {
                // Near the present the server hides the newest points, so the question is put at the beginning of time and
                // looks ahead.
                let (ahead, from) = (last - moved(length), moved(length));
                let function = match query.aggregate() {
                    Some(aggregate) if decides => decider(aggregate).unwrap_or("count_over_time"),
                    Some(Aggregate::Count) | None => "count_over_time",
                    Some(Aggregate::Sum) => "sum_over_time",
                    Some(Aggregate::Mean) => "avg_over_time",
                    Some(Aggregate::Min) => "min_over_time",
                    Some(Aggregate::Max) => "max_over_time",
                    Some(Aggregate::First) => "first_over_time",
                    Some(Aggregate::Last) => "last_over_time",
                };
                let text = format!(
                    "{function}({}[{length}ms] offset {}ms) keep_metric_names",
                    self.selector, -ahead
                );
                let pairs = vec![
                    ("query", text),
                    ("start", seconds(from)),
                    ("end", seconds(from + step * (count - 1))),
                    ("step", format!("{step}ms")),
                    ("nocache", "1".to_owned()),
                ];
                ("/api/v1/query_range", pairs)
            }
        };
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (*k, v.as_str())).collect();
        Some(Ask {
            path,
            query: Vec::new(),
            body: form(&pairs).into_bytes(),
            content_type: FORM,
            accept: "application/json",
        })
    }

    /// Whether the answer to the request of now is one document, or lines, any of which may be the last.
    pub(crate) fn has_end(&self) -> bool {
        !matches!(self.asked, Some(Part::Readings))
    }

    pub(crate) fn read(
        &mut self,
        json: &Json,
        query: &CheckedQuery,
        answer: &mut Answer,
    ) -> Result<(), Error> {
        let odd = |what: &str| {
            query.failed(&format!("the answer to MetricsQL has {what}; is it a VictoriaMetrics?"))
        };
        let Some(part) = self.asked else { return Err(odd("no question")) };
        if part == Part::Readings {
            let Some((at, _)) = self.series(json, query, answer)? else { return Ok(()) };
            let list =
                |key: &str| json.get(key).and_then(Json::as_array).ok_or_else(|| odd(&format!("no {key}")));
            let (values, times) = (list("values")?, list("timestamps")?);
            if values.len() != times.len() {
                return Err(odd("more values than times, or fewer"));
            }
            for (value, time) in values.iter().zip(times) {
                let time = time.as_i64().ok_or_else(|| odd("a time that is no number"))?;
                // What is no number is not finite: no other target stores that.
                if let Some(value) = value.as_f64() {
                    answer.add(query, at, nanos(time), Value::Float(value))?;
                }
            }
            return Ok(());
        }
        self.is_answered = true;
        if json.get("isPartial").and_then(Json::as_bool) == Some(true) {
            let message = "the server says that a part of it did not answer, so that readings are missing";
            return Err(query.failed(message).retryable(true));
        }
        let results =
            json.pointer("/data/result").and_then(Json::as_array).ok_or_else(|| odd("no result"))?;
        for result in results {
            let label = result.pointer(&format!("/metric/{PART}")).and_then(Json::as_str);
            let point = |point: &Json| {
                let time = point.get(0).and_then(Json::as_f64)?;
                Some(((time * 1000.0).round() as i64, point.get(1)?.as_str()?.parse::<f64>().ok()?))
            };
            match part {
                Part::Readings => {}
                Part::Bounds => {
                    let (_, value) = result
                        .get("value")
                        .and_then(point)
                        .ok_or_else(|| odd("no time of the first reading"))?;
                    let time = Some((value * 1000.0).round() as i64);
                    *(if label == Some("first") { &mut self.bounds.0 } else { &mut self.bounds.1 }) = time;
                }
                Part::Latest => {
                    let (_, value) =
                        result.get("value").and_then(point).ok_or_else(|| odd("no latest value"))?;
                    if let Some((at, is_earlier)) = self.series(result, query, answer)? {
                        // Of two for one time the present version's counts, which is added last.
                        self.latest.push((at, !is_earlier, label == Some("time"), value));
                    }
                }
                Part::Windows { last, length, decides, .. } => {
                    let points =
                        result.get("values").and_then(Json::as_array).ok_or_else(|| odd("no values"))?;
                    let Some((at, is_earlier)) = self.series(result, query, answer)? else { continue };
                    for found in points {
                        let (time, value) = point(found).ok_or_else(|| odd("a value that is no number"))?;
                        if value.is_nan() {
                            continue;
                        }
                        let asked = time.saturating_sub(moved(length)).saturating_add(last);
                        match decides {
                            true => self.windows.add_weight(at, asked, is_earlier, value),
                            false => self.windows.add(at, asked, is_earlier, value),
                        }
                    }
                }
            }
        }
        self.add_windows(part, query, answer)?;
        if part == Part::Latest {
            self.latest.sort_by_key(|&(at, is_present, is_time, _)| (at, is_present, is_time));
            for pair in self.latest.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
                let [(at, _, false, value), (_, _, true, time)] = *pair else {
                    return Err(odd("a value without its time"));
                };
                answer.add(query, at, nanos((time * 1000.0).round() as i64), Value::Float(value))?;
            }
        }
        Ok(())
    }

    /// Adds the windows that an answer brought. Where an earlier version wrote a part of one, more may have to be asked first.
    fn add_windows(&mut self, part: Part, query: &CheckedQuery, answer: &mut Answer) -> Result<(), Error> {
        let (Part::Windows { last, length, step, count, decides }, Shape::Windows { windows, aggregate, .. }) =
            (part, query.shape)
        else {
            return Ok(());
        };
        let found = if decides { self.windows.take_split(aggregate) } else { self.windows.take(aggregate) };
        for (at, asked, value) in found {
            let window = windows.start_of(nanos(asked));
            let time = window.max(i128::from(query.start())) as i64;
            let value = match aggregate {
                Aggregate::Count => Value::Unsigned(value as u64),
                _ => Value::Float(value),
            };
            answer.add(query, at, time, value)?;
        }
        if self.windows.has_split() {
            self.left.push_front(Part::Windows { last, length, step, count, decides: true });
        }
        Ok(())
    }

    pub(crate) fn end(&mut self, query: &CheckedQuery) -> Result<(), Error> {
        // Readings that are not there are no lines.
        if !self.is_answered && self.asked.is_some_and(|part| part != Part::Readings) {
            return Err(query.failed("the answer to MetricsQL did not come whole").retryable(true));
        }
        let (Some(Part::Bounds), Shape::Windows { windows, .. }) = (self.asked.take(), query.shape) else {
            return Ok(());
        };
        let (Some(first), Some(last)) = self.bounds else { return Ok(()) };
        let range = (self.range.0.max(first), self.range.1.min(last.saturating_add(1)));
        if range.0 >= range.1 {
            return Ok(());
        }
        if query.is_of_one_window(windows) {
            // Nothing is before the first reading and behind the last.
            self.left =
                Windows::of_one(range.0, range.1).map_or_else(VecDeque::new, |whole| parts(whole, range));
            return Ok(());
        }
        let windows = in_ms(query, windows, self.range)?;
        if count(windows, range) / WINDOWS_PER_ASK >= ASKS_MAX {
            return Err(query.failed(
                "the range has too many windows for VictoriaMetrics: give a shorter one, or longer windows",
            ));
        }
        // Where the data begin inside a window the whole window is asked for, as far as the range goes.
        let start = i64::try_from(windows.start_of(range.0)).unwrap_or(range.0);
        let stop =
            i64::try_from(windows.start_of(range.1 - 1) + i128::from(windows.every)).unwrap_or(range.1);
        self.left = parts(windows, (start.max(self.range.0), stop.min(self.range.1)));
        Ok(())
    }

    /// The place of a series that is given by its labels, and whether an earlier version wrote it.
    fn series(
        &self,
        json: &Json,
        query: &CheckedQuery,
        answer: &mut Answer,
    ) -> Result<Option<(usize, bool)>, Error> {
        let Some(labels) = json.get("metric").and_then(Json::as_object) else {
            return Err(
                query.failed("the answer to MetricsQL has a series without labels; is it a VictoriaMetrics?")
            );
        };
        let name = labels.get("__name__").and_then(Json::as_str).unwrap_or_default();
        let measurement = labels.get(MEASUREMENT).and_then(Json::as_str);
        let is_earlier = measurement.is_none();
        let name = if measurement.is_none_or(|m| m == &*query.measurement) { name } else { "" };
        let Some(field) = name.strip_prefix(&*query.measurement).and_then(|n| n.strip_prefix('_')) else {
            let name = abbreviated(name);
            return Err(query
                .failed(&format!("the server answered with the metric {name:?}, which was not asked for")));
        };
        // What others wrote, and in no bucket, may have a tag with this name.
        let is_tag = |key: &str| key == BUCKET && is_earlier && self.db.is_none();
        let tag = |key| if is_tag(key) { Some(key) } else { tag_of_label(key, is_earlier) };
        let tags = labels.iter().filter_map(|(k, v)| Some((tag(k)?.to_owned(), v.as_str()?.to_owned())));
        Ok(answer.series(query, tags.collect(), field)?.map(|at| (at, is_earlier)))
    }
}

/// Where on the server's clock the first window of a request ends that is as long as this.
fn moved(length: i64) -> i64 {
    EARLIEST_MS + length
}

fn nanos(ms: i64) -> i64 {
    ms.saturating_mul(1_000_000)
}

/// Windows in milliseconds, of a range in milliseconds.
fn in_ms(query: &CheckedQuery, windows: Windows, (start, stop): (i64, i64)) -> Result<Windows, Error> {
    // A range as one window may begin and end inside a millisecond: no reading is there.
    if let (true, Some(whole)) = (query.is_of_one_window(windows), Windows::of_one(start, stop)) {
        return Ok(whole);
    }
    let Windows { every, offset } = windows;
    if every % 1_000_000 != 0 || offset % 1_000_000 != 0 {
        let message = "VictoriaMetrics counts milliseconds: give windows and an offset of whole milliseconds";
        return Err(query.unsupported(message));
    }
    if every / 1_000_000 > LENGTH_MAX_MS {
        return Err(
            query.unsupported("windows above 146 years are too long for VictoriaMetrics: give shorter ones")
        );
    }
    Ok(Windows { every: every / 1_000_000, offset: offset / 1_000_000 })
}

/// How many windows a range touches that is not empty.
fn count(windows: Windows, (start, stop): (i64, i64)) -> i64 {
    let count = (windows.start_of(stop - 1) - windows.start_of(start)) / i128::from(windows.every) + 1;
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The requests for the windows of a range that is not empty: the first and the last may be cut, and then have a length of
/// their own.
fn parts(windows: Windows, (start, stop): (i64, i64)) -> VecDeque<Part> {
    let every = windows.every;
    let mut left = VecDeque::new();
    let mut from = i128::from(start);
    let stop = i128::from(stop);
    while from < stop {
        let begin = windows.start_of(from as i64);
        let end = (begin + i128::from(every)).min(stop);
        let whole = begin == from && end - begin == i128::from(every);
        // Whole windows that follow each other are one request.
        let count = if whole {
            ((stop - from) / i128::from(every)).min(i128::from(WINDOWS_PER_ASK)) as i64
        } else {
            1
        };
        left.push_back(Part::Windows {
            last: (end - 1) as i64,
            length: (end - from) as i64,
            step: every,
            count,
            decides: false,
        });
        from = if whole { from + i128::from(every) * i128::from(count) } else { end };
    }
    left
}

/// Two answers in one, which a label tells apart.
fn union((a, of_a): (&str, &str), (b, of_b): (&str, &str)) -> String {
    let marked = |name: &str, of: &str| format!("label_set({of}, {}, {})", string(PART), string(name));
    format!("union({}, {})", marked(a, of_a), marked(b, of_b))
}

/// Milliseconds as the seconds of a parameter.
fn seconds(ms: i64) -> String {
    format!("{}.{:03}", ms.div_euclid(1000), ms.rem_euclid(1000))
}

/// The selector of the series. What it leaves in too much is left out when it is read.
fn selector(query: &CheckedQuery, db: Option<&str>) -> String {
    let metric = |field: &String| metric(&query.measurement, field);
    let name = match &query.fields[..] {
        [] => format!("__name__=~{}", string(&format!("{}_.+", pattern(&query.measurement)))),
        [field] => format!("__name__={}", string(&metric(field))),
        several => format!("__name__=~{}", one_of(several.iter().map(metric))),
    };
    let mut matchers = vec![name];
    // Series without the label are of an earlier version, and may be of another measurement whose name begins so.
    let measurements = [query.measurement.clone(), String::new()];
    matchers.push(format!("{MEASUREMENT}=~{}", one_of(measurements.into_iter())));
    matchers.extend(db.map(|db| format!("{BUCKET}={}", string(db))));
    for TagTest { key, values } in &query.tags {
        // Releases read the escapes of other characters in names in different ways; and a tag whose label has another name now
        // had its own in an earlier version.
        if !key.is_ascii() || label_of_tag(key) != key.as_str() {
            continue;
        }
        let key = label(key);
        matchers.push(match &values[..] {
            [value] => format!("{key}={}", string(value)),
            several => format!("{key}=~{}", one_of(several.iter().cloned())),
        });
    }
    format!("{{{}}}", matchers.join(","))
}

/// A regular expression that is matched by exactly these; the server anchors it.
fn one_of(texts: impl Iterator<Item = String>) -> String {
    let patterns: Vec<String> = texts.map(|t| pattern(&t)).collect();
    string(&patterns.join("|"))
}

/// A regular expression that is matched by exactly this text.
fn pattern(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The name of a label, of ASCII characters.
fn label(key: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(key.len());
    for (i, c) in key.chars().enumerate() {
        if c.is_ascii_alphabetic() || c == '_' || (i > 0 && c.is_ascii_digit()) {
            out.push(c);
        } else {
            let _infallible = write!(out, "\\x{:02x}", u32::from(c));
        }
    }
    out
}

/// A text in double quotes.
fn string(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c if c.is_ascii_control() => {
                let _infallible = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
