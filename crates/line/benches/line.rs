//! Writing and reading of line protocol. The same paths as `graylogic bench line`, under criterion's statistics.
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use graylogic_line::{
    Dialect, Encoder, FieldRef, ParseOptions, Parser, Precision, SeriesTemplate, Timestamp,
};
use std::hint::black_box;

const TIME: Timestamp = Timestamp::from_nanos(1_700_000_000_123_456_789);

fn encode(c: &mut Criterion) {
    let encoder = Encoder::new(Dialect::Portable);
    let mut out = Vec::with_capacity(4 << 10);
    c.bench_function("encode the device point", |b| {
        b.iter(|| {
            out.clear();
            let (device, metric, value) = black_box(("light-living-1", "level", 50.5));
            let tags = [("device_id", device), ("measurement", metric)];
            let fields = [("value", FieldRef::Float(value))];
            encoder.encode_parts("device_metrics", &tags, &fields, Some(TIME), &mut out)
        });
    });
    c.bench_function("encode names with escapes", |b| {
        b.iter(|| {
            out.clear();
            let (device, metric, value) = black_box(("light, living = 1", "level", 1.0 / 3.0));
            let tags = [("measurement", metric), ("device_id", device)];
            let fields = [("value", FieldRef::Float(value))];
            encoder.encode_parts("device_metrics", &tags, &fields, Some(TIME), &mut out)
        });
    });
    let tags = [("device_id", "light-living-1"), ("measurement", "level")];
    if let Ok(template) = SeriesTemplate::new(&encoder, "device_metrics", &tags, &["value"]) {
        c.bench_function("encode from a template", |b| {
            b.iter(|| {
                out.clear();
                template.encode_float(black_box(50.5), TIME, &mut out)
            });
        });
    }
}

fn parse(c: &mut Criterion) {
    let line = "device_metrics,device_id=light-living-1,measurement=level value=50.5 1700000000123456789\n";
    let body = line.repeat(1000);
    let options = ParseOptions::new(Precision::Nanoseconds, TIME);
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Elements(1000));
    for (name, known) in [("every key", false), ("keys known", true)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut parser = Parser::new(black_box(body.as_bytes()), options);
                let mut fields = 0;
                while let Some(Ok(line)) = parser.next_line_known(|_| known) {
                    fields += line.fields().len();
                }
                fields
            });
        });
    }
}

criterion_group!(benches, encode, parse);
criterion_main!(benches);
