//! Typed questions to servers: sends what a [`Dialogue`] wants to know, and feeds it the answers as they come. It knows no
//! language; pieces of an answer are read on the thread of who asks, so that a long one holds up nothing else.

use crate::error::Error;
use crate::flux_query::{broke_off, kind_within, too_late};
use crate::http::{Http, Method, Request};
use crate::kind::ServerKind;
use crate::query::{CheckedQuery, Dialogue, QuerySeries};
use std::time::{Duration, Instant};

/// The answer of a server to a question about a bucket.
pub(crate) async fn ask(
    http: Http,
    query: CheckedQuery,
    org: &str,
    bucket: &str,
) -> Result<Vec<QuerySeries>, Error> {
    let (began, patience) = (Instant::now(), query.timeout);
    let asks = http.clone();
    let kind = on_its_runtime(&http, async move { kind_within(&asks, patience).await }).await?;
    let mut dialogue = match kind {
        ServerKind::InfluxDb1 => Dialogue::influxql(query, bucket),
        ServerKind::InfluxDb2 => Dialogue::flux(query, org, bucket),
        ServerKind::InfluxDb3 => Dialogue::sql(query, bucket),
        ServerKind::VictoriaMetrics => Dialogue::metricsql(query, Some(bucket)),
    }?;
    let questions = http.for_questions();
    while let Some(ask) = dialogue.next_ask() {
        let left = patience.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(too_late(patience));
        }
        let request = Request {
            query: ask.query,
            body: ask.body,
            content_type: ask.content_type,
            accept: ask.accept,
            timeout: Some(left.max(Duration::from_millis(1))),
            ..Request::new(Method::POST, ask.path.trim_start_matches('/')).scheme(kind.scheme())
        };
        let asks = questions.clone();
        let opening = async move { asks.open(request).await.map_err(broke_off) };
        let (head, pieces) = on_its_runtime(&http, opening).await?;
        let Some(mut pieces) = pieces else { return Err(dialogue.refused(head.status, &head.body)) };
        while let Some(piece) = pieces.next().await {
            dialogue.feed(&piece.map_err(broke_off)?)?;
        }
        dialogue.end()?;
    }
    dialogue.finish()
}

/// What a future gives that has to run on the client's own runtime.
async fn on_its_runtime<T: Send + 'static>(
    http: &Http,
    doing: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match http.start(doing) {
        Some(pending) => pending.await.unwrap_or_else(|_| Err(Error::closed())),
        None => Err(Error::closed()),
    }
}
