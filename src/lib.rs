#![doc = include_str!("../ARCHITECTURE.md")]

pub mod agent;
pub mod collect;
pub mod expose;
pub mod kernel;
pub mod publish;
pub mod snapshot;
