//! Every kind of sink: the one table that makes them.

use std::path::Path;

use super::aggregator::Aggregator;
use super::delivery::Sink;
use super::influxdb::Influxdb;
use super::remote_write::RemoteWrite;
use super::target::{Protocol, Target};

/// Makes a sink for a target of its kind; `None` for others. The directory is
/// where it may keep a small file.
type Make = fn(&Target, Option<&Path>) -> Option<Box<dyn Sink>>;

/// One line for each kind.
const SINKS: [Make; 3] = [
    |target, directory| {
        let state = directory.map(|d| d.join(format!("{}.boot", target.name)));
        matches!(target.protocol, Protocol::Aggregator)
            .then(|| Box::new(Aggregator::new(state)) as Box<dyn Sink>)
    },
    |target, _| Some(Box::new(Influxdb::new(target)?)),
    |target, _| Some(Box::new(RemoteWrite::new(target)?)),
];

/// What speaks the protocol of a target.
pub fn sink(target: &Target, directory: Option<&Path>) -> Option<Box<dyn Sink>> {
    SINKS.iter().find_map(|make| make(target, directory))
}
