//! Metrics that programs push about themselves, under names of their own:
//! `custom/PRODUCER/FAMILY`, of the entity that their labels name.
//!
//! A value counts for the slot that is open when it comes. Of gauges that come several
//! times in a slot it is the mean, of counters the last. Series are bounded, of each
//! producer and of all; one that nothing came for goes with its last slot.

mod saved;

pub use saved::SavedSubject;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use super::exposition::Kind;
use super::exposition::Sample;
use super::model::Subject;

/// Series of one producer.
pub const MOST_OF_PRODUCER: usize = 10_000;
/// Series of all: some 30 MiB with a quarter of an hour of each.
const MOST: usize = 50_000;

/// Labels that say which entity is meant, and nothing else about the value.
const ENTITY: [&str; 5] = ["namespace", "pod", "container", "node", "service"];
/// Labels that say again what the entity's key says.
const REPEATED: [&str; 8] = [
    "nodename",
    "hostname",
    "host_id",
    "namespace_name",
    "pod_id",
    "pod_name",
    "pod_namespace",
    "container_name",
];

/// What tells several values of one metric of an entity apart.
pub type Labels = Vec<(String, String)>;

/// Times and values, from old to new.
pub type Points = Vec<(u64, f64)>;

/// Why values were not taken; none of their push was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Labels name no entity there can be.
    #[error("{0}: {1}")]
    Labels(String, &'static str),
    /// There are as many series as may be.
    #[error("more than {0} series")]
    TooMany(usize),
    /// It has as many names in this slot as a producer may have.
    #[error("more than {0} names in one step; accepted: as many as --max-push-metrics says")]
    Names(usize),
}

#[derive(Debug)]
struct Series {
    kind: Kind,
    producer: Arc<str>,
    /// Slot, value, and of how many values it is the mean; the newest last.
    points: VecDeque<(u64, f64, u32)>,
}

type OfSubject = BTreeMap<Arc<str>, BTreeMap<Labels, Series>>;

