//! Names without any API: the kubelet's log directories.
//!
//! ```text
//! /var/log/containers/<pod>_<namespace>_<container>-<id>.log -> /var/log/pods/<namespace>_<pod>_<uid>/<container>/<attempt>.log
//! ```
//!
//! Needs nothing but leave to read the two directories. Neither tells images,
//! labels or sandboxes. A link's name is at most 255 bytes long, and what is too
//! long is cut before `.log`: then only the beginning of the id is known.

use std::collections::HashMap;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::task::JoinHandle;

use super::model::{ContainerInfo, Labels, Names, PodContainer, PodInfo, PodRef};
use super::path::{PodUid, is_container_id};
use super::source::{Feed, Session, Source, SourceError, within};
use super::store::{MAX_CONTAINERS, MAX_PODS, View};

/// Digits of a cut id that still tell it from all others on a node.
const MIN_PREFIX: usize = 12;

/// See the module.
#[derive(Debug)]
pub(super) struct LogLinks {
    containers: PathBuf,
    pods: PathBuf,
    /// A reading that hung; there is no second one beside it.
    reading: Option<JoinHandle<io::Result<Found>>>,
}

/// What the names in the directories say.
#[derive(Debug, Default)]
struct Found {
    links: Vec<Link>,
    pods: Vec<(PodName, Vec<String>)>,
    rejected: u64,
}

/// `<namespace>_<pod>_<uid>`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PodName {
    namespace: String,
    pod: String,
    uid: String,
}

/// A link in the containers directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    namespace: String,
    pod: String,
    container: String,
    id: String,
    /// From the target, where it could be read.
    uid: Option<String>,
    attempt: Option<u32>,
}

impl LogLinks {
    pub(super) fn new(containers: PathBuf, pods: PathBuf) -> Self {
        LogLinks { containers, pods, reading: None }
    }

    async fn follow(&mut self, feed: &mut Feed) -> Result<Infallible, SourceError> {
        feed.version("log directories".to_owned());
        feed.events(false);
        let mut last = None;
        loop {
            let started = Instant::now();
            // New names change the times of the directories.
            let times = (modified(&self.containers), modified(&self.pods));
            if last != Some(times) {
                let found = within("read the log directories", feed.timing.list, self.read()).await?;
                feed.rejected(found.rejected);
                let view = view(&found, &mut feed.names);
                feed.publish(view);
                last = Some(times);
            }
            feed.answered(started.elapsed());
            feed.refresh_due(feed.timing.gap).await;
        }
    }

    async fn read(&mut self) -> Result<Found, SourceError> {
        const WHAT: &str = "read the log directories";
        let (containers, pods) = (self.containers.clone(), self.pods.clone());
        let reading =
            self.reading.get_or_insert_with(|| tokio::task::spawn_blocking(move || read(&containers, &pods)));
        let found = reading.await;
        self.reading = None;
        found.map_err(|e| SourceError::failed(WHAT, e))?.map_err(|e| SourceError::io(WHAT, &e))
    }
}

