//! The Container Runtime Interface, v1: containerd, CRI-O, cri-dockerd.
//!
//! Everything is listed at the start, after the periodic refresh, and whenever
//! the reader saw an id that nobody named; the resolved image, the start time
//! and the pid of each new container come from its status. Where a runtime
//! sends every subscriber all events these are followed as well.

mod picture;

use std::collections::HashSet;
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::grpc::proto::cri as pb;
use super::grpc::proto::cri::image_service_client::ImageServiceClient;
use super::grpc::proto::cri::runtime_service_client::RuntimeServiceClient;
use super::grpc::{self, MAX_MESSAGE, call, refused};
use super::model::Variables;
use super::socket::Socket;
use super::source::{Feed, ImageFilesystem, Session, Source, SourceError};
use picture::{Flavor, Owed, Picture};

/// Status calls under way at once.
const PARALLEL: usize = 16;
/// While details arrive, they are published this often.
const PUBLISH: Duration = Duration::from_millis(50);
/// How often the runtime is asked what its images take up. It adds up figures it
/// keeps; what containers take up it would have to ask of each one's shim.
const IMAGES: Duration = Duration::from_secs(60);
/// Filesystems of images taken.
const MAX_IMAGE_FILESYSTEMS: usize = 16;
/// Events waiting to be taken; the runtime is held up beyond that.
const EVENTS: usize = 64;

type Client = RuntimeServiceClient<Channel>;

/// A CRI runtime at the first of some sockets.
#[derive(Debug)]
pub(super) struct Cri {
    sockets: Vec<PathBuf>,
    variables: Variables,
}

impl Cri {
    pub(super) fn new(sockets: Vec<PathBuf>, variables: Variables) -> Self {
        Cri { sockets, variables }
    }

