//! The real proxies and peers that others have written, on either end of a tunnel: Envoy as a
//! waypoint, Node's http2, the `hyper` crate, OpenSSL's record layer. Those that are programs are
//! installed by `.ci/run`; the README's `cargo test` does without.

mod hyper;
mod openssl;
mod ours;
mod place;
mod scenarios;
mod updates;

#[allow(dead_code, unused_imports, reason = "the other test target uses the rest of it")]
#[path = "../world/mod.rs"]
mod world;

use std::process::ExitCode;

use adit::cli::lab::userns;
use libtest_mimic::{Arguments, Trial};

use place::{Kind, Place, Version};

fn main() -> ExitCode {
    if let Some(code) = hyper::main() {
        return code;
    }
    let arguments = Arguments::from_args();
    // Before the first thread: only a process with one thread may change its user namespace.
    let ground = if arguments.list { Ok(()) } else { userns::ensure() };
    let ground = ground.map_err(|error| format!("{error}; {}", userns::remedy()));
    let mut trials = Vec::new();
    let all = Version::ALL.into_iter().flat_map(|version| Kind::ALL.map(|kind| (kind, version)));
    for (kind, version) in all.filter(|(kind, version)| kind.speaks(*version)) {
        for (name, scenario) in scenarios::ALL {
            let ground = ground.clone();
            let older = if version == Version::Tls12 { "_tls12" } else { "" };
            trials.push(Trial::test(format!("{}{older}::{name}", kind.name()), move || {
                ground?;
                let mut place = Place::new(kind, version)?;
                scenario(&mut place).map_err(|error| place.explain(&error).into())
            }));
        }
    }
    for kind in Kind::ALL {
        let ground = ground.clone();
        trials.push(Trial::test(format!("{}::new_keys_all_the_time", kind.name()), move || {
            ground?;
            let test = if kind.terminates() { updates::as_client } else { updates::as_server };
            Ok(test(kind)?)
        }));
    }
    for (name, test) in openssl::ALL {
        trials.push(Trial::test(format!("openssl::{name}"), move || Ok(test()?)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
