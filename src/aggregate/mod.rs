//! The central role: what the agents push, per pod, namespace, node and cluster.
//!
//! - [`ingest`] is how bytes of agents get into the model, [`claims`] whose names
//!   and clocks they have;
//! - [`model`] is the cluster: all nodes, sums over namespaces, what is asked;
//! - [`node`] is one node of the model: who lives there, and its last steps;
//! - [`steps`] is what databases get of its slots;
//! - [`custom`] is what programs push of themselves, as [`exposition`];
//! - [`snapshot`] is the model on disk;
//! - [`window`] holds these steps compressed, [`names`] the strings once.

pub mod claims;
pub mod custom;
pub mod exposition;
mod facts;
pub mod ingest;
pub mod model;
pub mod names;
pub mod node;
pub mod objects;
pub mod pull;
pub mod snapshot;
pub mod source;
pub mod steps;
pub mod watch;
pub mod window;
