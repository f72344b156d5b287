//! Answers to the page's questions, as JSON. Each asks the store on a thread that may wait.

use crate::failure::Failure;
use crate::output::{json_tags, json_value};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use graylogic_line::{FieldType, Timestamp};
use graylogic_store::{Matcher, Selector, Store, TimeRange, Value, Windows};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most rows of an answer.
const LATEST_MAX: usize = 1000;
const SERIES_MAX: usize = 5000;
const WINDOWS_MAX: u32 = 5000;
const TEXTS_MAX: usize = 2000;

/// The parameters of a question, or why they are none.
type Asks<T> = Result<Query<T>, QueryRejection>;

/// What the questions are asked of.
#[derive(Clone)]
struct Asked {
    store: Store,
    started: Timestamp,
}

#[derive(Deserialize)]
struct OfBucket {
    bucket: String,
}

#[derive(Deserialize)]
struct OfRange {
    bucket: String,
    measurement: String,
    field: String,
    /// A JSON object.
    #[serde(default)]
    tags: Option<String>,
    start: String,
    stop: String,
    #[serde(default)]
    points: Option<u32>,
}

pub(crate) fn routes(store: Store) -> Router {
    Router::new()
        .route("/ui/status", get(|State(asked): State<Asked>| answer(move || status(&asked))))
        .route(
            "/ui/series",
            get(|State(asked): State<Asked>, q: Asks<OfBucket>| answer(move || series(&asked, q))),
        )
        .route(
            "/ui/latest",
            get(|State(asked): State<Asked>, q: Asks<OfBucket>| answer(move || latest(&asked, q))),
        )
        .route(
            "/ui/range",
            get(|State(asked): State<Asked>, q: Asks<OfRange>| answer(move || range(&asked, q))),
        )
        .with_state(Asked { store, started: Timestamp::now() })
}

/// A refusal: a status and a sentence.
struct Refusal(StatusCode, String);

impl From<graylogic_store::Error> for Refusal {
    fn from(error: graylogic_store::Error) -> Self {
        let status = if error.is_not_found() {
            StatusCode::NOT_FOUND
        } else if error.is_invalid() {
            StatusCode::BAD_REQUEST
        } else if error.is_closed() {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        Self(status, error.to_string())
    }
}

fn bad(why: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, why.into())
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        bad(failure.to_string())
    }
}

async fn answer(ask: impl FnOnce() -> Result<serde_json::Value, Refusal> + Send + 'static) -> Response {
    let asked = tokio::task::spawn_blocking(ask).await;
    let refused = |status, why: String| (status, Json(json!({ "error": why }))).into_response();
    let mut response = match asked {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(Refusal(status, why))) => refused(status, why),
        Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "the question could not be answered".into()),
    };
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

fn status(asked: &Asked) -> Result<serde_json::Value, Refusal> {
    let stats = asked.store.stats()?;
    let (state, reason) = match &stats.state {
        graylogic_store::State::Degraded(why) => ("degraded", why.as_str()),
        _ => ("ok", ""),
    };
    let buckets = asked.store.buckets();
    let (mut oldest, mut newest) = (None, None);
    for bucket in &buckets {
        for (_, bounds) in asked.store.bounds(&Selector::bucket(&bucket.name))? {
            let Some((a, b)) = bounds else { continue };
            oldest = Some(oldest.map_or(a, |o: Timestamp| o.min(a)));
            newest = Some(newest.map_or(b, |n: Timestamp| n.max(b)));
        }
    }
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started": asked.started.to_string(),
        "points": stats.values,
        "series": stats.series,
        "buckets": buckets.iter().map(|b| json!({ "name": b.name, "series": b.series, "retention_seconds": 0 })).collect::<Vec<_>>(),
        "chunks": stats.chunks,
        "bytes_on_disk": stats.bytes_on_disk,
        "log_bytes": stats.log_bytes,
        "memory_bytes": resident_bytes(),
        "bytes_per_point": stats.bytes_per_value(),
        "written_total": stats.written_total,
        "rejected_total": stats.rejected_total,
        "oldest": oldest.map(|t| t.to_string()),
        "newest": newest.map(|t| t.to_string()),
        "state": state,
        "state_reason": reason,
    }))
}

/// Memory of this process, as the system counts it.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|t| t.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()));
    pages.unwrap_or(0) * 4096
}

fn bucket(query: Asks<OfBucket>) -> Result<String, Refusal> {
    query.map(|Query(q)| q.bucket).map_err(|_| bad("name the bucket: ?bucket=NAME"))
}

fn series(asked: &Asked, query: Asks<OfBucket>) -> Result<serde_json::Value, Refusal> {
    let found = asked.store.bounds(&Selector::bucket(bucket(query)?))?;
    let truncated = found.len() > SERIES_MAX;
    let rows = found.iter().take(SERIES_MAX).filter_map(|(s, bounds)| {
        let (oldest, newest) = (*bounds)?;
        Some(json!({
            "measurement": s.measurement(),
            "tags": json_tags(s),
            "field": s.field(),
            "type": s.field_type().to_string(),
            "oldest": oldest.to_string(),
            "newest": newest.to_string(),
        }))
    });
    Ok(json!({ "series": rows.collect::<Vec<_>>(), "truncated": truncated }))
}

fn latest(asked: &Asked, query: Asks<OfBucket>) -> Result<serde_json::Value, Refusal> {
    let found = asked.store.latest(&Selector::bucket(bucket(query)?))?;
    let rows = found.iter().take(LATEST_MAX).map(|l| {
        json!({
            "measurement": l.series.measurement(),
            "tags": json_tags(&l.series),
            "field": l.series.field(),
            "type": l.series.field_type().to_string(),
            "time": l.time.to_string(),
            "value": json_value(&l.value),
        })
    });
    Ok(json!({ "rows": rows.collect::<Vec<_>>(), "truncated": found.len() > LATEST_MAX }))
}

