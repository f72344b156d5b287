//! Encoding of the seed's device point, from names that change and from a template, and reading of lines.

use super::median;
use crate::failure::Failure;
use crate::output::{answer, answer_json};
use crate::text;
use graylogic_domain::DeviceMetric;
use graylogic_line::{Dialect, Encoder, ParseOptions, Parser, Precision, SeriesTemplate, Timestamp};
use serde_json::json;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

const ROUNDS: usize = 25;
const CALLS: usize = 100_000;
const LINES: usize = 200_000;
const TIME: i64 = 1_700_000_000_123_456_789;

pub(crate) fn run(json: bool) -> Result<ExitCode, Failure> {
    let encoder = Encoder::new(Dialect::Portable);
    let mut out = Vec::with_capacity(16 << 20);
    let bad = |e: graylogic_line::EncodeError| Failure::because("encode the device point", e);
    let template = SeriesTemplate::new(
        &encoder,
        graylogic_domain::DEVICE_METRICS,
        &[("device_id", "light-living-1"), ("measurement", "level")],
        &["value"],
    )
    .map_err(bad)?;
    // Values as they come from devices: one decimal, changing.
    let value = |i: usize| (i % 1000) as f64 / 10.0 + 0.5;
    let region = stats_alloc::Region::new(crate::ALLOCATOR);
    let mut allocations = 0;
    let mut dynamic = Vec::with_capacity(ROUNDS);
    let mut prepared = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let before = region.change().allocations;
        out.clear();
        let began = Instant::now();
        for i in 0..CALLS {
            let (device_id, measurement) = black_box(("light-living-1", "level"));
            let metric = DeviceMetric { device_id, measurement, value: black_box(value(i)) };
            metric.encode(&encoder, Timestamp::from_nanos(TIME + i as i64), &mut out).map_err(bad)?;
        }
        dynamic.push(began.elapsed().as_nanos() as f64 / CALLS as f64);
        out.clear();
        let began = Instant::now();
        for i in 0..CALLS {
            template
                .encode_float(black_box(value(i)), Timestamp::from_nanos(TIME + i as i64), &mut out)
                .map_err(bad)?;
        }
        prepared.push(began.elapsed().as_nanos() as f64 / CALLS as f64);
        allocations += region.change().allocations - before;
    }
    let mut body = Vec::new();
    let mut data = super::dataset::DataSet::new();
    data.lines(LINES, &mut body);
    let (mut full, mut known) = (Vec::new(), Vec::new());
    let options = ParseOptions::new(Precision::Nanoseconds, Timestamp::from_nanos(TIME));
    for _ in 0..ROUNDS {
        full.push(rate(&body, options, false));
        known.push(rate(&body, options, true));
    }
    let (encode, from_template) = (median(dynamic), median(prepared));
    let (full, known) = (median(full), median(known));
    if json {
        answer_json(&json!({
            "encode_device_ns": encode,
            "encode_template_ns": from_template,
            "encode_allocations": allocations,
            "parse_lines_per_s": full,
            "parse_known_lines_per_s": known,
        }));
    } else {
        let rows = [
            ("encode the device point from changing names", format!("{encode:.1} ns")),
            ("encode it from a template", format!("{from_template:.1} ns")),
            ("allocations in all of that", allocations.to_string()),
            ("read lines, every key looked into", format!("{} lines/s", text::count(full as u64))),
            ("read lines, keys known", format!("{} lines/s", text::count(known as u64))),
        ];
        let rows: Vec<Vec<String>> = rows.into_iter().map(|(a, b)| vec![a.to_owned(), b]).collect();
        answer(text::table(&["measured", "median"], &rows).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// Lines read a second on one thread.
fn rate(body: &[u8], options: ParseOptions, known: bool) -> f64 {
    let began = Instant::now();
    let mut parser = Parser::new(black_box(body), options);
    let mut lines = 0usize;
    while let Some(next) = parser.next_line_known(|_| known) {
        lines += usize::from(black_box(next).is_ok());
    }
    assert_eq!(lines, LINES, "the data set is line protocol");
    lines as f64 / began.elapsed().as_secs_f64()
}
