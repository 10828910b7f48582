//! The integration tests: one binary, one file per subject.
#[path = "../data/mod.rs"]
mod data;
mod expose;
mod parsers;
mod tidy;