    async fn follow(&self, feed: &mut Feed) -> Result<Infallible, SourceError> {
        let timing = feed.timing;
        let socket = Socket::find(&self.sockets)?;
        let channel = grpc::connect(&socket, timing.call).await?;
        let mut image_client = ImageServiceClient::new(channel.clone());
        let mut images_asked: Option<Instant> = None;
        let mut client = RuntimeServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let request = pb::VersionRequest { version: "v1".into() };
        let version = call("Version", timing.call, client.version(request)).await?;
        feed.version(format!("{} {}", version.runtime_name, version.runtime_version));
        let mut picture = Picture::new(Flavor::of(&version.runtime_name), self.variables.clone());

        // Subscribed before the first list, so that nothing falls in between.
        let mut events =
            tells_all(&version.runtime_name, &version.runtime_version).then(|| subscribe(&client));
        if events.is_none() {
            feed.events(false);
        }
        let mut details = Details::new(client.clone(), timing.call);
        loop {
            if socket.is_replaced() {
                return Err(SourceError::failed("follow", "the socket was replaced"));
            }
            refresh(&mut client, &mut picture, &mut details, feed).await?;
            if images_asked.is_none_or(|at| at.elapsed() >= IMAGES) {
                images_asked = Some(Instant::now());
                images(&mut image_client, feed).await;
            }
            let mut due = false;
            while !due {
                let next = async {
                    match &mut events {
                        Some(events) => events.next().await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    news = next => match news {
                        News::Event(event) => {
                            feed.events(true);
                            apply(*event, &mut events, &mut picture, &mut details, feed)?;
                        }
                        News::NotOffered => {
                            feed.events(false);
                            events = None;
                        }
                        News::Broken(error) => return Err(error),
                    },
                    news = details.next() => details.take(news, &mut picture, feed)?,
                    () = feed.refresh_due(timing.gap) => due = true,
                }
            }
        }
    }
}

impl Source for Cri {
    fn session<'a>(&'a mut self, feed: &'a mut Feed) -> Session<'a> {
        Box::pin(self.follow(feed))
    }
}

/// Lists everything, publishes the names, and asks for what lists do not tell.
async fn refresh(
    client: &mut Client,
    picture: &mut Picture,
    details: &mut Details,
    feed: &mut Feed,
) -> Result<(), SourceError> {
    let started = Instant::now();
    let deadline = feed.timing.list;
    let mut other = client.clone();
    let sandboxes = call("ListPodSandbox", deadline, client.list_pod_sandbox(pb::ListPodSandboxRequest {}));
    let containers = call("ListContainers", deadline, other.list_containers(pb::ListContainersRequest {}));
    let (sandboxes, containers) = tokio::try_join!(sandboxes, containers)?;
    let rejected = picture.listed(sandboxes.items, containers.containers, &mut feed.names);
    feed.rejected(rejected);
    tracing::debug!(took = ?started.elapsed(), "listed");
    feed.listed();
    // Where containers come all the time, some detail is always missing. Only the
    // first answer of a session waits for all of them.
    let answering = *details.answering.get_or_insert(started);
    if details.answered && answering.elapsed() >= deadline {
        details.answering = Some(started);
        feed.complete(answering.elapsed());
    }
    details.ask(picture);
    details.publish(picture, feed);
    Ok(())
}

/// Asks where images are. A runtime that cannot tell has names all the same.
async fn images(client: &mut ImageServiceClient<Channel>, feed: &mut Feed) {
    let asked = call("ImageFsInfo", feed.timing.call, client.image_fs_info(pb::ImageFsInfoRequest {}));
    let told = match asked.await {
        Ok(told) => told,
        Err(error) => return tracing::debug!(%error, "the runtime does not tell of its image filesystem"),
    };
    let images = told.image_filesystems.into_iter().map(|f| (f, false));
    let all = images.chain(told.container_filesystems.into_iter().map(|f| (f, true)));
    let filesystem = |(usage, layers): (pb::FilesystemUsage, bool)| ImageFilesystem {
        path: usage.fs_id.map(|id| id.mountpoint).unwrap_or_default(),
        layers,
        used_bytes: usage.used_bytes.map(|v| v.value),
        inodes_used: usage.inodes_used.map(|v| v.value),
        measured_ns: u64::try_from(usage.timestamp).ok().filter(|t| *t > 0),
    };
    let all = all.map(filesystem).filter(|f| !f.path.is_empty());
    feed.images(all.take(MAX_IMAGE_FILESYSTEMS).collect());
}

/// Takes an event and those that have already arrived behind it.
fn apply(
    first: pb::ContainerEventResponse,
    events: &mut Option<Events>,
    picture: &mut Picture,
    details: &mut Details,
    feed: &mut Feed,
) -> Result<(), SourceError> {
    let mut rejected = picture.event(first, &mut feed.names);
    while let Some(events) = events {
        match events.receiver.try_recv() {
            Ok(News::Event(event)) => rejected += picture.event(*event, &mut feed.names),
            Ok(News::Broken(error)) => return Err(error),
            Ok(News::NotOffered) | Err(_) => break,
        }
    }
    feed.rejected(rejected);
    details.ask(picture);
    details.publish(picture, feed);
    Ok(())
}

type Told = (Owed, Result<Detail, SourceError>);

enum Detail {
    Sandbox(Box<pb::PodSandboxStatusResponse>),
    Container(Box<pb::ContainerStatusResponse>),
    Gone,
}

/// Status calls, for whatever is new. A runtime that starts many containers
/// takes its time over each: lists and events go on meanwhile.
struct Details {
    client: Client,
    deadline: Duration,
    owed: Vec<Owed>,
    calls: JoinSet<Told>,
    under_way: HashSet<Owed>,
    /// When what has come is published at the latest.
    publish_at: Option<Instant>,
    /// When the refresh began whose details are still to come.
    answering: Option<Instant>,
    /// Whether the details of one refresh have come.
    answered: bool,
}

impl Details {
    fn new(client: Client, deadline: Duration) -> Self {
        Details {
            client,
            deadline,
            owed: Vec::new(),
            calls: JoinSet::new(),
            under_way: HashSet::new(),
            publish_at: None,
            answering: None,
            answered: false,
        }
    }

    /// Asks for all that is owed by now.
    fn ask(&mut self, picture: &Picture) {
        self.owed = picture.owed();
        self.call();
    }

    fn call(&mut self) {
        while self.calls.len() < PARALLEL
            && let Some(next) = self.owed.pop()
        {
            if self.under_way.insert(next.clone()) {
                self.calls.spawn(status(self.client.clone(), next, self.deadline));
            }
        }
    }

