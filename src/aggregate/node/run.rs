//! Which run of a container it is: what its runtime calls it, and what it called the
//! one before, whose series have to be ended.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::aggregate::names::Names;

/// What a runtime calls a container. There are as many as containers, so an id that is
/// 64 hex digits is kept in half of that, and a name that is the id not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Run {
    id: Id,
    name: Name,
    /// The slot from which on it is this one, milliseconds since the epoch, and the run before.
    before: Option<Box<(u64, Run)>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Id {
    #[default]
    Unknown,
    Hex([u8; 32]),
    Text(Arc<str>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Name {
    #[default]
    Unknown,
    Id,
    Text(Arc<str>),
}

/// A run as a push tells it; empty is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told<'a> {
    /// The id, 32 bytes.
    pub id: &'a [u8],
    /// The id where it is not 64 hex digits.
    pub id_text: &'a str,
    /// The name.
    pub name: &'a str,
}

fn hex(id: &[u8; 32]) -> String {
    let mut text = String::with_capacity(64);
    for byte in id {
        // Memory takes what is written.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Whether a text is these bytes in hex.
fn is_hex(text: &str, id: &[u8; 32]) -> bool {
    let digit = |half: u8| char::from_digit(u32::from(half), 16);
    let digits = id.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    text.len() == 64 && text.chars().map(Some).eq(digits)
}

impl Told<'_> {
    fn is_empty(&self) -> bool {
        self.id.is_empty() && self.id_text.is_empty() && self.name.is_empty()
    }

    fn run(&self, names: &Names) -> Run {
        let id = match <[u8; 32]>::try_from(self.id) {
            Ok(id) => Id::Hex(id),
            Err(_) if self.id_text.is_empty() => Id::Unknown,
            Err(_) => Id::Text(names.get(self.id_text)),
        };
        let name = match (&id, self.name) {
            (_, "") => Name::Unknown,
            (Id::Hex(id), name) if is_hex(name, id) => Name::Id,
            (Id::Text(id), name) if **id == *name => Name::Id,
            (_, name) => Name::Text(names.get(name)),
        };
        Run { id, name, before: None }
    }
}

impl Run {
    /// The id, 32 bytes; empty where it is not that, or not known.
    pub fn id(&self) -> &[u8] {
        if let Id::Hex(id) = &self.id { id } else { &[] }
    }

    /// The id where it is not 32 bytes; empty where it is not known.
    pub fn id_text(&self) -> &str {
        if let Id::Text(id) = &self.id { id } else { "" }
    }

    /// The name; empty where it is not known.
    pub fn name(&self) -> String {
        match (&self.name, &self.id) {
            (Name::Text(name), _) => name.to_string(),
            (Name::Id, Id::Hex(id)) => hex(id),
            (Name::Id, Id::Text(id)) => id.to_string(),
            (Name::Id, Id::Unknown) | (Name::Unknown, _) => String::new(),
        }
    }

    /// The one that there was in a slot.
    pub fn at(&self, slot_ms: u64) -> &Run {
        match self.before.as_deref() {
            Some((since_ms, before)) if slot_ms < *since_ms => before,
            _ => self,
        }
    }

    /// Whether it is another than that.
    pub fn differs(&self, other: &Run) -> bool {
        (&self.id, &self.name) != (&other.id, &other.name)
    }

    fn is(&self, told: &Told<'_>) -> bool {
        let name = match (&self.name, &self.id) {
            (Name::Text(name), _) => **name == *told.name,
            (Name::Id, Id::Hex(id)) => is_hex(told.name, id),
            (Name::Id, Id::Text(id)) => **id == *told.name,
            (Name::Id, Id::Unknown) | (Name::Unknown, _) => told.name.is_empty(),
        };
        name && *self.id() == *told.id && *self.id_text() == *told.id_text
    }

    /// Notes what a push says of a container in a slot.
    pub(super) fn put(known: &mut Option<Box<Run>>, told: &Told<'_>, slot_ms: u64, names: &Names) {
        match known {
            None if told.is_empty() => {}
            None => *known = Some(Box::new(told.run(names))),
            Some(run) if run.is(told) => {}
            Some(run) => {
                let mut before = std::mem::replace(&mut **run, told.run(names));
                run.before = match before.before.take() {
                    // It is another since that slot already, and was never shown as what it was meanwhile.
                    Some(earlier) if earlier.0 == slot_ms => Some(earlier),
                    _ => Some(Box::new((slot_ms, before))),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_come_back() {
        let names = Names::default();
        let id = [0xab; 32];
        let text = hex(&id);
        for told in [
            Told { id: &id, id_text: "", name: &text },
            Told { id: &id, id_text: "", name: "k8s_web_web-0" },
            Told { id: &id, id_text: "", name: "" },
            Told { id: &[], id_text: "short", name: "short" },
            Told { id: &[], id_text: "", name: "alone" },
        ] {
            let run = told.run(&names);
            assert_eq!((run.id(), run.id_text(), run.name().as_str()), (told.id, told.id_text, told.name));
            assert!(run.is(&told) && !run.is(&Told { name: "other", ..told }), "{told:?}");
        }
        assert!(
            names.get(&text).len() == 64
                && Told { id: &id, id_text: "", name: &text }.run(&names).name == Name::Id
        );
    }

    #[test]
    fn a_slot_has_the_run_it_was_measured_of() {
        let names = Names::default();
        let mut known = None;
        let mut put = |name: &str, slot| {
            Run::put(&mut known, &Told { name, ..Told::default() }, slot, &names);
            let run = known.as_deref().unwrap();
            [1, 2, 3].map(|slot| run.at(slot).name())
        };
        assert_eq!(put("a", 1), ["a", "a", "a"]);
        assert_eq!(put("b", 2), ["a", "b", "b"]);
        assert_eq!(put("c", 2), ["a", "c", "c"], "twice in one slot");
        assert_eq!(put("d", 3), ["c", "c", "d"], "one before is kept");
    }
}
