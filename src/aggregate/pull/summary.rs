//! A kubelet's `/stats/summary`, as far as it is used: JSON, keys as they are
//! written there, what is not there is absent.
//!
//! Nothing of it is trusted: numbers are taken as they are, names are checked by
//! whoever uses them.

use serde::{Deserialize, Deserializer};

use crate::identity::model::time_ns;

/// The whole answer.
#[derive(Debug, Deserialize)]
pub struct Summary {
    /// The machine; what has none is no summary.
    pub node: NodeStats,
    /// Its pods.
    #[serde(default)]
    pub pods: Option<Vec<PodStats>>,
}

/// The machine.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct NodeStats {
    /// `kubelet`, `runtime`, `misc` and `pods`.
    pub system_containers: Option<Vec<ContainerStats>>,
    /// When it was booted.
    pub start_time: Time,
    /// Of the root cgroup.
    pub cpu: Option<Cpu>,
    /// Of the root cgroup.
    pub memory: Option<Memory>,
    /// Of the host's namespace.
    pub network: Option<Network>,
    /// The filesystem that the kubelet keeps pods on.
    pub fs: Option<Filesystem>,
    /// Of the whole machine.
    pub swap: Option<Swap>,
}

/// A pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStats {
    /// Who it is.
    pub pod_ref: PodRef,
    /// When its sandbox was made.
    pub start_time: Time,
    /// Those that run.
    pub containers: Option<Vec<ContainerStats>>,
    /// Of its own cgroup; older kubelets do not tell.
    pub cpu: Option<Cpu>,
    /// Likewise.
    pub memory: Option<Memory>,
    /// Of its sandbox; with host network that of the host, or nothing.
    pub network: Option<Network>,
    /// Its volumes.
    pub volume: Option<Vec<Volume>>,
    /// All it keeps on the node's disk.
    #[serde(rename = "ephemeral-storage")]
    pub ephemeral_storage: Option<Filesystem>,
    /// Of its own cgroup.
    pub swap: Option<Swap>,
}

/// Who a pod is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodRef {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// As its cgroup has it: of a static pod the hash.
    pub uid: String,
}

/// A container, or a system container.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ContainerStats {
    /// Its name in the pod, or as Kubernetes calls that part of the system.
    pub name: String,
    /// When it was made.
    pub start_time: Time,
    /// Of its cgroup.
    pub cpu: Option<Cpu>,
    /// Of its cgroup.
    pub memory: Option<Memory>,
    /// Its writable layer.
    pub rootfs: Option<Filesystem>,
    /// Its log files.
    pub logs: Option<Filesystem>,
    /// Those it was given; kubelets tell of none since 1.25.
    pub accelerators: Option<Vec<Accelerator>>,
    /// What it told of itself; kubelets have not asked for it since 1.14.
    pub user_defined_metrics: Option<Vec<UserDefined>>,
    /// Of its cgroup.
    pub swap: Option<Swap>,
}

/// CPU time.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cpu {
    /// When it was read.
    pub time: Time,
    /// Nanoseconds since the start.
    pub usage_core_nano_seconds: Option<u64>,
}

/// Memory.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Memory {
    /// When it was read.
    pub time: Time,
    /// Bytes, caches included.
    pub usage_bytes: Option<u64>,
    /// Bytes without inactive files.
    pub working_set_bytes: Option<u64>,
    /// Anonymous bytes.
    pub rss_bytes: Option<u64>,
    /// Since the start.
    pub page_faults: Option<u64>,
    /// Since the start.
    pub major_page_faults: Option<u64>,
}

/// An accelerator.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Accelerator {
    /// Who made it: `nvidia`.
    pub make: String,
    /// Its model: `Tesla P100`.
    pub model: String,
    /// Which one it is.
    pub id: String,
    /// Bytes.
    pub memory_total: Option<u64>,
    /// Bytes.
    pub memory_used: Option<u64>,
    /// Percent of the time in which it worked.
    pub duty_cycle: Option<u64>,
}

/// A figure under a name of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct UserDefined {
    /// Its name.
    pub name: String,
    /// Its newest value.
    pub value: Option<f64>,
}

/// Swap.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Swap {
    /// Bytes.
    pub swap_usage_bytes: Option<u64>,
}

/// Interfaces of a network namespace.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Network {
    /// When they were read.
    pub time: Time,
    /// The default interface, where there is one of the usual name.
    #[serde(flatten)]
    pub default: Interface,
    /// All of them, the default one too.
    pub interfaces: Option<Vec<Interface>>,
}

