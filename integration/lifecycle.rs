//! Beginning and end of a proxy: readiness, drain, hand-over, renewal of certificates.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};

use adit::cli::lab::{App, Service};
use nix::sys::signal::Signal;

use crate::churn::Traffic;
use crate::world::{
    Context, End, Outcome, PATIENCE, PORT, World, accept_one, connect, echo, echo_and_end, ensure,
    listen, read_to_end, refused, until,
};

pub(crate) const TESTS: crate::Tests = &[
    ("readiness_names_what_is_missing", readiness),
    ("sigterm_lets_connections_finish", terminate),
    ("what_does_not_finish_is_reset_at_the_deadline", deadline),
    ("a_second_sigint_ends_at_once", hurried),
    ("the_admin_server_can_stop_the_proxy", quit),
    ("what_waits_to_be_accepted_is_served", queued),
    ("two_proxies_overlap_without_a_gap", overlap),
    ("certificates_are_renewed_under_traffic", renewal),
];

pub(crate) const ADMIN: u16 = 15000;
const READINESS: u16 = 15021;
pub(crate) const CART_ID: &str = "spiffe://cluster.local/ns/shop/sa/cart";
pub(crate) const WEB_ID: &str = "spiffe://cluster.local/ns/front/sa/web";

/// What a proxy's readiness server says, with the status if that is not 200.
fn ready_page(world: &World, proxy: &str) -> Outcome<Option<String>> {
    match world.proxy(proxy).get(READINESS, "/healthz/ready") {
        Ok(body) => Ok(Some(body)),
        // It does not listen yet, or no more.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(None),
        Err(error) => Ok(Some(error.to_string())),
    }
}

fn wait_page(world: &World, proxy: &str, expected: &str) -> Outcome {
    let is_so = || Ok(ready_page(world, proxy)?.as_deref() == Some(expected));
    until(&format!("{proxy} says {expected:?}"), is_so)
        .map_err(|error| format!("{error}; it says {:?}", ready_page(world, proxy)))
}

pub(crate) fn live(world: &World) -> Outcome<TcpStream> {
    let mut stream = connect(world.pod("web"), world.server(false))?;
    echo(&mut stream, "alive\n")?;
    Ok(stream)
}

/// Waits for the end of a proxy: its exit status.
pub(crate) fn exit_code(world: &mut World, proxy: &str) -> Outcome<Option<i32>> {
    let proxy = world.proxies.get_mut(proxy).ok_or("no such proxy")?;
    let status = proxy.wait_end(PATIENCE).during("waiting for the end")?;
    Ok(status.ok_or("the proxy does not end")?.code())
}

