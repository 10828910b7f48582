#![doc = include_str!("../ARCHITECTURE.md")]

pub mod agent;
pub mod aggregate;
pub mod check;
pub mod cli;
pub mod collect;
pub mod config;
pub mod expose;
pub mod identity;
pub mod kernel;
pub mod once;
pub mod publish;
pub mod push;
pub mod rate;
pub mod snapshot;
pub mod telemetry;
