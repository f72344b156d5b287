//! `graylogic setup`: sets up a fresh InfluxDB 2. Secrets come in by standard input and the one that goes out is printed
//! once, alone.

use crate::cli::Setup;
use crate::command::server;
use crate::failure::Failure;
use crate::output::{answer, answer_json, remark};
use crate::text;
use serde_json::json;
use std::io::{self, BufRead, Read as _};
use std::process::ExitCode;

/// A longer line is no secret.
const SECRET_BYTES_MAX: u64 = 4096;

pub(crate) fn run(options: &Setup, json: bool) -> Result<ExitCode, Failure> {
    let manage = server::manage(&options.place, "setup", "needs no setting up")?;
    let retention = options.retention.as_deref().map(text::duration).transpose()?;
    let mut setup =
        graylogic_influxdb::Setup::new(&options.user, &options.org, &options.bucket).retention(retention);
    let mut input = io::stdin().lock();
    if options.password_stdin {
        setup = setup.password(secret(&mut input, "password")?);
    }
    if options.token_stdin {
        setup = setup.token(secret(&mut input, "token")?);
    }
    let done = manage.setup(&setup)?;
    if json {
        answer_json(&json!({
            "user_id": done.user_id,
            "org_id": done.organization.id,
            "bucket_id": done.bucket.id,
            "token": done.token.reveal(),
        }));
    } else {
        remark(format_args!(
            "set up with user {:?}, organisation {:?} and bucket {:?}; this is the token that may do everything, shown this \
             once",
            options.user, done.organization.name, done.bucket.name
        ));
        answer(done.token.reveal());
    }
    Ok(ExitCode::SUCCESS)
}

/// The next line of the input. No message repeats it.
fn secret(input: &mut impl BufRead, what: &str) -> Result<String, Failure> {
    let mut line = Vec::new();
    let read = input.by_ref().take(SECRET_BYTES_MAX).read_until(b'\n', &mut line);
    read.map_err(|e| Failure::because(format_args!("read the {what} from standard input"), e))?;
    let refused = |why: &str| Err(Failure::new(format!("the {what} on standard input {why}")));
    if line.len() as u64 == SECRET_BYTES_MAX && line.last() != Some(&b'\n') {
        return refused("is longer than 4096 bytes");
    }
    let Ok(text) = String::from_utf8(line) else { return refused("is not UTF-8") };
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() { refused("is empty; give it as a line") } else { Ok(text.to_owned()) }
}
