//! Whether something may be removed with all that is in it: by option, by asking on a terminal, and not otherwise.

use crate::cli::Consent;
use crate::failure::Failure;
use crate::output::{answer, answer_json, remark};
use serde_json::json;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

/// A longer line is no answer.
const ANSWER_BYTES_MAX: u64 = 64;

/// Whether to remove `what`, as in `bucket "x" with 28 series`; `false` after a dry run.
///
/// # Errors
/// If the user did not agree to it.
pub(super) fn is_given(consent: Consent, what: &str, json: bool) -> Result<bool, Failure> {
    if consent.dry_run {
        match json {
            true => answer_json(&json!({ "would_remove": what })),
            false => answer(format_args!("would remove {what}")),
        }
        return Ok(false);
    }
    if consent.yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::new(format!("this would remove {what} for good; to do that, add --yes")));
    }
    remark(format_args!("Remove {what} for good? Type yes:"));
    let mut line = String::new();
    let read = io::stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut line);
    read.map_err(|e| Failure::because("read the answer", e))?;
    match line.trim() {
        "yes" | "y" => Ok(true),
        _ => Err(Failure::new(format!("nothing was removed: {what} stays"))),
    }
}