fn range(asked: &Asked, query: Asks<OfRange>) -> Result<serde_json::Value, Refusal> {
    let Ok(Query(q)) = query else {
        return Err(bad("name what is asked for: ?bucket=&measurement=&field=&tags=&start=&stop=&points="));
    };
    let time = |text: &str| crate::text::instant(text, Timestamp::now());
    let (start, stop) = (time(&q.start)?, time(&q.stop)?);
    if start >= stop {
        return Err(bad("start is not before stop: nothing lies between them"));
    }
    let range = TimeRange::new(start, stop);
    let series = one_series(asked, &q)?;
    let Some((selector, field_type)) = series else {
        return Ok(json!({ "window_seconds": 0, "time": [], "mean": [], "min": [], "max": [], "count": [] }));
    };
    if field_type == FieldType::String {
        return texts(asked, &selector, range);
    }
    let wanted = i128::from(q.points.unwrap_or(500).clamp(1, WINDOWS_MAX));
    let span = i128::from(stop.as_nanos()) - i128::from(start.as_nanos());
    let window = window_nanos((span + wanted - 1) / wanted);
    let windows = Windows::every(Duration::from_nanos(window as u64))?;
    let found = asked.store.windows(&selector, range, &windows)?;
    let found: Vec<_> = found.into_iter().flat_map(|s| s.windows).collect();
    let number = |v: &Option<Value>| v.as_ref().and_then(Value::as_f64);
    let (mut times, mut means, mut mins, mut maxs, mut counts) = (vec![], vec![], vec![], vec![], vec![]);
    let mut due = None::<i64>;
    for w in &found {
        // A row of windows without readings is one gap.
        let at = w.start.as_nanos().div_euclid(window).saturating_mul(window);
        if due.is_some_and(|due| due < at) {
            times.push(due.map(seconds));
            means.push(None);
            mins.push(None);
            maxs.push(None);
            counts.push(0);
        }
        due = Some(at.saturating_add(window));
        times.push(Some(seconds(at)));
        means.push(w.summary.mean()?);
        mins.push(number(&w.summary.min));
        maxs.push(number(&w.summary.max));
        counts.push(w.summary.count);
    }
    Ok(json!({
        "window_seconds": window as f64 / 1e9,
        "time": times,
        "mean": means,
        "min": mins,
        "max": maxs,
        "count": counts,
    }))
}

fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

/// The series with exactly the tags asked for.
fn one_series(asked: &Asked, q: &OfRange) -> Result<Option<(Selector, FieldType)>, Refusal> {
    let tags: BTreeMap<String, String> = match q.tags.as_deref() {
        None | Some("") => BTreeMap::new(),
        Some(text) => serde_json::from_str(text).map_err(|e| {
            bad(format!("tags is no JSON object of texts, as in {{\"device_id\":\"pump-2\"}}: {e}"))
        })?,
    };
    let all = Selector::bucket(&q.bucket).measurement(&q.measurement).field(&q.field);
    let mut selector = tags.iter().fold(all, |s, (k, v)| s.tag(k, Matcher::equal(v)));
    let candidates = asked.store.series(&selector)?;
    let Some(series) = candidates.iter().find(|s| s.tags().len() == tags.len()) else { return Ok(None) };
    // Series with more tags match too: what they have and this one has not is asked to be empty.
    let others: std::collections::BTreeSet<&str> =
        candidates.iter().flat_map(|s| s.tags().map(|(k, _)| k)).filter(|k| !tags.contains_key(*k)).collect();
    for key in others {
        selector = selector.tag(key, Matcher::equal(""));
    }
    Ok(Some((selector, series.field_type())))
}

/// The shortest round window that is not shorter than `least`.
fn window_nanos(least: i128) -> i64 {
    const ROUND: [i64; 24] = [
        1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
        172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 31_536_000,
    ];
    if least < 1_000_000_000 {
        // Below a second: 1, 2 and 5 times a power of ten.
        let mut unit = 1i64;
        while unit < 1_000_000_000 {
            for step in [1, 2, 5] {
                if i128::from(unit * step) >= least {
                    return unit * step;
                }
            }
            unit *= 10;
        }
    }
    let round = ROUND.iter().map(|s| s * 1_000_000_000).find(|&n| i128::from(n) >= least);
    round.unwrap_or_else(|| i64::try_from(least).unwrap_or(i64::MAX))
}

fn texts(asked: &Asked, selector: &Selector, range: TimeRange) -> Result<serde_json::Value, Refusal> {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for block in asked.store.scan(selector, range)? {
        let block = block?;
        for (i, t) in block.times.iter().enumerate() {
            if times.len() == TEXTS_MAX {
                return Ok(json!({ "window_seconds": 0, "time": times, "text": values, "truncated": true }));
            }
            times.push(seconds(*t));
            values.push(json_value(&block.values.get(i)));
        }
    }
    Ok(json!({ "window_seconds": 0, "time": times, "text": values, "truncated": false }))
}

#[cfg(test)]
mod tests {
    use super::window_nanos;

    #[test]
    fn windows_are_round_and_long_enough() {
        let cases = [
            (1, 1),
            (3, 5),
            (999_999_999, 1_000_000_000),
            (61_000_000_000, 120_000_000_000),
            (i128::from(i64::MAX), i64::MAX),
        ];
        for (least, window) in cases {
            assert_eq!(window_nanos(least), window, "{least}");
        }
    }
}
