//! `labelSelector` and `fieldSelector`: which objects of a list are wanted.
//!
//! ```text
//! labels   a=b  a==b  a!=b  a in (b,c)  a notin (b,c)  a  !a     joined by commas
//! fields   metadata.name=b  metadata.namespace!=b
//! ```
//!
//! As in Kubernetes, `!=` and `notin` hold for what does not have the key at all.

use std::sync::Arc;

use thiserror::Error;

/// Requirements of one selector at most: longer ones are no one's intent.
const MOST: usize = 1_000;

/// Why a text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Wrong {
    /// A requirement on labels cannot be read.
    #[error("{0:?} is no requirement; accepted: a=b, a==b, a!=b, a in (b,c), a notin (b,c), a, !a")]
    Requirement(String),
    /// A requirement on fields cannot be read, or is on another field.
    #[error("{0:?} is no field requirement; accepted: metadata.name and metadata.namespace with =, == or !=")]
    Field(String),
    /// There are too many.
    #[error("it has more than {MOST} requirements")]
    TooMany,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    /// The value is one of these.
    In(Vec<String>),
    /// It is none of these, or there is none.
    NotIn(Vec<String>),
    Exists,
    Absent,
}

/// Requirements that all must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector(Vec<(String, Test)>);

impl Selector {
    /// Reads a selector on labels; an empty one selects everything.
    ///
    /// # Errors
    /// It breaks the grammar.
    pub fn labels(text: &str) -> Result<Selector, Wrong> {
        let requirements = requirements(text)?;
        let read = |text: &str| requirement(text).ok_or_else(|| Wrong::Requirement(shown(text)));
        Ok(Selector(requirements.into_iter().map(read).collect::<Result<_, _>>()?))
    }

    /// Reads a selector on fields.
    ///
    /// # Errors
    /// It breaks the grammar, or names another field than `metadata.name` and
    /// `metadata.namespace`.
    pub fn fields(text: &str) -> Result<Selector, Wrong> {
        let read = |text: &str| {
            let (key, test) = comparison(text).ok_or_else(|| Wrong::Field(shown(text)))?;
            match key {
                "metadata.name" | "metadata.namespace" => Ok((key.to_owned(), test)),
                _ => Err(Wrong::Field(shown(text))),
            }
        };
        let requirements = requirements(text)?;
        Ok(Selector(requirements.into_iter().map(read).collect::<Result<_, _>>()?))
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it selects what has these labels, sorted by key.
    pub fn matches(&self, labels: &[(Arc<str>, Arc<str>)]) -> bool {
        self.holds(|key| {
            let at = labels.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
            labels.get(at).map(|(_, value)| &**value)
        })
    }

    /// Whether it selects what has this name and namespace.
    pub fn matches_object(&self, namespace: &str, name: &str) -> bool {
        self.holds(|key| Some(if key == "metadata.name" { name } else { namespace }))
    }

    fn holds<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|(key, test)| match (test, value(key)) {
            (Test::In(wanted), Some(value)) => wanted.iter().any(|w| w == value),
            (Test::NotIn(unwanted), Some(value)) => !unwanted.iter().any(|w| w == value),
            (Test::NotIn(_) | Test::Absent, None) | (Test::Exists, Some(_)) => true,
            (Test::In(_) | Test::Exists, None) | (Test::Absent, Some(_)) => false,
        })
    }
}

/// What an error shows of a text.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The parts between commas that are not within parentheses.
fn requirements(text: &str) -> Result<Vec<&str>, Wrong> {
    let mut inside = false;
    let parts = text.split(|c| {
        inside = match c {
            '(' => true,
            ')' => false,
            _ => inside,
        };
        c == ',' && !inside
    });
    let parts: Vec<&str> = parts.map(str::trim).collect();
    match parts.as_slice() {
        [""] => Ok(Vec::new()),
        parts if parts.len() > MOST => Err(Wrong::TooMany),
        _ => Ok(parts),
    }
}

