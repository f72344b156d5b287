//! How each kind of server is written to: the request for a batch of lines. Pure; `http.rs` sends it, `outcome.rs` reads the
//! answer.
//!
//! Sources: InfluxDB 2.8's and 3.8's handlers, the programs VictoriaMetrics 1.79 and InfluxDB 1.6.

use crate::server::exchange::{Answer, Method, Request};
use crate::server::kind::ServerKind;

/// Where lines go on a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) org: String,
    pub(crate) bucket: String,
}

impl Place {
    /// A request that writes these lines, whose times are nanoseconds.
    pub(crate) fn write(&self, kind: ServerKind, lines: Vec<u8>, gzip: bool) -> Request {
        let (path, unit) = match kind {
            ServerKind::InfluxDb1 => ("write", "ns"),
            ServerKind::InfluxDb2 | ServerKind::VictoriaMetrics => ("api/v2/write", "ns"),
            ServerKind::InfluxDb3 => ("api/v3/write_lp", "nanosecond"),
        };
        let mut request = Request {
            content_type: "text/plain; charset=utf-8",
            body: lines,
            gzip,
            keeps_redirects: true,
            ..Request::new(Method::POST, path).scheme(kind.scheme())
        };
        request = match kind {
            ServerKind::InfluxDb1 => {
                let (database, policy) = database(&self.bucket);
                let request = request.with("db", database);
                match policy {
                    Some(policy) => request.with("rp", policy),
                    None => request,
                }
            }
            ServerKind::InfluxDb2 => request.with("org", &*self.org).with("bucket", &*self.bucket),
            // The good lines of a batch are kept, and the others named with their numbers.
            ServerKind::InfluxDb3 => request.with("db", &*self.bucket).with("accept_partial", "true"),
            // A label, since there are no buckets.
            ServerKind::VictoriaMetrics => request.with("db", &*self.bucket),
        };
        request.with("precision", unit)
    }

    /// The same in the way of InfluxDB 2, for servers of a newer kind that have only that.
    pub(crate) fn write_in_older_way(&self, kind: ServerKind, lines: Vec<u8>, gzip: bool) -> Request {
        self.write(ServerKind::InfluxDb2, lines, gzip).scheme(kind.scheme())
    }
}

/// Whether a server that answers a write so may take it in the way of an older kind: InfluxDB Clustered and Cloud Dedicated
/// are an InfluxDB 3 without its own endpoint.
pub(crate) fn has_older_way(kind: Option<ServerKind>, answer: &Answer) -> bool {
    kind == Some(ServerKind::InfluxDb3) && matches!(answer.status, 404 | 405)
}

/// The database and the retention policy that a bucket is in InfluxDB 1: `db` or `db/rp`.
pub(crate) fn database(bucket: &str) -> (&str, Option<&str>) {
    match bucket.split_once('/') {
        Some((database, policy)) if !database.is_empty() && !policy.is_empty() => (database, Some(policy)),
        _ => (bucket, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_written_to_in_its_own_way() {
        let check = |kind, bucket: &str, path: &str, query: &[(&str, &str)]| {
            let place = Place { org: "o".to_owned(), bucket: bucket.to_owned() };
            let request = place.write(kind, b"m f=1 1\n".to_vec(), false);
            let asked: Vec<_> = request.query.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!((request.path.as_str(), asked.as_slice()), (path, query));
            assert_eq!(request.body, b"m f=1 1\n");
        };
        use ServerKind::{InfluxDb1, InfluxDb2, InfluxDb3, VictoriaMetrics};
        let v2 = "api/v2/write";
        check(InfluxDb1, "b", "write", &[("db", "b"), ("precision", "ns")]);
        check(InfluxDb1, "b/week", "write", &[("db", "b"), ("rp", "week"), ("precision", "ns")]);
        check(InfluxDb1, "b/", "write", &[("db", "b/"), ("precision", "ns")]);
        check(InfluxDb2, "b/week", v2, &[("org", "o"), ("bucket", "b/week"), ("precision", "ns")]);
        let partial = ("accept_partial", "true");
        check(InfluxDb3, "b", "api/v3/write_lp", &[("db", "b"), partial, ("precision", "nanosecond")]);
        check(VictoriaMetrics, "b", v2, &[("db", "b"), ("precision", "ns")]);
    }
}
