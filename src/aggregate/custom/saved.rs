//! What programs push of themselves as it is written down, subject by subject.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::{Customs, Held, Kind, MOST, MOST_OF_PRODUCER, OfSubject, Series};
use crate::aggregate::model::Subject;

/// Everything of one subject.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SavedSubject {
    /// Which kind of subject, and its names.
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, repeated, tag = "2")]
    names: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    series: Vec<SavedSeries>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SavedSeries {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    producer: String,
    #[prost(bool, tag = "3")]
    counts: bool,
    /// Names and values of labels in turn.
    #[prost(string, repeated, tag = "4")]
    labels: Vec<String>,
    /// Of each point its slot and of how many values it is the mean.
    #[prost(uint64, repeated, tag = "5")]
    slots: Vec<u64>,
    #[prost(double, repeated, tag = "6")]
    values: Vec<f64>,
}

fn subject(kind: u32, names: &[String]) -> Option<Subject> {
    let names: Vec<Arc<str>> = names.iter().map(|name| Arc::from(name.as_str())).collect();
    Some(match (kind, names.as_slice()) {
        (0, []) => Subject::Cluster,
        (1, [namespace]) => Subject::Namespace(namespace.clone()),
        (2, [node]) => Subject::Node(node.clone()),
        (3, [node, container]) => Subject::System(node.clone(), container.clone()),
        (4, [namespace, pod]) => Subject::Pod(namespace.clone(), pod.clone()),
        (5, [namespace, pod, container]) => {
            Subject::Container(namespace.clone(), pod.clone(), container.clone())
        }
        _ => return None,
    })
}

fn parts(subject: &Subject) -> (u32, Vec<&Arc<str>>) {
    match subject {
        Subject::Cluster => (0, Vec::new()),
        Subject::Namespace(namespace) => (1, vec![namespace]),
        Subject::Node(node) => (2, vec![node]),
        Subject::System(node, container) => (3, vec![node, container]),
        Subject::Pod(namespace, pod) => (4, vec![namespace, pod]),
        Subject::Container(namespace, pod, container) => (5, vec![namespace, pod, container]),
    }
}

fn saved(name: &str, labels: &super::Labels, series: &Series) -> SavedSeries {
    SavedSeries {
        name: name.to_owned(),
        producer: series.producer.to_string(),
        counts: series.kind == Kind::Counter,
        labels: labels.iter().flat_map(|(key, value)| [key.clone(), value.clone()]).collect(),
        slots: series.points.iter().flat_map(|(slot, _, count)| [*slot, u64::from(*count)]).collect(),
        values: series.points.iter().map(|(_, value, _)| *value).collect(),
    }
}

