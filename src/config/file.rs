//! The YAML of one configuration file as it was written: a tree in which every key and every value
//! knows its line and column.
//!
//! Nothing is interpreted here. A scalar is its text (`0660` stays `0660`, `yes` stays `yes`), keys
//! keep their order, and a key written twice is there twice, so that whoever reads the tree can say
//! what is wrong in its own words and about all places at once. The parser works within fixed
//! budgets (size, depth, nodes, aliases): hostile input ends in an error, not in a full stack or a
//! full memory. A file that is not YAML yields one [`Mistake`] with line and column; the parser's
//! snippets of neighbouring lines stay off, they could carry a password into a log.

use core::fmt;
use std::path::Path;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_yaml::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy, Options};
use serde_yaml::{Location, MessageFormatter, Spanned, UserMessageFormatter};

use super::mistake::{Mistake, Place};

/// Largest configuration file, in bytes. A real one has a few hundred.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// Deepest nesting; the configuration needs five levels.
const MAX_DEPTH: usize = 32;
const MAX_NODES: usize = 20_000;
const MAX_ALIASES: usize = 1_000;

/// One value and where it stands.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What stands there.
#[derive(Debug)]
pub(super) enum Value {
    /// Nothing at all (`key:`), `null` or `~`.
    Nothing,
    /// Text, quoted or not.
    Text(String),
    List(Vec<Node>),
    /// Keys and values in the order written, repeated keys included.
    Map(Vec<(Node, Node)>),
}

/// Reads `source`, the contents of the file called `file`.
///
/// # Errors
///
/// One mistake, with its place where there is one: too large, a NUL byte, not UTF-8, not YAML,
/// more than one document, or beyond the budgets above.
pub(super) fn parse(file: &Path, source: &[u8]) -> Result<Node, Mistake> {
    let mistake = |place, what| Mistake { file: file.to_owned(), place, key: String::new(), what };
    if source.len() > MAX_FILE_BYTES {
        let what = format!("larger than {MAX_FILE_BYTES} bytes, which no configuration needs");
        return Err(mistake(None, what));
    }
    if let Some(at) = source.iter().position(|&byte| byte == 0) {
        return Err(mistake(Some(place_of(source, at)), "a NUL byte".into()));
    }
    let text = match str::from_utf8(source) {
        Ok(text) => text,
        Err(error) => {
            let place = place_of(source, error.valid_up_to());
            return Err(mistake(Some(place), "not UTF-8 text".into()));
        }
    };
    match serde_yaml::from_str_with_options::<Written>(text, parser_options()) {
        Ok(written) => Ok(into_node(written, text)),
        Err(error) => {
            let place = error.location().map(Place::from);
            let what = match &error {
                serde_yaml::Error::Budget { .. } => "too many values or nested too deeply".into(),
                serde_yaml::Error::MultipleDocuments { .. } => {
                    "a second document starts here; a file holds one".into()
                }
                error => format!("not YAML: {}", UserMessageFormatter.format_message(error)),
            };
            Err(mistake(place, what))
        }
    }
}

