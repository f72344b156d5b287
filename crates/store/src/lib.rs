//! (front page below)
mod bytes;
mod catalog;
mod chunk;
mod column;
mod error;
mod file;
mod record;
mod scan;
mod selector;
mod store;
mod tail;
mod value;
mod window;
mod worker;
mod write;

pub use catalog::SeriesInfo;
pub use error::Error;
pub use scan::{Block, Scan};
pub use selector::{Matcher, Selector};
pub use store::{BucketInfo, Latest, Recovery, SeriesWindows, State, Stats, Store, StoreOptions, Sync};
pub use value::{Value, Values};
pub use window::{Summary, TimeRange, Window, Windows};
pub use write::{BadLine, RejectKind, Rejected, WriteOptions, WriteReport};
