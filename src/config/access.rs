//! Where to serve and who may read, which have to fit each other.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};

use super::Layers;
use super::values::on_off;
use crate::auth::rules::Opened;
use crate::auth::{Access, Choice, TlsFiles};
use crate::cli::Settings;

const ACCEPTED: &str = "accepted: none, token, kubernetes";

const PLAIN: &str = "reaches beyond loopback, where tokens are not sent over plain http; \
    accepted: a loopback address, or --tls-cert and --tls-key";

/// Whose listener it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Agent,
    Aggregator,
    /// The aggregator in one process with an agent.
    Beside,
}

impl Role {
    fn default_listen(self) -> SocketAddr {
        let port = match self {
            Role::Agent => 4194,
            Role::Aggregator | Role::Beside => 8082,
        };
        SocketAddr::from(([127, 0, 0, 1], port))
    }
}

impl Layers {
    /// The address to serve on and who may read and push there.
    ///
    /// # Errors
    /// One of them is malformed, or they contradict each other.
    pub(super) fn listener(&self, role: Role) -> Result<(SocketAddr, Access)> {
        let path = |text: &str| match text {
            "" => bail!("no path; accepted: a readable file"),
            path => Ok(PathBuf::from(path)),
        };
        let certificate = self.parse("tls-cert", |s| &s.tls_cert, path)?;
        let key = self.parse("tls-key", |s| &s.tls_key, path)?;
        let client_ca = self.parse("tls-client-ca", |s| &s.tls_client_ca, path)?;
        let token_file = self.parse("auth-token-file", |s| &s.auth_token_file, path)?;
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                Some(TlsFiles { certificate, key, client_ca: client_ca.clone() })
            }
            (None, None) => None,
            (Some(_), None) => bail!("--tls-cert: given without --tls-key; accepted: both or none"),
            (None, Some(_)) => bail!("--tls-key: given without --tls-cert; accepted: both or none"),
        };
        if tls.is_none() && client_ca.is_some() {
            bail!("--tls-client-ca: given without --tls-cert and --tls-key; accepted: all three");
        }
        let auth = self.parse(
            "auth",
            |s| &s.auth,
            |text| match text {
                "none" => Ok(Choice::None),
                "token" if token_file.is_none() && client_ca.is_none() => {
                    bail!(
                        "nothing to compare with; accepted: with --auth-token-file, --tls-client-ca or both"
                    )
                }
                "token" => Ok(Choice::Token(token_file.clone())),
                "kubernetes" => Ok(Choice::Kubernetes),
                _ => bail!("not accepted; {ACCEPTED}"),
            },
        )?;
        let address = |text: &str| address(text, auth.as_ref(), tls.is_some());
        let listen = match role {
            Role::Agent | Role::Aggregator => self.parse("listen", |s| &s.listen, address)?,
            Role::Beside => self.parse("aggregator-listen", |s| &s.aggregator_listen, address)?,
        };
        let opened = self.opened()?;
        let listen = listen.unwrap_or_else(|| role.default_listen());
        // Beyond loopback it is always told apart who pushes, also where everybody may read.
        let push = (role != Role::Agent && auth == Some(Choice::None) && !is_loopback(listen))
            .then(|| Choice::Token(token_file.clone()));
        if push.is_some() && token_file.is_some() && tls.is_none() {
            bail!("--auth-token-file: {PLAIN}");
        }
        if push.is_some() {
            return Ok((listen, Access { auth: Choice::None, tls, push, opened }));
        }
        if token_file.is_some() && !matches!(auth, Some(Choice::Token(_))) {
            bail!("--auth-token-file: given without --auth token; accepted: both or none");
        }
        if client_ca.is_some() && matches!(auth, None | Some(Choice::None)) {
            bail!("--tls-client-ca: nobody would be asked; accepted: with --auth token or --auth kubernetes");
        }
        Ok((listen, Access { auth: auth.unwrap_or(Choice::None), tls, push, opened }))
    }
}

