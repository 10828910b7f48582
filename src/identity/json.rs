//! Cuts a JSON stream into the objects we want, as it arrives, so that a large
//! answer is never held whole: Docker's events follow one another without a
//! separator, the kubelet's pods are the elements of one array.
//!
//! Knows strings and brackets, nothing else; whether an object is good JSON is
//! for whoever parses it.

/// Which objects of a stream are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Every object at the top.
    Top,
    /// The elements of the array `items` of the one object at the top.
    Items,
}

/// Why a stream is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CutError {
    /// It does not begin with an object, or brackets do not match.
    #[error("the answer is not the JSON expected")]
    Garbage,
    /// One object is larger than accepted.
    #[error("an object of the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// It ended within an object.
    #[error("the answer ended early")]
    Truncated,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cutter {
    wanted: Wanted,
    limit: usize,
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// The last string of the top object, cut short: the key of what follows.
    key: Vec<u8>,
    in_items: bool,
    begun: bool,
    /// The depth at which the object being cut lies.
    cutting: Option<u32>,
    object: Vec<u8>,
}

/// Long enough to tell `items` from anything else.
const KEY: usize = 8;

impl Cutter {
    /// A cutter that accepts objects of at most `limit` bytes.
    pub(super) fn new(wanted: Wanted, limit: usize) -> Self {
        Cutter {
            wanted,
            limit,
            depth: 0,
            in_string: false,
            escaped: false,
            key: Vec::with_capacity(KEY),
            in_items: false,
            begun: false,
            cutting: None,
            object: Vec::new(),
        }
    }

    /// Takes the next bytes and calls `each` with every object that is complete.
    ///
    /// # Errors
    /// Garbage, or an object over the limit; the stream is of no further use then.
    pub(super) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), CutError> {
        for &byte in bytes {
            if self.cutting.is_some() {
                if self.object.len() >= self.limit {
                    return Err(CutError::TooLarge(self.limit));
                }
                self.object.push(byte);
            }
            if self.in_string {
                self.string(byte);
                continue;
            }
            match byte {
                b'"' => {
                    self.in_string = true;
                    self.key.clear();
                }
                b'{' | b'[' => self.open(byte)?,
                b'}' | b']' => {
                    self.depth = self.depth.checked_sub(1).ok_or(CutError::Garbage)?;
                    if self.cutting == Some(self.depth) {
                        self.cutting = None;
                        each(&self.object);
                    } else if self.depth == 1 && self.cutting.is_none() {
                        self.in_items = false;
                    }
                }
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if self.depth == 0 => return Err(CutError::Garbage),
                _ => {}
            }
        }
        Ok(())
    }

    /// Says whether the stream ended where it may.
    ///
    /// # Errors
    /// It ended within an object, or before the first.
    pub(super) fn finish(&self) -> Result<(), CutError> {
        if self.depth > 0 || !self.begun { Err(CutError::Truncated) } else { Ok(()) }
    }

    fn string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ if self.depth == 1 && self.key.len() < KEY => self.key.push(byte),
            _ => {}
        }
    }

    fn open(&mut self, byte: u8) -> Result<(), CutError> {
        if self.depth == 0 && (byte == b'[' || self.wanted == Wanted::Items && self.begun) {
            return Err(CutError::Garbage);
        }
        self.begun = true;
        let here = match self.wanted {
            Wanted::Top => self.depth == 0,
            Wanted::Items => self.in_items && self.depth == 2,
        };
        if self.cutting.is_none() && byte == b'{' && here {
            self.cutting = Some(self.depth);
            self.object.clear();
            self.object.push(byte);
        }
        if self.depth == 1 && byte == b'[' && self.key == b"items" {
            self.in_items = true;
        }
        self.depth = self.depth.checked_add(1).ok_or(CutError::Garbage)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Cuts `text` in steps of `step` bytes.
    fn cut(wanted: Wanted, text: &str, step: usize) -> Result<Vec<String>, CutError> {
        let mut cutter = Cutter::new(wanted, 1000);
        let mut found = Vec::new();
        for bytes in text.as_bytes().chunks(step) {
            cutter.push(bytes, |object| found.push(String::from_utf8(object.to_vec()).unwrap()))?;
        }
        cutter.finish()?;
        Ok(found)
    }

    fn check(wanted: Wanted, text: &str, want: Result<&[&str], CutError>) {
        for step in [1, 3, 1000] {
            let want = want.map(|w| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
            assert_eq!(cut(wanted, text, step), want, "{text}");
        }
    }

    #[test]
    fn streams_and_arrays() {
        use Wanted::{Items, Top};
        check(Top, r#"{"a":1}{"b":"}{\"]"}"#, Ok(&[r#"{"a":1}"#, r#"{"b":"}{\"]"}"#]));
        check(Top, " {} \n{\"a\":[{}]}\n", Ok(&["{}", r#"{"a":[{}]}"#]));
        check(
            Items,
            r#"{"kind":"PodList","items":[{"a":{"b":[]}}, {}],"x":[{}]}"#,
            Ok(&[r#"{"a":{"b":[]}}"#, "{}"]),
        );
        check(Items, r#"{"metadata":{"items":[{"no":1}]},"items":[{"yes":1}]}"#, Ok(&[r#"{"yes":1}"#]));
        check(Items, r#"{"itemsx":[{"no":1}],"items":null}"#, Ok(&[]));
        check(Items, r#"{"items":[[{"no":1}]]}"#, Ok(&[]));
        check(Items, "Unauthorized", Err(CutError::Garbage));
        check(Items, "[{}]", Err(CutError::Garbage));
        check(Items, "{}{}", Err(CutError::Garbage));
        check(Top, "{}}", Err(CutError::Garbage));
        check(Items, r#"{"items":[{"a":1}"#, Err(CutError::Truncated));
        check(Top, "", Err(CutError::Truncated));
        let long = format!(r#"{{"items":[{{"a":"{}"}}]}}"#, "x".repeat(2000));
        check(Items, &long, Err(CutError::TooLarge(1000)));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(|n| json!(n)),
            "\\PC{0,8}".prop_map(|s| json!(s))
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
                proptest::collection::hash_map("items|[a-z\"\\\\{}\\[\\]]{0,4}", inner, 0..5)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn cuts_what_a_parser_sees(items in proptest::collection::vec(value(), 0..6), extra in value(), step in 1usize..40) {
            let text = json!({"extra": extra, "items": items, "z": extra}).to_string();
            let want: Vec<String> = items.iter().filter(|v| v.is_object()).map(Value::to_string).collect();
            let mut cutter = Cutter::new(Wanted::Items, 1 << 20);
            let mut found = Vec::new();
            for bytes in text.as_bytes().chunks(step) {
                cutter.push(bytes, |o| found.push(String::from_utf8(o.to_vec()).unwrap())).unwrap();
            }
            prop_assert_eq!(cutter.finish(), Ok(()));
            prop_assert_eq!(found, want);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[{}\\[\\]\",:items\\\\ ]{0,60}") {
            for wanted in [Wanted::Top, Wanted::Items] {
                let _ = Cutter::new(wanted, 50).push(&bytes, |_| {});
                let _ = Cutter::new(wanted, 50).push(text.as_bytes(), |_| {});
            }
        }
    }
}
