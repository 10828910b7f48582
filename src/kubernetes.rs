//! The one place that builds a Kubernetes client.
//!
//! Address and credentials are those of the service account, or of the file
//! that `KUBECONFIG` names, or what a [`Server`] says; the token is read again as
//! it rotates.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use axum::http::Uri;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

/// How long a connection to the API server may take to open.
const CONNECT: Duration = Duration::from_secs(3);

/// Longest an answer may take. Callers have shorter deadlines of their own.
const ANSWER: Duration = Duration::from_secs(30);

/// Where a pod finds its service account's token.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Which API server, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its address; without, that of the credentials.
    pub url: Option<Uri>,
    /// Credentials of the service account that is mounted into this pod.
    pub in_cluster: bool,
    /// Else those of this kubeconfig; without, none.
    pub kubeconfig: Option<PathBuf>,
    /// In any case the token of the service account.
    pub service_account: bool,
    /// Believe any certificate.
    pub insecure: bool,
}

/// What is shown to kubelets, and whom to believe to be one.
#[derive(Clone, Default)]
pub struct Credentials {
    /// Certificates to believe, DER; without, nobody can be told apart.
    pub authorities: Vec<Vec<u8>>,
    /// A certificate of ours and its key, PEM.
    pub identity: Option<Vec<u8>>,
    token: Option<String>,
    token_file: Option<PathBuf>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("authorities", &self.authorities.len()).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The token as it is now, if there is one.
    ///
    /// # Errors
    /// Its file cannot be read.
    pub fn token(&self) -> std::io::Result<Option<String>> {
        match &self.token_file {
            Some(path) => std::fs::read_to_string(path).map(|token| Some(token.trim().to_owned())),
            None => Ok(self.token.clone()),
        }
    }

    fn of(config: &Config) -> Result<Credentials> {
        // Its secrets come out only where it is written, as into a kubeconfig.
        let auth = serde_json::to_value(&config.auth_info).context("cannot read the credentials")?;
        Ok(Credentials {
            authorities: config.root_cert.clone().unwrap_or_default(),
            identity: identity(&auth)?,
            token: text(&auth, "token"),
            token_file: text(&auth, "tokenFile").map(PathBuf::from),
        })
    }
}

/// An API server that can be asked.
#[derive(Clone)]
pub struct Connection {
    /// Asks it.
    pub client: Client,
    /// Its address, for people.
    pub url: String,
    /// For kubelets of its cluster.
    pub credentials: Credentials,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Server {
    /// Reads the credentials. Nothing is asked yet. To be called on the event
    /// loop that will use the client.
    ///
    /// # Errors
    /// They are not there, or cannot be used.
    pub async fn connect(&self) -> Result<Connection> {
        let mut config = self.config().await?;
        if let Some(url) = &self.url {
            config.cluster_url = url.clone();
        }
        if self.service_account {
            config.auth_info.token_file = Some(TOKEN.to_owned());
        }
        config.accept_invalid_certs |= self.insecure;
        config.connect_timeout = Some(CONNECT);
        config.write_timeout = Some(ANSWER);
        // Whoever asks waits and asks again in a way of their own.
        config.default_retry = false;
        connection(config)
    }

    async fn config(&self) -> Result<Config> {
        const NEITHER: &str =
            "inClusterConfig=false says neither where the API server is nor auth=KUBECONFIG";
        if self.in_cluster {
            let found = if self.url.is_some() { Config::incluster_dns() } else { Config::incluster() };
            return found.map_err(|error| anyhow!("{error}")).context(
                "there is no service account here; outside a cluster say inClusterConfig=false in --source",
            );
        }
        if let Some(path) = &self.kubeconfig {
            let read = Kubeconfig::read_from(path).map_err(|error| anyhow!("{error}"));
            let read = read.with_context(|| format!("cannot use kubeconfig {}", path.display()))?;
            let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
            return config
                .map_err(|error| anyhow!("{error}"))
                .with_context(|| format!("cannot use kubeconfig {}", path.display()));
        }
        self.url.clone().map(Config::new).ok_or_else(|| anyhow!(NEITHER))
    }
}

fn text(auth: &serde_json::Value, key: &str) -> Option<String> {
    auth.get(key).and_then(serde_json::Value::as_str).map(str::to_owned)
}

/// Certificate and key of a user, PEM.
fn identity(auth: &serde_json::Value) -> Result<Option<Vec<u8>>> {
    let read = |key: &str| -> Result<Option<Vec<u8>>> {
        match (text(auth, &format!("{key}-data")), text(auth, key)) {
            (Some(data), _) => base64(&data).map(Some),
            (None, Some(path)) => {
                std::fs::read(&path).map(Some).with_context(|| format!("cannot read {path}"))
            }
            (None, None) => Ok(None),
        }
    };
    let (certificate, key) = (read("client-certificate")?, read("client-key")?);
    Ok(certificate.zip(key).map(|(mut certificate, key)| {
        certificate.push(b'\n');
        certificate.extend(key);
        certificate
    }))
}

/// What is between the lines of a PEM file is base64; a reader of these is here
/// already.
fn base64(text: &str) -> Result<Vec<u8>> {
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", text.trim());
    let decoded = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| anyhow!("{error}"))?;
    Ok(decoded.as_ref().to_vec())
}

/// A client of the cluster this process belongs to. Nothing is asked yet.
///
/// # Errors
/// There is neither a service account nor a kubeconfig, or it cannot be used.
pub async fn client() -> Result<Client> {
    let mut config = inferred().await?;
    // Of watches, which say nothing for minutes, it would be the end.
    config.read_timeout = Some(ANSWER);
    connection(config).map(|connection| connection.client)
}

/// The same with what is known of it, and for watches.
///
/// # Errors
/// There is neither a service account nor a kubeconfig, or it cannot be used.
pub async fn own() -> Result<Connection> {
    connection(inferred().await?)
}

async fn inferred() -> Result<Config> {
    // Its message holds those of its causes.
    let mut config =
        Config::infer().await.map_err(|error| anyhow!("cannot tell where the API server is: {error}"))?;
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(ANSWER);
    Ok(config)
}

fn connection(config: Config) -> Result<Connection> {
    let url = config.cluster_url.to_string();
    let credentials = Credentials::of(&config)?;
    let client = Client::try_from(config).context("cannot make a client of the API server")?;
    Ok(Connection { client, url, credentials })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubeconfigs_hold_is_decoded() {
        assert_eq!(base64("LS0tLS1CRUdJTiBBLS0tLS0K").unwrap(), b"-----BEGIN A-----\n");
        assert!(base64("!").is_err());
    }
}
