//! Compiles the protobuf files with a compiler written in Rust, so that a build needs no protoc.

use std::error::Error;
use std::process::Command;

/// The files, each with its origin in its header.
const PROTOS: &[&str] = &["proto/zds.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
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
