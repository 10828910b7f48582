//! `GET /stats/summary` of kubelets: a deadline and a bound for each answer, and one
//! on all that is read at once.
//!
//! A token is shown over https only. Where there are no certificates to
//! believe, any is believed, as Heapster did; that is logged once.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use reqwest::{Certificate, Client, Identity, redirect};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Failure;
use crate::aggregate::source::Pull;
use crate::aggregate::watch::chain;
use crate::kubernetes::Credentials;

const PATH: &str = "/stats/summary";

/// Bytes of one answer: that of a node with 250 pods takes two million.
const MAX_ANSWER: usize = 16 << 20;

/// Bytes of all answers that are being read or wait to be made into steps.
const MAX_READ: usize = 192 << 20;

/// Room is taken in pieces of so many bytes.
const ROOM: usize = 64 << 10;

/// Characters of a refusal that are shown.
const MAX_SHOWN: usize = 200;

/// Longest time a connection that is not used is kept: longer than between two
/// steps of the usual length.
const IDLE: Duration = Duration::from_secs(75);

/// The way to all kubelets.
#[derive(Debug)]
pub(super) struct Kubelets {
    client: Client,
    credentials: Credentials,
    port: u16,
    https: bool,
    room: Arc<Semaphore>,
}

/// An answer, and the room it takes.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) body: Bytes,
    _room: Vec<OwnedSemaphorePermit>,
}

impl Kubelets {
    /// # Errors
    /// The credentials cannot be used.
    pub(super) fn new(pull: &Pull, credentials: Credentials, connect: Duration) -> Result<Kubelets> {
        // Another part of the program may have been first; it takes the same.
        drop(tokio_rustls::rustls::crypto::ring::default_provider().install_default());
        let authorities: Vec<Certificate> = credentials
            .authorities
            .iter()
            .map(|der| Certificate::from_der(der))
            .collect::<Result<_, _>>()
            .context("cannot use the cluster's certificates")?;
        let blind = pull.https && (pull.server.insecure || authorities.is_empty());
        if blind {
            tracing::warn!("kubelets show certificates, and any is believed: whoever answers gets the token");
        }
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(connect)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1)
            .http1_only()
            .user_agent(concat!("nodegauge/", env!("CARGO_PKG_VERSION")))
            .tls_certs_only(authorities)
            .tls_danger_accept_invalid_certs(blind);
        if let Some(pem) = credentials.identity.as_ref().filter(|_| pull.https) {
            let identity =
                Identity::from_pem(pem).context("cannot use the client certificate for kubelets")?;
            builder = builder.identity(identity);
        }
        let client = builder.build().context("cannot make a client of kubelets")?;
        let room = Arc::new(Semaphore::new(MAX_READ / ROOM));
        Ok(Kubelets { client, credentials, port: pull.port, https: pull.https, room })
    }

    /// What the kubelet at `address` says, if it does so within `deadline`.
    ///
    /// # Errors
    /// It does not, or says more than is read.
    pub(super) async fn summary(&self, address: IpAddr, deadline: Duration) -> Result<Answer, Failure> {
        let read = self.read(address);
        tokio::time::timeout(deadline, read).await.unwrap_or(Err(Failure::Deadline(deadline)))
    }

    async fn read(&self, address: IpAddr) -> Result<Answer, Failure> {
        let broken = |error: reqwest::Error| Failure::Unreachable(chain(&error.without_url()));
        let scheme = if self.https { "https" } else { "http" };
        let host = SocketAddr::new(address, self.port);
        let mut request = self.client.get(format!("{scheme}://{host}{PATH}"));
        if self.https
            && let Some(token) = self.credentials.token().map_err(|e| Failure::Credentials(e.to_string()))?
        {
            request = request.bearer_auth(token);
        }
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status().as_u16();
        if response.content_length().is_some_and(|length| length > MAX_ANSWER as u64) {
            return Err(Failure::TooLarge(MAX_ANSWER));
        }
        let mut body = BytesMut::new();
        let mut room = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(broken)? {
            if body.len() + piece.len() > MAX_ANSWER {
                return Err(Failure::TooLarge(MAX_ANSWER));
            }
            body.extend_from_slice(&piece);
            while room.len() * ROOM < body.len() {
                // Closing it is nobody's business but ours.
                let permit = Arc::clone(&self.room).acquire_owned().await;
                room.push(permit.map_err(|_| Failure::Unreachable("stopping".to_owned()))?);
            }
            if status != 200 && body.len() >= MAX_SHOWN * 4 {
                break;
            }
        }
        if status == 200 {
            return Ok(Answer { body: body.freeze(), _room: room });
        }
        let said = String::from_utf8_lossy(&body);
        let said: String =
            said.trim().chars().take(MAX_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
        Err(Failure::Status(status, said))
    }
}