impl Customs {
    /// Hands each subject to `each`, which may take its time.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn save(&self, mut each: impl FnMut(&SavedSubject) -> io::Result<()>) -> io::Result<()> {
        let subjects: Vec<Subject> = self.lock().subjects.keys().cloned().collect();
        subjects.iter().try_for_each(|subject| {
            let (kind, names) = parts(subject);
            let names = names.iter().map(ToString::to_string).collect();
            let series = {
                let held = self.lock();
                let of_subject = held.subjects.get(subject).into_iter().flatten();
                let of_name = |(name, of_name): (&Arc<str>, &std::collections::BTreeMap<_, _>)| {
                    of_name.iter().map(|(labels, series)| saved(name, labels, series)).collect::<Vec<_>>()
                };
                of_subject.flat_map(of_name).collect()
            };
            each(&SavedSubject { kind, names, series })
        })
    }

    /// Takes a subject back, but for slots up to `oldest_ms`; `None` if it cannot have been
    /// written down. Beyond as many series as may be it is left out.
    pub fn restore(&self, saved: SavedSubject, oldest_ms: u64) -> Option<()> {
        let subject = subject(saved.kind, &saved.names)?;
        let mut found = OfSubject::new();
        let mut held = self.lock();
        let Held { subjects, producers, series: count, .. } = &mut *held;
        for series in saved.series {
            let (slots, rest) = series.slots.as_chunks::<2>();
            if !rest.is_empty()
                || slots.len() != series.values.len()
                || !series.labels.len().is_multiple_of(2)
            {
                return None;
            }
            let rises = slots.is_sorted_by(|[a, _], [b, _]| a < b);
            let points = slots.iter().zip(&series.values);
            let points =
                points.map(|([slot, count], value)| Some((*slot, *value, u32::try_from(*count).ok()?)));
            let points: VecDeque<_> = points.collect::<Option<_>>().filter(|_| rises)?;
            let points: VecDeque<_> = points.into_iter().filter(|(slot, ..)| *slot > oldest_ms).collect();
            let producer: Arc<str> = Arc::from(series.producer);
            let of_producer = producers.get(&producer).copied().unwrap_or(0);
            if points.is_empty() || *count >= MOST || of_producer >= MOST_OF_PRODUCER {
                continue;
            }
            let pairs = series.labels.as_chunks::<2>().0.iter().cloned();
            let labels = pairs.map(|[key, value]| (key, value)).collect();
            let kind = if series.counts { Kind::Counter } else { Kind::Gauge };
            let kept = Series { kind, producer: Arc::clone(&producer), points };
            if found.entry(Arc::from(series.name)).or_default().insert(labels, kept).is_some() {
                return None;
            }
            *producers.entry(producer).or_default() += 1;
            *count += 1;
        }
        if found.is_empty() {
            return Some(());
        }
        subjects.insert(subject, found).is_none().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::exposition::samples;

    fn all(customs: &Customs) -> Vec<SavedSubject> {
        let mut found = Vec::new();
        customs
            .save(|subject| {
                found.push(subject.clone());
                Ok(())
            })
            .unwrap();
        found.sort_by(|a, b| (a.kind, &a.names).cmp(&(b.kind, &b.names)));
        found
    }

    #[test]
    fn everything_comes_back_and_goes_on() {
        let customs = Customs::default();
        let text = "# TYPE c counter\nc{namespace=\"a\",pod=\"p\",q=\"x\"} 7\nm 1.5\nm{namespace=\"a\"} 2\n\
                    m{node=\"n\"} 3\nm{node=\"n\",container=\"c\"} 4\nm{namespace=\"a\",pod=\"p\",container=\"c\"} 5\n";
        for slot in [1, 2] {
            customs.take("shop", &samples(text, 100).unwrap(), slot).unwrap();
        }
        let saved = all(&customs);
        assert_eq!(saved.len(), 6);
        let back = Customs::default();
        saved.iter().for_each(|subject| back.restore(subject.clone(), 0).unwrap());
        assert_eq!((all(&back), back.series(), back.digest(2)), (saved.clone(), 6, customs.digest(2)));
        // The mean of the slot goes on.
        back.take("shop", &samples("m 4.5\n", 9).unwrap(), 2).unwrap();
        assert_eq!(back.points(&Subject::Cluster, "custom/shop/m", &Vec::new(), 9), [(1, 1.5), (2, 3.0)]);
        assert_eq!(back.series(), 6);
        let late = Customs::default();
        saved.iter().for_each(|subject| late.restore(subject.clone(), 1).unwrap());
        assert_eq!((late.digest(1), late.digest(2)), (None, customs.digest(2)));
        late.clear();
        saved.iter().for_each(|subject| late.restore(subject.clone(), 2).unwrap());
        assert_eq!(late.series(), 0);
    }

    #[test]
    fn what_cannot_have_been_written_is_refused() {
        let series = SavedSeries {
            name: "custom/a/m".into(),
            slots: vec![1, 1],
            values: vec![1.0],
            ..Default::default()
        };
        let good = SavedSubject { kind: 2, names: vec!["n".into()], series: vec![series.clone()] };
        let refused = |subject: SavedSubject| Customs::default().restore(subject, 0).is_none();
        assert!(!refused(good.clone()));
        assert!(refused(SavedSubject { kind: 9, ..good.clone() }));
        assert!(refused(SavedSubject { names: Vec::new(), ..good.clone() }));
        for wrong in [
            SavedSeries { values: Vec::new(), ..series.clone() },
            SavedSeries { labels: vec!["a".into()], ..series.clone() },
            SavedSeries { slots: vec![2, 1, 1, 1], values: vec![1.0, 2.0], ..series.clone() },
            SavedSeries { slots: vec![1, u64::MAX], ..series.clone() },
        ] {
            assert!(refused(SavedSubject { series: vec![wrong.clone()], ..good.clone() }), "{wrong:?}");
        }
        assert!(refused(SavedSubject { series: vec![series.clone(), series], ..good }));
    }
}