    /// Waits for an answer, or with `None` until it is time to publish; for ever
    /// when nothing is under way. May be dropped and called again.
    async fn next(&mut self) -> Option<Told> {
        let at = self.publish_at.map(tokio::time::Instant::from_std);
        let time = async {
            match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let answer = async {
            match self.calls.join_next().await {
                Some(told) => told.ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = answer => told,
            () = time => None,
        }
    }

    fn take(
        &mut self,
        told: Option<Told>,
        picture: &mut Picture,
        feed: &mut Feed,
    ) -> Result<(), SourceError> {
        let Some((owed, told)) = told else {
            self.publish(picture, feed);
            return Ok(());
        };
        self.under_way.remove(&owed);
        match told {
            Ok(Detail::Sandbox(answer)) => {
                if let Some(status) = answer.status {
                    picture.sandbox_status(status, Some(&answer.info), &mut feed.names);
                }
            }
            Ok(Detail::Container(answer)) => {
                if let Some(status) = answer.status {
                    picture.container_status(status, "", Some(&answer.info), &mut feed.names);
                }
            }
            Ok(Detail::Gone) => match &owed {
                Owed::Sandbox(id) | Owed::Container(id) => picture.remove(id),
            },
            // A runtime that hangs is left alone until the next session.
            Err(error @ SourceError::Slow { .. }) => return Err(error),
            Err(error) => {
                tracing::debug!(?owed, %error, "status call failed");
                picture.failed(&owed);
            }
        }
        self.call();
        self.publish_at.get_or_insert(Instant::now() + PUBLISH);
        if self.calls.is_empty() {
            self.publish(picture, feed);
        }
        Ok(())
    }

    fn publish(&mut self, picture: &mut Picture, feed: &mut Feed) {
        self.publish_at = None;
        feed.publish(picture.view());
        if self.calls.is_empty()
            && let Some(started) = self.answering.take()
        {
            self.answered = true;
            feed.complete(started.elapsed());
        }
    }
}

async fn status(mut client: Client, owed: Owed, deadline: Duration) -> Told {
    let found = match &owed {
        Owed::Sandbox(id) => {
            let request = pb::PodSandboxStatusRequest { pod_sandbox_id: id.to_string(), verbose: true };
            let answer = or_gone(client.pod_sandbox_status(request));
            call("PodSandboxStatus", deadline, answer).await.map(|a| a.map(Box::new).map(Detail::Sandbox))
        }
        Owed::Container(id) => {
            let request = pb::ContainerStatusRequest { container_id: id.to_string(), verbose: true };
            let answer = or_gone(client.container_status(request));
            call("ContainerStatus", deadline, answer).await.map(|a| a.map(Box::new).map(Detail::Container))
        }
    };
    (owed, found.map(|detail| detail.unwrap_or(Detail::Gone)))
}

/// Containers end between the list and the status.
async fn or_gone<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<tonic::Response<Option<T>>, Status> {
    match call.await {
        Ok(answer) => Ok(answer.map(Some)),
        Err(status) if status.code() == Code::NotFound => Ok(tonic::Response::new(None)),
        Err(status) => Err(status),
    }
}

/// What the event stream brings.
enum News {
    Event(Box<pb::ContainerEventResponse>),
    NotOffered,
    Broken(SourceError),
}

/// A running subscription; dropping it ends it.
struct Events {
    receiver: mpsc::Receiver<News>,
    task: AbortHandle,
}

impl Events {
    async fn next(&mut self) -> News {
        let ended = || News::Broken(SourceError::failed("GetContainerEvents", "the stream ended"));
        self.receiver.recv().await.unwrap_or_else(ended)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows events in a task, since servers send nothing at all, not even
/// headers, before the first event.
fn subscribe(client: &Client) -> Events {
    let (sender, receiver) = mpsc::channel(EVENTS);
    let mut client = client.clone();
    let task = tokio::spawn(async move {
        let mut any = false;
        let last = match client.get_container_events(pb::GetEventsRequest {}).await {
            Err(status) if status.code() == Code::Unimplemented => News::NotOffered,
            Err(status) => News::Broken(refused("GetContainerEvents", &status)),
            Ok(answer) => {
                let mut stream = answer.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(event)) => {
                            any = true;
                            if sender.send(News::Event(Box::new(event))).await.is_err() {
                                return;
                            }
                        }
                        // CRI-O with events switched off ends the stream at once.
                        Ok(None) if !any => break News::NotOffered,
                        Ok(None) => return,
                        Err(status) if status.code() == Code::Unimplemented => break News::NotOffered,
                        Err(status) => break News::Broken(refused("GetContainerEvents", &status)),
                    }
                }
            }
        };
        // The session may have ended meanwhile.
        let _ = sender.send(last).await;
    });
    Events { receiver, task: task.abort_handle() }
}

/// Whether every subscriber gets all events. containerd 1.7 and the first
/// CRI-O with events deal them out among the subscribers
/// (containerd/containerd#7318, cri-o/cri-o#6466), so that listening would take
/// them from the kubelet.
fn tells_all(runtime_name: &str, runtime_version: &str) -> bool {
    let mut numbers = runtime_version.trim_start_matches('v').split(['.', '-', '+']).map(|n| n.parse().ok());
    let mut number = || numbers.next().flatten().unwrap_or(0u32);
    let version = (number(), number());
    match runtime_name {
        "containerd" => version >= (2, 0),
        "cri-o" => version >= (1, 28),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_only_where_they_are_not_shared_out() {
        let check =
            |name: &str, version: &str, want: bool| assert_eq!(tells_all(name, version), want, "{version}");
        check("containerd", "1.6.20~ds1", false);
        check("containerd", "v1.7.27", false);
        check("containerd", "v2.0.0-rc.1", true);
        check("containerd", "2.3.1", true);
        check("cri-o", "1.27.4", false);
        check("cri-o", "1.31.0-dev", true);
        check("docker", "24.0.7", false);
        check("somebody", "9.9", false);
        check("containerd", "", false);
    }
}
