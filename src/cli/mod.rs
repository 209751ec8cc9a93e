//! The verbs.

mod control;
pub mod demo;
pub mod lab;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::app;
use crate::config::Config;
use crate::lifecycle::Exit;
use crate::report::version;

/// A per-node proxy for ambient meshes.
///
/// Without a verb it runs the node proxy, configured by its environment.
#[derive(Debug, Parser)]
#[command(name = "adit", disable_version_flag = true, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the node proxy; everything is configured by environment variables.
    Proxy {
        /// Ignored: the chart of the proxy that adit replaces passes its name.
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        ignored: Vec<String>,
    },
    /// Show the whole on this machine: captured, tunnelled, authorized.
    Demo(demo::DemoArgs),
    /// Serve a mesh that is written as Kubernetes YAML, to proxies on this machine.
    ///
    /// This control plane is meant for one machine: for demos, tests and laboratories. It keeps
    /// nothing, and issues certificates from a development root: whoever can read the folder of
    /// that root can be any workload. In a cluster the control plane is istiod.
    ///
    /// It reads Namespace, Pod, Service, EndpointSlice, ServiceAccount, ServiceEntry,
    /// WorkloadEntry, Gateway of class istio-waypoint, AuthorizationPolicy and PeerAuthentication,
    /// reloads when the files change, and says in one line what it does not serve and what happens
    /// instead.
    Control(control::ControlArgs),
    /// Say what was built and how.
    Version,
    /// Say what there is.
    Help,
}

/// Runs the verb that the command line names; `lookup` reads the environment, whose variables
/// `names` lists.
pub fn run(
    arguments: impl Iterator<Item = String>,
    lookup: impl Fn(&str) -> Option<String>,
    names: impl Fn() -> Vec<String>,
) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing is left to say if the message cannot be written.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match arguments.verb.unwrap_or(Verb::Proxy { ignored: Vec::new() }) {
        Verb::Proxy { .. } => proxy(lookup, names),
        Verb::Demo(args) => demo::run(args),
        Verb::Control(args) => control::run(args, lookup),
        Verb::Version => {
            println!(
                "{}",
                version::line(&version::of_binary(lookup("ISTIO_META_ISTIO_VERSION").as_deref()))
            );
            ExitCode::SUCCESS
        }
        Verb::Help => {
            let _ = Arguments::command().print_long_help();
            ExitCode::SUCCESS
        }
    }
}

fn proxy(lookup: impl Fn(&str) -> Option<String>, names: impl Fn() -> Vec<String>) -> ExitCode {
    let config = match Config::read(lookup, names) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("adit cannot start; {} of its settings cannot be used:", errors.len());
            for error in errors {
                eprintln!("  {}: {}", error.name, error.reason);
            }
            return ExitCode::FAILURE;
        }
    };
    match app::run(config) {
        Ok(Exit::Drained) => ExitCode::SUCCESS,
        Ok(Exit::Hurried) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("adit: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_says_for_what_the_control_plane_is_meant() {
        let mut command = Arguments::command();
        let control = command.find_subcommand_mut("control").unwrap();
        let help = control.render_long_help().to_string();
        assert!(help.contains("is meant for one machine"), "{help}");
        assert!(help.contains("In a cluster the control plane is istiod"), "{help}");
    }
}
