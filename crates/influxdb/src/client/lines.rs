//! Lines of line protocol that others wrote: what a server accepts of them goes through.

use super::Client;
use crate::error::Error;
use graylogic_line::{Line, Timestamp};

impl Client {
    /// Writes a line that a [`Parser`](graylogic_line::Parser) read, at a time, whatever the line says of it.
    ///
    /// [`Client::write_point`] rejects what is doubtful in new data: names that begin with an underscore, a name that is both
    /// a tag and a field, a field that is given twice. Lines that others wrote may hold all of these, and servers accept
    /// them: they go as they are, and the server's answer decides.
    ///
    /// # Errors
    /// [`Error::is_retryable`] when too many readings are pending, [`Error::is_not_connected`] after close. Then the line
    /// was not accepted. [`Error::is_invalid_point`] for a line that is longer than the spool takes.
    pub fn write_line(&self, line: &Line<'_, '_>, time: Timestamp) -> Result<(), Error> {
        let point = line.to_point().timestamp(time);
        self.accept(self.lanes_of(&point), Some(time), |time, out| {
            if self.handle.encoder.encode(&point, out).is_err() {
                as_sent(line, time, out);
            }
            Ok(())
        })
    }
}

/// The line in its own words, in nanoseconds.
fn as_sent(line: &Line<'_, '_>, time: Timestamp, out: &mut Vec<u8>) {
    out.extend_from_slice(line.raw_key());
    out.push(b' ');
    out.extend_from_slice(line.raw_fields());
    out.extend_from_slice(format!(" {}\n", time.as_nanos()).as_bytes());
}
