//! Where figures come from: the page endpoints of a running agent, or the same endpoints of an agent
//! within this process that listens nowhere and collects only when it is asked.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::answer::{Detail, Overview};
use super::state::Wish;
use super::text::clean;
use crate::agent::{self, naming::Naming};
use crate::config::Config;
use crate::expose::routes::{App, Policy};
use crate::history::History;
use crate::kernel::handles;
use crate::publish::{self, Snapshots};
use crate::push::delivery::Timing;
use crate::push::delivery::client::{Http, Outgoing, below};
use crate::push::target::Peer;
use crate::telemetry::Telemetry;

/// Largest answer that is read: 5,000 cgroups with long names and their past take a quarter of it.
const MAX_ANSWER: usize = 32 << 20;

/// How long an agent may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time between two collections in which rates are worth something, and the agent's reader's limit.
const APART: Duration = Duration::from_millis(1100);

/// How long a collection of our own may take on a busy machine of thousands of cgroups.
const FIRST_TICK: Duration = Duration::from_secs(30);

/// The reader of our own collects when it is asked; on its grid hardly ever.
const GRID: Duration = Duration::from_secs(3600);

/// Characters of a refusal that are shown.
const MAX_SHOWN: usize = 200;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// There is no such cgroup.
    #[error("there is no such cgroup")]
    Gone,
    /// In words for the user.
    #[error("{0}")]
    Failed(String),
}

/// See the module.
#[derive(Debug)]
pub enum Source {
    /// A running agent.
    Agent(Box<Http>),
    /// This process.
    Here(Here),
}

/// An agent without a listener.
#[derive(Debug)]
pub struct Here {
    router: TowerToHyperService<Router>,
    snapshots: Snapshots,
}

impl Drop for Here {
    fn drop(&mut self) {
        self.snapshots.stop();
    }
}

impl Source {
    /// The agent there, or without one this machine. Within an event loop.
    ///
    /// # Errors
    /// There is nothing to collect from here. That an agent does not answer shows when it is asked.
    pub async fn open(config: &Config, from: Option<&Peer>) -> Result<Source> {
        match from {
            Some(peer) => {
                let timing = Timing { request: PATIENCE, ..Timing::default() };
                Ok(Source::Agent(Box::new(Http::to(peer, timing, MAX_ANSWER))))
            }
            None => Here::start(config).await.map(Source::Here),
        }
    }

    async fn ask(&mut self, path: &str, query: &[(&str, &str)]) -> Result<Bytes, Unanswered> {
        let failed = |error: &dyn std::fmt::Display| Unanswered::Failed(clean(&error.to_string()));
        let (status, body) = match self {
            Source::Agent(http) => {
                let mut url = below(&http.url, path);
                url.query_pairs_mut().extend_pairs(query);
                let answer = http.send(Outgoing::get(url)).await.map_err(|error| failed(&error))?;
                (answer.status, answer.body)
            }
            Source::Here(here) => here.ask(path, query).await?,
        };
        if status == 200 {
            return Ok(body);
        }
        let text = String::from_utf8_lossy(&body);
        let text = clean(&text.trim().chars().take(MAX_SHOWN).collect::<String>());
        if status == 404 && text.contains("no such cgroup") {
            return Err(Unanswered::Gone);
        }
        Err(Unanswered::Failed(match status {
            404 => format!("404 {text}; is an agent there?"),
            _ => format!("{status} {text}"),
        }))
    }

    /// What the machine and its cgroups use; who they are and what they used only where `names` is not
    /// that of the last answer.
    ///
    /// # Errors
    /// There is no answer, or none that can be read.
    pub async fn overview(&mut self, names: Option<&str>) -> Result<Overview, Unanswered> {
        let query = names.map_or(("past", "1"), |names| ("names", names));
        read(&self.ask("api/page/node", &[query]).await?)
    }

