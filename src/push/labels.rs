//! How labels of pods and nodes are shown where there is one text for all of them, as
//! Heapster's flags say: joined, some left out, some beside it under names of
//! their own.

use std::collections::BTreeSet;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRules {
    separator: String,
    /// Name it is stored under, and the label it is.
    stored: Vec<(String, String)>,
    ignored: BTreeSet<String>,
}

impl Default for LabelRules {
    fn default() -> Self {
        LabelRules { separator: ",".to_owned(), stored: Vec::new(), ignored: BTreeSet::new() }
    }
}

impl LabelRules {
    /// What `--label-separator`, `--store-label` (`NAME` or `NEW=OLD`) and
    /// `--ignore-label` say.
    ///
    /// # Errors
    /// The one of `stored` that is none.
    pub fn new(separator: Option<&str>, stored: &[String], ignored: &[String]) -> Result<LabelRules, String> {
        let mut rules = LabelRules { ignored: ignored.iter().cloned().collect(), ..LabelRules::default() };
        rules.separator = separator.unwrap_or(",").to_owned();
        for text in stored {
            let (new, old) = text.split_once('=').unwrap_or((text, text));
            if new.is_empty() || old.is_empty() {
                return Err(text.clone());
            }
            rules.stored.push((new.to_owned(), old.to_owned()));
        }
        Ok(rules)
    }

    /// All labels but the ignored ones as one text, `KEY:VALUE`; `None` if there
    /// are none. They are to come in order.
    pub fn joined<'l>(&self, labels: impl IntoIterator<Item = (&'l str, &'l str)>) -> Option<String> {
        let mut text = String::new();
        for (key, value) in labels.into_iter().filter(|(key, _)| !self.ignored.contains(*key)) {
            if !text.is_empty() {
                text.push_str(&self.separator);
            }
            text.extend([key, ":", value]);
        }
        (!text.is_empty()).then_some(text)
    }

    /// The labels that are also shown by themselves, under their names there.
    pub fn stored<'l>(
        &self,
        labels: impl IntoIterator<Item = (&'l str, &'l str), IntoIter: Clone>,
    ) -> impl Iterator<Item = (&str, &'l str)> {
        let labels = labels.into_iter();
        self.stored.iter().filter_map(move |(new, old)| {
            let (_, value) = labels.clone().find(|(key, _)| key == old)?;
            Some((new.as_str(), value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: [(&str, &str); 3] = [("app", "web"), ("tier", "x"), ("zone", "z1")];

    fn rules(separator: Option<&str>, stored: &[&str], ignored: &[&str]) -> Result<LabelRules, String> {
        let owned = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        LabelRules::new(separator, &owned(stored), &owned(ignored))
    }

    #[test]
    fn joined_ignored_and_stored() {
        assert_eq!(LabelRules::default().joined(LABELS).as_deref(), Some("app:web,tier:x,zone:z1"));
        let some = rules(Some("; "), &["team=tier", "app", "none"], &["app"]).unwrap();
        assert_eq!(some.joined(LABELS).as_deref(), Some("tier:x; zone:z1"));
        assert_eq!(some.stored(LABELS).collect::<Vec<_>>(), [("team", "x"), ("app", "web")]);
        assert_eq!(LabelRules::default().joined([]), None);
        assert_eq!(rules(None, &["=a"], &[]), Err("=a".to_owned()));
    }
}