fn requirement(text: &str) -> Option<(String, Test)> {
    let (key, test) = if let Some(key) = text.strip_prefix('!') {
        (key.trim(), Test::Absent)
    } else if let Some(list) = text.strip_suffix(')') {
        let (left, list) = list.split_once('(')?;
        let (key, operator) = left.trim().rsplit_once(char::is_whitespace)?;
        let values: Vec<String> = list.split(',').map(|value| value.trim().to_owned()).collect();
        match operator {
            "in" => (key.trim(), Test::In(values)),
            "notin" => (key.trim(), Test::NotIn(values)),
            _ => return None,
        }
    } else if text.contains('=') {
        comparison(text)?
    } else {
        (text, Test::Exists)
    };
    let values: &[String] = match &test {
        Test::In(values) | Test::NotIn(values) => values,
        Test::Exists | Test::Absent => &[],
    };
    (is_key(key) && values.iter().all(|value| is_value(value))).then(|| (key.to_owned(), test))
}

fn comparison(text: &str) -> Option<(&str, Test)> {
    let (key, value) = text.split_once('=')?;
    let value = value.strip_prefix('=').unwrap_or(value).trim().to_owned();
    if value.contains('=') {
        return None;
    }
    match key.strip_suffix('!') {
        Some(key) => Some((key.trim(), Test::NotIn(vec![value]))),
        None => Some((key.trim(), Test::In(vec![value]))),
    }
}

/// A name of at most 63 characters, maybe with a domain of at most 253 before it.
fn is_key(key: &str) -> bool {
    let (domain, name) = key.split_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    let domain = domain.is_none_or(|domain| !domain.is_empty() && domain.len() <= 253 && plain(domain));
    domain && !name.is_empty() && is_value(name)
}

/// At most 63 characters, which begin and end with a letter or a digit.
fn is_value(value: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = |end: Option<&u8>| end.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    bytes.len() <= 63 && bytes.iter().all(|b| inner(*b)) && ends(bytes.first()) && ends(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Vec<(Arc<str>, Arc<str>)> {
        pairs.iter().map(|(k, v)| (Arc::from(*k), Arc::from(*v))).collect()
    }

    fn check(selector: &str, selected: bool) {
        let labels = labels(&[("app", "web"), ("empty", ""), ("example.com/tier", "front")]);
        let found = Selector::labels(selector).unwrap_or_else(|wrong| panic!("{selector}: {wrong}"));
        assert_eq!(found.matches(&labels), selected, "{selector}");
    }

    #[test]
    fn every_operator() {
        for selected in [
            "",
            " ",
            "app=web",
            "app==web",
            " app = web ",
            "app",
            "!none",
            "! none",
            "app!=db",
            "none!=db",
            "empty=",
            "app in (db,web)",
            "app in (db, web)",
            "app notin (db)",
            "none notin (db)",
            "app in(web)",
            "app=web,example.com/tier in (front),!none",
            "empty in (,x)",
        ] {
            check(selected, true);
        }
        for other in ["app=db", "app!=web", "none", "none=", "!app", "app in (db)", "app notin (web)"] {
            check(other, false);
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        for wrong in [
            ",", "a,", "=b", "a=b=c", "a in", "a in ()x", "a on (b)", "in (b)", "a in (b", "a b", "a>1",
            "-a=b", "a=b-", "/a", "a/b/c", "a=é", "a===b", "!", "a!b",
        ] {
            assert!(Selector::labels(wrong).is_err(), "{wrong} is accepted");
        }
        assert!(Selector::labels(&format!("a={}", "x".repeat(63))).is_ok());
        assert!(Selector::labels(&format!("a={}", "x".repeat(64))).is_err());
        assert_eq!(Selector::labels(&"a,".repeat(1_001)), Err(Wrong::TooMany));
    }

    #[test]
    fn fields_are_names_and_namespaces() {
        let check = |selector: &str, selected: bool| {
            let found = Selector::fields(selector).unwrap();
            assert_eq!(found.matches_object("shop", "web-0"), selected, "{selector}");
        };
        check("", true);
        check("metadata.name=web-0", true);
        check("metadata.name==web-0,metadata.namespace!=db", true);
        check("metadata.name=web-1", false);
        check("metadata.namespace=", false);
        for wrong in ["metadata.uid=1", "metadata.name", "spec.nodeName=n1", "metadata.name in (a)"] {
            assert!(Selector::fields(wrong).is_err(), "{wrong} is accepted");
        }
    }
}
