//! How paths are written by those who ask: behind a proxy, or as they were with cAdvisor.

use anyhow::{Result, bail};

use super::Layers;

/// How paths are written by those who ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// What they begin with; empty for nothing, and never with a slash at its end.
    pub prefix: String,
    /// What else `/metrics` is called.
    pub metrics: Option<String>,
}

impl Layers {
    pub(super) fn paths(&self) -> Result<Paths> {
        let prefix = self.parse("url-base-prefix", |s| &s.url_base_prefix, url_path)?;
        let metrics = self.parse("prometheus-endpoint", |s| &s.prometheus_endpoint, url_path)?;
        Ok(Paths { prefix: prefix.unwrap_or_default(), metrics })
    }
}

/// A path of an URL, without a slash at its end.
fn url_path(text: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~".contains(c);
    let path = format!("/{}", text.trim_matches('/'));
    if path.len() > 256 || !path.chars().all(plain) || path.split('/').any(|part| part == "." || part == "..")
    {
        bail!("not accepted; accepted: a path of letters, digits, - . _ ~ and slashes");
    }
    Ok(if path == "/" { String::new() } else { path })
}
