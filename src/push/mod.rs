//! What the agent sends: every step is written once, as one batch, and each
//! sink encodes it when it sends.

pub mod aggregator;
pub mod batch;
pub mod delivery;
pub mod influxdb;
pub mod journal;
pub mod labels;
pub mod log;
pub mod remote_write;
pub mod sinks;
pub mod step;
pub mod target;