fn parser_options() -> Options {
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_recorded_anchor_events: MAX_NODES,
            max_recorded_anchor_bytes: MAX_FILE_BYTES,
            max_documents: 2,
        },
        alias_limits: serde_yaml::alias_limits! {
            max_total_replayed_events: MAX_NODES,
            max_replay_stack_depth: MAX_DEPTH,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// Line and column of the byte at `offset`; columns count characters, broken ones as one each.
fn place_of(source: &[u8], offset: usize) -> Place {
    let before = &source[..offset];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    Place {
        line: 1 + before.iter().filter(|&&byte| byte == b'\n').count() as u64,
        column: 1 + String::from_utf8_lossy(&before[line_start..]).chars().count() as u64,
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

/// The tree as serde hands it over, with the parser's own locations.
type Written = Spanned<Shape>;

enum Shape {
    Nothing,
    /// A plain scalar that the parser took for a number or a truth value; its text is in the source.
    Bare(String),
    Text(String),
    List(Vec<Written>),
    Map(Vec<(Written, Written)>),
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Nothing)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Shape, E> {
        Ok(Shape::Bare(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Shape, E> {
        Ok(Shape::Bare(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Shape, E> {
        Ok(Shape::Bare(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Shape, E> {
        Ok(Shape::Bare(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Shape, E> {
        Ok(Shape::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Shape::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Shape, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Shape::Map(map))
    }
}

/// Recursion is bounded by [`MAX_DEPTH`].
fn into_node(written: Written, source: &str) -> Node {
    let value = match written.value {
        Shape::Nothing => Value::Nothing,
        Shape::Bare(read) => {
            let as_written = source_text(written.defined, source);
            Value::Text(as_written.map_or(read, str::to_owned))
        }
        Shape::Text(text) => Value::Text(text),
        Shape::List(items) => Value::List(items.into_iter().map(|item| into_node(item, source)).collect()),
        Shape::Map(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| (into_node(key, source), into_node(value, source)))
                .collect(),
        ),
    };
    Node { place: written.referenced.into(), value }
}

/// The bytes of `source` that `location` spans.
fn source_text(location: Location, source: &str) -> Option<&str> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let length = usize::try_from(location.span().byte_len()?).ok()?;
    source.get(start..start.checked_add(length)?).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(source: &str) -> Vec<(Node, Node)> {
        match parse(Path::new("x.yaml"), source.as_bytes()).expect("YAML").value {
            Value::Map(entries) => entries,
            other => panic!("not a map: {other:?}"),
        }
    }

    fn refusal(source: &[u8]) -> String {
        parse(Path::new("x.yaml"), source).expect_err("refused").to_string()
    }

    #[test]
    fn scalars_keep_the_spelling_of_the_file() {
        let source = "a: 0660\nb: 0o17 # c\nc: 99999999999999999999\nd: yes\ne: 1_000\nf: .inf\n\
                      g: 1e999\nh: True\ni: '0x1'\nj: -007\nk: 2s\n";
        let texts: Vec<String> = entries(source)
            .into_iter()
            .map(|(_, node)| match node.value {
                Value::Text(text) => text,
                other => panic!("not text: {other:?}"),
            })
            .collect();
        let expected = [
            "0660",
            "0o17",
            "99999999999999999999",
            "yes",
            "1_000",
            ".inf",
            ".inf",
            "True",
            "0x1",
            "-007",
            "2s",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn every_key_and_value_knows_its_place_and_repeated_keys_stay() {
        let found = entries("a: &x 0660\nüb:   *x\na: 3\n<<: {}\n");
        let places: Vec<_> = found
            .iter()
            .map(|(key, value)| (key.place.line, key.place.column, value.place.line, value.place.column))
            .collect();
        assert_eq!(places, [(1, 1, 1, 7), (2, 1, 2, 7), (3, 1, 3, 4), (4, 1, 4, 5)]);
        assert!(matches!(&found[1].1.value, Value::Text(text) if text == "0660"));
    }

    #[test]
    fn a_key_without_value_is_nothing_and_so_is_a_file_of_comments() {
        assert!(matches!(entries("a:\n")[0].1.value, Value::Nothing));
        let comments = parse(Path::new("x.yaml"), b"# one\n# two\n").expect("YAML");
        assert!(matches!(comments.value, Value::Nothing));
    }

    #[test]
    fn what_is_not_yaml_is_refused_with_line_and_column() {
        for (source, expected) in [
            (&b"a: 1\nb: [1,\n"[..], "x.yaml:2:4: not YAML: unclosed bracket '['"),
            (b"a: b: c\n", "x.yaml:1:5: not YAML: mapping values are not allowed in this context"),
            (b"a: *q\n", "x.yaml:1:4: not YAML: reference to unknown value"),
            (b"a: !foo 1\n", "x.yaml:1:9: not YAML: unsupported tag `!foo`"),
            (b"a: 1\n---\nb: 2\n", "x.yaml:3:1: a second document starts here; a file holds one"),
            ("a: \u{e9}\0\n".as_bytes(), "x.yaml:1:5: a NUL byte"),
            (b"a: 1\nb: \xff\n", "x.yaml:2:4: not UTF-8 text"),
        ] {
            assert_eq!(refusal(source), expected);
        }
    }

    #[test]
    fn hostile_sizes_end_in_an_error() {
        let bomb: String = (1..40).fold("b0: &b0 [x]\n".to_owned(), |text, level| {
            text + &format!("b{level}: &b{level} [{}]\n", format!("*b{},", level - 1).repeat(9))
        });
        for source in [
            "a".repeat(10_000_000),
            "[".repeat(100_000),
            "{a: ".repeat(100_000),
            "- ".repeat(100_000),
            "? ".repeat(100_000),
            "a: 1\n".repeat(150_000),
            format!("a: [{}]", "1,".repeat(400_000)),
            "&a ".repeat(300_000),
            "\"".repeat(1_000_000),
            bomb,
        ] {
            assert!(refusal(source.as_bytes()).len() < 200);
        }
    }
}
