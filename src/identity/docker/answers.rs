//! The parts of Docker's answers that are used, and what they say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::identity::model::{
    ContainerInfo, ContainerState, Labels, Names, NetworkMode, PodRef, Variables, time_ns,
};
use crate::identity::path::{PodUid, Runtime};
use crate::snapshot::Health;

/// `GET /version`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Version {
    #[serde(default)]
    pub(super) version: String,
    pub(super) api_version: String,
}

/// `GET /info`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Info {
    #[serde(default)]
    pub(super) docker_root_dir: String,
}

/// An element of `GET /containers/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    image: String,
    #[serde(default)]
    labels: Option<HashMap<String, String>>,
    #[serde(default)]
    state: String,
    /// Seconds since the epoch.
    #[serde(default)]
    created: i64,
    #[serde(default)]
    host_config: HostConfig,
}

/// `GET /containers/{id}/json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    pub(super) id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    created: String,
    #[serde(default)]
    state: State,
    #[serde(default)]
    config: Config,
    #[serde(default)]
    host_config: HostConfig,
    #[serde(default)]
    restart_count: u32,
    #[serde(default)]
    log_path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct State {
    status: String,
    pid: u32,
    exit_code: i32,
    started_at: String,
    #[serde(alias = "Healthcheck")]
    health: Option<HealthCheck>,
}

/// Absent, or of status `none` or empty, where there is no check.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HealthCheck {
    status: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    image: String,
    env: Option<Vec<String>>,
    labels: Option<HashMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostConfig {
    network_mode: String,
}

/// One object of `GET /events`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Event {
    #[serde(default)]
    pub(super) action: String,
    #[serde(default)]
    pub(super) actor: Actor,
    /// Podman's, with the action `health_status`.
    #[serde(default, alias = "health_status")]
    health_status: String,
}

impl Event {
    /// The outcome of a health check: `health_status: healthy`.
    pub(super) fn health(&self) -> Option<Health> {
        let rest = self.action.strip_prefix("health_status")?;
        health(rest.strip_prefix(':').map_or(self.health_status.as_str(), str::trim))
    }
}

/// Whom an event is about.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Actor {
    #[serde(rename = "ID", default)]
    pub(super) id: String,
    #[serde(rename = "Attributes", default)]
    attributes: Attributes,
}

/// Of what an event tells besides, the code that a container ended with.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attributes {
    /// Docker's is text; Podman's has another name.
    #[serde(rename = "exitCode", alias = "containerExitCode")]
    exit_code: Option<Value>,
}

impl Actor {
    /// The code that it ended with.
    pub(super) fn exit_code(&self) -> Option<i32> {
        match self.attributes.exit_code.as_ref()? {
            Value::String(text) => text.parse().ok(),
            other => i32::try_from(other.as_i64()?).ok(),
        }
    }
}

/// The word for a state of health, in an answer and in an event.
pub(super) fn health(word: &str) -> Option<Health> {
    match word {
        "starting" => Some(Health::Starting),
        "healthy" => Some(Health::Healthy),
        "unhealthy" => Some(Health::Unhealthy),
        _ => None,
    }
}

impl Listed {
    /// What a list tells. Image and restarts are only sure once inspected.
    pub(super) fn info(&self, runtime: Runtime, names: &mut Names) -> Option<ContainerInfo> {
        let links = self.names.iter().flatten().map(|n| n.trim_start_matches('/'));
        // Names with a slash are links of other containers to this one.
        let name = links.clone().find(|n| !n.contains('/')).unwrap_or_default();
        let seen = Seen {
            id: &self.id,
            name,
            image: &self.image,
            labels: self.labels.as_ref(),
            state: &self.state,
            network: &self.host_config.network_mode,
            restarts: 0,
        };
        let created = u64::try_from(self.created).ok().filter(|c| *c > 0);
        Some(ContainerInfo {
            created_ns: created.and_then(|c| c.checked_mul(1_000_000_000)),
            restart_count: None,
            partial: true,
            ..seen.info(runtime, names)?
        })
    }
}

