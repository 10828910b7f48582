//! The one place that builds a Kubernetes client.
//!
//! Address and credentials are those of the service account, or of the file
//! that `KUBECONFIG` names; the token is read again as it rotates.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kube::{Client, Config};

/// How long a connection to the API server may take to open.
const CONNECT: Duration = Duration::from_secs(3);

/// Longest an answer may take. Callers have shorter deadlines of their own.
const ANSWER: Duration = Duration::from_secs(30);

/// A client of the cluster this process belongs to. Nothing is asked yet.
///
/// # Errors
/// There is neither a service account nor a kubeconfig, or it cannot be used.
pub async fn client() -> Result<Client> {
    // Its message holds those of its causes.
    let mut config =
        Config::infer().await.map_err(|error| anyhow!("cannot tell where the API server is: {error}"))?;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(ANSWER);
    config.write_timeout = Some(ANSWER);
    Client::try_from(config).context("cannot make a client of the API server")
}
