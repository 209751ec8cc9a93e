//! The one integration binary.
//!
//! It has its own `main` because some tests make network namespaces: as root it does so directly;
//! otherwise it first enters a user namespace, in which it may. Filters, `--list`, `--exact` and
//! `--test-threads` work as in any test binary.

mod attack;
mod authority;
mod bad_input;
mod churn;
mod control_plane;
mod corpus;
mod flood;
mod foreign_agent;
mod journeys;
mod lab;
mod lab_parts;
mod ledger;
mod lifecycle;
mod networks;
mod revocation;
mod rootless;
mod rotation;
mod same_node;
mod settings;
mod spread;
mod sys_opener;
mod tidy;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};

/// The tests of one module.
pub(crate) type Tests = &'static [(&'static str, fn() -> Result<(), String>)];

/// What the tests of a module cannot do without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    /// The right to make network namespaces and to work in them.
    Namespaces,
}

/// Every module with tests: its name, what it needs, its tests.
const MODULES: &[(&str, Needs, Tests)] = &[
    ("tidy", Needs::Nothing, tidy::TESTS),
    ("corpus", Needs::Nothing, corpus::TESTS),
    ("rootless", Needs::Namespaces, rootless::TESTS),
    ("sys_opener", Needs::Namespaces, sys_opener::TESTS),
    ("lab", Needs::Namespaces, lab::TESTS),
    ("lab_parts", Needs::Namespaces, lab_parts::TESTS),
    ("journeys", Needs::Namespaces, journeys::TESTS),
    ("networks", Needs::Namespaces, networks::TESTS),
    ("attack", Needs::Namespaces, attack::TESTS),
    ("flood", Needs::Namespaces, flood::TESTS),
    ("bad_input", Needs::Namespaces, bad_input::TESTS),
    ("foreign_agent", Needs::Namespaces, foreign_agent::TESTS),
    ("same_node", Needs::Namespaces, same_node::TESTS),
    ("churn", Needs::Namespaces, churn::TESTS),
    ("lifecycle", Needs::Namespaces, lifecycle::TESTS),
    ("settings", Needs::Namespaces, settings::TESTS),
    ("spread", Needs::Namespaces, spread::TESTS),
    ("ledger", Needs::Namespaces, ledger::TESTS),
    ("revocation", Needs::Namespaces, revocation::TESTS),
    ("rotation", Needs::Namespaces, rotation::TESTS),
    ("authority", Needs::Namespaces, authority::TESTS),
    ("control_plane", Needs::Namespaces, control_plane::TESTS),
];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Before the first thread: only a process with one thread may change its user namespace.
    let ground = if arguments.list { Ok(()) } else { rootless::enter() };
    let ground = Arc::new(ground);
    let trials = MODULES.iter().flat_map(|&(module, needs, tests)| {
        let ground = Arc::clone(&ground);
        tests.iter().map(move |&(name, test)| {
            let ground = Arc::clone(&ground);
            Trial::test(format!("{module}::{name}"), move || run(test, needs, &ground))
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn run(
    test: fn() -> Result<(), String>,
    needs: Needs,
    ground: &Result<(), String>,
) -> Result<(), Failed> {
    if needs == Needs::Namespaces {
        ground.as_ref().map_err(Failed::from)?;
    }
    Ok(test()?)
}
