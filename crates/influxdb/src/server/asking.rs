//! What questions to servers share, whatever language they are in: where they run, how long they may take, and what it means
//! when no answer comes.

use crate::error::{Error, Kind};
use crate::server::exchange::NoAnswer;
use crate::server::http::Http;
use crate::server::kind::ServerKind;
use crate::server::recognise;
use std::time::Duration;

/// What a future gives that has to run on the client's own runtime.
pub(crate) async fn on_its_runtime<T: Send + 'static>(
    http: &Http,
    doing: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match http.start(doing) {
        Some(pending) => pending.await.unwrap_or_else(|_| Err(Error::closed())),
        None => Err(Error::closed()),
    }
}

/// The kind of the server, asked within this time when nobody knows; one that does not show it is taken for InfluxDB 2. On
/// the client's own runtime.
pub(crate) async fn kind_within(http: &Http, time: Duration) -> Result<ServerKind, Error> {
    let found = tokio::time::timeout(time, recognise::recognised(http)).await.map_err(|_| too_late(time))?;
    Ok(found.map_err(broke_off)?.map_or(ServerKind::InfluxDb2, |f| f.kind))
}

/// A question whose time is over.
pub(crate) fn too_late(time: Duration) -> Error {
    let message = format!(
        "ask the server: it did not answer everything within {time:?}; give it more time, or ask for less"
    );
    Error::new(Kind::QueryFailed, message).retryable(true)
}

/// Why there is no answer to a question, or no more of it.
pub(crate) fn broke_off(why: NoAnswer) -> Error {
    match why {
        NoAnswer::Stopped => Error::closed(),
        NoAnswer::Failed(why) => {
            Error::new(Kind::QueryFailed, format!("ask the server: {why}")).retryable(true)
        }
        NoAnswer::Unusable { reason, .. } => {
            Error::new(Kind::QueryFailed, format!("ask the server: {reason}"))
        }
    }
}
