//! The integration tests: one binary, one file per subject.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop, also in a function that tests share"
)]

mod agent_node;
mod aggregate;
mod api;
mod apiserver;
mod auth;
mod batch;
mod cadvisor_api;
mod cadvisor_events;
mod cadvisor_kinds;
mod cli;
mod coverage;
mod custom;
#[path = "../data/mod.rs"]
mod data;
mod disk_usage;
mod expose;
mod faults;
mod golden;
mod gone;
mod history;
mod hostile;
mod http;
mod identity_cri;
mod identity_docker;
mod identity_kubelet;
mod identity_live;
mod identity_path;
mod image_swap;
mod ingest;
mod ingest_any;
mod ingest_http;
mod ingest_live;
mod kubelet_api;
mod kubelet_view;
mod left_out;
mod log;
mod log_kills;
mod log_model;
mod log_outage;
mod oom;
mod page;
mod parsers;
mod pull;
mod pull_live;
mod push;
mod push_encode;
mod sending;
mod served;
mod standalone;
mod standin;
mod stands;
mod step;
mod tidy;
mod tls;
mod ttar;
mod watch;
