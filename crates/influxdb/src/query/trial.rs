//! Puts a query to a server to learn whether it answers any: about a measurement that does not exist. Must not know who
//! wants to know.

use super::Query;
use crate::error::Error;
use crate::server::http::{Http, wait_for};
use graylogic_line::Timestamp;
use std::time::Duration;

/// Whether a server answers a query of a bucket, else why not; on plain threads.
pub(crate) fn try_query(http: &Http, org: &str, bucket: &str, timeout: Duration) -> Result<(), Error> {
    let now = Timestamp::now().as_nanos();
    let (start, stop) = (Timestamp::from_nanos(now - 1_000_000_000), Timestamp::from_nanos(now));
    let nothing = Query::measurement("graylogic_doctor").range(start, stop).timeout(timeout);
    wait_for(nothing.check()?.ask_server(http.clone(), org, bucket)).map(|_nothing| ())
}
