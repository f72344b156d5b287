//! The server that a command manages, and which of its things a name or an ID means.

use crate::app;
use crate::cli::{Place, ServerPlace};
use crate::failure::Failure;
use graylogic_influxdb::{Manage, Target};
use std::fmt;

/// So many of the things that a name may mean are told.
const TOLD_MAX: usize = 20;

/// What manages the server of the configuration; `lacks` is what the embedded store has not, as in "has no tasks".
pub(super) fn manage(place: &ServerPlace, command: &str, lacks: &str) -> Result<Manage, Failure> {
    let place = Place { data: None, config: place.config.clone(), bucket: None };
    let config = app::acting_config(&place, command)?;
    match config.target() {
        // It is neither opened nor made, only to say so.
        Target::Embedded(_) => Err(Failure::new(format!(
            "{command}: the embedded store {lacks}: not supported here; name the configuration of a server with --config"
        ))),
        _ => Ok(Manage::connect(&config)?),
    }
}

/// A thing of a server, which has an ID and may share its name with others.
pub(super) trait Named {
    /// What it is called in messages, in the singular.
    const WHAT: &'static str;

    fn id(&self) -> &str;
    fn name(&self) -> &str;
}

/// The one thing that a name or an ID means; `None` when there is none.
pub(super) fn find<'a, T: Named>(all: &'a [T], key: &str) -> Result<Option<&'a T>, Failure> {
    let found: Vec<&T> = all.iter().filter(|thing| thing.id() == key || thing.name() == key).collect();
    let (count, what) = match found[..] {
        [] => return Ok(None),
        [one] => return Ok(Some(one)),
        _ => (found.len(), T::WHAT),
    };
    let ids: Vec<&str> = found.iter().take(TOLD_MAX).map(|thing| thing.id()).collect();
    let (ids, more) = (ids.join(", "), if count > TOLD_MAX { ", ..." } else { "" });
    Err(Failure::new(format!("{key:?} may be {count} {what}s; name the one you mean by its id: {ids}{more}")))
}

/// The ID that a name or an ID means. One that is not on the list is the server's to judge: a token may change what it may
/// not see.
pub(super) fn id<T: Named>(all: &[T], key: &str) -> Result<String, Failure> {
    match find(all, key)? {
        Some(thing) => Ok(thing.id().to_owned()),
        None if is_id(key) => Ok(key.to_owned()),
        None => Err(missing(T::WHAT, key)),
    }
}

/// The ID of a bucket.
pub(super) fn bucket_id(manage: &Manage, key: &str) -> Result<String, Failure> {
    if is_id(key) {
        return id(&manage.buckets()?, key);
    }
    Ok(manage.find_bucket(key)?.ok_or_else(|| missing("bucket", key))?.id)
}

pub(super) fn missing(what: impl fmt::Display, name: &str) -> Failure {
    Failure::new(format!("there is no {what} {name:?} that the token may see"))
}

/// Whether InfluxDB 2 may have given it as an ID.
fn is_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

impl Named for graylogic_influxdb::Bucket {
    const WHAT: &'static str = "bucket";

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(&'static str, &'static str);

    impl Named for Thing {
        const WHAT: &'static str = "thing";

        fn id(&self) -> &str {
            self.0
        }

        fn name(&self) -> &str {
            self.1
        }
    }

    #[test]
    fn a_name_or_an_id_means_one_thing_or_says_which() {
        let a = "00000000000000aa";
        let all = [
            Thing(a, "one"),
            Thing("00000000000000bb", "two"),
            Thing("00000000000000cc", "two"),
            // Named like another's ID.
            Thing("00000000000000dd", "00000000000000ee"),
            Thing("00000000000000ee", "three"),
        ];
        for (key, expected) in [
            ("one", Ok(a)),
            (a, Ok(a)),
            ("three", Ok("00000000000000ee")),
            ("00000000000000ff", Ok("00000000000000ff")),
            ("four", Err("there is no thing \"four\" that the token may see")),
            ("", Err("there is no thing \"\" that the token may see")),
            (
                "two",
                Err(
                    "\"two\" may be 2 things; name the one you mean by its id: 00000000000000bb, 00000000000000cc",
                ),
            ),
            (
                "00000000000000ee",
                Err(
                    "\"00000000000000ee\" may be 2 things; name the one you mean by its id: 00000000000000dd, \
                     00000000000000ee",
                ),
            ),
        ] {
            let found = id(&all, key).map_err(|failure| failure.to_string());
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{key}");
        }
        let many: Vec<Thing> = (0..30).map(|_| Thing("x", "same")).collect();
        let told = id(&many, "same").unwrap_err().to_string();
        assert!(told.starts_with("\"same\" may be 30 things") && told.ends_with("x, x, ..."), "{told}");
    }
}
