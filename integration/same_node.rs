//! Two pods of one node, whose bytes go from socket to socket: the tunnel still decides.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use adit::cli::lab::capture::{Capture, Captured};
use adit::cli::lab::{App, Redirection, Service};

use crate::world::control::ALLOW_WEB;
use crate::world::{
    Context, End, Outcome, PORT, World, accept_one, connect, echo, echo_and_end, ensure, listen,
    read_to_end, refused, reset,
};

pub(crate) const TESTS: crate::Tests = &[
    ("bytes_leave_the_tunnel_out_and_nothing_else_does", off_the_wire),
    ("by_default_bytes_take_the_tunnel", through_the_tunnel),
    ("between_nodes_bytes_take_the_tunnel", between_nodes),
    ("the_application_sees_the_original_source", original_source),
    ("half_closes_are_carried", half_close),
    ("resets_are_carried_with_their_reasons", resets),
    ("a_policy_cuts_what_is_going_on", policy_change),
    ("who_is_denied_does_not_get_there", denied),
    ("what_the_network_forbids_stays_forbidden", network_policy),
    ("the_loss_of_the_tunnel_ends_the_path", tunnel_lost),
    ("a_removed_pod_takes_its_connections_along", pod_removed),
];

/// Bytes of one direction where the wire is looked at: far more than a handshake and an exchange of
/// HTTP/2 take.
const MUCH: usize = 1024 * 1024;
/// The latter, with room for what is said again.
const LITTLE: usize = 32 * 1024;
const DIRECT: (&str, &str) = ("SAME_NODE", "direct");
const HBONE: u16 = 15008;
/// The mark in the access log.
const MARK: &str = "path=\"same_node\"";

/// `near` is a client on the node of the server.
struct Scene(World);

impl Scene {
    fn new(environment: &[(&str, &str)]) -> Outcome<Self> {
        let mut world = World::with_environment(environment)?;
        let near = world.add_pod("b", "near", "front", Redirection::Ambient)?;
        world.publish()?;
        world.agents["b"].add(&near).during("adding a pod")?;
        Ok(Self(world))
    }

    fn direct() -> Outcome<Self> {
        Self::new(&[DIRECT])
    }

    fn connect(&self) -> Outcome<TcpStream> {
        connect(self.0.pod("near"), self.0.server(false))
    }

    /// A connection with both its ends, which has carried a byte each way.
    fn open(&self, listener: &TcpListener) -> Outcome<(TcpStream, TcpStream)> {
        let accepted = accept_one(listener)?;
        let mut near = self.connect()?;
        near.write_all(b"?").during("asking")?;
        let mut far = accepted.join().map_err(|_| "accepting panicked")?.during("accepting")?;
        far.read_exact(&mut [0]).during("reading")?;
        far.write_all(b"!").during("answering")?;
        near.read_exact(&mut [0]).during("reading")?;
        Ok((near, far))
    }

    /// Waits for the lines of both sides about a connection.
    fn wait_logs(&self, outbound: &[&str], inbound: &[&str]) -> Outcome {
        let identities = [
            "connection complete",
            "src.identity=\"spiffe://cluster.local/ns/front/sa/near\"",
            "dst.identity=\"spiffe://cluster.local/ns/shop/sa/cart\"",
            MARK,
        ];
        for (direction, own) in [("outbound", outbound), ("inbound", inbound)] {
            let direction = format!("direction=\"{direction}\"");
            let parts = [&identities[..], &[&*direction], own].concat();
            self.0.wait_log("b", &parts)?;
        }
        Ok(())
    }

    /// Carries [`MUCH`] both ways and says what the server's link saw of it.
    fn carry(&self) -> Outcome<Captured> {
        let _app = App::start(self.0.pod("cart"), PORT, Service::Echo).during("a server")?;
        let node = self.0.lab.node("b").ok_or("no node")?;
        let capture = Capture::start(&node.netns, &self.0.pod("cart").port);
        let capture = capture.during("capturing")?;
        let mut stream = self.connect()?;
        let mut writer = stream.try_clone().during("sharing")?;
        let writer = thread::spawn(move || {
            writer.write_all(&numbers())?;
            writer.shutdown(Shutdown::Write)
        });
        let (back, end) = read_to_end(&mut stream)?;
        writer.join().map_err(|_| "writing panicked")?.during("writing")?;
        ensure!(back == numbers() && end == End::Finished, "{} bytes, then {end:?}", back.len());
        capture.finish().during("capturing")
    }

