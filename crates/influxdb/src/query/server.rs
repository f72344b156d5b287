//! A question put to a server: sends what a [`Dialogue`] wants to know, and feeds it the answers as they come. It knows no
//! language; pieces of an answer are read on the thread of who asks, so that a long one holds up nothing else.

use super::{CheckedQuery, Dialogue, QuerySeries};
use crate::error::Error;
use crate::server::asking::{broke_off, kind_within, on_its_runtime, too_late};
use crate::server::exchange::{Method, Request};
use crate::server::http::Http;
use crate::server::kind::ServerKind;
use crate::server::refusal::{remedy, right_to_read};
use std::time::{Duration, Instant};

impl CheckedQuery {
    /// The answer of a server to a question about a bucket.
    pub(crate) async fn ask_server(
        self,
        http: Http,
        org: &str,
        bucket: &str,
    ) -> Result<Vec<QuerySeries>, Error> {
        let (began, patience) = (Instant::now(), self.timeout);
        let asks = http.clone();
        let kind = on_its_runtime(&http, async move { kind_within(&asks, patience).await }).await?;
        let mut dialogue = match kind {
            ServerKind::InfluxDb1 => Dialogue::influxql(self, bucket),
            ServerKind::InfluxDb2 => Dialogue::flux(self, org, bucket),
            ServerKind::InfluxDb3 => Dialogue::sql(self, bucket),
            ServerKind::VictoriaMetrics => Dialogue::metricsql(self, Some(bucket)),
        }?;
        let questions = http.for_questions();
        // Whatever broke off when the time was over did so because of that.
        let broke_off = move |why| match began.elapsed() >= patience {
            true => too_late(patience),
            false => broke_off(why),
        };
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
            let Some(mut pieces) = pieces else {
                let remedy = remedy(&head, &right_to_read(bucket));
                let refused = dialogue.refused(head.status, &head.body);
                return Err(refused.reworded(|message| message + &remedy));
            };
            if !pieces.has_length() && !dialogue.has_end() {
                return Err(dialogue.endless());
            }
            while let Some(piece) = pieces.next().await {
                dialogue.feed(&piece.map_err(broke_off)?)?;
            }
            dialogue.end()?;
        }
        dialogue.finish()
    }
}
