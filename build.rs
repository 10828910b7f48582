//! Compiles the protobuf definitions without a `protoc`.
//!
//! Clients go to `OUT_DIR`. What only the integration tests use goes to
//! `OUT_DIR/tests`: the servers their stand-ins are made of, and the calls that
//! make pods in a real runtime.
//!
//! And has addresses that a static binary fixes when it starts written shortly,
//! where the C library understands that.

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
    if reads_short_relocations() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    Ok(())
}

/// Whether what is linked in reads `DT_RELR`, with which 26,000 addresses take 10 KiB
/// instead of 600, which are read at the start and stay in memory. glibc does from
/// 2.36 on. A dynamic binary could be carried to a machine with an older one.
#[expect(clippy::disallowed_methods, reason = "while building there is no tick to delay")]
fn reads_short_relocations() -> bool {
    let is = |name: &str, wanted: &str| std::env::var(name).is_ok_and(|value| value == wanted);
    let has = |name: &str, part: &str| std::env::var(name).is_ok_and(|v| v.split(',').any(|p| p == part));
    let is_own = std::env::var("HOST").is_ok_and(|host| is("TARGET", &host));
    if !(is_own
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && has("CARGO_CFG_TARGET_FEATURE", "crt-static"))
    {
        return false;
    }
    let asked = std::process::Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let said = asked.map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned()).unwrap_or_default();
    let version =
        said.trim().strip_prefix("glibc 2.").and_then(|minor| minor.split('.').next()?.parse().ok());
    version.is_some_and(|minor: u32| minor >= 36)
}

fn compile(folder: &str, files: &[&str]) -> Result<prost_types::FileDescriptorSet, Box<dyn Error>> {
    println!("cargo::rerun-if-changed={folder}");
    let folder = Path::new(folder);
    Ok(protox::compile(files.iter().map(|f| folder.join(f)), [folder])?)
}