    /// How many connections a side says went from socket to socket.
    fn counted(&self, reporter: &str) -> Outcome<f64> {
        self.0.metric("b", &format!("adit_same_node_connections_total{{reporter=\"{reporter}\"}}"))
    }
}

fn numbers() -> Vec<u8> {
    (0..MUCH).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect()
}

fn off_the_wire() -> Outcome {
    let scene = Scene::direct()?;
    let captured = scene.carry()?;
    let on_the_wire = captured.payload_bytes();
    ensure!(captured.lost == 0 && on_the_wire < LITTLE, "{on_the_wire} bytes took the wire");
    // The tunnel stood, and all that was on the wire was of it.
    let streams = captured.streams();
    let of_tunnel = |at: SocketAddr| at.port() == HBONE;
    ensure!(
        streams.len() == 2 && streams.iter().all(|s| of_tunnel(s.from) || of_tunnel(s.to)),
        "on the wire were {streams:?}"
    );
    ensure!(
        streams.iter().all(|s| s.records().is_some_and(|records| records.encrypted > 0)),
        "no tunnel is among {streams:?}"
    );
    let bytes = format!("bytes_sent={MUCH} bytes_recv={MUCH}");
    let authority = format!("dst.hbone_addr={}", scene.0.server(false));
    scene.wait_logs(&[&bytes, &authority], &[&bytes, &authority])?;
    for reporter in ["source", "destination"] {
        let counted = scene.counted(reporter)?;
        ensure!((counted - 1.0).abs() < f64::EPSILON, "{reporter} counted {counted}");
    }
    Ok(())
}

fn through_the_tunnel() -> Outcome {
    let scene = Scene::new(&[])?;
    let captured = scene.carry()?;
    let on_the_wire = captured.payload_bytes();
    ensure!(on_the_wire > 2 * MUCH, "only {on_the_wire} bytes took the wire");
    for direction in ["inbound", "outbound"] {
        let direction = format!("direction=\"{direction}\"");
        let line = scene.0.wait_log("b", &["connection complete", "sa/near", &direction])?;
        ensure!(!line.contains(MARK), "marked: {line}");
    }
    let counted = scene.counted("source")?;
    ensure!(counted < 1.0, "counted {counted}");
    Ok(())
}

fn between_nodes() -> Outcome {
    let scene = Scene::direct()?;
    let world = &scene.0;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    echo_and_end(connect(world.pod("web"), world.server(false))?, "from afar\n")?;
    for (node, direction) in [("a", "outbound"), ("b", "inbound")] {
        let direction = format!("direction=\"{direction}\"");
        let line = world.wait_log(node, &["connection complete", "sa/web", &direction])?;
        ensure!(!line.contains(MARK), "marked: {line}");
    }
    Ok(())
}

fn original_source() -> Outcome {
    let scene = Scene::direct()?;
    let world = &scene.0;
    let _app = App::start(world.pod("cart"), PORT, Service::Peer).during("starting a server")?;
    let near = world.pod("near");
    for own in near.addresses() {
        let mut stream = connect(near, world.server(own.is_ipv6()))?;
        stream.shutdown(Shutdown::Write).during("ending")?;
        let (line, _) = read_to_end(&mut stream)?;
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        let seen: SocketAddr = line.parse().during(&format!("reading {line:?}"))?;
        let seen: IpAddr = seen.ip().to_canonical();
        ensure!(seen == own, "near is {own}, the server saw {seen}");
    }
    scene.wait_logs(&[], &[])
}

fn half_close() -> Outcome {
    let scene = Scene::direct()?;
    let listener = listen(scene.0.pod("cart"), PORT)?;
    for client_first in [true, false] {
        let (near, far) = scene.open(&listener)?;
        let (mut first, mut second) = if client_first { (near, far) } else { (far, near) };
        first.shutdown(Shutdown::Write).during("ending")?;
        ensure!(read_to_end(&mut second)? == (Vec::new(), End::Finished), "an early end");
        second.write_all(b"still here").during("talking on")?;
        drop(second);
        ensure!(read_to_end(&mut first)? == (b"still here".to_vec(), End::Finished), "the end");
    }
    let (asked, answered) = ("bytes_sent=1 bytes_recv=11", "bytes_sent=11 bytes_recv=1");
    for bytes in [asked, answered] {
        scene.wait_logs(&[bytes], &[])?;
    }
    Ok(())
}

