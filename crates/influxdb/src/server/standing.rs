//! Whether an answer to a write is believed: what each kind of server answers when it has stored lines, and in which words it
//! rejects them. Anything else at the address has stored nothing and has judged no line. Pure; must not know how requests
//! travel.
//!
//! Sources: InfluxDB 2.8's recorded answers, the programs InfluxDB 1.6 and VictoriaMetrics, InfluxDB 3 Core's code.

use crate::server::exchange::Answer;
use crate::server::kind::{ServerKind, shown_by_write};
use crate::server::said::Said;

/// What is known of the place that lines are written to: a bucket at an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What the server has shown itself to be, or the configuration says; `None` when neither does.
    pub(crate) kind: Option<ServerKind>,
    /// Whether a write to this place has succeeded, or the server has named lines of ours.
    pub(crate) is_proven: bool,
    /// Whether an answer that said so showed which server it was from.
    pub(crate) shows_itself: bool,
}

impl Standing {
    /// The same, with what the answer itself shows of the server.
    pub(crate) fn seen_in(self, answer: &Answer) -> Self {
        Self { kind: self.kind.or_else(|| shown_by_write(answer)), ..self }
    }

    /// Whether the server showed itself in its answers until now and does not in this one: another program may answer at its
    /// address by now.
    pub(crate) fn hides_in(self, answer: &Answer) -> bool {
        self.shows_itself && shown_by_write(answer).is_none()
    }

    /// Whether this is the answer of a server that has stored all lines of a request.
    pub(crate) fn has_stored(self, answer: &Answer) -> bool {
        // All of them document it.
        self.kind.is_some() && answer.status == 204 && !self.hides_in(answer)
    }

    /// Whether this is the answer of a server that takes writes, to an empty write.
    pub(crate) fn takes_writes(self, answer: &Answer) -> bool {
        let standing = self.seen_in(answer);
        let is_empty = || Said::of(answer).message.contains("incoming write was empty");
        standing.has_stored(answer)
            || standing.kind == Some(ServerKind::InfluxDb3) && answer.status == 400 && is_empty()
    }

    /// Whether words are those in which a server of this kind rejects lines.
    pub(crate) fn rejects_in(self, said: &Said) -> bool {
        match self.kind {
            None => false,
            Some(ServerKind::InfluxDb2) => said.has_code,
            Some(ServerKind::InfluxDb1 | ServerKind::InfluxDb3) => said.has_code || said.has_error,
            Some(ServerKind::VictoriaMetrics) => !said.is_json && !said.is_page && !said.message.is_empty(),
        }
    }

    /// Why an answer that looks like a success is none, and the setting to look at.
    pub(crate) fn disbelief(self, answer: &Answer) -> (&'static str, String) {
        let status = answer.status;
        match self.kind {
            Some(kind) if status == 204 => (
                "url",
                format!(
                    "the answer does not show that it comes from {kind}, as those before it did: another program may answer at \
                     this address by now, and nothing counts as delivered"
                ),
            ),
            Some(kind) => (
                "url",
                format!(
                    "the server answered {status}, but {kind} answers 204 when it has stored readings: something else answers \
                     at this address, and nothing counts as delivered"
                ),
            ),
            None if status == 204 => (
                "kind",
                "the server answered 204 without showing what it is, so nothing counts as delivered; if it takes line protocol, \
                 set influxdb.kind to what it is"
                    .to_owned(),
            ),
            None => (
                "url",
                format!(
                    "the server answered {status} and does not show that it is an InfluxDB or a VictoriaMetrics, so nothing \
                     counts as delivered"
                ),
            ),
        }
    }

    /// Why an answer that looks like a verdict on lines is none.
    pub(crate) fn doubt(self, reason: &str) -> String {
        match self.kind {
            Some(kind) => format!("{reason}; these are not the words in which {kind} rejects lines"),
            None => {
                format!("{reason}; the server does not show that it is an InfluxDB or a VictoriaMetrics")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Option<ServerKind>; 5] = [
        None,
        Some(ServerKind::InfluxDb1),
        Some(ServerKind::InfluxDb2),
        Some(ServerKind::InfluxDb3),
        Some(ServerKind::VictoriaMetrics),
    ];

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.as_bytes().to_vec(), ..Answer::default() }
    }

