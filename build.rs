//! Compiles the protobuf files with a compiler written in Rust, so that a build needs no protoc.

use std::error::Error;
use std::process::Command;

/// The files, each with its origin in its header.
const PROTOS: &[&str] = &[
    "proto/authorization.proto",
    "proto/ca.proto",
    "proto/discovery.proto",
    "proto/workload.proto",
    "proto/zds.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let mut config = prost_build::Config::new();
    // Ordered maps, so that the same message is the same bytes.
    config.btree_map(["."]);
    // Connections are ours: no transport of the code generator's.
    let services = tonic_prost_build::configure().build_transport(false);
    services.compile_fds_with_config(descriptors, config)?;
    println!("cargo::rerun-if-changed=build.rs");
    tell("ADIT_RUST_VERSION", Command::new(compiler()).arg("--version"));
    Ok(())
}

/// Hands the first line of a command's output to the crate; nothing if the command cannot be run.
fn tell(name: &str, command: &mut Command) {
    let Ok(output) = command.output() else { return };
    let text = String::from_utf8_lossy(&output.stdout);
    if let (true, Some(line)) = (output.status.success(), text.lines().next()) {
        println!("cargo::rustc-env={name}={line}");
    }
}

#[expect(clippy::disallowed_methods, reason = "this is how cargo tells build scripts")]
fn compiler() -> std::ffi::OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}