/// One interface.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Interface {
    /// Bytes received.
    pub rx_bytes: Option<u64>,
    /// Errors while receiving.
    pub rx_errors: Option<u64>,
    /// Bytes sent.
    pub tx_bytes: Option<u64>,
    /// Errors while sending.
    pub tx_errors: Option<u64>,
}

/// Something on a filesystem, and that filesystem.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Filesystem {
    /// Bytes of the filesystem.
    pub capacity_bytes: Option<u64>,
    /// Bytes that can still be used.
    pub available_bytes: Option<u64>,
    /// Bytes used by what it is.
    pub used_bytes: Option<u64>,
    /// Inodes of the filesystem.
    pub inodes: Option<u64>,
    /// Those that are free.
    pub inodes_free: Option<u64>,
}

/// A volume.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// What it takes up.
    #[serde(flatten)]
    pub usage: Filesystem,
}

impl Network {
    /// What the default interface carried: bytes and errors received, bytes and
    /// errors sent. Where it has another name than usual, what all carried.
    pub fn totals(&self) -> [Option<u64>; 4] {
        let figures = |i: &Interface| [i.rx_bytes, i.rx_errors, i.tx_bytes, i.tx_errors];
        let default = figures(&self.default);
        if default.iter().any(Option::is_some) {
            return default;
        }
        let mut sums = [None; 4];
        for interface in self.interfaces.iter().flatten() {
            for (sum, figure) in sums.iter_mut().zip(figures(interface)) {
                *sum = match (*sum, figure) {
                    (Some(sum), Some(figure)) => Some(u64::saturating_add(sum, figure)),
                    (sum, figure) => sum.or(figure),
                };
            }
        }
        sums
    }
}

/// A moment: nanoseconds since the epoch, where it is one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Option<u64>);

impl Time {
    /// Milliseconds since the epoch.
    pub fn ms(self) -> Option<u64> {
        self.0.map(|ns| ns / 1_000_000)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        // Text may be written with escapes, and is borrowed where it is not.
        let text: Option<std::borrow::Cow<'de, str>> = Option::deserialize(deserializer)?;
        Ok(Time(text.and_then(|text| time_ns(&text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(json: &str) -> [Option<u64>; 4] {
        serde_json::from_str::<Network>(json).unwrap().totals()
    }

    #[test]
    fn the_default_interface_or_all_of_them() {
        let both = r#"{"time":"2026-11-20T12:44:28Z","name":"eth0","rxBytes":1,"rxErrors":0,"txBytes":3,"txErrors":4,
            "interfaces":[{"name":"eth0","rxBytes":1},{"name":"net1","rxBytes":90}]}"#;
        assert_eq!(network(both), [Some(1), Some(0), Some(3), Some(4)]);
        let other = r#"{"time":"2026-11-20T12:44:28Z","name":"","interfaces":[{"name":"ens5","rxBytes":7},
            {"name":"cni0","rxBytes":18446744073709551615,"txBytes":2}]}"#;
        assert_eq!(network(other), [Some(u64::MAX), None, Some(2), None]);
        assert_eq!(network(r#"{"time":"x"}"#), [None; 4]);
    }

    #[test]
    fn what_is_missing_or_null_is_absent() {
        let summary: Summary = serde_json::from_str(
            r#"{"node":{"nodeName":"n"},"pods":[{"podRef":{"name":"a","namespace":"b","uid":"c"},
               "startTime":null,"containers":null,"unknown":{"x":[1]},"ephemeral-storage":{"usedBytes":5}}]}"#,
        )
        .unwrap();
        let pod = &summary.pods.unwrap()[0];
        assert!(pod.containers.is_none() && pod.start_time == Time(None) && pod.cpu.is_none());
        assert_eq!(pod.ephemeral_storage.as_ref().unwrap().used_bytes, Some(5));
        assert!(serde_json::from_str::<Summary>(r#"{"node":{},"pods":null}"#).unwrap().pods.is_none());
        for lie in
            [r#"{"node":{"cpu":{"usageCoreNanoSeconds":-1}}}"#, r#"[]"#, r#"{"node":{},"pods":{}}"#, "{}"]
        {
            assert!(serde_json::from_str::<Summary>(lie).is_err(), "{lie}");
        }
    }
}
