//! Reading the tree of a file by hand: an [`Item`] is a value with the file and key it belongs to, so
//! that whatever is wrong with it can be said completely; [`Fields`] are the keys of a map.
//!
//! Reading a map reports every key it does not know, with the nearest one it does, and every key
//! given twice; reading a single value returns its one mistake. All of them end up in one list, in
//! no particular order.

use std::path::Path;

use super::file::{Node, Value};
use super::mistake::{Mistake, Place, quoted};

/// A value, or the lack of one, with everything a message about it needs.
#[derive(Clone, Debug)]
pub(super) struct Item<'a> {
    pub(super) file: &'a Path,
    /// `listeners[0].mode`; empty for the whole file.
    pub(super) key: String,
    /// `None` for a default, which stands in no file.
    pub(super) place: Option<Place>,
    pub(super) value: &'a Value,
}

impl<'a> Item<'a> {
    pub(super) fn root(file: &'a Path, node: &'a Node) -> Self {
        Self { file, key: String::new(), place: Some(node.place), value: &node.value }
    }

    /// What takes the place of a value that is not written: mistakes about a default name its key.
    pub(super) fn unwritten(file: &'a Path, key: &str) -> Self {
        Self { file, key: key.to_owned(), place: None, value: &Value::Nothing }
    }

    /// Where `key` of this map would be, for mistakes about its default.
    pub(super) fn unwritten_key(&self, key: &str) -> Self {
        Self { key: self.path_to(key), value: &Value::Nothing, ..self.clone() }
    }

    fn below(&self, key: String, place: Place, value: &'a Value) -> Self {
        Self { file: self.file, key, place: Some(place), value }
    }

    fn path_to(&self, key: &str) -> String {
        if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) }
    }

    pub(super) fn mistake(&self, what: impl Into<String>) -> Mistake {
        Mistake { file: self.file.to_owned(), place: self.place, key: self.key.clone(), what: what.into() }
    }

    /// "expected `expected`, found" and what is there.
    pub(super) fn expected(&self, expected: &str) -> Mistake {
        let found = match self.value {
            Value::Nothing => "nothing".to_owned(),
            Value::Text(text) => quoted(text),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        };
        self.mistake(format!("expected {expected}, found {found}"))
    }

    /// The text of a scalar.
    pub(super) fn text(&self, expected: &str) -> Result<&'a str, Mistake> {
        match self.value {
            Value::Text(text) => Ok(text),
            Value::Nothing | Value::List(_) | Value::Map(_) => Err(self.expected(expected)),
        }
    }

    /// The elements of a list with at least one.
    pub(super) fn elements(&self, expected: &str) -> Result<Vec<Self>, Mistake> {
        let Value::List(nodes) = self.value else {
            return Err(self.expected(expected));
        };
        if nodes.is_empty() {
            return Err(self.mistake(format!("expected {expected}, found an empty list")));
        }
        let element = |(index, node): (usize, &'a Node)| {
            self.below(format!("{}[{index}]", self.key), node.place, &node.value)
        };
        Ok(nodes.iter().enumerate().map(element).collect())
    }

    /// The keys of a map, whichever they are. A key that is no word and a key given twice are
    /// mistakes; of the latter the first is kept. `None` when this is no map.
    pub(super) fn entries(&self, expected: &str, mistakes: &mut Vec<Mistake>) -> Option<Fields<'a>> {
        let Value::Map(entries) = self.value else {
            mistakes.push(self.expected(expected));
            return None;
        };
        let mut fields = Fields(Vec::with_capacity(entries.len()));
        for (key, value) in entries {
            let Value::Text(name) = &key.value else {
                let key = self.below(self.key.clone(), key.place, &key.value);
                mistakes.push(key.expected("a key"));
                continue;
            };
            let item = self.below(self.path_to(&visible(name)), value.place, &value.value);
            let field = Field { name, key_place: key.place, item };
            match fields.0.iter().find(|earlier| earlier.name == name) {
                Some(earlier) => {
                    let line = earlier.key_place.line;
                    mistakes.push(field.mistake(format!("given twice, first on line {line}")));
                }
                None => fields.0.push(field),
            }
        }
        Some(fields)
    }

    /// The keys of a map that may have those in `known`; any other is a mistake.
    pub(super) fn fields(
        &self,
        expected: &str,
        known: &[&str],
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Fields<'a>> {
        let mut fields = self.entries(expected, mistakes)?;
        fields.0.retain(|field| {
            let is_known = known.contains(&field.name);
            if !is_known {
                mistakes.push(field.mistake(unknown("key", field.name, known)));
            }
            is_known
        });
        Some(fields)
    }
}

/// One key of a map and its value.
#[derive(Clone, Debug)]
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) key_place: Place,
    pub(super) item: Item<'a>,
}

impl Field<'_> {
    /// A mistake about the key itself, not its value.
    pub(super) fn mistake(&self, what: String) -> Mistake {
        Mistake { place: Some(self.key_place), ..self.item.mistake(what) }
    }
}

/// The keys of one map, each once.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields<'a>(pub(super) Vec<Field<'a>>);

impl<'a> Fields<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&Item<'a>> {
        self.0.iter().find(|field| field.name == name).map(|field| &field.item)
    }

    /// The value of `name` as `read` understands it, or `default` when the key is not there. `None`
    /// when it cannot be understood, which is then in `mistakes`.
    pub(super) fn read<T>(
        &self,
        name: &str,
        default: T,
        mistakes: &mut Vec<Mistake>,
        read: impl FnOnce(&Item<'a>) -> Result<T, Mistake>,
    ) -> Option<T> {
        self.get(name).map_or(Ok(default), read).map_err(|mistake| mistakes.push(mistake)).ok()
    }
}

/// "unknown `thing`", and the known one that was probably meant, or all of them.
pub(super) fn unknown(thing: &str, name: &str, known: &[&str]) -> String {
    // Letter case and the dash are the likely slips; they count as no difference.
    let written = name.to_lowercase().replace('-', "_");
    let likeness = |known: &str| {
        let known = known.to_lowercase().replace('-', "_");
        strsim::normalized_damerau_levenshtein(&written, &known)
    };
    let nearest = known
        .iter()
        .map(|known| (likeness(known), known))
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    match nearest {
        Some((likeness, nearest)) if likeness >= 0.5 => {
            format!("unknown {thing}; did you mean {nearest}?")
        }
        _ => format!("unknown {thing}; expected {}", any_of(known)),
    }
}

/// `a, b or c`.
pub(super) fn any_of(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [only] => (*only).to_owned(),
        [others @ .., last] => format!("{} or {last}", others.join(", ")),
    }
}

/// A key as it is shown in a path: short, on one line.
fn visible(key: &str) -> String {
    let shown = quoted(key);
    shown.trim_matches('`').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_only_when_it_is_near() {
        let known = ["refusal_delay", "deadline", "log_level"];
        for name in ["refusal_dleay", "refusal-delay", "Refusal_Delay"] {
            assert_eq!(unknown("key", name, &known), "unknown key; did you mean refusal_delay?", "{name}");
        }
        assert_eq!(
            unknown("key", "zzz", &known),
            "unknown key; expected refusal_delay, deadline or log_level"
        );
    }
}