impl Source for LogLinks {
    fn session<'a>(&'a mut self, feed: &'a mut Feed) -> Session<'a> {
        Box::pin(self.follow(feed))
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

/// Reads both directories; one of them is enough.
fn read(containers: &Path, pods: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    let links = std::fs::read_dir(containers);
    let folders = std::fs::read_dir(pods);
    if let (Err(error), Err(_)) = (&links, &folders) {
        return Err(io::Error::from(error.kind()));
    }
    for entry in links.into_iter().flatten().flatten().take(MAX_CONTAINERS) {
        let target = std::fs::read_link(entry.path()).ok();
        match parse_link(&entry.file_name(), target.as_deref()) {
            Some(link) => found.links.push(link),
            None => found.rejected += 1,
        }
    }
    for entry in folders.into_iter().flatten().flatten().take(MAX_PODS) {
        let Some(pod) = entry.file_name().to_str().and_then(parse_pod) else {
            found.rejected += 1;
            continue;
        };
        let inside = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
        let folders = inside.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        let mut names: Vec<String> = folders.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        found.pods.push((pod, names));
    }
    Ok(found)
}

/// Pod and namespace hold no `_`; container names hold none either, but may hold `-`.
fn parse_link(name: &OsStr, target: Option<&Path>) -> Option<Link> {
    let stem = name.to_str()?.strip_suffix(".log")?;
    let mut parts = stem.splitn(3, '_');
    let (pod, namespace, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let (container, id) = rest.rsplit_once('-')?;
    let is_hex = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if pod.is_empty() || namespace.is_empty() || container.is_empty() || !is_hex || id.len() < MIN_PREFIX {
        return None;
    }
    // The id of a whole name has 64 digits; only a name of full length is cut.
    if id.len() != 64 && name.len() < 255 {
        return None;
    }
    let (uid, attempt) = target.and_then(parse_target).unzip();
    Some(Link {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: container.to_owned(),
        id: id.to_owned(),
        uid,
        attempt: attempt.flatten(),
    })
}

/// UID and attempt out of `…/<namespace>_<pod>_<uid>/<container>/<attempt>.log`.
fn parse_target(target: &Path) -> Option<(String, Option<u32>)> {
    let attempt = target.file_stem()?.to_str()?.parse().ok();
    let pod = parse_pod(target.parent()?.parent()?.file_name()?.to_str()?)?;
    Some((pod.uid, attempt))
}

fn parse_pod(name: &str) -> Option<PodName> {
    let mut parts = name.splitn(3, '_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = ![namespace, pod, uid].iter().any(|p| p.is_empty());
    whole.then(|| PodName { namespace: namespace.to_owned(), pod: pod.to_owned(), uid: uid.to_owned() })
}

fn view(found: &Found, names: &mut Names) -> View {
    let mut view = View::default();
    let mut uids: HashMap<(&str, &str), Option<&str>> = HashMap::new();
    for (pod, _) in &found.pods {
        let only = uids.entry((&pod.namespace, &pod.pod)).or_insert(Some(&pod.uid));
        *only = only.filter(|uid| *uid == pod.uid);
    }
    let mut newest: HashMap<(&str, &str, &str), &Link> = HashMap::new();
    for link in &found.links {
        if is_container_id(&link.id) {
            let known = newest.entry((&link.namespace, &link.pod, &link.container)).or_insert(link);
            if link.attempt > known.attempt {
                *known = link;
            }
        }
        // Where the target is out of reach: the one pod of that name that has a directory.
        let uid = link.uid.as_deref().or_else(|| *uids.get(&(&*link.namespace, &*link.pod))?);
        let uid_text = uid.unwrap_or_default();
        let labels = [
            ("io.kubernetes.container.name", link.container.as_str()),
            ("io.kubernetes.pod.name", &link.pod),
            ("io.kubernetes.pod.namespace", &link.namespace),
            ("io.kubernetes.pod.uid", uid_text),
        ];
        let pod = PodRef {
            uid: uid.and_then(PodUid::parse),
            namespace: names.get(&link.namespace),
            name: names.get(&link.pod),
        };
        let id = names.get(&link.id);
        let info = Arc::new(ContainerInfo {
            labels: Labels::new(labels.into_iter().filter(|(_, value)| !value.is_empty()), names),
            pod: Some(pod),
            container: names.some(&link.container),
            restart_count: link.attempt,
            ..ContainerInfo::new(Arc::clone(&id))
        });
        if is_container_id(&link.id) {
            view.containers.insert(id, info);
        } else {
            view.shortened.insert(id, info);
        }
    }
    for (pod, containers) in &found.pods {
        let Some(uid) = PodUid::parse(&pod.uid) else { continue };
        let containers = containers.iter().map(|name| {
            let newest = newest.get(&(pod.namespace.as_str(), pod.pod.as_str(), name.as_str()));
            PodContainer {
                id: newest.map(|l| names.get(&l.id)),
                restart_count: newest.and_then(|l| l.attempt),
                ..PodContainer::new(names.get(name), None)
            }
        });
        let containers = containers.collect();
        let info =
            PodInfo { containers, ..PodInfo::new(uid, names.get(&pod.namespace), names.get(&pod.pod)) };
        view.pods.insert(uid, Arc::new(info));
    }
    view
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const ID: &str = "4f2e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e9a0c1b3d5f7e";
    const UID: &str = "0d1c2b3a-4f5e-4a7b-8c9d-0e1f2a3b4c5d";

    fn check(name: &str, want: Option<(&str, &str, &str, usize)>) {
        let link = parse_link(OsStr::new(name), None);
        let link =
            link.as_ref().map(|l| (l.pod.as_str(), l.namespace.as_str(), l.container.as_str(), l.id.len()));
        assert_eq!(link, want, "{name}");
    }

    #[test]
    fn link_names() {
        check(&format!("web-1_shop_my-app-{ID}.log"), Some(("web-1", "shop", "my-app", 64)));
        let pod = "p".repeat(150);
        let mut long = format!("{pod}_{}_main-{ID}", "n".repeat(63));
        long.truncate(251);
        check(&format!("{long}.log"), Some((&pod, &"n".repeat(63), "main", 31)));
        long.truncate(231);
        check(&format!("{long}.log"), None);
        check(&format!("web-1_shop_app-{ID}.log.1"), None);
        check("web-1_shop_app-4f2e9a0c1b3d5f7e.log", None);
        check(&format!("web-1_shop_-{ID}.log"), None);
        check(&format!("web-1_app-{ID}.log"), None);
        check(&format!("web_shop_app-{}.log", ID.to_uppercase()), None);
        check("", None);
    }

    #[test]
    fn directories() {
        let root = tempfile::tempdir().unwrap();
        let (containers, pods) = (root.path().join("containers"), root.path().join("pods"));
        assert_eq!(read(&containers, &pods).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::create_dir_all(pods.join(format!("shop_web-1_{UID}/app"))).unwrap();
        std::fs::create_dir_all(pods.join("kube-system_etcd-n1_9c0f2f3b1a2d4e5f60718293a4b5c6d7/etcd"))
            .unwrap();
        std::fs::create_dir(pods.join("lost+found")).unwrap();
        std::fs::create_dir(&containers).unwrap();
        symlink(
            format!("/var/log/pods/shop_web-1_{UID}/app/2.log"),
            containers.join(format!("web-1_shop_app-{ID}.log")),
        )
        .unwrap();
        let cut_name = format!("{}_shop_app-{}.log", "p".repeat(217), &ID[..24]);
        assert_eq!(cut_name.len(), 255);
        symlink("/nowhere", containers.join(&cut_name)).unwrap();

        let found = read(&containers, &pods).unwrap();
        assert_eq!(found.rejected, 1);
        let view = view(&found, &mut Names::default());
        let info = &view.containers[ID];
        assert_eq!(info.container.as_deref(), Some("app"));
        assert_eq!(info.pod.as_ref().unwrap().uid.unwrap().to_string(), UID);
        assert_eq!((info.restart_count, info.labels.len()), (Some(2), 4));
        assert_eq!(view.shortened.keys().map(|k| &**k).collect::<Vec<_>>(), [&ID[..24]]);
        let pod = &view.pods[&PodUid::parse(UID).unwrap()];
        assert_eq!(pod.container("app").unwrap().id.as_deref(), Some(ID));
        assert_eq!(view.pods.len(), 2);
    }
}
