//! Where sources put what they know and readers find it merged.
//!
//! A source publishes its whole picture; a task merges the pictures and swaps
//! the [`Directory`], at most every few milliseconds. Readers load it without
//! waiting. The reader thread also says which ids it cannot place: those are
//! asked for again a few times, then left to the periodic refresh.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::directory::{Directory, merge_containers, merge_pods};
use super::model::{ContainerInfo, PodInfo};
use super::path::{PathIdentity, PodUid};
use super::source::{SourceState, SourceStatus};

/// Containers kept at most, over all sources.
pub const MAX_CONTAINERS: usize = 16_384;
/// Pods kept at most.
pub const MAX_PODS: usize = 4_096;
/// How long what no source names any more is kept: its cgroup may outlive it,
/// and the last sample of a vanished cgroup is shown for as long.
const KEEP_GONE: Duration = Duration::from_secs(60);
/// Changes that arrive together are merged together.
const COALESCE: Duration = Duration::from_millis(5);
/// Ids that are asked for at most; more wait for the periodic refresh.
const MAX_WANTED: usize = 4_096;
/// A cgroup appears before its runtime answers for it: asked again after 100,
/// 200, 400, 800 and 1600 ms, then no more often than [`WANT_AGAIN`].
const WANT_TRIES: u32 = 6;
const WANT_FIRST_GAP: Duration = Duration::from_millis(100);
const WANT_AGAIN: Duration = Duration::from_secs(60);
/// An id nobody asked for in this long is forgotten.
const WANT_FORGOTTEN: Duration = Duration::from_secs(300);
/// Requests to refresh are at least this far apart, and farther while they
/// find nothing.
const POKE_GAP: Duration = Duration::from_millis(100);
const FRUITLESS_POKE_GAP: Duration = Duration::from_secs(1);
const FRUITLESS_POKES: u32 = 20;

/// All that one source knows.
#[derive(Debug, Default, Clone)]
pub(super) struct View {
    pub(super) containers: HashMap<Arc<str>, Arc<ContainerInfo>>,
    pub(super) pods: HashMap<PodUid, Arc<PodInfo>>,
    /// Keyed by the beginning of the id.
    pub(super) shortened: BTreeMap<Arc<str>, Arc<ContainerInfo>>,
}

/// What the store noticed about itself; counts are since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Containers in the directory.
    pub containers: usize,
    /// Pods in the directory.
    pub pods: usize,
    /// Ids the reader could not place and that are being asked for.
    pub wanted: usize,
    /// Times a container or pod was left out because the directory was full.
    pub refused: u64,
    /// Directories made.
    pub merges: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    inner: Mutex<Inner>,
    current: ArcSwap<Directory>,
    wake: Notify,
    pokes: watch::Sender<u64>,
    changes: watch::Sender<u64>,
    refused: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    view: Arc<View>,
    status: SourceStatus,
}

#[derive(Debug, Default)]
struct Inner {
    slots: Vec<Slot>,
    dirty: bool,
    containers: HashMap<Arc<str>, Held<ContainerInfo>>,
    pods: HashMap<PodUid, Held<PodInfo>>,
    wanted: Wanted,
    merges: u64,
}

/// A merged entry and what it was merged from.
#[derive(Debug)]
struct Held<T> {
    parts: Vec<Arc<T>>,
    provisional: bool,
    merged: Arc<T>,
    gone: Option<Instant>,
}

