//! The resource metrics API on a TLS port of its own, as an aggregated API server:
//! `kube-apiserver` hands on what it is asked under `/apis/metrics.k8s.io`.
//!
//! | path | answer |
//! |---|---|
//! | `/apis`, `/apis/metrics.k8s.io/…` | discovery and the API: see [`resource`](crate::api::resource) |
//! | `/openapi/v2`, `/openapi/v3/…`, `/version` | what the API server asks besides |
//! | `/livez`, `/healthz` | 200 |
//! | `/readyz` | 200 once it is known whom to believe |
//!
//! Who asks is told by the API server's front proxy, a certificate or a token, and what
//! they may do by the API server: see [`auth::delegated`](crate::auth::delegated).

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;

use crate::aggregate::model::Model;
use crate::api;
use crate::auth::reviews::Times;
use crate::auth::{Delegated, Guard, How, Reviews, Tls, rules};
use crate::config::{ApiServerConfig, not_bound};
use crate::expose::http::{self, Site};
use crate::expose::routes::line;
use crate::telemetry::Telemetry;

/// How often the API server is asked whom to believe: CAs overlap for longer than that.
const FOLLOW: Duration = Duration::from_secs(30);

/// One that is ready to serve.
pub struct ApiServer {
    /// Where it accepts connections.
    pub listener: TcpListener,
    /// What it serves.
    pub site: Site,
    /// Who may ask.
    pub guard: Arc<Guard>,
    client: kube::Client,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// Finds the API server and reads the files; to be called on the event loop.
    ///
    /// # Errors
    /// A file cannot be used, there is no API server to ask, or the address is taken.
    pub async fn open(
        config: &ApiServerConfig,
        model: &Arc<Model>,
        telemetry: &Arc<Telemetry>,
    ) -> Result<ApiServer> {
        let listener = http::bind(config.listen)
            .map_err(|error| not_bound("api-listen", config.listen, &error))
            .context("--api-listen")?;
        let client = crate::kubernetes::client().await.context("--api-listen")?;
        let reviews = Reviews::new(client.clone(), String::new(), Times::short())?;
        let delegated = Delegated::open(config.given.clone(), reviews)
            .context("--client-ca-file, --requestheader-client-ca-file")?;
        let tls = Tls::open(config.tls.clone()).context("--api-tls-cert, --api-tls-key")?;
        let guard = guard(delegated, tls, Arc::clone(telemetry));
        let site = site(model, Arc::clone(telemetry), Arc::clone(&guard));
        Ok(ApiServer { listener, site, guard, client })
    }

    /// Keeps up with whom to believe, for as long as it is polled.
    pub fn follow(&self) -> impl Future<Output = ()> + use<> {
        let (guard, client) = (Arc::clone(&self.guard), self.client.clone());
        async move { guard.follow(client, FOLLOW).await }
    }
}

/// Lets in whom the API server lets in.
pub fn guard(delegated: Delegated, tls: Tls, telemetry: Arc<Telemetry>) -> Arc<Guard> {
    Arc::new(Guard::new(rules::API, How::Delegated(Box::new(delegated)), Some(tls), telemetry))
}

/// Everything it serves.
pub fn site(model: &Arc<Model>, telemetry: Arc<Telemetry>, guard: Arc<Guard>) -> Site {
    let router = api::aggregated(model, api::wall_clock)
        .route("/livez", get(alive))
        .route("/healthz", get(alive))
        .route("/readyz", get(readyz).with_state(guard));
    Site {
        router,
        telemetry,
        bodies: &[],
        paths: Default::default(),
        loose_slashes: true,
        handlers: &[("/apis", "apiserver")],
        refusal: api::resource::refusal,
        tidy: Box::new(|| {}),
    }
}

async fn alive() -> Response {
    line(StatusCode::OK, "ok")
}

async fn readyz(State(guard): State<Arc<Guard>>) -> Response {
    if guard.is_settled() {
        return line(StatusCode::OK, "ok");
    }
    line(StatusCode::SERVICE_UNAVAILABLE, "the API server has not said yet whom to believe")
}
