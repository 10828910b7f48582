//! Own metrics of who was let in and who was not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{Families, Telemetry, float};

/// Why a request got no answer of what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Nobody knows who asked.
    Unauthenticated,
    /// They may not.
    Forbidden,
    /// Nobody could tell whether they may.
    Unavailable,
    /// The peer asked too often.
    Rate,
    /// It had a body.
    Body,
    /// The connection was one too many, kept for probes.
    Crowded,
}

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// It took too long.
    Slow,
    /// What came is no TLS, or none that we speak.
    Protocol,
    /// The client's certificate is none of the CA's.
    Certificate,
    /// The client broke it off.
    Closed,
}

/// What somebody was told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// They showed nothing.
    Nothing,
    /// A certificate.
    Certificate,
    /// A static token.
    Token,
    /// A token that the API server knows.
    Kubernetes,
    /// The word of the API server's front proxy.
    Proxy,
}

/// What it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// They may.
    Accepted,
    /// Nobody knows them.
    Unauthenticated,
    /// They may not.
    Forbidden,
    /// Nobody could tell.
    Failed,
}

/// What became of a file that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// It is in use.
    Taken,
    /// It cannot be used; the one before stays.
    Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    method: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reloaded {
    file: &'static str,
    result: &'static str,
}

/// The certificate in use.
#[derive(Debug, Default)]
struct Certificate {
    /// Seconds of Unix time; 0 while there is none.
    ends: AtomicU64,
}

#[derive(Debug)]
struct Shown(Arc<Certificate>);

impl Collector for Shown {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let ends = self.0.ends.load(Relaxed);
        let ends = (ends > 0).then(|| float(ends));
        Families(encoder).gauge(
            "nodegauge_tls_certificate_not_after_seconds",
            "When the certificate in use ends, Unix time.",
            ends,
        )
    }
}

/// The families.
#[derive(Debug, Default)]
pub(super) struct Access {
    refused: Family<Reason, Counter>,
    handshakes: Family<Reason, Counter>,
    decisions: Family<Decided, Counter>,
    reloads: Family<Reloaded, Counter>,
    certificate: Arc<Certificate>,
}

fn refused(reason: Refused) -> Reason {
    let reason = match reason {
        Refused::Unauthenticated => "unauthenticated",
        Refused::Forbidden => "forbidden",
        Refused::Unavailable => "unavailable",
        Refused::Rate => "rate",
        Refused::Body => "body",
        Refused::Crowded => "crowded",
    };
    Reason { reason }
}

fn failed(reason: HandshakeFailure) -> Reason {
    let reason = match reason {
        HandshakeFailure::Slow => "slow",
        HandshakeFailure::Protocol => "protocol",
        HandshakeFailure::Certificate => "certificate",
        HandshakeFailure::Closed => "closed",
    };
    Reason { reason }
}

impl Access {
    /// Registers all families; those whose labels are few are there from the start.
    pub(super) fn register(&self, registry: &mut Registry) {
        use HandshakeFailure::{Certificate, Closed, Protocol, Slow};
        use Refused::{Body, Crowded, Forbidden, Rate, Unauthenticated, Unavailable};
        for reason in [Unauthenticated, Forbidden, Unavailable, Rate, Body, Crowded] {
            let _ = self.refused.get_or_create(&refused(reason));
        }
        for reason in [Slow, Protocol, Certificate, Closed] {
            let _ = self.handshakes.get_or_create(&failed(reason));
        }
        registry.register(
            "nodegauge_http_refused",
            "Requests refused before anything was looked up",
            self.refused.clone(),
        );
        registry.register(
            "nodegauge_tls_handshake_failures",
            "TLS handshakes that failed",
            self.handshakes.clone(),
        );
        registry.register(
            "nodegauge_auth_decisions",
            "Requests to what is not open, by how the caller was told apart and what it came to",
            self.decisions.clone(),
        );
        registry.register(
            "nodegauge_credential_reloads",
            "Files with certificates or tokens that changed, by whether they could be used",
            self.reloads.clone(),
        );
        registry.register_collector(Box::new(Shown(Arc::clone(&self.certificate))));
    }
}

impl Telemetry {
    /// A request was refused.
    pub fn refused(&self, reason: Refused) {
        self.access.refused.get_or_create(&refused(reason)).inc();
    }

    /// A handshake failed.
    pub fn handshake_failed(&self, reason: HandshakeFailure) {
        self.access.handshakes.get_or_create(&failed(reason)).inc();
    }

    /// It was decided whether a request may pass.
    pub fn decided(&self, means: Means, decision: Decision) {
        let method = match means {
            Means::Nothing => "none",
            Means::Certificate => "certificate",
            Means::Token => "token",
            Means::Kubernetes => "kubernetes",
            Means::Proxy => "front_proxy",
        };
        let result = match decision {
            Decision::Accepted => "accepted",
            Decision::Unauthenticated => "unauthenticated",
            Decision::Forbidden => "forbidden",
            Decision::Failed => "failed",
        };
        self.access.decisions.get_or_create(&Decided { method, result }).inc();
    }

    /// A file with certificates or tokens changed.
    pub fn reloaded(&self, file: &'static str, result: Reload) {
        let result = match result {
            Reload::Taken => "taken",
            Reload::Refused => "refused",
        };
        self.access.reloads.get_or_create(&Reloaded { file, result }).inc();
    }

    /// The certificate in use ends then, seconds of Unix time.
    pub fn certificate_ends(&self, unix_seconds: u64) {
        self.access.certificate.ends.store(unix_seconds, Relaxed);
    }
}
