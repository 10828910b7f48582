//! What others fetch: snapshots as text.
//!
//! What writes a [`Snapshot`](crate::snapshot::Snapshot) reads nothing else: no
//! kernel file, no clock, no socket.
//!
//! - [`families`] is the table of what there is to tell;
//! - [`prometheus`] writes it as Prometheus text and OpenMetrics;
//! - [`lines`] and [`labels`] are how it is written without allocating;
//! - [`mod@negotiate`] says which text and compression a request gets;
//! - [`page`] is what a browser shows;
//! - [`http`] is the listener, [`routes`] what it answers, [`scrape`] the bodies
//!   that carry metrics, [`connection`] how long a client may take and [`peers`]
//!   how much.

pub mod cadvisor;
pub mod cadvisor_v1;
pub mod cadvisor_v2;
pub mod connection;
pub mod families;
pub mod http;
pub mod labels;
pub mod lines;
pub mod negotiate;
mod out;
pub mod page;
pub mod peers;
pub mod pods;
pub mod prometheus;
pub mod resource;
pub mod routes;
pub mod scrape;
pub mod summary;

pub use labels::base_labels;
pub use negotiate::{Format, accepts_gzip, negotiate};
pub use prometheus::{Options, Renderer, View};
