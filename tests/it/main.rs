//! The integration tests: one binary, one file per subject.

mod cli;
#[path = "../data/mod.rs"]
mod data;
mod expose;
mod http;
mod parsers;
mod tidy;
