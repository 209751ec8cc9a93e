//! End-to-end figures: adit between two nodes, next to what users have today and what is possible.
//!
//! ```text
//! cargo bench                          all scenarios, at most 12 minutes
//! cargo bench -- --quick               at most 3 minutes
//! cargo bench -- one_flow keep_alive   scenarios whose names contain one of these words
//! cargo bench -- --json                for machines
//! cargo bench -- --scaling             what more workers bring, as root; at most 2 minutes
//! ```
//!
//! Four kinds of proxies stand between the same applications, each with pods of its own:
//! *adit*; the *stock* relay, which is `h2` over rustls with the settings of spec hbone 4; the
//! *null* relay, which does the same work with sockets and namespaces but only splices; and *none*.
//! They take turns, so that the machine's moods fall on all of them.

mod delay;
mod load;
mod null;
mod pki;
mod proxies;
mod relay;
mod report;
mod scaling;
mod scenario;
mod stalled;
mod stock;
mod world;

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use adit::cli::lab::userns;
use relay::Kind;
use report::Report;
use scenario::{Scenario, Settings};
use world::{Variant, World};

/// End-to-end figures of adit, a stock relay, a null relay and no proxy.
#[derive(Parser)]
#[command(name = "e2e")]
struct Arguments {
    /// Only scenarios whose names contain one of these words.
    scenarios: Vec<String>,
    /// Fewer and shorter runs: at most 3 minutes.
    #[arg(long)]
    quick: bool,
    /// One JSON document instead of tables.
    #[arg(long)]
    json: bool,
    /// Fail if adit is worse than this many times the stock relay anywhere.
    #[arg(long, value_name = "RATIO")]
    at_least: Option<f64>,
    /// Only these proxies.
    #[arg(long, value_delimiter = ',', value_enum)]
    proxies: Vec<Variant>,
    /// Only what more workers bring, each held back to a part of a core: needs root.
    #[arg(long, conflicts_with_all = ["scenarios", "json", "at_least"])]
    scaling: bool,
    /// How adit carries what stays on a node: its `SAME_NODE`.
    #[arg(long, value_name = "PATH", value_parser = ["tunnel", "direct"], default_value = "direct")]
    same_node: String,
    /// Serve as a relay; the plan is on standard input.
    #[arg(long, hide = true, value_enum)]
    relay: Option<Kind>,
    /// Open connections whose readers stop; the plan is on standard input.
    #[arg(long, hide = true)]
    stall: bool,
    /// What `cargo bench` says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.relay {
        Some(kind) => relay::main(kind).map(|()| true),
        None if arguments.stall => stalled::main().map(|()| true),
        None => measure(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the scenarios; false if a figure is missing, or worse than it may be.
fn measure(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    if !nix::unistd::geteuid().is_root() {
        userns::enter_user_namespace()
            .map_err(|error| io::Error::other(format!("{error}; {}", userns::remedy())))?;
    }
    adit::sys::process::raise_open_files()?;
    let settings = if arguments.quick { Settings::QUICK } else { Settings::FULL };
    let wanted = |scenario: &&Scenario| {
        let words = &arguments.scenarios;
        words.is_empty() || words.iter().any(|word| scenario.name().contains(word.as_str()))
    };
    let scenarios: Vec<Scenario> = Scenario::ALL.iter().filter(wanted).copied().collect();
    let variants: Vec<Variant> = Variant::ALL
        .into_iter()
        .filter(|variant| arguments.proxies.is_empty() || arguments.proxies.contains(variant))
        .collect();
    if arguments.scaling {
        return scaling::measure(&settings, &variants).map(|()| true);
    }
    let world = World::build(&variants, &arguments.same_node, None)?;
    let deadline = load::now() + settings.total;
    let mut report = Report::new(arguments.json, &variants);
    for scenario in scenarios {
        report.begin(scenario);
        for round in 0..scenario.rounds(&settings) {
            for side in &world.sides {
                if load::now() > deadline {
                    report.late();
                    continue;
                }
                let sample = scenario.run(&world, side, &settings);
                report.add(scenario, side.variant, sample);
            }
            report.progress(scenario, round + 1);
        }
        report.end(scenario);
    }
    report.finish();
    Ok(report.is_complete() && arguments.at_least.is_none_or(|ratio| report.is_at_least(ratio)))
}

/// The most that one run may wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
