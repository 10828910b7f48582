//! The options of a URI: each once, taken by name, and none left over.

use std::collections::BTreeMap;

use reqwest::Url;

use super::{Result, Secret, TargetError};

/// Longest name of a database, bucket, job and the like, bytes.
const MAX_IDENTIFIER: usize = 128;

#[derive(Debug)]
pub(super) struct Options(BTreeMap<String, Vec<String>>);

impl Options {
    pub(super) fn read(url: &Url) -> Result<Options> {
        let mut options: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in url.query_pairs() {
            options.entry(name.into_owned()).or_default().push(value.into_owned());
        }
        Ok(Options(options))
    }

    /// Takes an option out.
    pub(super) fn take(&mut self, name: &str) -> Result<Option<String>> {
        let mut given = self.0.remove(name).unwrap_or_default();
        let value = given.pop();
        if !given.is_empty() {
            return Err(TargetError::new(format_args!("{name}=: given more than once; accepted: once")));
        }
        match value {
            Some(value) if value.is_empty() => {
                Err(TargetError::new(format_args!("{name}=: empty; accepted: a value, or not to say it")))
            }
            value => Ok(value),
        }
    }

    /// Takes all options out whose names begin so, without that beginning; of
    /// one that is given more than once, the last.
    pub(super) fn take_with_prefix(&mut self, prefix: &str) -> BTreeMap<String, String> {
        let mut taken = BTreeMap::new();
        self.0.retain(|name, values| match name.strip_prefix(prefix) {
            Some(rest) => {
                taken.insert(rest.to_owned(), values.pop().unwrap_or_default());
                false
            }
            None => true,
        });
        taken
    }

    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>> {
        match self.take(name)?.as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(TargetError::new(format_args!("{name}=: accepted: true, false"))),
        }
    }

    /// A name of something in a database, which may hold anything printable.
    pub(super) fn identifier(&mut self, name: &str) -> Result<Option<String>> {
        let value = self.take(name)?;
        match value {
            Some(v) if v.len() > MAX_IDENTIFIER || v.chars().any(char::is_control) => Err(TargetError::new(
                format_args!("{name}=: accepted: 1 to {MAX_IDENTIFIER} bytes without control characters"),
            )),
            value => Ok(value),
        }
    }

    /// The value of a header.
    pub(super) fn header(&mut self, name: &str) -> Result<Option<String>> {
        let value = self.identifier(name)?;
        match value {
            Some(v) if !v.bytes().all(|b| b.is_ascii_graphic()) => {
                Err(TargetError::new(format_args!("{name}=: accepted: letters, digits and ASCII signs")))
            }
            value => Ok(value),
        }
    }

    /// `NAME-file=` or `NAME-env=`.
    pub(super) fn secret(&mut self, name: &str) -> Result<Option<Secret>> {
        let file = self.take(&format!("{name}-file"))?;
        let variable = self.take(&format!("{name}-env"))?;
        match (file, variable) {
            (Some(_), Some(_)) => Err(TargetError::new(format_args!(
                "{name}-file= and {name}-env= are both given; accepted: one of them"
            ))),
            (Some(file), None) => Ok(Some(Secret::File(file.into()))),
            (None, Some(variable)) => Ok(Some(Secret::Environment(variable))),
            (None, None) => Ok(None),
        }
    }

    /// What is left, by name: for whoever does not mind.
    pub(super) fn rest(self) -> Vec<String> {
        self.0.into_keys().map(|name| name.escape_debug().to_string()).collect()
    }

    /// Makes sure that nothing is left.
    pub(super) fn finish(self, kind: &str, accepted: &[&str]) -> Result<()> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(TargetError::new(format_args!(
                "{}: unknown option of {kind}; accepted: {}",
                name.escape_debug(),
                accepted.join(", ")
            ))),
        }
    }
}