    #[test]
    fn only_the_documented_success_of_a_kind_is_one() {
        for kind in ALL {
            let standing = Standing { kind, is_proven: true, shows_itself: false };
            for (status, body) in
                [(200, ""), (200, "ok"), (200, "{}"), (201, ""), (202, ""), (206, ""), (299, "")]
            {
                assert!(!standing.has_stored(&answer(status, body)), "{kind:?} {status} {body}");
                assert!(!standing.takes_writes(&answer(status, body)), "{kind:?} {status} {body}");
            }
            assert_eq!(standing.has_stored(&answer(204, "")), kind.is_some(), "{kind:?}");
            let (setting, says) = standing.disbelief(&answer(204, ""));
            assert_eq!(setting == "kind", kind.is_none(), "{says}");
        }
    }

    #[test]
    fn an_answer_may_show_the_kind_itself() {
        let hidden = Standing::default();
        let shows = |version: Option<&str>, is_victoria_metrics| Answer {
            version: version.map(str::to_owned),
            is_victoria_metrics,
            ..answer(204, "")
        };
        for (shown, expected) in [
            (shows(Some("v2.8.0"), false), Some(ServerKind::InfluxDb2)),
            (shows(Some("1.8.10"), false), Some(ServerKind::InfluxDb1)),
            (shows(Some("1.8.0"), true), Some(ServerKind::VictoriaMetrics)),
            (shows(Some("3.8.0"), false), Some(ServerKind::InfluxDb3)),
            (shows(None, false), None),
        ] {
            let standing = hidden.seen_in(&shown);
            assert_eq!((standing.kind, standing.has_stored(&shown)), (expected, expected.is_some()));
        }
    }

    #[test]
    fn a_server_that_showed_itself_is_believed_only_while_it_does() {
        let standing = Standing { kind: Some(ServerKind::InfluxDb2), is_proven: true, shows_itself: true };
        let shown = Answer { version: Some("v2.8.0".to_owned()), ..answer(204, "") };
        assert!(standing.has_stored(&shown) && !standing.hides_in(&shown));
        let hidden = answer(204, "");
        assert!(!standing.has_stored(&hidden) && standing.hides_in(&hidden));
        assert_eq!(standing.disbelief(&hidden).0, "url");
        // One that never did is known by its ping or the configuration.
        assert!(Standing { shows_itself: false, ..standing }.has_stored(&hidden));
    }

    #[test]
    fn lines_are_rejected_in_the_words_of_the_kind_only() {
        let code = r#"{"code":"invalid","message":"no"}"#;
        let error = r#"{"error":"no"}"#;
        let others = [r#"{"status":"error"}"#, "{}", "[]", "", "<html>no", r#"{"code":400,"message":"no"}"#];
        let expected = |kind, body: &str| match kind {
            None => false,
            Some(ServerKind::InfluxDb2) => body == code,
            Some(ServerKind::VictoriaMetrics) => body == "no",
            Some(_) => body == code || body == error,
        };
        for kind in ALL {
            for body in others.iter().copied().chain([code, error, "no"]) {
                let standing = Standing { kind, is_proven: true, shows_itself: false };
                let rejects = standing.rejects_in(&Said::of(&answer(400, body)));
                assert_eq!(rejects, expected(kind, body), "{kind:?} {body}");
            }
        }
    }

    #[test]
    fn influxdb_3_names_an_empty_write() {
        let empty = answer(400, "incoming write was empty");
        for kind in ALL {
            let takes = Standing { kind, ..Standing::default() }.takes_writes(&empty);
            assert_eq!(takes, kind == Some(ServerKind::InfluxDb3), "{kind:?}");
        }
    }
}