    /// One cgroup's samples after `since`; `None` where it is gone.
    ///
    /// # Errors
    /// As of [`Source::overview`].
    pub async fn detail(&mut self, path: &str, since: Option<u64>) -> Result<Option<Detail>, Unanswered> {
        let since = since.map(|since| since.to_string());
        let mut query = vec![("path", path)];
        query.extend(since.as_deref().map(|since| ("since", since)));
        match self.ask("api/page/cgroup", &query).await {
            Ok(body) => read(&body).map(Some),
            Err(Unanswered::Gone) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Two collections apart: rates need a second one, which a running agent has had.
    ///
    /// # Errors
    /// As of [`Source::overview`].
    pub async fn once(&mut self) -> Result<Overview, Unanswered> {
        let first = self.overview(None).await?;
        if !first.columns.cpu.is_empty() {
            return Ok(first);
        }
        tokio::time::sleep(APART).await;
        self.overview(None).await
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unanswered> {
    serde_json::from_slice(body).map_err(|error| {
        Unanswered::Failed(clean(&format!("the answer is none of an agent's page: {error}")))
    })
}

impl Here {
    async fn start(config: &Config) -> Result<Here> {
        let identities = agent::identities(config).await;
        let naming = Naming::new(identities, config.labels.clone(), &config.kubelet_root);
        let sampler = agent::sampler(config, handles::raise_descriptor_limit(), Box::new(naming))?;
        let (mut publisher, snapshots) = publish::channel();
        let history = Arc::new(History::new(config.history));
        let recorder = Arc::clone(&history);
        publisher.tap(Box::new(move |snapshot| recorder.record(snapshot)));
        agent::start(sampler, GRID, publisher, Box::new(|_| {})).context("cannot start the reader thread")?;
        let policy = Policy {
            kinds: config.kinds,
            on_request: config.on_request,
            timestamps: false,
            max_age: APART / 2,
            interval: GRID,
            patience: FIRST_TICK,
        };
        let app = App::new(&config.node_name, policy, snapshots.clone(), history, Telemetry::new());
        Ok(Here { router: TowerToHyperService::new(app.router()), snapshots })
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Result<(u16, Bytes), Unanswered> {
        let mut url = reqwest::Url::parse("http://localhost/").map_err(broken)?;
        url.set_path(path);
        url.query_pairs_mut().extend_pairs(query);
        let uri = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        let request = Request::get(uri).body(Body::empty()).map_err(broken)?;
        let response = match self.router.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(broken)?;
        Ok((status, body.to_bytes()))
    }
}

fn broken(error: impl std::fmt::Display) -> Unanswered {
    Unanswered::Failed(error.to_string())
}

/// What there is to tell.
#[derive(Debug)]
pub enum News {
    /// Of all.
    Overview(Box<Overview>),
    /// Of the cgroup that was opened so, or that it is gone.
    Detail(u64, Option<Box<Detail>>),
    /// No answer, and why.
    Lost(String),
}

/// Asks as `wishes` say, for ever, until nobody is there to be told or to wish.
pub async fn follow(mut source: Source, mut wishes: watch::Receiver<Wish>, tell: impl Fn(News) -> bool) {
    let (mut names, mut since) = (None::<String>, None::<(u64, u64)>);
    let mut answers = 0_u32;
    loop {
        let wish = wishes.borrow_and_update().clone();
        let mut lost = false;
        if !wish.paused || answers == 0 {
            let news = match source.overview(names.as_deref()).await {
                Ok(overview) => {
                    names = Some(overview.names.clone());
                    answers = answers.saturating_add(1);
                    News::Overview(Box::new(overview))
                }
                Err(error) => {
                    lost = true;
                    News::Lost(error.to_string())
                }
            };
            if !tell(news) {
                return;
            }
        }
        if let Some((number, path)) = wish.detail.as_ref().filter(|_| !lost) {
            let after = since.filter(|(of, _)| of == number).map(|(_, at)| at);
            let news = match source.detail(path, after).await {
                Ok(detail) => {
                    since = detail.as_ref().map(|detail| (*number, detail.at));
                    News::Detail(*number, detail.map(Box::new))
                }
                Err(error) => News::Lost(error.to_string()),
            };
            if !tell(news) {
                return;
            }
        }
        // The second answer brings the first rates.
        let pace = if answers < 2 { wish.pace.min(APART) } else { wish.pace };
        tokio::select! {
            () = tokio::time::sleep(pace), if !wish.paused => {}
            changed = wishes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
