//! Warnings and errors of the libraries, one line each on standard error.

use crate::cli::Command;
use crate::output::remark;
use crate::text;
use std::fmt::{self, Write as _};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Where the store says that readings went into quarantine.
const QUARANTINE: &str = "graylogic_store::quarantine";

/// Sends warnings and errors to standard error from here on. What the command reports itself is not reported twice.
pub(crate) fn to_stderr(command: &Command) {
    let counts_quarantined = matches!(command, Command::Write(_) | Command::Import(_));
    // Fails only when there is a subscriber already, which is as good.
    let _there_is_one = tracing::subscriber::set_global_default(Stderr { counts_quarantined });
}

struct Stderr {
    /// The command counts the readings that go into quarantine.
    counts_quarantined: bool,
}

impl Subscriber for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_reported = self.counts_quarantined && metadata.target() == QUARANTINE;
        *metadata.level() <= Level::WARN && !is_reported
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = format!("{}{}", line.message, line.fields);
        // One line each: what a server says is not to look like another event.
        remark(format_args!("{} {}", event.metadata().level(), text::plain(&text)));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _infallible = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
