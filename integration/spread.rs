//! Which worker serves a connection: seen by the tunnels that a pair of pods has, because each
//! worker has its own.

use std::fs;
use std::net::TcpStream;

use adit::cli::lab::{App, Service};
use nix::sys::signal::Signal;

use crate::world::{Context, Outcome, PORT, World, connect, echo, echo_and_end, ensure};

pub(crate) const TESTS: crate::Tests =
    &[("flows_that_begin_together_are_spread_over_the_workers", spread)];

const WORKERS: usize = 4;
/// One after the other, and at once.
const CALLS: usize = 5;
const FLOWS: usize = 16;
/// The port of tunnels and the state ESTABLISHED, as the kernel writes them.
const HBONE: &str = ":3AA0";
const ESTABLISHED: &str = "01";

/// Tunnels that lead out of a pod.
fn tunnels(world: &World, pod: &str) -> Outcome<usize> {
    let table = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let read = || Ok([table("tcp")?, table("tcp6")?].concat());
    let text = world.pod(pod).netns.run(read).during("reading the sockets of a pod")?;
    let leads_out = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        let [remote, state] = [fields.next(), fields.next()];
        remote.is_some_and(|to| to.ends_with(HBONE)) && state == Some(ESTABLISHED)
    };
    Ok(text.lines().filter(leads_out).count())
}

fn spread() -> Outcome {
    let workers = WORKERS.to_string();
    let world = World::with_environment(&[("ZTUNNEL_WORKER_THREADS", &workers)])?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    let open = || connect(world.pod("web"), world.server(false));
    for _ in 0..CALLS {
        echo_and_end(open()?, "one\n")?;
    }
    let calls = tunnels(&world, "web")?;
    // One, or one more if a machine that has much to do made the first worker look busy.
    ensure!((1..=2).contains(&calls), "{CALLS} calls took {calls} tunnels");
    // The kernel takes them for the proxy, which then finds them all at once.
    world.proxy("a").signal(Signal::SIGSTOP).during("SIGSTOP")?;
    let opened = (0..FLOWS).map(|_| open()).collect::<Outcome<Vec<TcpStream>>>();
    world.proxy("a").signal(Signal::SIGCONT).during("SIGCONT")?;
    let mut flows = opened?;
    for flow in &mut flows {
        echo(flow, "many\n")?;
    }
    let together = tunnels(&world, "web")?;
    ensure!(together == WORKERS, "{FLOWS} flows at once have {together} tunnels");
    Ok(())
}
