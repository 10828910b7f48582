//! What the agent's page endpoints tell, as far as a terminal shows it: see
//! [`node`](crate::expose::page::node) and [`cgroup`](crate::expose::page::cgroup).
//!
//! Read leniently, since the agent may be of another version: what is not there is absent, and what is
//! not known here is passed over. Names are made safe as they are read.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::text::Text;

/// One figure for each row.
pub type Column = Vec<Option<f64>>;

/// `/api/page/node`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Overview {
    /// Name of the machine.
    pub node: Text,
    /// The agent's.
    pub version: Text,
    /// `v1`, `v2` or `hybrid`.
    pub hierarchy: Text,
    /// What the machine is.
    pub machine: Machine,
    /// Wall clock of the collection, milliseconds since the epoch.
    pub time: u64,
    /// How far back lines go, milliseconds.
    pub window: u64,
    /// Over 1, 5 and 15 minutes, hundredths.
    pub load: Option<[u32; 3]>,
    /// How many there are.
    pub tasks: Option<u64>,
    /// What is mounted.
    pub filesystems: Filesystems,
    /// Cgroups that have no row here.
    pub more: u64,
    /// Changes whenever rows do.
    pub names: String,
    /// Who the rows are; absent where they are known.
    pub rows: Option<Vec<Row>>,
    /// What they use.
    pub columns: Columns,
    /// What they used.
    pub past: Option<Past>,
}

/// What the machine is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "as in the snapshot")]
pub struct Machine {
    pub kernel_version: Text,
    pub os_version: Text,
    pub boot_time: Option<u64>,
    pub cores: Option<u64>,
    pub memory_bytes: Option<u64>,
}

/// What is mounted.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Filesystems {
    /// In mount order.
    pub mounts: Vec<Filesystem>,
}

/// One filesystem.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "as in the snapshot")]
pub struct Filesystem {
    pub mount_point: Text,
    pub fs_type: Text,
    pub space: Option<Space>,
}

/// Its space, bytes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "as in the snapshot")]
pub struct Space {
    pub capacity_bytes: u64,
    pub available_bytes: u64,
    pub usage_bytes: u64,
}

/// Who a row is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Row {
    /// Path of the cgroup as it is, to ask for it; not to be shown.
    pub id: String,
    /// `n` the machine, `p` a pod, `c` a container, `s` a sandbox, `g` any other cgroup.
    pub kind: char,
    /// Of the pod.
    pub namespace: Option<Text>,
    /// The pod's name.
    pub pod: Option<Text>,
    /// The container's name in its pod.
    pub container: Option<Text>,
    /// The runtime's name for it.
    pub name: Option<Text>,
    /// What it runs.
    pub image: Option<Text>,
    /// Of the pod, which tells pods without a name apart.
    pub uid: Option<Text>,
    /// Seconds since the epoch.
    pub created: Option<u64>,
}

/// Of two figures the sum; of one, that.
pub fn add(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    }
}

macro_rules! figures {
    ($($name:ident),*) => {
        /// One value for each row, or none at all.
        #[derive(Debug, Default, Deserialize)]
        #[serde(default)]
        #[allow(missing_docs, reason = "units are those of the endpoint")]
        pub struct Columns {
            $(pub $name: Column),*
        }

        /// What one row uses.
        #[derive(Debug, Clone, Copy, Default, PartialEq)]
        #[allow(missing_docs, reason = "units are those of the endpoint")]
        pub struct Figures {
            $(pub $name: Option<f64>),*
        }

        impl Columns {
            /// The figures of the row of that number.
            pub fn row(&self, number: usize) -> Figures {
                Figures { $($name: self.$name.get(number).copied().flatten()),* }
            }
        }

        impl Figures {
            /// Together with another's.
            pub fn plus(&self, other: &Figures) -> Figures {
                Figures { $($name: add(self.$name, other.$name)),* }
            }
        }
    };
}

figures!(
    cpu,
    cpu_limit,
    throttled,
    memory,
    memory_limit,
    received,
    sent,
    read,
    written,
    cpu_pressure,
    memory_pressure,
    io_pressure,
    threads,
    disk,
    oom_kills
);

/// Equally spaced points up to the answer's time, for each row.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Past {
    /// Milliseconds between two points.
    pub step: u64,
    /// Thousandths of a core.
    pub cpu: Vec<Column>,
    /// Bytes.
    pub memory: Vec<Column>,
}

/// `/api/page/cgroup`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// As of a row.
    pub kind: char,
    /// Names.
    pub identity: Names,
    /// Of the pod.
    pub uid: Option<Text>,
    /// The runtime's.
    pub container_id: Option<Text>,
    /// Which runtime.
    pub runtime: Option<Text>,
    /// Seconds since the epoch.
    pub created: Option<u64>,
    /// Wall clock of the collection, milliseconds since the epoch.
    pub time: u64,
    /// For the next question.
    pub at: u64,
    /// How far back samples go, milliseconds.
    pub window: u64,
    /// Thousandths of a core.
    pub cpu_limit: Option<f64>,
    /// Bytes.
    pub memory_limit: Option<f64>,
    /// What it may use; a limit is `"max"` or `{"value": N}`.
    pub spec: BTreeMap<String, Value>,
    /// Killed for want of memory.
    pub oom_kills: Option<u64>,
    /// On disks.
    pub disk: Option<Disk>,
    /// Its samples.
    pub series: Series,
}

/// Samples, the oldest first.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Series {
    /// Wall clock, milliseconds since the epoch.
    pub time: Vec<u64>,
    /// By name, each as long as the times.
    #[serde(flatten)]
    pub figures: BTreeMap<String, Column>,
}

/// Whose cgroup it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "as in the snapshot")]
pub struct Names {
    pub namespace: Option<Text>,
    pub pod: Option<Text>,
    pub container: Option<Text>,
    pub name: Option<Text>,
    pub image: Option<Text>,
    pub health: Option<Text>,
}

/// What it keeps on disks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "as in the snapshot")]
pub struct Disk {
    pub layer: Option<Part>,
    pub logs: Option<Part>,
    pub volumes: Vec<Volume>,
}

/// One directory tree.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "as in the snapshot")]
pub struct Part {
    pub used_bytes: Option<f64>,
    pub inodes: Option<f64>,
}

/// A volume of a pod.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "as in the snapshot")]
pub struct Volume {
    pub name: Text,
    pub usage: Part,
}
