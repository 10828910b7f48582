//! Heapster's flags → our settings.

use anyhow::{Result, anyhow, bail};

use super::Environment;
use crate::aggregate::labels::LabelRules;
use crate::auth::{Access, Choice};
use crate::cli::{Settings, environment_name};

/// Heapster's port.
const PORT: u16 = 8082;

/// What Heapster's flags say that is no setting of ours.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// How labels are joined.
    pub(super) labels: LabelRules,
    /// Whether `/api/v1/metric-export` stays empty.
    pub(super) disable_export: bool,
    users: Vec<String>,
    /// What means nothing here.
    pub(super) notices: Vec<String>,
}

/// Takes what Heapster's flags say into the settings they stand for.
///
/// # Errors
/// A value is bad, or contradicts a flag of ours.
pub(super) fn apply(flags: &mut Settings, environment: Environment<'_>) -> Result<Said> {
    let given = flags.heapster.clone();
    let port = match (given.last("heapster-port"), given.last("port")) {
        (Some(text), _) => Some(("heapster-port", text)),
        (None, text) => text.map(|text| ("port", text)),
    };
    let ip = given.last("listen-ip").filter(|text| !text.is_empty());
    let told = |setting: &str| environment(&environment_name(setting)).is_some_and(|v| !v.is_empty());
    let listens = flags.listen.is_some();
    if let Some((name, _)) = port.filter(|_| listens) {
        bail!("--{name}: given together with --listen; accepted: one of them");
    }
    if ip.is_some() && listens {
        bail!("--listen-ip: given together with --listen; accepted: one of them");
    }
    if port.is_some() || ip.is_some() || given.in_its_place && !listens && !told("listen") {
        let port = match port {
            Some((name, text)) => text
                .parse::<u16>()
                .map_err(|_| anyhow!("--{name} {text:?}: not a port; accepted: 0 to 65535, 0 takes any"))?,
            None => PORT,
        };
        // As Heapster where it is swapped, else as safe as by default.
        let any = if given.in_its_place { "0.0.0.0" } else { "127.0.0.1" };
        let ip = ip.unwrap_or(any);
        let address: std::net::IpAddr =
            ip.trim_start_matches('[').trim_end_matches(']').parse().map_err(|_| {
                anyhow!("--listen-ip {ip:?}: not an address; accepted: such as 0.0.0.0 or ::")
            })?;
        flags.listen = Some(std::net::SocketAddr::new(address, port).to_string());
    }
    let users: Vec<String> = given
        .all("allowed-users")
        .iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|user| !user.is_empty())
        .map(str::to_owned)
        .collect();
    if given.in_its_place && flags.auth.is_none() && !told("auth") {
        let certificates = flags.tls_client_ca.is_some() || told("tls-client-ca");
        flags.auth = Some(if certificates { "token" } else { "none" }.to_owned());
    }
    if let Some(text) = given.last("v").filter(|_| flags.log_level.is_none() && !told("log-level")) {
        let level: u32 =
            text.parse().map_err(|_| anyhow!("--v {text:?}: not a number; accepted: 0 to 10"))?;
        flags.log_level = Some(
            match level {
                0 | 1 => "info",
                2..=4 => "debug",
                _ => "trace",
            }
            .to_owned(),
        );
    }
    let disable_export = match given.last("disable-export") {
        None | Some("false" | "0") => false,
        Some("true" | "1") => true,
        Some(text) => bail!("--disable-export {text:?}: accepted: true, false"),
    };
    let separator = given.last("label-separator").or(given.last("label-seperator"));
    let labels = LabelRules::new(separator, given.all("store-label"), given.all("ignore-label"))
        .map_err(|bad| anyhow!("--store-label {bad:?}: accepted: NAME or NEW=OLD"))?;
    Ok(Said { labels, disable_export, users, notices: given.notices() })
}

impl Said {
    /// Lets only those certificates read that `--allowed-users` names.
    pub(super) fn restrict(&mut self, access: Access) -> Result<Access> {
        if self.users.is_empty() {
            return Ok(access);
        }
        if access.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
            bail!("--allowed-users: given without --tls-client-ca; accepted: both or none");
        }
        // Agents that push are told apart as they were.
        let push = access.push.or(Some(access.auth));
        Ok(Access { auth: Choice::Users(std::mem::take(&mut self.users)), push, tls: access.tls })
    }
}
