//! `adit control`: a control plane for one machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{ControlConfig, LogConfig};
use crate::report::log;
use crate::standalone::{Control, Settings};
use crate::sys::clock::Clock;

/// At the end, for lines that are still to be written.
const LOG_FLUSH_LIMIT: Duration = Duration::from_millis(500);
/// Lines about what is not served that are printed at the start; the status page has all.
const LINES_MAX: usize = 100;

/// What `adit control` is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ControlArgs {
    /// A file of Kubernetes YAML, or a folder of *.yaml.
    #[arg(long, value_name = "PATH")]
    manifests: PathBuf,
    /// Where proxies connect with TLS, for configuration and certificates.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15012")]
    listen: SocketAddr,
    /// Where they may connect without, for configuration alone; also the status page.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15010")]
    plaintext: SocketAddr,
    /// The folder of the development root and of the nodes' tokens [default: DEV_CA_DIR].
    #[arg(long, value_name = "DIR")]
    ca_dir: Option<PathBuf>,
    /// The mesh's trust domain.
    #[arg(long, value_name = "NAME", default_value = "cluster.local", value_parser = trust_domain)]
    trust_domain: String,
}

/// One component of a SPIFFE id.
fn trust_domain(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    if text.is_empty() || !text.chars().all(plain) {
        return Err("lower-case letters, digits, dots, dashes and underscores".to_owned());
    }
    Ok(text.to_owned())
}

/// Serves until a signal comes.
pub(super) fn run(args: ControlArgs, lookup: impl Fn(&str) -> Option<String>) -> ExitCode {
    let config = match ControlConfig::read(lookup, args.ca_dir) {
        Ok(config) => config,
        Err(errors) => {
            for error in errors {
                eprintln!("adit: {}: {}", error.name, error.reason);
            }
            return ExitCode::FAILURE;
        }
    };
    let settings = Settings {
        manifests: args.manifests,
        listen: args.listen,
        plaintext: args.plaintext,
        ca_dir: config.ca_dir,
        trust_domain: args.trust_domain.into(),
    };
    match serve(settings, &config.log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("adit: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(settings: Settings, log: &LogConfig) -> Result<(), Box<dyn std::error::Error>> {
    let clock = Clock::system();
    let log = log::start(log, clock.clone())?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let control = Control::start(settings, clock).await?;
        introduce(&control);
        tokio::select! {
            biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            () = control.run() => {}
        }
        Ok(())
    });
    log.flush(LOG_FLUSH_LIMIT);
    ended
}

/// Says where it is, and how a proxy gets there.
fn introduce(control: &Control) {
    let Control { address, plaintext, root, tokens, not_served, .. } = control;
    println!("adit control: a control plane for this machine alone, with a development root");
    for line in not_served.iter().take(LINES_MAX) {
        println!("  {line}");
    }
    if let Some(more) = not_served.len().checked_sub(LINES_MAX).filter(|more| *more > 0) {
        println!("  and {more} more on the status page");
    }
    println!("serving on {address}; status on http://{plaintext}/");
    println!("for the proxy of a node:");
    println!("  XDS_ADDRESS=https://{address} XDS_ROOT_CA={}", root.display());
    println!("  CA_ADDRESS=https://{address} CA_ROOT_CA={}", root.display());
    for (node, token) in tokens {
        println!("  NODE_NAME={node} AUTH_TOKEN={}", token.display());
    }
}
