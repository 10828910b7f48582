//! The kubelet's pods socket (KEP-4188): it sends every pod, then every
//! change, as protobuf. Alpha in Kubernetes 1.36, absent before.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use prost::Message;
use tonic::Streaming;

use super::pod;
use crate::identity::grpc::proto::core::Pod;
use crate::identity::grpc::proto::pods::pods_client::PodsClient;
use crate::identity::grpc::proto::pods::{EventType, WatchPodsEvent, WatchPodsRequest};
use crate::identity::grpc::{self, MAX_MESSAGE, call, refused};
use crate::identity::socket::Socket;
use crate::identity::source::{Feed, Session, Source, SourceError};
use crate::identity::store::{MAX_PODS, View};

/// Changes that come together are published together.
const COALESCE: Duration = Duration::from_millis(50);
/// The first picture counts as complete when nothing came for this long, should
/// the event that says so be missing.
const QUIET: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(in crate::identity) struct PodsApi {
    sockets: Vec<PathBuf>,
}

impl PodsApi {
    pub(in crate::identity) fn new(socket: PathBuf) -> Self {
        PodsApi { sockets: vec![socket] }
    }

    async fn follow(&self, feed: &mut Feed) -> Result<Infallible, SourceError> {
        let timing = feed.timing;
        let socket = Socket::find(&self.sockets)?;
        let channel = grpc::connect(&socket, timing.call).await?;
        let mut client = PodsClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let started = Instant::now();
        let mut stream = call("WatchPods", timing.list, client.watch_pods(WatchPodsRequest {})).await?;
        feed.version("pods v1alpha1".to_owned());
        feed.events(true);
        let mut known = Known::default();
        while !known.synced {
            match tokio::time::timeout(QUIET, next(&mut stream)).await {
                Ok(event) => known.apply(event?, feed),
                Err(_) => known.synced = true,
            }
        }
        loop {
            feed.publish(known.view());
            feed.answered(started.elapsed());
            let event = loop {
                tokio::select! {
                    event = next(&mut stream) => break event?,
                    () = tokio::time::sleep(timing.refresh) => if socket.is_replaced() {
                        return Err(SourceError::failed("follow", "the socket was replaced"));
                    }
                }
            };
            known.apply(event, feed);
            let flush = tokio::time::Instant::now() + COALESCE;
            while let Ok(event) = tokio::time::timeout_at(flush, next(&mut stream)).await {
                known.apply(event?, feed);
            }
        }
    }
}

impl Source for PodsApi {
    fn session<'a>(&'a mut self, feed: &'a mut Feed) -> Session<'a> {
        Box::pin(self.follow(feed))
    }
}

async fn next(stream: &mut Streaming<WatchPodsEvent>) -> Result<WatchPodsEvent, SourceError> {
    let event = stream.message().await.map_err(|status| refused("WatchPods", &status))?;
    event.ok_or_else(|| SourceError::failed("WatchPods", "the stream ended"))
}

/// Every pod as it came last, each as a view of its own.
#[derive(Default)]
struct Known {
    pods: HashMap<String, View>,
    synced: bool,
}

impl Known {
    fn apply(&mut self, event: WatchPodsEvent, feed: &mut Feed) {
        let kind = event.r#type();
        if kind == EventType::InitialSyncComplete {
            self.synced = true;
            return;
        }
        let Ok(pod) = Pod::decode(event.pod.as_slice()) else { return feed.rejected(1) };
        let uid = pod.metadata.as_ref().map(|m| m.uid.clone()).unwrap_or_default();
        if kind == EventType::Deleted {
            self.pods.remove(&uid);
            return;
        }
        let mut view = View::default();
        let room = self.pods.len() < MAX_PODS || self.pods.contains_key(&uid);
        if room && pod::add(pod, &mut view, &mut feed.names) {
            self.pods.insert(uid, view);
        } else {
            feed.rejected(1);
        }
    }

    fn view(&self) -> View {
        let mut all = View::default();
        for view in self.pods.values() {
            all.containers.extend(view.containers.iter().map(|(k, v)| (k.clone(), v.clone())));
            all.pods.extend(view.pods.iter().map(|(k, v)| (*k, v.clone())));
        }
        all
    }
}
