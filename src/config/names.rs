//! Settings of where names come from and how they are shown.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use axum::http::Uri;

use crate::identity::RuntimeChoice;
use crate::identity::enrich::LabelStyle;

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
