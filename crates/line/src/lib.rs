//! Points, and InfluxDB line protocol in both directions, for InfluxDB 1, 2, 3 and VictoriaMetrics.
//!
//! ```
//! use graylogic_line::{Dialect, Encoder, ParseOptions, Parser, Point, Precision, Timestamp};
//!
//! let encoder = Encoder::new(Dialect::Portable);
//! let mut body = Vec::new();
//! let point = Point::new("energy").tag("device_id", "Küche 1").field("power_watts", 450.0);
//! encoder.encode(&point.timestamp(Timestamp::from_nanos(1_700_000_000_000_000_000)), &mut body)?;
//! assert_eq!(body, "energy,device_id=Küche\\ 1 power_watts=450.0 1700000000000000000\n".as_bytes());
//!
//! // What no server reads back as it was meant is refused, with the element and the byte.
//! let hostile = Point::new("energy").tag("device_id", "a\nenergy power_watts=1").field("power_watts", 1.0);
//! let error = encoder.encode(&hostile, &mut body).unwrap_err();
//! assert!(error.to_string().starts_with("control character in tag value (tag \"device_id\"), byte 1"));
//!
//! let mut parser = Parser::new(&body, ParseOptions::new(Precision::Nanoseconds, Timestamp::now()));
//! let Some(Ok(line)) = parser.next_line() else { panic!("one good line was written") };
//! assert_eq!(line.tags().next(), Some(("device_id".into(), "Küche 1".into())));
//! # Ok::<(), graylogic_line::EncodeError>(())
//! ```
//!
//! - [`Encoder`] writes points in a [`Dialect`] under policies; [`SeriesTemplate`] checks and writes names once.
//! - [`Parser`] reads what InfluxDB 2.8 accepts and gives its reasons for what it does not, line by line;
//!   [`Parser::resuming`] keeps a missing quote from costing the lines behind it.
//!
//! The rules were read from, and checked against, four parsers: influxdata/influxdb 2.8 `models/points.go`, the
//! InfluxDB 3 parser, VictoriaMetrics `lib/protoparser/influx`, and influxdata/line-protocol v2.
//!
//! # Not supported
//! - Names that end with a backslash, hold control characters or begin (measurements) with `#`: no server reads them
//!   back, so they are refused.
//! - NaN and infinite values: no InfluxDB stores them.
//! - The escape `\n` inside strings, which one Go library knows: a line feed is written as itself.

mod dialect;
mod encode;
mod ends;
mod error;
mod names;
mod number;
mod parse;
mod point;
mod template;
mod time;

pub use dialect::Dialect;
pub use encode::{Encoder, OnControl, OnDuplicate, OnEmptyTag, OnNotFinite};
pub use ends::LineEnds;
pub use error::{Element, EncodeError, EncodeReason};
pub use parse::{Field, Line, LineError, ParseOptions, Parser, Reason};
pub use point::{FieldRef, FieldType, FieldValue, Point};
pub use template::SeriesTemplate;
pub use time::{Precision, Timestamp};