impl Store {
    pub(super) fn new() -> Self {
        Store {
            inner: Mutex::default(),
            current: ArcSwap::from_pointee(Directory::default()),
            wake: Notify::new(),
            pokes: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Nothing panics while it holds the lock, and every state under it is complete.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a source and returns its position.
    pub(super) fn add(&self, status: SourceStatus) -> usize {
        let mut inner = self.lock();
        inner.slots.push(Slot { view: Arc::default(), status });
        inner.dirty = true;
        inner.slots.len() - 1
    }

    pub(super) fn pokes(&self) -> watch::Receiver<u64> {
        self.pokes.subscribe()
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Replaces what a source knows.
    pub(super) fn publish(&self, slot: usize, view: View) {
        let mut inner = self.lock();
        let Some(slot) = inner.slots.get_mut(slot) else { return };
        slot.status.containers = view.containers.len() + view.shortened.len();
        slot.status.pods = view.pods.len();
        slot.view = Arc::new(view);
        inner.dirty = true;
        drop(inner);
        self.wake.notify_one();
    }

    /// Changes a source's status.
    pub(super) fn update(&self, slot: usize, change: impl FnOnce(&mut SourceStatus)) {
        let mut inner = self.lock();
        let Some(slot) = inner.slots.get_mut(slot) else { return };
        let before = (slot.status.state, slot.status.tried);
        change(&mut slot.status);
        let changed = before != (slot.status.state, slot.status.tried);
        inner.dirty |= changed;
        drop(inner);
        if changed {
            self.wake.notify_one();
        }
    }

    pub(super) fn statuses(&self) -> Vec<SourceStatus> {
        self.lock().slots.iter().map(|s| s.status.clone()).collect()
    }

    pub(super) fn counts(&self) -> StoreCounts {
        let directory = self.current.load();
        let inner = self.lock();
        StoreCounts {
            containers: directory.containers.len(),
            pods: directory.pods.len(),
            wanted: inner.wanted.len(),
            refused: self.refused.load(Ordering::Relaxed),
            merges: inner.merges,
        }
    }

    pub(super) fn directory(&self) -> Arc<Directory> {
        self.current.load_full()
    }

    /// Says that a path's container or pod is not in the directory. Never
    /// waits: when the lock is taken, the next tick asks again.
    pub(super) fn want(&self, path: &PathIdentity<'_>, now: Instant) {
        let Ok(mut inner) = self.inner.try_lock() else { return };
        if inner.wanted.ask(path, now) {
            drop(inner);
            self.wake.notify_one();
        }
    }

    /// Merges, expires and asks again, for ever.
    pub(super) async fn run(&self) {
        loop {
            let pause = self.step(Instant::now());
            tokio::select! {
                () = self.wake.notified() => tokio::time::sleep(COALESCE).await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Does what is due and says when the next thing is.
    pub(super) fn step(&self, now: Instant) -> Duration {
        let mut inner = self.lock();
        let expiry = inner.next_expiry(now);
        if inner.dirty || expiry.is_some_and(|left| left.is_zero()) {
            inner.dirty = false;
            inner.merges += 1;
            let (next, refused) = inner.merge(&self.current.load(), now);
            self.refused.fetch_add(refused, Ordering::Relaxed);
            if let Some(next) = next {
                inner.wanted.settle(&next);
                self.current.store(Arc::new(next));
            }
            self.changes.send_modify(|n| *n += 1);
        }
        let (poke, want) = inner.wanted.due(now);
        let expiry = inner.next_expiry(now);
        drop(inner);
        if poke {
            self.pokes.send_modify(|n| *n += 1);
        }
        [want, expiry].into_iter().flatten().min().unwrap_or(WANT_AGAIN)
    }

    /// Whether every source has answered or failed at least once, and what
    /// they said is in the directory.
    pub(super) fn is_settled(&self) -> bool {
        let inner = self.lock();
        !inner.dirty && inner.slots.iter().all(|s| s.status.tried)
    }
}

impl Inner {
    fn next_expiry(&self, now: Instant) -> Option<Duration> {
        let gone =
            self.containers.values().filter_map(|h| h.gone).chain(self.pods.values().filter_map(|h| h.gone));
        gone.min().map(|since| KEEP_GONE.saturating_sub(now.duration_since(since)))
    }

    /// The next directory if it differs from `last`, and how many entries found no room.
    fn merge(&mut self, last: &Directory, now: Instant) -> (Option<Directory>, u64) {
        let answers = |s: &Slot| matches!(s.status.state, SourceState::Starting | SourceState::Up);
        let expecting = self.slots.iter().any(answers);
        let runtime_answers = self.slots.iter().any(|s| answers(s) && s.status.kind.is_runtime());

        let mut order: Vec<&Slot> = self.slots.iter().collect();
        order.sort_by_key(|s| s.status.kind.container_rank());
        let mut parts: HashMap<&Arc<str>, (Vec<Arc<ContainerInfo>>, bool)> = HashMap::new();
        for slot in &order {
            for (id, info) in &slot.view.containers {
                let (parts, named_by_runtime) = parts.entry(id).or_default();
                parts.push(Arc::clone(info));
                *named_by_runtime |= slot.status.kind.is_runtime();
            }
        }
        let mut changed = false;
        let mut refused = 0;
        // A runtime that answers will name the container itself, perhaps with
        // another spelling of its image: until then the name is provisional.
        let parts = parts
            .into_iter()
            .map(|(id, (parts, by_runtime))| (Arc::clone(id), parts, runtime_answers && !by_runtime));
        refused +=
            hold(&mut self.containers, parts, MAX_CONTAINERS, now, &mut changed, |parts, provisional| {
                merge_containers(parts, provisional)
            });

        order.sort_by_key(|s| s.status.kind.pod_rank());
        let mut parts: HashMap<PodUid, Vec<Arc<PodInfo>>> = HashMap::new();
        for slot in &order {
            for (uid, info) in &slot.view.pods {
                parts.entry(*uid).or_default().push(Arc::clone(info));
            }
        }
        // A pod of which only containers tell.
        for slot in &order {
            for pod in slot.view.containers.values().filter_map(|c| c.pod.as_ref()) {
                let Some(uid) = pod.uid else { continue };
                if let Entry::Vacant(vacant) = parts.entry(uid) {
                    let info = PodInfo::new(uid, Arc::clone(&pod.namespace), Arc::clone(&pod.name));
                    vacant.insert(vec![Arc::new(info)]);
                }
            }
        }
        let parts = parts.into_iter().map(|(uid, parts)| (uid, parts, false));
        refused += hold(&mut self.pods, parts, MAX_PODS, now, &mut changed, |parts, _| merge_pods(parts));

        let mut shortened = BTreeMap::new();
        for slot in &order {
            shortened.extend(slot.view.shortened.iter().map(|(k, v)| (Arc::clone(k), Arc::clone(v))));
        }
        changed |= shortened != last.shortened || expecting != last.expecting;
        if !changed {
            return (None, refused);
        }
        let next = Directory {
            generation: last.generation + 1,
            expecting,
            containers: self
                .containers
                .iter()
                .map(|(id, h)| (Arc::clone(id), Arc::clone(&h.merged)))
                .collect(),
            pods: self.pods.iter().map(|(uid, h)| (*uid, Arc::clone(&h.merged))).collect(),
            shortened,
        };
        (Some(next), refused)
    }
}

/// Brings the held entries up to what the sources say now: unchanged ones keep
/// their `Arc`, vanished ones stay for a while, and past `room` the vanished
/// go first. Returns how many found no room.
fn hold<K: Clone + Eq + std::hash::Hash, T: PartialEq>(
    held: &mut HashMap<K, Held<T>>,
    parts: impl Iterator<Item = (K, Vec<Arc<T>>, bool)>,
    room: usize,
    now: Instant,
    changed: &mut bool,
    merge: impl Fn(&[Arc<T>], bool) -> Option<Arc<T>>,
) -> u64 {
    let mut before = std::mem::take(held);
    let mut refused = 0;
    for (key, parts, provisional) in parts {
        if held.len() >= room {
            refused += 1;
            continue;
        }
        let old = before.remove(&key);
        if let Some(old) = old {
            let same = old.parts.len() == parts.len()
                && old.parts.iter().zip(&parts).all(|(a, b)| Arc::ptr_eq(a, b))
                && old.provisional == provisional;
            let merged = if same { Some(Arc::clone(&old.merged)) } else { merge(&parts, provisional) };
            let Some(mut merged) = merged else { continue };
            if !same && *merged == *old.merged {
                merged = old.merged;
            } else if !same {
                *changed = true;
            }
            held.insert(key, Held { parts, provisional, merged, gone: None });
        } else if let Some(merged) = merge(&parts, provisional) {
            *changed = true;
            held.insert(key, Held { parts, provisional, merged, gone: None });
        }
    }
    for (key, mut old) in before {
        let since = *old.gone.get_or_insert(now);
        if now.duration_since(since) >= KEEP_GONE || held.len() >= room {
            *changed = true;
        } else {
            held.insert(key, old);
        }
    }
    refused
}

/// Ids and UIDs that the reader saw and no source named.
#[derive(Debug, Default)]
struct Wanted {
    containers: HashMap<Box<str>, Want>,
    pods: HashMap<PodUid, Want>,
    last_poke: Option<Instant>,
    fruitless: u32,
}

#[derive(Debug)]
struct Want {
    asked: Instant,
    tries: u32,
    next: Instant,
}

impl Want {
    fn new(now: Instant) -> Self {
        Want { asked: now, tries: 0, next: now }
    }
}

impl Wanted {
    fn len(&self) -> usize {
        self.containers.len() + self.pods.len()
    }

    /// Whether this is news.
    fn ask(&mut self, path: &PathIdentity<'_>, now: Instant) -> bool {
        let known = match (path.container, path.pod) {
            (Some(id), _) => self.containers.get_mut(id),
            (None, Some(uid)) => self.pods.get_mut(&uid),
            (None, None) => return false,
        };
        if let Some(known) = known {
            known.asked = now;
            return false;
        }
        if self.len() >= MAX_WANTED && !self.make_room(now) {
            return false;
        }
        match (path.container, path.pod) {
            (Some(id), _) => drop(self.containers.insert(id.into(), Want::new(now))),
            (None, Some(uid)) => drop(self.pods.insert(uid, Want::new(now))),
            (None, None) => {}
        }
        true
    }

    /// Forgets what was not asked for the longest: its cgroup has gone.
    fn make_room(&mut self, now: Instant) -> bool {
        let asked = self.containers.values().chain(self.pods.values()).map(|w| w.asked);
        let Some(oldest) = asked.min().filter(|asked| *asked < now) else { return false };
        self.containers.retain(|_, w| w.asked > oldest);
        self.pods.retain(|_, w| w.asked > oldest);
        true
    }

    /// Drops what the directory has.
    fn settle(&mut self, directory: &Directory) {
        let before = self.len();
        self.containers.retain(|id, _| directory.container(id).is_none());
        self.pods.retain(|uid, _| directory.pod(*uid).is_none());
        if self.len() < before {
            self.fruitless = 0;
        }
    }

    /// Whether to ask the sources now, and how long until the next time.
    fn due(&mut self, now: Instant) -> (bool, Option<Duration>) {
        self.containers.retain(|_, w| now.duration_since(w.asked) < WANT_FORGOTTEN);
        self.pods.retain(|_, w| now.duration_since(w.asked) < WANT_FORGOTTEN);
        let gap = if self.fruitless < FRUITLESS_POKES { POKE_GAP } else { FRUITLESS_POKE_GAP };
        let too_soon = self.last_poke.map(|last| gap.saturating_sub(now.duration_since(last)));
        let too_soon = too_soon.filter(|left| !left.is_zero());
        let mut poke = false;
        let mut next: Option<Instant> = None;
        for want in self.containers.values_mut().chain(self.pods.values_mut()) {
            if want.next <= now && too_soon.is_none() {
                poke = true;
                want.next = now
                    + if want.tries < WANT_TRIES { WANT_FIRST_GAP * (1 << want.tries) } else { WANT_AGAIN };
                want.tries = want.tries.saturating_add(1).min(WANT_TRIES);
            }
            next = Some(next.map_or(want.next, |n| n.min(want.next)));
        }
        if poke {
            self.last_poke = Some(now);
            self.fruitless = self.fruitless.saturating_add(1);
        }
        let wait = next.map(|at| at.saturating_duration_since(now).max(too_soon.unwrap_or(POKE_GAP)));
        (poke, wait)
    }
}

#[cfg(test)]
mod tests {
    use super::super::path::parse;
    use super::super::source::SourceKind;
    use super::*;

    const UID: &str = "0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5d";

    fn id(seed: usize) -> String {
        format!("{seed:064x}")
    }

    fn view(seeds: impl IntoIterator<Item = usize>) -> View {
        let info = |seed| (Arc::from(id(seed)), Arc::new(ContainerInfo::new(id(seed).into())));
        View { containers: seeds.into_iter().map(info).collect(), ..View::default() }
    }

    fn store() -> (Store, usize) {
        let store = Store::new();
        let slot = store.add(SourceStatus::new(SourceKind::Cri, "containerd", "/x"));
        (store, slot)
    }

    #[test]
    fn what_is_gone_stays_a_minute() {
        let (store, slot) = store();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        store.publish(slot, view([1, 2]));
        store.step(start);
        let first = store.directory();
        store.publish(slot, view([2]));
        store.step(after(1));
        assert!(store.directory().container(&id(1)).is_some());
        assert!(Arc::ptr_eq(first.container(&id(2)).unwrap(), store.directory().container(&id(2)).unwrap()));
        // Nothing that shows has changed.
        assert_eq!(store.directory().generation(), first.generation());
        let pause = store.step(after(50));
        assert!(pause <= Duration::from_secs(11), "{pause:?}");
        assert!(store.directory().container(&id(1)).is_some());
        store.step(after(61));
        assert!(store.directory().container(&id(1)).is_none());
        assert_eq!(store.directory().generation(), first.generation() + 1);
        // Back within the minute: as if it had never been away.
        store.publish(slot, view([]));
        store.step(after(70));
        store.publish(slot, view([2]));
        store.step(after(80));
        store.step(after(200));
        assert!(store.directory().container(&id(2)).is_some());
    }

    #[test]
    fn the_directory_is_bounded() {
        let (store, slot) = store();
        store.publish(slot, view(0..MAX_CONTAINERS + 5));
        store.step(Instant::now());
        let counts = store.counts();
        assert_eq!((counts.containers, counts.refused), (MAX_CONTAINERS, 5));
        // New ones take the room of those that are gone.
        store.publish(slot, view(MAX_CONTAINERS + 5..2 * MAX_CONTAINERS + 5));
        store.step(Instant::now());
        assert_eq!(store.counts().containers, MAX_CONTAINERS);
        assert!(store.directory().container(&id(MAX_CONTAINERS + 5)).is_some());
    }

    #[test]
    fn containers_make_their_pods_known() {
        let (store, slot) = store();
        let uid = PodUid::parse(UID).unwrap();
        let pod = super::super::model::PodRef { uid: Some(uid), namespace: "n".into(), name: "p".into() };
        let info = ContainerInfo { pod: Some(pod), ..ContainerInfo::new(id(1).into()) };
        let containers = HashMap::from([(Arc::from(id(1)), Arc::new(info))]);
        store.publish(slot, View { containers, ..View::default() });
        store.step(Instant::now());
        let known = store.directory().pod(uid).cloned().unwrap();
        assert_eq!((&*known.namespace, &*known.name), ("n", "p"));
        let again = View::clone(&store.lock().slots[slot].view);
        store.publish(slot, again);
        store.step(Instant::now());
        assert!(Arc::ptr_eq(&known, store.directory().pod(uid).unwrap()));
    }

    #[test]
    fn asking_grows_rarer_and_ends() {
        let (store, slot) = store();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let path = format!("/kubepods/pod{UID}/{}", id(1));
        let mut pokes = store.pokes();
        let mut asked = Vec::new();
        for ms in (0..130_000).step_by(50) {
            store.want(&parse(&path), at(ms));
            store.step(at(ms));
            if pokes.has_changed().unwrap() {
                pokes.mark_unchanged();
                asked.push(ms);
            }
        }
        assert_eq!(asked, [0, 100, 300, 700, 1500, 3100, 6300, 66_300, 126_300]);
        // Named: nothing is wanted any more.
        store.publish(slot, view([1]));
        store.step(at(130_000));
        assert_eq!(store.counts().wanted, 0);
    }

    #[test]
    fn floods_of_unknown_ids_are_bounded() {
        let (store, _) = store();
        let start = Instant::now();
        let mut pokes = store.pokes();
        let mut asked = 0;
        for ms in (0..60_000).step_by(10) {
            let now = start + Duration::from_millis(ms);
            for n in 0..2 {
                let path = format!("/docker/{}", id(usize::try_from(ms).unwrap() + n));
                store.want(&parse(&path), now);
            }
            store.step(now);
            if pokes.has_changed().unwrap() {
                pokes.mark_unchanged();
                asked += 1;
            }
        }
        assert!(store.counts().wanted > MAX_WANTED - 3);
        assert!((60..100).contains(&asked), "{asked}");
        // A pod's own cgroup is asked for by its UID; other cgroups are not asked for.
        store.step(start + Duration::from_secs(60) + WANT_FORGOTTEN);
        assert_eq!(store.counts().wanted, 0);
        for path in ["/", "/system.slice", &format!("/kubepods/pod{UID}"), &format!("/kubepods/pod{UID}")] {
            store.want(&parse(path), start + Duration::from_secs(400));
        }
        assert_eq!(store.counts().wanted, 1);
    }
}