fn resets() -> Outcome {
    let scene = Scene::direct()?;
    let listener = listen(scene.0.pod("cart"), PORT)?;
    let (own, other) = ("application_reset", "peer_reset");
    for (client_resets, outbound, inbound) in [(true, own, other), (false, other, own)] {
        let (near, far) = scene.open(&listener)?;
        let (first, mut second) = if client_resets { (near, far) } else { (far, near) };
        reset(first)?;
        let seen = read_to_end(&mut second)?;
        ensure!(seen == (Vec::new(), End::Reset), "{client_resets}: {seen:?}");
        scene.wait_logs(&[outbound], &[inbound])?;
    }
    Ok(())
}

fn policy_change() -> Outcome {
    let mut scene = Scene::direct()?;
    let listener = listen(scene.0.pod("cart"), PORT)?;
    let (near, far) = scene.open(&listener)?;
    scene.0.set_policies(ALLOW_WEB)?;
    for (mut stream, whose) in [(near, "the client"), (far, "the server")] {
        let seen = read_to_end(&mut stream)?;
        ensure!(seen == (Vec::new(), End::Reset), "{whose} saw {seen:?}");
    }
    let why = "policy_changed: allow policies exist, but none allowed";
    scene.wait_logs(&["peer_reset"], &[why])
}

fn denied() -> Outcome {
    let mut scene = Scene::direct()?;
    scene.0.set_policies(ALLOW_WEB)?;
    let _app = App::start(scene.0.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    refused(scene.0.pod("near"), scene.0.server(false))?;
    scene.0.wait_log("b", &["sa/near", "policy_none_allowed", "direction=\"inbound\""])?;
    scene.0.wait_log("b", &["sa/near", "connect_refused: the far side answered 401"])?;
    let counted = scene.counted("source")? + scene.counted("destination")?;
    ensure!(counted < 1.0, "counted {counted}");
    Ok(())
}

fn network_policy() -> Outcome {
    let scene = Scene::direct()?;
    let world = &scene.0;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    let node = world.lab.node("b").ok_or("no node")?;
    node.drop_forwarded_port(HBONE).during("dropping")?;
    refused(world.pod("near"), world.server(false))?;
    world.wait_log("b", &["tunnel_dial_timeout", "direction=\"outbound\""])?;
    Ok(())
}

/// Nothing but the kernel asks the other end of a quiet tunnel whether it is there.
fn tunnel_lost() -> Outcome {
    let (time, interval) = (("KEEPALIVE_TIME", "1s"), ("KEEPALIVE_INTERVAL", "1s"));
    let scene = Scene::new(&[DIRECT, time, interval, ("KEEPALIVE_RETRIES", "1")])?;
    let _app = App::start(scene.0.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    let mut stream = scene.connect()?;
    echo(&mut stream, "alive\n")?;
    let node = scene.0.lab.node("b").ok_or("no node")?;
    node.drop_forwarded_port(HBONE).during("dropping")?;
    let seen = read_to_end(&mut stream)?;
    ensure!(seen == (Vec::new(), End::Reset), "saw {seen:?}");
    scene.wait_logs(&["tunnel_lost"], &["tunnel_lost"])
}

fn pod_removed() -> Outcome {
    let scene = Scene::direct()?;
    let listener = listen(scene.0.pod("cart"), PORT)?;
    let (mut near, mut far) = scene.open(&listener)?;
    let uid = scene.0.pod("cart").uid.clone();
    scene.0.agents["b"].del(&uid).during("removing a pod")?;
    let mut byte = [0];
    ensure!(near.read(&mut byte).is_err(), "the client of a removed pod goes on");
    ensure!(far.read(&mut byte).is_err(), "the connection of a removed pod goes on");
    scene.wait_logs(&["peer_reset"], &["pod_removed"])
}
