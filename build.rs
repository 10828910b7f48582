//! Compiles the protobuf definitions without a `protoc`.
//!
//! Clients go to `OUT_DIR`. What only the integration tests use goes to
//! `OUT_DIR/tests`: the servers their stand-ins are made of, and the calls that
//! make pods in a real runtime.

use std::error::Error;
use std::path::{Path, PathBuf};

const SOURCES: &str = "src/identity/proto";
const PROTOS: [&str; 3] = ["cri.proto", "pods.proto", "pod.proto"];
/// What agents and aggregators speak; published, so it does not lie with the sources.
const BATCH_SOURCES: &str = "proto";
const BATCH_PROTOS: [&str; 2] = ["nodegauge/v1/batch.proto", "nodegauge/v1/ingest.proto"];
const TEST_SOURCES: &str = "tests/it/proto";
const TEST_PROTO: &str = "runtime_admin.proto";
/// What Prometheus receives; written by hand in the sources, read by this in the tests.
const REMOTE_PROTO: &str = "remote.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let descriptors = compile(SOURCES, &PROTOS)?;
    // The kubelet's JSON is read into the same structures as its protobuf.
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .type_attribute(".core.v1", "#[derive(serde::Deserialize)]")
        .type_attribute(".core.v1", "#[serde(rename_all = \"camelCase\", default)]")
        .type_attribute(".core.v1.Time", "#[serde(from = \"String\")]")
        .type_attribute(".core.v1.Quantity", "#[serde(from = \"String\")]")
        .field_attribute(".core.v1.ContainerStatus.container_id", "#[serde(rename = \"containerID\")]")
        .field_attribute(".core.v1.EphemeralContainer.common", "#[serde(flatten)]")
        .field_attribute(".core.v1.Volume.source", "#[serde(flatten)]")
        .out_dir(&out)
        .compile_fds(descriptors.clone())?;

    tonic_prost_build::configure().out_dir(&out).compile_fds(compile(BATCH_SOURCES, &BATCH_PROTOS)?)?;

    let tests = out.join("tests");
    let admin = tests.join("admin");
    std::fs::create_dir_all(&admin)?;
    tonic_prost_build::configure().build_client(false).out_dir(&tests).compile_fds(descriptors)?;
    let descriptors = compile(TEST_SOURCES, &[TEST_PROTO])?;
    tonic_prost_build::configure().build_server(false).out_dir(&admin).compile_fds(descriptors)?;
    let descriptors = compile(TEST_SOURCES, &[REMOTE_PROTO])?;
    tonic_prost_build::configure().out_dir(&tests).compile_fds(descriptors)?;
    Ok(())
}

fn compile(folder: &str, files: &[&str]) -> Result<prost_types::FileDescriptorSet, Box<dyn Error>> {
    println!("cargo::rerun-if-changed={folder}");
    let folder = Path::new(folder);
    Ok(protox::compile(files.iter().map(|f| folder.join(f)), [folder])?)
}
