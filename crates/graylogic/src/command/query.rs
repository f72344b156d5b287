//! `graylogic query`: readings, windows or latest values as a table, CSV or JSON, of the embedded store or of a server. What is
//! asked in Flux is `flux.rs`.

use crate::app::{self, CLOSE_DEADLINE};
use crate::cli::{Aggregate, Query, Which};
use crate::command::{flux, open_store, other_buckets, quarantined_values, remark_damage};
use crate::failure::Failure;
use crate::output::{answer, answer_json, json_value, remark};
use crate::text;
use graylogic_influxdb::{Client, Config, QuerySeries, Target};
use graylogic_line::Timestamp;
use graylogic_store::{Matcher, Selector, SeriesInfo, Store, Summary, TimeRange, Value, Windows};
use serde_json::json;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::rc::Rc;

/// A row of the answer.
struct Row {
    series: Rc<Series>,
    time: Timestamp,
    value: Value,
}

/// What rows of one series share.
struct Series {
    measurement: String,
    tags: Vec<(String, String)>,
    field: String,
}

impl From<&SeriesInfo> for Series {
    fn from(series: &SeriesInfo) -> Self {
        Self {
            measurement: series.measurement().to_owned(),
            tags: series.tags().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
            field: series.field().to_owned(),
        }
    }
}

