//! The central role: what the agents push, per pod, namespace, node and cluster.
//!
//! - [`node`] is one node of the model: who lives there, and its last steps;
//! - [`window`] holds these steps compressed, [`names`] the strings once.

pub mod names;
pub mod node;
pub mod window;
