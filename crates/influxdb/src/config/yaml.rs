//! Where a key stands in a YAML text, and what is wrong with one that is none, for messages. It follows the block style by
//! its indentation; of what is written in another style it finds the line where that begins. It knows no keys.

/// A step from a section to what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    /// An item of a list, from 0.
    Item(usize),
}

/// A line that is not empty: its number from 1, how far it is indented, what it says.
#[derive(Clone, Copy)]
struct Line<'a> {
    number: usize,
    indent: usize,
    says: &'a str,
}

/// The line at the end of a path, from 1, or of what is nearest to it on the way; `None` when not even the first step is
/// there.
pub(crate) fn line_of(text: &str, path: &[Step<'_>]) -> Option<usize> {
    let all = text.lines().enumerate().map(|(i, line)| {
        // Spaces of other kinds are a part of a key, for YAML.
        let says = line.trim_start_matches([' ', '\t']);
        Line { number: i + 1, indent: line.len() - says.len(), says }
    });
    let mut lines: Vec<Line<'_>> = all.filter(|l| !l.says.is_empty() && !l.says.starts_with('#')).collect();
    let mut found = None;
    for step in path {
        let Some((number, inside)) = inside(&lines, *step) else { break };
        found = Some(number);
        lines = inside;
    }
    found
}

/// What a parser says of a text, and what to do about it.
const MISTAKES: [(&str, &str); 8] = [
    ("tabs disallowed", "indent with spaces, not with tabs"),
    (
        "mapping values are not allowed",
        "indent the keys of a section alike, and put a text with a colon in quotes",
    ),
    ("duplicate mapping key: ", "it is there twice: leave one out"),
    ("multiple YAML documents", "take out what follows the line ---"),
    ("unclosed quote", "close the quote"),
    ("unexpected character", "put the text in quotes"),
    ("did not find expected <document start>", "write KEY: VALUE in each line"),
    ("simple key expect", "write KEY: VALUE, with a space behind the colon"),
];

/// A sentence for what a parser says, without what it says to programmers.
pub(crate) fn mistake(words: &str) -> String {
    let line = words.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let line = line.replacen(" column ", ", column ", 1);
    let known = MISTAKES.iter().find(|(says, _)| line.contains(says));
    // Behind these words it speaks of its own options.
    let end = [", set DuplicateKeyPolicy", "; use from_str"].iter().filter_map(|own| line.find(own)).min();
    let line = &line[..end.unwrap_or(line.len())];
    known.map_or_else(|| line.to_owned(), |(_, remedy)| format!("{line}; {remedy}"))
}

/// The line of a step and the lines below it.
fn inside<'a>(lines: &[Line<'a>], step: Step<'_>) -> Option<(usize, Vec<Line<'a>>)> {
    let indent = lines.first()?.indent;
    let mut items = 0;
    let at = lines.iter().position(|line| {
        line.indent == indent
            && match step {
                Step::Key(key) => key_of(line.says) == Some(key),
                Step::Item(n) => {
                    items += usize::from(is_item(line.says));
                    items == n + 1
                }
            }
    })?;
    let line = lines[at];
    // The items of a list may stand as far left as its key.
    let below = |l: &&Line<'_>| {
        l.indent > indent || (matches!(step, Step::Key(_)) && l.indent == indent && is_item(l.says))
    };
    let rest = lines[at + 1..].iter().take_while(below).copied();
    let first = match step {
        Step::Key(_) => None,
        // What stands behind the dash is indented by where it stands.
        Step::Item(_) => {
            let says = line.says[1..].trim_start();
            let indent = indent + line.says.len() - says.len();
            (!says.is_empty()).then_some(Line { indent, says, ..line })
        }
    };
    Some((line.number, first.into_iter().chain(rest).collect()))
}

fn is_item(says: &str) -> bool {
    says == "-" || says.starts_with("- ")
}

fn key_of(says: &str) -> Option<&str> {
    Some(says.split_once(':')?.0.trim_matches(['"', '\'', ' ']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_items_are_found_where_they_stand() {
        use Step::{Item, Key};
        let text = "# url:\nmqtt:\n  url: x\n\ninfluxdb:\n  targets:\n    a:\n      # url: y\n      url: y\n    \"b-c\":\n\n      url: z\n  \
                    routes:\n  - measurement: m\n    to: [a]\n  # - no\n  -\n    tags:\n      url: q\n    to:\n      - a\n      - b\n  \
                    url: here\nother:\n  - 1\n";
        let check =
            |path: &[Step<'_>], line: Option<usize>| assert_eq!(line_of(text, path), line, "{path:?}");
        check(&[Key("influxdb")], Some(5));
        check(&[Key("influxdb"), Key("url")], Some(23));
        check(&[Key("influxdb"), Key("targets"), Key("a"), Key("url")], Some(9));
        check(&[Key("influxdb"), Key("targets"), Key("b-c"), Key("url")], Some(12));
        check(&[Key("influxdb"), Key("routes"), Item(0)], Some(14));
        check(&[Key("influxdb"), Key("routes"), Item(0), Key("measurement")], Some(14));
        check(&[Key("influxdb"), Key("routes"), Item(0), Key("to")], Some(15));
        check(&[Key("influxdb"), Key("routes"), Item(1), Key("tags"), Key("url")], Some(19));
        check(&[Key("influxdb"), Key("routes"), Item(1), Key("to"), Item(1)], Some(22));
        // The nearest that is there.
        check(&[Key("influxdb"), Key("routes"), Item(2), Key("to")], Some(13));
        check(&[Key("influxdb"), Key("routes"), Item(0), Key("class")], Some(14));
        check(&[Key("nothing"), Key("url")], None);
        assert_eq!(
            line_of("a: 1\ninfluxdb: {targets: {a: {}}}\n", &[Key("influxdb"), Key("targets")]),
            Some(2)
        );
        assert_eq!(line_of("", &[Key("influxdb")]), None);
    }
}
