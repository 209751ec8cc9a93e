//! Compiles the protobuf files with a compiler written in Rust, so that a build needs no protoc.

use std::error::Error;

/// The files, each with its origin in its header.
const PROTOS: &[&str] = &["proto/zds.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