fn refuses_connections(world: &World, pod: &str, to: SocketAddr) -> Outcome {
    let pod = world.pod(pod);
    until(&format!("connections to {to} are refused"), || {
        let error = pod.connect(to, PATIENCE).err();
        Ok(error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
    })
}

fn readiness() -> Outcome {
    let mut world = World::of_file()?;
    world.lab.add_node("spare").during("making a node")?;
    let config = world.dir().join("later.yaml");
    let text = config.to_string_lossy().into_owned();
    world.agents.get_mut("b").ok_or("no agent")?.stop();
    world.start_proxy_at(("b", "spare"), "spare", &[("LOCAL_XDS_PATH", &text)])?;
    let missing = |names: &str| format!("status 500: not ready, pending: {names}");
    wait_page(&world, "spare", &missing("identity, state manager, workload proxy manager"))?;
    fs::write(&config, world.config_text()).during("writing the configuration")?;
    wait_page(&world, "spare", &missing("identity, workload proxy manager"))?;
    world.agents.get_mut("b").ok_or("no agent")?.restart().during("the agent")?;
    wait_page(&world, "spare", "ready\n")?;
    // Without its agent it is not ready any more.
    world.agents.get_mut("b").ok_or("no agent")?.stop();
    wait_page(&world, "spare", &missing("workload proxy manager"))?;
    let posted = world.proxy("spare").post(READINESS, "/healthz/ready");
    let posted = posted.err().ok_or("POST is answered")?.to_string();
    ensure!(posted.starts_with("status 405"), "POST: {posted}");
    Ok(())
}

fn terminate() -> Outcome {
    for node in ["b", "a"] {
        // Far longer than this test: the end comes because all is done.
        let mut world = World::with_environment(&[("CONNECTION_TERMINATION_DEADLINE", "60s")])?;
        let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
        let mut stream = live(&world)?;
        world.proxy(node).signal(Signal::SIGTERM).during("SIGTERM")?;
        world.wait_log(node, &["stopping", "cause=SIGTERM", "deadline=60s"])?;
        let cart = world.pod("cart").ipv4;
        match node {
            "b" => {
                refuses_connections(&world, "legacy", (cart, 15008).into())?;
                refuses_connections(&world, "legacy", (cart, PORT).into())?;
                refused(world.pod("web"), world.server(false))?;
            }
            _ => refuses_connections(&world, "web", (cart, PORT).into())?,
        }
        wait_page(&world, node, "status 500: not ready, pending: not draining")?;
        echo(&mut stream, "goes on\n")?;
        echo_and_end(stream, "to its end\n")?;
        let code = exit_code(&mut world, node)?;
        ensure!(code == Some(0), "{node} ended with {code:?}");
        world.wait_log(node, &["connection complete", "sa/web", "bytes_sent=25 bytes_recv=25"])?;
    }
    Ok(())
}

fn deadline() -> Outcome {
    let mut world = World::with_environment(&[("CONNECTION_TERMINATION_DEADLINE", "1s")])?;
    let listener = listen(world.pod("cart"), PORT)?;
    let accepted = accept_one(&listener)?;
    let mut near = connect(world.pod("web"), world.server(false))?;
    let mut far = accepted.join().map_err(|_| "accepting panicked")?.during("accepting")?;
    world.proxy("b").signal(Signal::SIGTERM).during("SIGTERM")?;
    for (side, stream) in [("the client", &mut near), ("the application", &mut far)] {
        let seen = read_to_end(stream).during(side)?;
        ensure!(seen == (Vec::new(), End::Reset), "{side} saw {seen:?}");
    }
    let code = exit_code(&mut world, "b")?;
    ensure!(code == Some(0), "it ended with {code:?}");
    world.wait_log("b", &["connection complete", "error=\"drain_deadline"])?;
    Ok(())
}

/// Closing a listener resets what is in its queue, so that is taken first.
fn queued() -> Outcome {
    const CLIENTS: usize = 400;
    let mut world = World::with_environment(&[("CONNECTION_TERMINATION_DEADLINE", "60s")])?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    // While the proxy cannot run, the kernel connects.
    world.proxy("b").signal(Signal::SIGSTOP).during("SIGSTOP")?;
    let clients = (0..CLIENTS).map(|_| connect(world.pod("legacy"), world.server(false)));
    let clients: Vec<TcpStream> = clients.collect::<Outcome<_>>()?;
    world.proxy("b").signal(Signal::SIGTERM).during("SIGTERM")?;
    world.proxy("b").signal(Signal::SIGCONT).during("SIGCONT")?;
    for (at, client) in clients.into_iter().enumerate() {
        echo_and_end(client, "at last\n").map_err(|error| {
            let log = world.proxy("b").log().unwrap_or_default();
            let why: Vec<&str> = log.lines().filter(|line| line.contains("error=")).collect();
            format!("client {at}: {error}; refused: {why:#?}")
        })?;
    }
    let code = exit_code(&mut world, "b")?;
    ensure!(code == Some(0), "it ended with {code:?}");
    Ok(())
}

fn hurried() -> Outcome {
    let mut world = World::with_environment(&[("TERMINATION_GRACE_PERIOD_SECONDS", "3600")])?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    let mut stream = live(&world)?;
    world.proxy("b").signal(Signal::SIGINT).during("SIGINT")?;
    world.wait_log("b", &["stopping", "cause=SIGINT", "deadline=3595s"])?;
    echo(&mut stream, "goes on\n")?;
    world.proxy("b").signal(Signal::SIGINT).during("SIGINT")?;
    let code = exit_code(&mut world, "b")?;
    ensure!(code == Some(1), "it ended with {code:?}");
    Ok(())
}

fn quit() -> Outcome {
    let mut world = World::new()?;
    let asked = world.proxy("b").get(ADMIN, "/quitquitquit").err().ok_or("GET is answered")?;
    ensure!(asked.to_string().starts_with("status 405"), "GET: {asked}");
    let body = world.proxy("b").post(ADMIN, "/quitquitquit").during("POST")?;
    ensure!(body == "shutdown now\n", "POST: {body:?}");
    let code = exit_code(&mut world, "b")?;
    ensure!(code == Some(0), "it ended with {code:?}");
    world.wait_log("b", &["stopping", "cause=/quitquitquit"])?;
    Ok(())
}

fn overlap() -> Outcome {
    let mut world = World::with_environment(&[("CONNECTION_TERMINATION_DEADLINE", "60s")])?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    let traffic = Traffic::start(world.pod("web"), world.server(false));
    let mut stream = live(&world)?;
    traffic.go_on(3)?;
    // The next one comes, in a namespace of its own as a pod of a rollout has.
    world.lab.add_node("b2").during("making a node")?;
    world.start_proxy_at(("b", "b2"), "b2", &[])?;
    world.wait_ready()?;
    ensure!(world.agents["b"].wait_served(2, PATIENCE), "the agent does not serve both");
    traffic.go_on(3)?;
    world.proxy("b").signal(Signal::SIGTERM).during("SIGTERM")?;
    world.wait_log("b", &["stopping"])?;
    traffic.go_on(10)?;
    echo(&mut stream, "through the old one\n")?;
    echo_and_end(stream, "to its end\n")?;
    let code = exit_code(&mut world, "b")?;
    ensure!(code == Some(0), "it ended with {code:?}");
    traffic.go_on(3)?;
    traffic.finish()?;
    world.wait_log("b2", &["connection complete", "sa/web"])?;
    Ok(())
}

fn renewal() -> Outcome {
    let world = World::with_environment(&[("SECRET_TTL", "5s")])?;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
    let traffic = Traffic::start(world.pod("web"), world.server(false));
    let mut stream = live(&world)?;
    // Three lives that overlap by half are longer than one whole: the first one has expired.
    for (node, identity) in [("b", CART_ID), ("a", WEB_ID)] {
        let mut skip = 0;
        for _ in 0..4 {
            let issued =
                |line: &str| line.contains("certificate issued") && line.contains(identity);
            let line = world.proxy(node).wait_log(skip, PATIENCE, issued).during(identity)?;
            let log = world.proxy(node).log().during("reading a log")?;
            skip = log.find(&line).map_or(0, |at| at + line.len());
        }
    }
    echo(&mut stream, "goes on\n")?;
    traffic.go_on(3)?;
    traffic.finish()?;
    // Who has no tunnel yet makes one with certificates of now.
    let intruder = connect(world.pod("intruder"), world.server(false))?;
    echo_and_end(intruder, "with a new tunnel\n")?;
    for (node, reporter) in [("a", "source"), ("b", "destination")] {
        for reason in ["no_certificate", "peer_identity", "tunnel_tls"] {
            let counter =
                format!("adit_refusals_total{{reason=\"{reason}\",reporter=\"{reporter}\"}}");
            let counted = world.metric(node, &counter)?;
            ensure!(counted.abs() < f64::EPSILON, "{node}: {counted} times {reason}");
        }
    }
    Ok(())
}
