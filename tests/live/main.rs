//! Live tests: real cgroups on this kernel, real work in them, and the exported
//! numbers beside what the kernel's files say at that moment.
//!
//! They need root and a writable cgroup filesystem, so `cargo test` leaves them
//! out (they are marked ignored); `.ci/run` runs them with
//! `cargo test --test live -- --ignored --test-threads=1`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods, // tests start the agent and workers, and wait for them
    missing_docs,
    unreachable_pub
)]

mod agent;
mod coverage;
#[path = "../data/exposition.rs"]
mod exposition;
mod faults;
mod group;
mod kinds;
mod limits;
mod numbers;
mod oom;
mod pod_network;
mod pods;
mod problems;
mod queue;
mod short;
mod stands;
#[path = "../it/ttar.rs"]
mod ttar;
mod worker;
