//! What is done with bytes of a stranger, and what must hold whatever they are: the same code for
//! the fuzzer and for the tests that replay its corpus.

mod connection;
mod differential;
mod frames;
mod hpack;
mod parts;
mod record;
mod tunnel;

use adit::hbone::Role;

/// The targets, each with a folder of inputs in `corpus/`.
#[allow(dead_code, reason = "only the tests go through all of them")]
pub(crate) const TARGETS: [&str; 7] =
    ["record", "hpack", "frames", "client", "server", "tunnel", "differential"];

/// Runs one target over one input; it panics if something does not hold.
pub(crate) fn run(target: &str, input: &[u8]) {
    match target {
        "record" => record::run(input),
        "hpack" => hpack::run(input),
        "frames" => frames::run(input),
        "client" => connection::run(Role::Client, input),
        "server" => connection::run(Role::Server, input),
        "tunnel" => tunnel::run(input),
        "differential" => differential::run(input),
        other => panic!("no target {other}"),
    }
}
