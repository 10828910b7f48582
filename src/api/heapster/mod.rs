//! Heapster's own paths: what its consumers ask, answered field by field as it
//! did, without its faults:
//!
//! - lists are in order, and name pods and machines that missed one push;
//! - doubles come with `floatValue`, and cut to a whole number in `value`;
//! - all metrics are kept as long as the two that Heapster kept for 15 minutes;
//! - a system container whose name has a slash is reached by `%2F`;
//! - an unknown pod of the older resource metrics is 404, not 500;
//! - `disk/io_*` in the export begin at the start of their entity, being counters,
//!   and inodes are counts in the schema, not bytes.

pub mod export;
mod exported;
pub mod model;
pub mod schema;
pub mod time;
pub mod usage;