impl Layers {
    /// The areas for which authentication is switched off.
    fn opened(&self) -> Result<Opened> {
        let off = |setting, get: fn(&Settings) -> &Option<String>| {
            anyhow::Ok(self.parse(setting, get, on_off)?.is_some_and(|on| !on))
        };
        Ok(Opened {
            metrics: off("auth-metrics", |s| &s.auth_metrics)?,
            model: off("auth-model", |s| &s.auth_model)?,
            dashboard: off("auth-dashboard", |s| &s.auth_dashboard)?,
        })
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn address(text: &str, auth: Option<&Choice>, tls: bool) -> Result<SocketAddr> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| anyhow!("not an address; accepted: IP:PORT, such as 127.0.0.1:4194 or [::1]:4194"))?;
    if is_loopback(address) {
        return Ok(address);
    }
    match auth {
        None => bail!(
            "reaches beyond loopback, where it must be said who may read; accepted: a loopback address, \
             --auth token or --auth kubernetes, or --auth none to let everybody read"
        ),
        // Whoever is on the way would read the token and have it.
        Some(Choice::Token(_) | Choice::Kubernetes) if !tls => bail!("{PLAIN}"),
        Some(_) => Ok(address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{error, load};

    const TLS: [&str; 4] = ["--tls-cert", "c", "--tls-key", "k"];

    fn with_tls<'a>(words: &[&'a str]) -> Vec<&'a str> {
        TLS.iter().chain(words).copied().collect()
    }

    #[test]
    fn who_may_read_and_how() {
        let access = |words: &[&str]| load(words, &[]).unwrap().access;
        assert_eq!(
            access(&[]),
            Access { auth: Choice::None, tls: None, push: None, opened: Opened::default() }
        );
        let files = |client_ca: Option<&str>| {
            let client_ca = client_ca.map(PathBuf::from);
            Some(TlsFiles { certificate: "c".into(), key: "k".into(), client_ca })
        };
        assert_eq!(
            access(&TLS),
            Access { auth: Choice::None, tls: files(None), push: None, opened: Opened::default() }
        );
        // On loopback a token may travel without TLS.
        let token = access(&["--auth", "token", "--auth-token-file", "t"]);
        assert_eq!(
            token,
            Access {
                auth: Choice::Token(Some("t".into())),
                tls: None,
                push: None,
                opened: Opened::default()
            }
        );
        let certificates = with_tls(&["--auth", "token", "--tls-client-ca", "a", "--listen", "0.0.0.0:4194"]);
        assert_eq!(
            access(&certificates),
            Access {
                auth: Choice::Token(None),
                tls: files(Some("a")),
                push: None,
                opened: Opened::default()
            }
        );
        let kubernetes = with_tls(&["--auth", "kubernetes", "--listen", "[::]:4194"]);
        assert_eq!(
            access(&kubernetes),
            Access { auth: Choice::Kubernetes, tls: files(None), push: None, opened: Opened::default() }
        );
        let environment = [("NODEGAUGE_AUTH", "token"), ("NODEGAUGE_AUTH_TOKEN_FILE", "t")];
        assert_eq!(load(&[], &environment).unwrap().access, token);
    }

    #[test]
    fn contradictions() {
        let check = |words: &[&str], expected: &str| assert_eq!(error(words, &[]), expected);
        check(&["--tls-cert", "c"], "--tls-cert: given without --tls-key; accepted: both or none");
        check(&["--tls-key", "k"], "--tls-key: given without --tls-cert; accepted: both or none");
        check(
            &["--tls-client-ca", "a"],
            "--tls-client-ca: given without --tls-cert and --tls-key; accepted: all three",
        );
        check(
            &with_tls(&["--tls-client-ca", "a"]),
            "--tls-client-ca: nobody would be asked; accepted: with --auth token or --auth kubernetes",
        );
        check(
            &["--auth", "token"],
            "--auth \"token\": nothing to compare with; accepted: with --auth-token-file, --tls-client-ca or both",
        );
        check(
            &["--auth-token-file", "t", "--auth", "none"],
            "--auth-token-file: given without --auth token; accepted: both or none",
        );
        check(&["--tls-cert="], "--tls-cert \"\": no path; accepted: a readable file");
        for auth in ["token", "kubernetes"] {
            let mut words = vec!["--auth", auth, "--listen", "10.0.0.1:4194"];
            if auth == "token" {
                words.extend(["--auth-token-file", "t"]);
            }
            check(
                &words,
                "--listen \"10.0.0.1:4194\": reaches beyond loopback, where tokens are not sent over plain http; \
                 accepted: a loopback address, or --tls-cert and --tls-key",
            );
        }
    }
}