#[derive(Debug, Default)]
struct Held {
    subjects: HashMap<Subject, OfSubject>,
    producers: HashMap<Arc<str>, usize>,
    series: usize,
    /// The newest slot, and what each producer has named in it.
    named: (u64, HashMap<Arc<str>, HashSet<String>>),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Customs {
    held: Mutex<Held>,
    /// Different names of a producer in one slot; `None` for any number.
    names: Option<usize>,
}

/// Whom a sample is about, what it is called there, and its other labels.
fn placed(producer: &str, sample: &Sample) -> Result<(Subject, String, Labels), Refused> {
    let label = |name: &str| sample.labels.get(name).filter(|v| !v.is_empty()).map(|v| Arc::from(v.as_str()));
    let [namespace, pod, container, node, service]: [Option<Arc<str>>; 5] = ENTITY.map(label);
    let mut name = format!("custom/{producer}/");
    let subject = match (namespace, pod, container, node, service) {
        (None, None, None, None, None) => Subject::Cluster,
        (Some(namespace), None, None, None, None) => Subject::Namespace(namespace),
        (Some(namespace), None, None, None, Some(service)) => {
            name += &format!("{service}/");
            Subject::Namespace(namespace)
        }
        (Some(namespace), Some(pod), None, None, None) => Subject::Pod(namespace, pod),
        (Some(namespace), Some(pod), Some(container), None, None) => {
            Subject::Container(namespace, pod, container)
        }
        (None, None, None, Some(node), None) => Subject::Node(node),
        (None, None, Some(container), Some(node), None) => Subject::System(node, container),
        _ => {
            let accepted =
                "accepted together: namespace, pod and container; node and container; namespace and service";
            return Err(Refused::Labels(sample.family.clone(), accepted));
        }
    };
    name += &sample.family;
    let others = sample.labels.iter().filter(|(key, value)| {
        !ENTITY.contains(&key.as_str()) && !REPEATED.contains(&key.as_str()) && !value.is_empty()
    });
    Ok((subject, name, others.map(|(key, value)| (key.clone(), value.clone())).collect()))
}

impl Customs {
    /// With at most so many different names of a producer in one slot.
    pub fn with_names(names: Option<usize>) -> Customs {
        Customs { names, ..Customs::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // What is protected is whole between two series: a panic elsewhere changes nothing.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what a producer pushed, for the slot that ends at `slot_ms`.
    ///
    /// # Errors
    /// It cannot be placed or there is no room; then nothing of it was taken.
    pub fn take(&self, producer: &str, samples: &[Sample], slot_ms: u64) -> Result<(), Refused> {
        let placed: Vec<_> =
            samples.iter().map(|sample| placed(producer, sample)).collect::<Result<_, _>>()?;
        let mut held = self.lock();
        let is_new = |(subject, name, labels): &&(Subject, String, Labels)| {
            let of_name = held.subjects.get(subject).and_then(|names| names.get(name.as_str()));
            of_name.is_none_or(|series| !series.contains_key(labels))
        };
        // Some may be there twice: then fewer are taken than there would be room for.
        let new = placed.iter().filter(is_new).count();
        for (held, most) in
            [(held.producers.get(producer).copied().unwrap_or(0), MOST_OF_PRODUCER), (held.series, MOST)]
        {
            if held + new > most {
                return Err(Refused::TooMany(most));
            }
        }
        let producer: Arc<str> = Arc::from(producer);
        if let Some(most) = self.names {
            let (slot, of_producers) = &mut held.named;
            if *slot != slot_ms {
                (*slot, *of_producers) = (slot_ms, HashMap::new());
            }
            let of_producer = of_producers.entry(Arc::clone(&producer)).or_default();
            let new: HashSet<&String> =
                placed.iter().map(|(_, name, _)| name).filter(|name| !of_producer.contains(*name)).collect();
            if of_producer.len() + new.len() > most {
                return Err(Refused::Names(most));
            }
            let new: Vec<String> = new.into_iter().cloned().collect();
            of_producer.extend(new);
        }
        let mut added = 0;
        for (sample, (subject, name, labels)) in samples.iter().zip(placed) {
            let names = held.subjects.entry(subject).or_default();
            let of_name = match names.get_mut(name.as_str()) {
                Some(of_name) => of_name,
                None => names.entry(Arc::from(name)).or_default(),
            };
            let series = of_name.entry(labels).or_insert_with(|| {
                added += 1;
                Series { kind: sample.kind, producer: Arc::clone(&producer), points: VecDeque::new() }
            });
            series.kind = sample.kind;
            match (series.points.back_mut(), sample.kind) {
                (Some((slot, value, count)), Kind::Gauge) if *slot == slot_ms => {
                    *count = count.saturating_add(1);
                    *value += (sample.value - *value) / f64::from(*count);
                }
                (Some((slot, value, _)), Kind::Counter) if *slot == slot_ms => *value = sample.value,
                // The clock went back: what is newer stays.
                (Some((slot, ..)), _) if *slot > slot_ms => {}
                _ => series.points.push_back((slot_ms, sample.value, 1)),
            }
        }
        held.series += added;
        *held.producers.entry(producer).or_default() += added;
        Ok(())
    }

    /// Forgets slots up to `oldest_ms`, and series that have no other.
    pub fn forget(&self, oldest_ms: u64) {
        let mut held = self.lock();
        let Held { subjects, producers, series: count, .. } = &mut *held;
        subjects.retain(|_, names| {
            names.retain(|_, of_name| {
                of_name.retain(|_, series| {
                    while series.points.front().is_some_and(|(slot, ..)| *slot <= oldest_ms) {
                        series.points.pop_front();
                    }
                    let stays = !series.points.is_empty();
                    if !stays {
                        *count -= 1;
                        if let Some(of_producer) = producers.get_mut(&series.producer) {
                            *of_producer -= 1;
                        }
                    }
                    stays
                });
                !of_name.is_empty()
            });
            !names.is_empty()
        });
        producers.retain(|_, count| *count > 0);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.lock() = Held::default();
    }

    /// Series there are, of all producers.
    pub fn series(&self) -> usize {
        self.lock().series
    }

    /// Names of a subject's metrics that have a value without other labels in a closed slot, in order.
    pub fn names(&self, subject: &Subject, closed_ms: u64) -> Vec<Arc<str>> {
        let held = self.lock();
        let of_subject = held.subjects.get(subject).into_iter().flatten();
        let plain = |series: &BTreeMap<Labels, Series>| {
            let points = series.get(&Vec::new()).and_then(|series| series.points.front());
            points.is_some_and(|(slot, ..)| *slot <= closed_ms)
        };
        of_subject.filter(|(_, series)| plain(series)).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Values of a subject's metric in closed slots, with just these other labels.
    pub fn points(&self, subject: &Subject, name: &str, labels: &Labels, closed_ms: u64) -> Points {
        let held = self.lock();
        let series = held.subjects.get(subject).and_then(|names| names.get(name)?.get(labels));
        let points = series.into_iter().flat_map(|series| &series.points);
        points.filter(|(slot, ..)| *slot <= closed_ms).map(|(slot, value, _)| (*slot, *value)).collect()
    }

    /// What tells the values of a slot from others it may have had; `None` where it has none.
    pub fn digest(&self, slot_ms: u64) -> Option<u64> {
        let mut sum = None;
        self.at(slot_ms, |subject, figures| {
            for (name, _, labels, value) in figures {
                let mut hasher = DefaultHasher::new();
                (subject, name, labels, value.to_bits()).hash(&mut hasher);
                // In any order: what the sum is of comes out of a map.
                sum = Some(hasher.finish().wrapping_add(sum.unwrap_or(0)));
            }
        });
        sum
    }

    /// Hands every subject that has values in a slot to `each`, with names, kinds, labels and values.
    pub fn at(&self, slot_ms: u64, mut each: impl FnMut(&Subject, &[(&str, Kind, &Labels, f64)])) {
        let held = self.lock();
        for (subject, names) in &held.subjects {
            let mut found = Vec::new();
            for (name, of_name) in names {
                for (labels, series) in of_name {
                    let point = series.points.iter().rev().find(|(slot, ..)| *slot == slot_ms);
                    found.extend(point.map(|(_, value, _)| (&**name, series.kind, labels, *value)));
                }
            }
            if !found.is_empty() {
                each(subject, &found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn take(customs: &Customs, slot: u64, text: &str) -> Result<(), Refused> {
        customs.take("shop", &super::super::exposition::samples(text, 100_000).unwrap(), slot * MINUTE)
    }

    fn pod() -> Subject {
        Subject::Pod(Arc::from("a"), Arc::from("p"))
    }

    #[test]
    fn labels_say_whom() {
        let customs = Customs::default();
        let text = "m 1\nm{namespace=\"a\"} 2\nm{namespace=\"a\",service=\"s\"} 3\nm{namespace=\"a\",pod=\"p\",pod_name=\"p\"} 4\n\
                    m{namespace=\"a\",pod=\"p\",container=\"c\"} 5\nm{node=\"n\"} 6\nm{node=\"n\",container=\"c\"} 7\n";
        take(&customs, 1, text).unwrap();
        let text = |text: &str| -> Arc<str> { Arc::from(text) };
        for (subject, name, value) in [
            (Subject::Cluster, "custom/shop/m", 1.0),
            (Subject::Namespace(text("a")), "custom/shop/m", 2.0),
            (Subject::Namespace(text("a")), "custom/shop/s/m", 3.0),
            (pod(), "custom/shop/m", 4.0),
            (Subject::Container(text("a"), text("p"), text("c")), "custom/shop/m", 5.0),
            (Subject::Node(text("n")), "custom/shop/m", 6.0),
            (Subject::System(text("n"), text("c")), "custom/shop/m", 7.0),
        ] {
            assert_eq!(customs.points(&subject, name, &Vec::new(), MINUTE), [(MINUTE, value)], "{subject:?}");
            assert!(customs.names(&subject, MINUTE).iter().any(|n| **n == *name));
            assert!(customs.names(&subject, MINUTE - 1).is_empty(), "its slot is open");
        }
        for wrong in ["pod=\"p\"", "namespace=\"a\",node=\"n\"", "container=\"c\"", "service=\"s\""] {
            let refused = take(&customs, 2, &format!("good 1\nm{{{wrong}}} 1\n")).unwrap_err();
            assert!(matches!(refused, Refused::Labels(family, _) if family == "m"), "{wrong}");
        }
        assert!(customs.points(&Subject::Cluster, "custom/shop/good", &Vec::new(), 9 * MINUTE).is_empty());
    }

    #[test]
    fn of_gauges_the_mean_and_of_counters_the_last() {
        let customs = Customs::default();
        let push = |slot, value| {
            let text = format!(
                "# TYPE c counter\nc{{namespace=\"a\",pod=\"p\",q=\"x\"}} {value}\ng{{namespace=\"a\",pod=\"p\"}} {value}\n"
            );
            take(&customs, slot, &text).unwrap();
        };
        for (slot, value) in [(1, 1), (1, 2), (1, 6), (2, 9), (1, 100)] {
            push(slot, value);
        }
        let of_queue = vec![("q".to_owned(), "x".to_owned())];
        let points = |name: &str, labels: &Labels| customs.points(&pod(), name, labels, 9 * MINUTE);
        assert_eq!(points("custom/shop/g", &Vec::new()), [(MINUTE, 3.0), (2 * MINUTE, 9.0)]);
        assert_eq!(points("custom/shop/c", &of_queue), [(MINUTE, 6.0), (2 * MINUTE, 9.0)]);
        assert_eq!(points("custom/shop/c", &Vec::new()), []);
        assert_eq!(customs.names(&pod(), 9 * MINUTE), [Arc::from("custom/shop/g")], "no labelled ones");
        let mut at = Vec::new();
        customs.at(2 * MINUTE, |subject, found| at.push((subject.clone(), found.len())));
        assert_eq!(at, [(pod(), 2)]);
        customs.forget(MINUTE);
        assert_eq!((points("custom/shop/g", &Vec::new()), customs.series()), (vec![(2 * MINUTE, 9.0)], 2));
        customs.forget(2 * MINUTE);
        assert_eq!((customs.series(), customs.names(&pod(), u64::MAX).len()), (0, 0));
    }

    #[test]
    fn there_is_an_end_to_it() {
        let customs = Customs::default();
        let text = |from: usize, to: usize| (from..to).map(|n| format!("m{n} 1\n")).collect::<String>();
        take(&customs, 1, &text(0, MOST_OF_PRODUCER)).unwrap();
        assert_eq!(take(&customs, 1, "more 1\n"), Err(Refused::TooMany(MOST_OF_PRODUCER)));
        // What is there already is still taken, and room comes back with time.
        take(&customs, 2, &text(0, 10)).unwrap();
        customs.forget(MINUTE);
        assert_eq!(customs.series(), 10);
        take(&customs, 2, "more 1\n").unwrap();
    }

    #[test]
    fn names_of_a_producer_in_a_slot_are_limited_where_that_is_asked_for() {
        let customs = Customs::with_names(Some(2));
        assert_eq!(take(&customs, 1, "a{node=\"n\"} 1\na{node=\"m\"} 1\nb 1\n"), Ok(()));
        assert_eq!(take(&customs, 1, "b 2\nc 1\n"), Err(Refused::Names(2)));
        assert_eq!(take(&customs, 1, "b 3\n"), Ok(()), "it is known");
        assert_eq!(take(&customs, 2, "c 1\n"), Ok(()), "the next slot");
        let none = Vec::new();
        assert_eq!(
            customs.points(&Subject::Cluster, "custom/shop/c", &none, 2 * MINUTE),
            [(2 * MINUTE, 1.0)]
        );
    }
}
