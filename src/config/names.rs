//! Settings of where names come from and how they are shown.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use axum::http::Uri;

use super::words;
use crate::identity::enrich::LabelStyle;
use crate::identity::{RUNTIMES, RuntimeChoice};

/// Which kubelet is asked for pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KubeletChoice {
    /// This node's, where a service account's token is mounted.
    Auto,
    /// The one at this URL.
    At(Uri),
    /// None.
    None,
}

/// How the kubelet is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeletSettings {
    /// Which one.
    pub choice: KubeletChoice,
    /// CA certificates to believe instead of the service account's, PEM.
    pub ca_file: Option<PathBuf>,
    /// A token to show instead of the service account's.
    pub token_file: Option<PathBuf>,
    /// Whether any certificate is believed.
    pub insecure: bool,
}

/// The names of runtimes that `--runtime-socket` knows, as [`RUNTIMES`] has them.
fn with_socket(name: &str) -> Option<&'static str> {
    let name = if name == "crio" { "cri-o" } else { name };
    RUNTIMES.iter().map(|runtime| runtime.name).find(|known| *known == name)
}

/// `NAME=PATH` pairs, where a path may be written as a URL.
pub(super) fn sockets(list: &[String]) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut found = Vec::new();
    for word in words(list) {
        let (name, path) = word.split_once('=').unwrap_or((word, ""));
        let Some(name) = with_socket(name) else {
            let known: Vec<_> = RUNTIMES.iter().map(|runtime| runtime.name).collect();
            bail!("{word:?}: no runtime's name; accepted: NAME=PATH for {}", known.join(", "));
        };
        let path = path.strip_prefix("unix://").unwrap_or(path);
        if !path.starts_with('/') {
            bail!(
                "{word:?}: not a socket of this host; accepted: an absolute path, such as {name}=/run/a.sock"
            );
        }
        found.push((name, PathBuf::from(path)));
        // On today's hosts a link, which leads out of a mounted host root.
        if let Some(rest) = path.strip_prefix("/var/run/") {
            found.push((name, Path::new("/run").join(rest)));
        }
    }
    Ok(found)
}

/// Absolute paths of files on the host.
pub(super) fn files(list: &[String]) -> Result<Vec<PathBuf>> {
    let absolute = |word: &str| super::values::absolute(word).with_context(|| format!("{word:?}"));
    words(list).map(absolute).collect()
}

/// A switch as cAdvisor's flags and ours write it.
pub(super) fn switch(text: &str) -> Result<bool> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => bail!("not accepted; accepted: on, off, true, false"),
    }
}

pub(super) fn runtime(text: &str) -> Result<RuntimeChoice> {
    Ok(match text {
        "auto" => RuntimeChoice::Auto,
        "containerd" => RuntimeChoice::Containerd,
        "crio" => RuntimeChoice::Crio,
        "docker" => RuntimeChoice::Docker,
        "none" => RuntimeChoice::None,
        _ => bail!("unknown; accepted: auto, containerd, crio, docker, none"),
    })
}

pub(super) fn kubelet(text: &str) -> Result<KubeletChoice> {
    const ACCEPTED: &str = "accepted: auto, none, or a URL such as https://127.0.0.1:10250";
    match text {
        "auto" => return Ok(KubeletChoice::Auto),
        "none" => return Ok(KubeletChoice::None),
        _ => {}
    }
    let url: Uri = text.parse().map_err(|_| anyhow!("not a URL; {ACCEPTED}"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none() {
        bail!("not a URL of http or https; {ACCEPTED}");
    }
    Ok(KubeletChoice::At(url))
}

pub(super) fn label_style(text: &str) -> Result<Option<LabelStyle>> {
    Ok(match text {
        "auto" => None,
        "kubernetes" => Some(LabelStyle::Kubernetes),
        "cadvisor" => Some(LabelStyle::Cadvisor),
        _ => bail!("unknown; accepted: auto, kubernetes, cadvisor"),
    })
}
