//! Whatever the bytes, the parser ends without a panic; and what it accepts, written again, is read as the same point.
#![no_main]

use graylogic_line::{Dialect, Encoder, ParseOptions, Parser, Precision, Timestamp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let options = ParseOptions::new(Precision::Nanoseconds, Timestamp::from_nanos(0));
    let encoder = Encoder::new(Dialect::V2).allow_underscore_names(true);
    let mut parser = Parser::new(body, options);
    while let Some(next) = parser.next_line() {
        let Ok(line) = next else { continue };
        let point = line.to_point();
        let mut out = Vec::new();
        if encoder.encode(&point, &mut out).is_ok() {
            let mut again = Parser::new(&out, options);
            let read = again.next_line().expect("a line").expect("what was written is read").to_point();
            let mut twice = Vec::new();
            encoder.encode(&read, &mut twice).expect("what was read is written");
            assert_eq!(out, twice);
        }
    }
});