pub(crate) fn run(options: &Query, json: bool) -> Result<ExitCode, Failure> {
    if let Some(question) = flux::question(&options.flux)? {
        return flux::run(options, question, json);
    }
    if options.aggregate.is_some() && options.window.is_none() && options.what.start.is_none() {
        return Err(Failure::new(
            "--aggregate without windows is of a range: name its --start, or give a --window",
        ));
    }
    let range = range(options.what.start.as_deref(), options.what.stop.as_deref())?;
    let config = app::config(&options.what.place)?;
    let rows = match config.target() {
        Target::Embedded(_) => rows_of_store(range, options)?,
        _ if options.quarantine => {
            return Err(Failure::new(
                "query --quarantine: only the embedded store has a quarantine; name its folder with --data",
            ));
        }
        _ => rows_of_server(config, range, options)?,
    };
    let more = rows.len() > options.limit;
    let rows = &rows[..rows.len().min(options.limit)];
    if json {
        let rows: Vec<serde_json::Value> = rows.iter().map(as_json).collect();
        answer_json(&json!({ "rows": rows, "truncated": more }));
    } else if options.csv {
        print_csv(rows)?;
    } else {
        let cells: Vec<Vec<String>> = rows.iter().map(cells).collect();
        answer(text::table(&["time", "measurement", "tags", "field", "value"], &cells).trim_end());
    }
    if more {
        remark(format_args!("only the first {} rows are shown; ask for more with --limit", options.limit));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn selector(options: &Which, bucket: &str) -> Result<Selector, Failure> {
    let mut selector = Selector::bucket(bucket);
    if let Some(measurement) = &options.measurement {
        selector = selector.measurement(measurement);
    }
    if let Some(field) = &options.field {
        selector = selector.field(field);
    }
    for tag in &options.tag {
        let wrong =
            || Failure::new(format!("--tag {tag:?}: write KEY=VALUE, KEY!=VALUE, KEY=~REGEX or KEY!~REGEX"));
        let at = tag.find(['=', '!']).filter(|&at| at > 0).ok_or_else(wrong)?;
        let (key, rest) = tag.split_at(at);
        let matcher = if let Some(pattern) = rest.strip_prefix("=~") {
            Matcher::regex(pattern)?
        } else if let Some(pattern) = rest.strip_prefix("!~") {
            Matcher::not_regex(pattern)?
        } else if let Some(value) = rest.strip_prefix("!=") {
            Matcher::not_equal(value)
        } else {
            Matcher::equal(rest.strip_prefix('=').ok_or_else(wrong)?)
        };
        selector = selector.tag(key, matcher);
    }
    Ok(selector)
}

pub(crate) fn range(start: Option<&str>, stop: Option<&str>) -> Result<TimeRange, Failure> {
    let now = Timestamp::now();
    let all = TimeRange::all();
    let start = start.map_or(Ok(all.start()), |t| text::instant(t, now))?;
    let stop = stop.map_or(Ok(all.stop()), |t| text::instant(t, now))?;
    if start >= stop {
        return Err(Failure::new("--start is not before --stop: nothing lies between them"));
    }
    Ok(TimeRange::new(start, stop))
}

/// The rows asked for, one more than shown when there are more.
fn rows(store: &Store, selector: &Selector, range: TimeRange, options: &Query) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    if options.latest {
        let latest = store.latest(selector)?;
        let row = |l: graylogic_store::Latest| Row {
            series: Rc::new(Series::from(&l.series)),
            time: l.time,
            value: l.value,
        };
        rows.extend(latest.into_iter().map(row));
    } else if let Some(aggregate) = aggregate(options) {
        let windows = match &options.window {
            Some(length) => Windows::every(text::duration(length)?)?,
            None => Windows::whole(),
        };
        for found in store.windows(selector, range, &windows)? {
            let series = Rc::new(Series::from(&found.series));
            for w in &found.windows {
                if let Some(value) = value_of(&w.summary, aggregate)? {
                    rows.push(Row { series: series.clone(), time: w.start, value });
                }
            }
        }
    } else {
        for block in store.scan(selector, range)? {
            let block = block?;
            let series = Rc::new(Series::from(&block.series));
            for (i, t) in block.times.iter().enumerate() {
                if rows.len() > options.limit {
                    return Ok(rows);
                }
                let time = Timestamp::from_nanos(*t);
                rows.push(Row { series: series.clone(), time, value: block.values.get(i) });
            }
        }
    }
    Ok(rows)
}

/// The rows of an embedded store, one more than shown when there are more.
fn rows_of_store(range: TimeRange, options: &Query) -> Result<Vec<Row>, Failure> {
    let (store, config) = open_store(&options.what.place, "query")?;
    let bucket = config.bucket();
    let selector = selector(&options.what, bucket)?;
    let elsewhere = other_buckets(&store, &options.what.place, bucket);
    let is_there = store.buckets().iter().any(|b| b.name == bucket);
    if let (Some(elsewhere), false) = (&elsewhere, is_there) {
        return Err(Failure::new(elsewhere));
    }
    let rows = match options.quarantine && quarantined_values(&store, bucket)? > 0 {
        true => rows(&store, &selector.quarantined(), range, options)?,
        false if options.quarantine => {
            // Nothing is in quarantine, unless the bucket does not exist.
            store.series(&selector)?;
            Vec::new()
        }
        false => rows(&store, &selector, range, options)?,
    };
    let is_empty = rows.is_empty() && !options.quarantine;
    let in_quarantine = if is_empty { quarantined_values(&store, bucket)? } else { 0 };
    remark_damage(&store);
    let left_out = store.damaged_total();
    store.close()?;
    if left_out > 0 {
        remark(format_args!(
            "damage: {left_out} damaged places were left out of this answer; graylogic verify names them"
        ));
    }
    if let Some(elsewhere) = elsewhere.filter(|_| is_empty) {
        remark(elsewhere);
    }
    if in_quarantine > 0 {
        remark(format_args!(
            "nothing found in bucket {bucket:?}, which has quarantined values ({}): --quarantine shows them",
            text::count(in_quarantine)
        ));
    }
    Ok(rows)
}

/// The rows of a server, one more than shown when there are more.
fn rows_of_server(config: Config, range: TimeRange, options: &Query) -> Result<Vec<Row>, Failure> {
    let query = question(&options.what, range, options)?;
    // It asks and does not write: the spool is left to the one who has it.
    let client = Client::connect(&config.with_spool(None))?;
    let found = client.ask(&query);
    let closed = client.close(CLOSE_DEADLINE);
    let found = found?;
    closed?;
    let mut rows = Vec::new();
    for QuerySeries { measurement, tags, field, values, .. } in found {
        let series = Rc::new(Series { measurement, tags, field });
        for (time, value) in values {
            if rows.len() > options.limit {
                return Ok(rows);
            }
            rows.push(Row { series: series.clone(), time, value });
        }
    }
    Ok(rows)
}

/// The typed question that options mean. Servers have no common regular expressions, and no list of all measurements.
fn question(what: &Which, range: TimeRange, options: &Query) -> Result<graylogic_influxdb::Query, Failure> {
    let Some(measurement) = &what.measurement else {
        return Err(Failure::new(
            "query of a server: name the measurement with --measurement, or ask with --flux",
        ));
    };
    let mut query = graylogic_influxdb::Query::measurement(measurement);
    if let Some(field) = &what.field {
        query = query.field(field);
    }
    for tag in &what.tag {
        let wrong =
            || Failure::new(format!("--tag {tag:?}: of a server, write KEY=VALUE, or ask with --flux"));
        let (key, value) = tag.split_once('=').ok_or_else(wrong)?;
        if key.is_empty() || key.ends_with('!') || value.starts_with('~') {
            return Err(wrong());
        }
        query = query.tag(key, value);
    }
    if options.latest {
        return Ok(query.latest());
    }
    query = query.range(range.start(), range.stop());
    if let Some(aggregate) = aggregate(options) {
        query = query.aggregate(aggregate.of_client());
    }
    if let Some(length) = &options.window {
        query = query.window(text::duration(length)?);
    }
    Ok(query.limit(options.limit.saturating_add(1)))
}

/// The aggregate that is asked for; the mean of windows when nothing is said.
fn aggregate(options: &Query) -> Option<Aggregate> {
    options.aggregate.or(options.window.as_ref().map(|_| Aggregate::Mean))
}

fn value_of(summary: &Summary, aggregate: Aggregate) -> Result<Option<Value>, Failure> {
    Ok(match aggregate {
        Aggregate::Count => Some(Value::Unsigned(summary.count)),
        Aggregate::Sum => summary.sum()?,
        Aggregate::Mean => summary.mean()?.map(Value::Float),
        Aggregate::Min => summary.min.clone(),
        Aggregate::Max => summary.max.clone(),
        Aggregate::First => Some(summary.first.1.clone()),
        Aggregate::Last => Some(summary.last.1.clone()),
    })
}

fn cells(row: &Row) -> Vec<String> {
    let tags: Vec<String> = row.series.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
    vec![
        text::local(row.time),
        row.series.measurement.clone(),
        tags.join(" "),
        row.series.field.clone(),
        text::value(&row.value),
    ]
}

fn as_json(row: &Row) -> serde_json::Value {
    json!({
        "time": row.time.to_string(),
        "measurement": row.series.measurement,
        "tags": tags_as_json(&row.series.tags),
        "field": row.series.field,
        "value": json_value(&row.value),
    })
}

fn tags_as_json(tags: &[(String, String)]) -> serde_json::Value {
    tags.iter().map(|(k, v)| (k.clone(), json!(v))).collect::<serde_json::Map<_, _>>().into()
}

fn print_csv(rows: &[Row]) -> Result<(), Failure> {
    let write = || -> csv::Result<()> {
        let mut out = csv::Writer::from_writer(std::io::stdout());
        // A program gets the data as they are, a terminal what it can show.
        let is_for_people = std::io::stdout().is_terminal();
        out.write_record(["time", "measurement", "tags", "field", "value"])?;
        for row in rows {
            let mut cells = cells(row);
            cells[0] = row.time.to_string();
            cells[4] = match &row.value {
                Value::Float(v) => v.to_string(),
                other => text::value(other),
            };
            match is_for_people {
                true => out.write_record(cells.iter().map(|cell| text::printable(cell).into_owned()))?,
                false => out.write_record(&cells)?,
            }
        }
        Ok(out.flush()?)
    };
    match write().map_err(csv::Error::into_kind) {
        // Whoever closed the pipe has seen enough.
        Err(csv::ErrorKind::Io(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(csv::ErrorKind::Io(e)) => Err(Failure::because("write CSV", e)),
        Err(other) => Err(Failure::new(format!("write CSV: {other:?}"))),
        Ok(()) => Ok(()),
    }
}
