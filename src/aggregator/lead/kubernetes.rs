//! A Lease of Kubernetes as the place, as the components of Kubernetes use them;
//! what sinks have taken is an annotation of it.
//!
//! Needs `get`, `create` and `update` on `leases` of `coordination.k8s.io` in the
//! Lease's namespace. Of two that write at once the API server refuses one.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};

use super::{Decide, Exchanged, Held, Place, Told};
use crate::kubernetes;

/// The annotation with what sinks have taken, as JSON.
const ACKNOWLEDGED: &str = "nodegauge.io/acknowledged";

/// See the module.
pub struct LeasePlace {
    namespace: String,
    name: String,
    client: Option<kube::Client>,
}

impl std::fmt::Debug for LeasePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeasePlace")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl LeasePlace {
    /// The Lease of this name, in the cluster this process belongs to.
    pub fn new(namespace: &str, name: &str) -> LeasePlace {
        LeasePlace { namespace: namespace.to_owned(), name: name.to_owned(), client: None }
    }

    /// The same, by a client that is there already.
    #[must_use]
    pub fn with(self, client: kube::Client) -> LeasePlace {
        LeasePlace { client: Some(client), ..self }
    }

    async fn turn(&mut self, decide: &mut Decide<'_>) -> Result<Option<Held>> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.client.insert(kubernetes::client().await?).clone(),
        };
        let leases: Api<Lease> = Api::namespaced(client, &self.namespace);
        let (namespace, name) = (&self.namespace, &self.name);
        let found =
            leases.get_opt(name).await.with_context(|| format!("read the Lease {namespace}/{name}"))?;
        let held = found.as_ref().map(read);
        let Some(new) = decide(held.as_ref()) else { return Ok(held) };
        let params = PostParams::default();
        let written = match found {
            None => {
                let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
                leases.create(&params, &written(Lease { metadata, ..Lease::default() }, &new)?).await
            }
            // With the version that was read: whoever was quicker wins.
            Some(found) => leases.replace(name, &params, &written(found, &new)?).await,
        };
        written.with_context(|| format!("write the Lease {namespace}/{name}"))?;
        Ok(Some(new))
    }
}

impl Place for LeasePlace {
    fn exchange<'a>(&'a mut self, mut decide: Decide<'a>) -> Exchanged<'a> {
        Box::pin(async move { self.turn(&mut decide).await })
    }
}

fn read(lease: &Lease) -> Held {
    let spec = lease.spec.clone().unwrap_or_default();
    let annotation = lease.metadata.annotations.as_ref().and_then(|all| all.get(ACKNOWLEDGED));
    let acknowledged: BTreeMap<String, Told> =
        annotation.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    Held {
        holder: spec.holder_identity.unwrap_or_default(),
        lease_seconds: spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0),
        renewed_us: spec.renew_time.map_or(0, |time| time.0.as_microsecond()),
        transitions: spec.lease_transitions.and_then(|t| u64::try_from(t).ok()).unwrap_or(0),
        acknowledged,
    }
}

fn written(lease: Lease, held: &Held) -> Result<Lease> {
    let before = lease.spec.unwrap_or_default();
    let renewed = Timestamp::from_microsecond(held.renewed_us).ok().map(MicroTime);
    let same = before.holder_identity.as_deref() == Some(held.holder.as_str());
    let mut metadata = lease.metadata;
    let told = serde_json::to_string(&held.acknowledged).context("write what sinks have taken")?;
    metadata.annotations.get_or_insert_default().insert(ACKNOWLEDGED.to_owned(), told);
    let spec = LeaseSpec {
        holder_identity: Some(held.holder.clone()),
        lease_duration_seconds: i32::try_from(held.lease_seconds).ok(),
        acquire_time: if same { before.acquire_time } else { renewed.clone() },
        renew_time: renewed,
        lease_transitions: i32::try_from(held.transitions).ok(),
        ..before
    };
    Ok(Lease { metadata, spec: Some(spec) })
}
