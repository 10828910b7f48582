//! Which pod and container a cgroup is.

pub mod path;