impl Inspected {
    /// All there is to know, with those variables of its environment.
    pub(super) fn info(
        &self,
        runtime: Runtime,
        variables: &Variables,
        names: &mut Names,
    ) -> Option<ContainerInfo> {
        let seen = Seen {
            id: &self.id,
            name: self.name.trim_start_matches('/'),
            image: &self.config.image,
            labels: self.config.labels.as_ref(),
            state: &self.state.status,
            network: &self.host_config.network_mode,
            restarts: self.restart_count,
        };
        Some(ContainerInfo {
            created_ns: time_ns(&self.created),
            started_ns: time_ns(&self.state.started_at),
            health: self.state.health.as_ref().and_then(|check| health(&check.status)),
            pid: Some(self.state.pid).filter(|p| *p > 0),
            log_path: Some(self.log_path.as_str()).filter(|p| !p.is_empty()).map(Arc::from),
            exit_code: matches!(self.state.status.as_str(), "exited" | "dead")
                .then_some(self.state.exit_code),
            environment: variables.of(self.config.env.iter().flatten().map(String::as_str), true, names),
            ..seen.info(runtime, names)?
        })
    }
}

/// What both answers tell.
struct Seen<'a> {
    id: &'a str,
    name: &'a str,
    image: &'a str,
    labels: Option<&'a HashMap<String, String>>,
    state: &'a str,
    network: &'a str,
    restarts: u32,
}

impl Seen<'_> {
    fn info(&self, runtime: Runtime, names: &mut Names) -> Option<ContainerInfo> {
        if self.id.is_empty() {
            return None;
        }
        let mut labels: BTreeMap<&str, &str> =
            self.labels.into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let label = |key: &str| labels.get(key).copied();
        // cri-dockerd's labels; nothing else sets them.
        let pod = match (label("io.kubernetes.pod.namespace"), label("io.kubernetes.pod.name")) {
            (Some(namespace), Some(name)) => Some(PodRef {
                uid: label("io.kubernetes.pod.uid").and_then(PodUid::parse),
                namespace: names.get(namespace),
                name: names.get(name),
            }),
            _ => None,
        };
        let is_sandbox = label("io.kubernetes.docker.type") == Some("podsandbox");
        let container = label("io.kubernetes.container.name").or(is_sandbox.then_some("POD"));
        let container = container.map(|name| names.get(name));
        let restarts = self.restarts.to_string();
        if self.restarts > 0 {
            // cAdvisor's own addition.
            labels.insert("restartcount", &restarts);
        }
        Some(ContainerInfo {
            name: names.some(self.name),
            image: names.some(self.image),
            labels: Labels::new(labels, names),
            pod,
            container,
            is_sandbox,
            network: Some(network_mode(self.network, names)),
            runtime: Some(runtime),
            state: Some(match self.state {
                "running" | "paused" | "restarting" => ContainerState::Running,
                "created" | "configured" | "initialized" => ContainerState::Waiting,
                _ => ContainerState::Exited,
            }),
            restart_count: Some(self.restarts),
            ..ContainerInfo::new(Arc::from(self.id))
        })
    }
}

