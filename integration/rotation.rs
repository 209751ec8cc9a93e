//! Certificates that are renewed, or are not, while connections come and go.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use adit::cli::lab::{App, Redirection, Service};
use rustls::version::TLS13;

use crate::lifecycle::WEB_ID;
use crate::world::control::CONTROL;
use crate::world::peer::{Pki, Tunnel, echo as echo_in, finish, on_runtime, tls};
use crate::world::{Context, Outcome, PORT, World, connect, echo_and_end, ensure, until};

pub(crate) const TESTS: crate::Tests = &[
    ("certificates_change_every_five_seconds_and_nobody_notices", rotates),
    ("an_authority_away_past_half_life_is_missed_by_nobody", away),
];

const HBONE: u16 = 15008;
/// Renewed after about half of it.
const LIFE: &str = "9s";
/// Certificates of one node after which the test ends: about a minute.
const ISSUED: u32 = 29;
/// Threads whose connections share tunnels.
const SHARING: usize = 4;

/// A world whose certificates come from the control plane and live for so long, with one more pod
/// on node `b` whose every connection takes a tunnel of its own.
fn begin(life: &str) -> Outcome<World> {
    let mut world = World::of_manifests("")?;
    let guest = world.add_pod("b", "guest", "shop", Redirection::Ambient)?;
    world.agents["b"].enroll(&guest);
    world.write_manifests("")?;
    world.start_control()?;
    let alone = [("POOL_MAX_STREAMS_PER_CONNECTION", "1"), ("POOL_UNUSED_RELEASE_TIMEOUT", "1ms")];
    world.start_proxy_at(("a", "a"), "a", &[("SECRET_TTL", life)])?;
    world.start_proxy_at(("b", "b"), "b", &[&[("SECRET_TTL", life)][..], &alone].concat())?;
    world.wait_ready()?;
    Ok(world)
}

/// Connects as fast as each connection is over, until told to stop; how many there were.
fn connections(from: &str, to: SocketAddr, world: &World, stop: &AtomicBool) -> Outcome<u64> {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let stream = connect(world.pod(from), to)?;
        echo_and_end(stream, "short\n").during(&format!("connection {count} of {from}"))?;
        count += 1;
    }
    Ok(count)
}

/// The same by a client that makes a tunnel for each.
fn tunnels(world: &World, pki: &Pki, stop: &AtomicBool) -> Outcome<u64> {
    let config = tls(Some(&pki.issue(&[WEB_ID])?), &["h2"], &TLS13)?;
    let (pod, to) = (world.pod("legacy"), (world.pod("cart").ipv4, HBONE).into());
    let authority = world.server(false).to_string();
    on_runtime(async {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            let tunnel = Tunnel::open(pod, to, &config).await?;
            let (status, carried) = tunnel.connect(&authority).await?;
            let mut carried = carried.ok_or_else(|| format!("the status is {status}"))?;
            echo_in(&mut carried, "once\n").await?;
            finish(&mut carried).await?;
            count += 1;
        }
        Ok(count)
    })
}

fn rotates() -> Outcome {
    let world = begin(LIFE)?;
    let _cart = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    let _web = App::start(world.pod("web"), PORT, Service::Echo).during("a server")?;
    let pki = Pki::of(world.dir())?;
    let (stop, failed) = (AtomicBool::new(false), AtomicU64::new(0));
    let guard = |work: &dyn Fn() -> Outcome<u64>| {
        let done = work();
        if done.is_err() {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        done
    };
    let cart = SocketAddr::from((world.pod("cart").ipv4, PORT));
    let web = SocketAddr::from((world.pod("web").ipv4, PORT));
    let (world, stop) = (&world, &stop);
    let (waited, counts) = thread::scope(|scope| {
        let sharing = || scope.spawn(|| guard(&|| connections("web", cart, world, stop)));
        let mut threads: Vec<_> = (0..SHARING).map(|_| sharing()).collect();
        threads.push(scope.spawn(|| guard(&|| connections("guest", web, world, stop))));
        threads.push(scope.spawn(|| guard(&|| tunnels(world, &pki, stop))));
        // In steps, each of which has the time that anything has.
        let waited = (1..=ISSUED).try_for_each(|count| {
            let enough = |world: &World, node: &str| -> Outcome<bool> {
                let issued = world.metric(node, "adit_certificates_issued_total")?;
                Ok(failed.load(Ordering::Relaxed) > 0 || issued >= f64::from(count))
            };
            until("certificates are renewed", || Ok(enough(world, "a")? && enough(world, "b")?))
        });
        stop.store(true, Ordering::Relaxed);
        let ended = threads.into_iter().map(|thread| thread.join().expect("a thread ends"));
        (waited, ended.collect::<Outcome<Vec<u64>>>())
    });
    waited?;
    let counts = counts?;
    let sharing: u64 = counts[..SHARING].iter().sum();
    println!("{sharing} connections, tunnels of their own: {:?}", &counts[SHARING..]);
    ensure!(counts.iter().all(|count| *count > 10), "too few connections: {counts:?}");
    for node in ["a", "b"] {
        let text = world.proxy(node).metrics().during("reading metrics")?;
        let refusals = text.lines().filter(|line| line.starts_with("adit_refusals_total{"));
        let refusals: Vec<&str> = refusals.filter(|line| !line.ends_with(" 0")).collect();
        ensure!(refusals.is_empty(), "{node}: {refusals:?}");
    }
    Ok(())
}

fn away() -> Outcome {
    let mut world = begin("20s")?;
    let _cart = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    let pki = Pki::of(world.dir())?;
    let config = tls(Some(&pki.issue(&[WEB_ID])?), &["h2"], &TLS13)?;
    let fresh = |world: &World| -> Outcome {
        let (pod, to) = (world.pod("legacy"), (world.pod("cart").ipv4, HBONE).into());
        on_runtime(async {
            let tunnel = Tunnel::open(pod, to, &config).await?;
            let (status, _carried) = tunnel.connect(&world.server(false).to_string()).await?;
            ensure!(status == 200, "the status is {status}");
            Ok(())
        })
    };
    drop(world.proxies.remove(CONTROL));
    for node in ["a", "b"] {
        let failures = "adit_certificate_failures_total{kind=\"unreachable\"}";
        until(failures, || Ok(world.metric(node, failures).is_ok_and(|count| count > 0.0)))?;
    }
    // Nobody renews, and what there is serves.
    fresh(&world)?;
    echo_and_end(connect(world.pod("web"), world.server(false))?, "meanwhile\n")?;
    let issued: Vec<f64> = ["a", "b"]
        .iter()
        .map(|node| world.metric(node, "adit_certificates_issued_total"))
        .collect::<Outcome<_>>()?;
    world.start_control()?;
    for (node, before) in ["a", "b"].into_iter().zip(issued) {
        world.wait_metric(node, "adit_certificates_issued_total", |count| count > before)?;
    }
    fresh(&world)?;
    echo_and_end(connect(world.pod("web"), world.server(false))?, "after\n")
}
