//! The integration tests: one binary, one file per subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop, also in a function that tests share"
)]

mod cli;
#[path = "../data/mod.rs"]
mod data;
mod expose;
mod faults;
mod golden;
mod http;
mod parsers;
mod tidy;
mod ttar;

mod identity_live;
mod identity_path;
