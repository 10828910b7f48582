//! How the text behind a value of a labelled metric is read: as the value of one
//! label, of several, or as a part of the metric's name.
//!
//! A row of a batch has one text. Where it says more than one thing, these stand one
//! behind the other with [`BREAK`] between them:
//!
//! | metric | text | read as |
//! |---|---|---|
//! | `filesystem/usage` | `/dev/sda` | `filesystem/usage{resource_id="/dev/sda"}` |
//! | `accelerator/duty_cycle` | `nvidia␟Tesla P100␟GPU-6a` | `accelerator/duty_cycle{make="nvidia",model="Tesla P100",accelerator_id="GPU-6a"}` |
//! | `*/request` | `nvidia.com/gpu` | `nvidia.com/gpu/request` |
//! | `custom/*` | `shop/queue␟kind␟mail` | `custom/shop/queue{kind="mail"}` |

use std::borrow::Cow;

use super::metrics::Metric;

/// Between the parts of a text; in none of them.
pub const BREAK: char = '\u{1f}';

/// How a metric's texts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// As the value of the label of this name.
    Of(&'static str),
    /// As the values of the labels of these names, in this order.
    Each(&'static [&'static str]),
    /// As what stands for the `*` in the metric's name, then names and values of labels in turn.
    Name,
}

impl Label {
    /// Labels and their values; of [`Label::Name`] those behind the name.
    pub fn pairs(self, text: &str) -> Vec<(&str, &str)> {
        match self {
            Label::Of(name) => vec![(name, text)],
            Label::Each(names) => names.iter().copied().zip(text.split(BREAK)).collect(),
            Label::Name => {
                let mut parts = text.split(BREAK).skip(1);
                std::iter::from_fn(|| Some((parts.next()?, parts.next()?))).collect()
            }
        }
    }

    /// The text under which a value with these labels stands; `None` where they are not
    /// those of the metric, or no text could say them.
    pub fn text(self, labels: &[(&str, &str)]) -> Option<String> {
        let value_of = |name: &str| labels.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let parts: Option<Vec<&str>> = match self {
            Label::Of(name) => value_of(name).filter(|text| !text.is_empty()).map(|text| vec![text]),
            Label::Each(names) => names.iter().map(|name| value_of(name)).collect(),
            Label::Name => return None,
        };
        let parts = parts.filter(|parts| parts.len() == labels.len())?;
        // The one part of the first kind is taken as it is.
        let said = parts.len() == 1 || parts.iter().all(|part| !part.contains(BREAK));
        said.then(|| join(parts))
    }
}

/// One text of several parts.
pub fn join<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for (at, part) in parts.into_iter().enumerate() {
        if at > 0 {
            text.push(BREAK);
        }
        text.push_str(part);
    }
    text
}

impl Metric {
    /// What a value of this metric is called that has this text.
    pub fn called_with<'a>(&self, text: Option<&'a str>) -> Cow<'a, str> {
        match (self.label, text) {
            (Some(Label::Name), Some(text)) => {
                let named = text.split(BREAK).next().unwrap_or_default();
                Cow::Owned(self.name.replacen('*', named, 1))
            }
            _ => Cow::Borrowed(self.name),
        }
    }

    /// The text under which this metric has values of that name; `None` where they are of another.
    pub fn text_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let (before, after) = self.name.split_once('*').filter(|_| self.label == Some(Label::Name))?;
        let text = name.strip_prefix(before)?.strip_suffix(after)?;
        (!text.is_empty() && !text.contains(BREAK)).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::batch::{MetricId, metric};

    fn of(id: MetricId) -> &'static Metric {
        metric(id.into()).unwrap()
    }

    #[test]
    fn texts_and_what_they_say() {
        let check = |id, text: &str, name: &str, labels: &[(&str, &str)]| {
            let metric = of(id);
            assert_eq!(metric.called_with(Some(text)), name);
            assert_eq!(metric.label.unwrap().pairs(text), labels, "{text:?}");
            if metric.label != Some(Label::Name) {
                let mut turned = labels.to_vec();
                turned.reverse();
                assert_eq!(metric.label.unwrap().text(&turned).as_deref(), Some(text));
            }
        };
        check(MetricId::FilesystemUsage, "/", "filesystem/usage", &[("resource_id", "/")]);
        let card = [("make", "nvidia"), ("model", "Tesla P100"), ("accelerator_id", "GPU-6a")];
        check(
            MetricId::AcceleratorDutyCycle,
            &join(card.map(|(_, value)| value)),
            "accelerator/duty_cycle",
            &card,
        );
        check(MetricId::ResourceRequest, "nvidia.com/gpu", "nvidia.com/gpu/request", &[]);
        let pushed = join(["shop/queue", "kind", "mail"]);
        check(MetricId::Custom, &pushed, "custom/shop/queue", &[("kind", "mail")]);
    }

    #[test]
    fn names_lead_back_to_their_texts() {
        assert_eq!(of(MetricId::ResourceRequest).text_of("nvidia.com/gpu/request"), Some("nvidia.com/gpu"));
        assert_eq!(of(MetricId::Custom).text_of("custom/shop/queue"), Some("shop/queue"));
        for (id, other) in [
            (MetricId::ResourceRequest, "/request"),
            (MetricId::ResourceRequest, "nvidia.com/gpu"),
            (MetricId::Custom, "shop/queue"),
            (MetricId::CpuUsage, "cpu/usage"),
        ] {
            assert_eq!(of(id).text_of(other), None, "{other}");
        }
    }

    #[test]
    fn labels_that_are_not_the_metrics_have_no_text() {
        let card = Label::Each(&["make", "model", "accelerator_id"]);
        let all = [("make", "a"), ("model", "b"), ("accelerator_id", "c")];
        assert_eq!(card.text(&all).as_deref(), Some("a\u{1f}b\u{1f}c"));
        assert_eq!(card.text(&all[..2]), None);
        assert_eq!(card.text(&[all[0], all[1], all[2], ("more", "d")]), None);
        assert_eq!(card.text(&[("make", "a\u{1f}b"), all[1], all[2]]), None);
        assert_eq!(Label::Of("resource_id").text(&[("other", "/")]), None);
        assert_eq!(Label::Of("resource_id").text(&[("resource_id", "")]), None);
    }
}
