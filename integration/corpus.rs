//! The corpus of the fuzzer and inputs bent from it, through the same bodies.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::world::{Context, Outcome, ensure};

#[path = "../fuzz/bodies/mod.rs"]
mod bodies;

pub(crate) const TESTS: crate::Tests = &[
    ("record", || replay("record")),
    ("hpack", || replay("hpack")),
    ("frames", || replay("frames")),
    ("client", || replay("client")),
    ("server", || replay("server")),
    ("tunnel", || replay("tunnel")),
    ("differential", || replay("differential")),
    ("every_target_has_a_test", every_target),
];

/// Bent inputs of each target: a few seconds unoptimised.
const BENT: usize = 2_000;
/// Longest input.
const INPUT_MAX: usize = 4_096;

fn replay(target: &str) -> Outcome {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = Vec::new();
    for file in fs::read_dir(&folder).during("reading the corpus")? {
        let path = file.during("reading the corpus")?.path();
        inputs.push((path.display().to_string(), fs::read(&path).during("reading an input")?));
    }
    inputs.sort();
    ensure!(!inputs.is_empty(), "{} is empty", folder.display());
    for (name, input) in &inputs {
        run(target, input).during(name)?;
    }
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..BENT {
        let input = bend(&inputs[rng.usize(..inputs.len())].1, &mut rng);
        run(target, &input).during(&format!("seed {seed}, {input:02x?}"))?;
    }
    Ok(())
}

fn run(target: &str, input: &[u8]) -> Outcome {
    let done = catch_unwind(AssertUnwindSafe(|| bodies::run(target, input)));
    done.map_err(|cause| {
        let text = cause.downcast_ref::<String>().map(String::as_str);
        text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
    })
}

/// An input that is bent in a few places.
fn bend(seed: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut input = seed.to_vec();
    for _ in 0..rng.usize(1..5) {
        let at = rng.usize(..=input.len());
        match rng.u8(..5) {
            0 => input.truncate(at),
            1 => input.insert(at, rng.u8(..)),
            2 => {
                let piece = input[at..].to_vec();
                let to = rng.usize(..=input.len());
                input.splice(to..to, piece);
            }
            3 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
            _ if at < input.len() => input[at] = rng.u8(..),
            _ => {}
        }
    }
    input.truncate(INPUT_MAX);
    input
}

fn every_target() -> Outcome {
    let tested: Vec<&str> = TESTS.iter().map(|(name, _)| *name).collect();
    for target in bodies::TARGETS {
        ensure!(tested.contains(&target), "no test replays {target}");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/targets/{target}.rs"));
        ensure!(path.exists(), "{} is missing", path.display());
    }
    Ok(())
}