fn network_mode(mode: &str, names: &mut Names) -> NetworkMode {
    match mode.strip_prefix("container:") {
        Some(other) => NetworkMode::Shared(names.get(other)),
        None if mode == "host" => NetworkMode::Host,
        None => NetworkMode::Own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_images_and_networks() {
        let mut names = Names::default();
        let listed: Listed = serde_json::from_str(
            r#"{"Id":"ab","Names":["/web/db","/db"],"Image":"sha256:1","State":"running","Created":1700000000,
                "Labels":{"com.docker.compose.service":"db"},"HostConfig":{"NetworkMode":"container:cd"}}"#,
        )
        .unwrap();
        let info = listed.info(Runtime::Docker, &mut names).unwrap();
        assert_eq!(info.name.as_deref(), Some("db"));
        assert_eq!(info.network, Some(NetworkMode::Shared("cd".into())));
        assert_eq!(info.created_ns, Some(1_700_000_000_000_000_000));
        assert!(info.partial);

        let inspected: Inspected = serde_json::from_str(
            r#"{"Id":"ab","Name":"/db","Created":"2024-01-01T00:00:00.5Z","RestartCount":2,
                "LogPath":"/var/lib/docker/containers/ab/ab-json.log",
                "State":{"Status":"running","Pid":7,"StartedAt":"2024-01-01T00:00:01Z","Health":{"Status":"starting"}},
                "Config":{"Image":"postgres:16","Labels":null},"HostConfig":{"NetworkMode":"host"}}"#,
        )
        .unwrap();
        let info = inspected.info(Runtime::Docker, &Variables::default(), &mut names).unwrap();
        assert_eq!((info.image.as_deref(), info.pid), (Some("postgres:16"), Some(7)));
        assert_eq!(info.network, Some(NetworkMode::Host));
        assert_eq!(info.health, Some(Health::Starting));
        assert_eq!(info.log_path.as_deref(), Some("/var/lib/docker/containers/ab/ab-json.log"));
        assert_eq!(info.labels.iter().collect::<Vec<_>>(), [("restartcount", "2")]);
        assert!(!info.partial && info.started_ns > info.created_ns);
    }

    #[test]
    fn health_in_answers_and_events() {
        let check = |state: &str, want: Option<Health>| {
            let text = format!(r#"{{"Id":"ab","State":{{{state}}}}}"#);
            let info = serde_json::from_str::<Inspected>(&text).unwrap();
            let info = info.info(Runtime::Docker, &Variables::default(), &mut Names::default()).unwrap();
            assert_eq!(info.health, want, "{state}");
        };
        check("", None);
        check(r#""Health":null"#, None);
        check(r#""Health":{"Status":"none"}"#, None);
        check(r#""Healthcheck":{"Status":""}"#, None);
        check(r#""Health":{"Status":"healthy"}"#, Some(Health::Healthy));
        check(r#""Healthcheck":{"Status":"unhealthy"}"#, Some(Health::Unhealthy));
        let event = |text: &str| serde_json::from_str::<Event>(text).unwrap().health();
        assert_eq!(event(r#"{"Action":"health_status: unhealthy"}"#), Some(Health::Unhealthy));
        assert_eq!(event(r#"{"Action":"health_status","health_status":"healthy"}"#), Some(Health::Healthy));
        assert_eq!(event(r#"{"Action":"health_status","HealthStatus":"healthy"}"#), Some(Health::Healthy));
        assert_eq!(event(r#"{"Action":"health_status"}"#), None);
        assert_eq!(event(r#"{"Action":"start"}"#), None);
    }

    #[test]
    fn how_a_container_ended() {
        let code = |text: &str| {
            let text = format!(r#"{{"Action":"die","Actor":{{"ID":"ab","Attributes":{text}}}}}"#);
            serde_json::from_str::<Event>(&text).unwrap().actor.exit_code()
        };
        assert_eq!(code(r#"{"exitCode":"137","image":"x"}"#), Some(137));
        assert_eq!(code(r#"{"containerExitCode":"1"}"#), Some(1));
        assert_eq!(code(r#"{"exitCode":-1}"#), Some(-1));
        assert_eq!(code(r#"{"exitCode":"soon"}"#), None);
        assert_eq!(code("{}"), None);
        let inspected = |status: &str| {
            let text = format!(r#"{{"Id":"ab","State":{{"Status":"{status}","ExitCode":3}}}}"#);
            let inspected: Inspected = serde_json::from_str(&text).unwrap();
            inspected.info(Runtime::Docker, &Variables::default(), &mut Names::default()).unwrap().exit_code
        };
        assert_eq!((inspected("exited"), inspected("running")), (Some(3), None));
    }

    #[test]
    fn only_variables_that_are_asked_for_are_kept() {
        let inspected: Inspected = serde_json::from_str(
            r#"{"Id":"ab","Config":{"Env":["TEAM_NAME=web=1","PASSWORD=x","APP","TEAM_NR=","team=no"]}}"#,
        )
        .unwrap();
        let of = |prefixes: &[&str]| {
            let prefixes: Vec<String> = prefixes.iter().map(|p| (*p).to_owned()).collect();
            let mut names = Names::default();
            let info = inspected.info(Runtime::Docker, &Variables::beginning(&prefixes), &mut names).unwrap();
            info.environment.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        assert_eq!(of(&["TEAM_", "OTHER"]), ["team_name=web=1", "team_nr="]);
        assert_eq!(of(&[]), Vec::<String>::new());
        // An empty word would ask for all.
        assert_eq!(of(&[""]), Vec::<String>::new());
    }

    #[test]
    fn podman_leaves_things_out() {
        let bare: Inspected = serde_json::from_str(r#"{"Id":"ab"}"#).unwrap();
        let info = bare.info(Runtime::Podman, &Variables::default(), &mut Names::default()).unwrap();
        assert_eq!((info.name, info.image, info.pid, info.started_ns), (None, None, None, None));
        let none: Listed = serde_json::from_str(r#"{"Id":""}"#).unwrap();
        assert_eq!(none.info(Runtime::Podman, &mut Names::default()), None);
    }
}
