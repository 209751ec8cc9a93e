//! The laboratory's moving parts: applications, captures, the agent's stand-in.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use adit::cli::lab::capture::{Capture, Records};
use adit::cli::lab::{Agent, App, Lab, Pod, PodPlan, Redirection, Service, ask, measure_upload};
use adit::sys::clock::Clock;
use adit::sys::netns::Netns;
use adit::sys::seqpacket::Connection;
use adit::wire::zds::{Ack, Hello, PACKET_BYTES_MAX, Request};

/// For everything that should happen.
const PATIENCE: Duration = Duration::from_secs(5);

/// The tests of this file.
pub(crate) const TESTS: crate::Tests = &[
    ("applications_serve", applications_serve),
    ("a_node_is_reached_while_pods_come", a_node_is_reached_while_pods_come),
    ("a_capture_sees_the_wire", a_capture_sees_the_wire),
    ("the_agent_keeps_to_its_protocol", the_agent_keeps_to_its_protocol),
    ("the_agent_can_be_restarted", the_agent_can_be_restarted),
];

/// Each kind of application, over each kind of address.
fn applications_serve() -> Result<(), String> {
    let world = World::create()?;
    let start = |service| App::start(&world.server, 0, service).map_err(|error| error.to_string());
    let (peer, sink) = (start(Service::Peer)?, start(Service::Sink)?);
    let source = start(Service::Source)?;
    for address in world.server.addresses() {
        let own = if address.is_ipv4() { IpAddr::V4(world.client.ipv4) } else { v6(&world.client) };
        let seen = world.talk(SocketAddr::new(address, peer.port()), b"over")?;
        let expected = [format!("{own}"), format!("[{own}]")];
        let seen = String::from_utf8_lossy(&seen).into_owned();
        if !expected.iter().any(|own| seen.starts_with(&format!("{own}:")))
            || !seen.ends_with("over")
        {
            return Err(format!("the server saw {seen:?} instead of {own}"));
        }
        let to = SocketAddr::new(address, sink.port());
        measure_upload(&world.client, to, 1_000_003, &Clock::system())
            .map_err(|error| format!("upload: {error}"))?;
        let bytes = world.talk(SocketAddr::new(address, source.port()), b"300001\n")?;
        if bytes.len() != 300_001 {
            return Err(format!("{} bytes from the source", bytes.len()));
        }
    }
    let to = SocketAddr::new(world.server.ipv4.into(), peer.port());
    drop(peer);
    match world.client.connect(to, PATIENCE) {
        Ok(_) => Err("the application is gone but answers".into()),
        Err(_) => Ok(()),
    }
}

/// A connection to a node's own address goes on while its bridge gets ports, also when only the
/// other end, which knows the node by what it was before, has something to say.
fn a_node_is_reached_while_pods_come() -> Result<(), String> {
    let mut world = World::create()?;
    let a_node = |name: &str| world.lab.node(name).cloned().ok_or("no node");
    let (near, far) = (a_node("node-a")?, a_node("node-b")?);
    let failed = |error: io::Error| format!("{error}");
    let listener = near.netns.run(|| TcpListener::bind((near.ipv4, 0))).map_err(failed)?;
    let to = listener.local_addr().map_err(failed)?;
    let mut stream = far.netns.run(|| TcpStream::connect(to)).map_err(failed)?;
    let (mut accepted, _) = listener.accept().map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    for number in 0..16 {
        let plan = World::plan("node-b", &format!("more-{number}"));
        world.lab.add_pod(plan).map_err(|error| error.to_string())?;
        accepted.write_all(&[number]).map_err(failed)?;
        let mut heard = [u8::MAX];
        stream.read_exact(&mut heard).map_err(|error| format!("after pod {number}: {error}"))?;
        if heard != [number] {
            return Err(format!("{heard:?} instead of {number}"));
        }
    }
    Ok(())
}

/// What passes between nodes is captured whole, told from TLS, and found.
fn a_capture_sees_the_wire() -> Result<(), String> {
    let world = World::create()?;
    let node = world.lab.node("node-a").ok_or("no node")?;
    let echo = App::start(&world.server, 0, Service::Echo).map_err(|error| error.to_string())?;
    for address in world.server.addresses() {
        let capture = Capture::start(world.lab.link_between_nodes(), &node.port)
            .map_err(|error| format!("capture: {error}"))?;
        let to = SocketAddr::new(address, echo.port());
        let mut stream = world.client.connect(to, PATIENCE).map_err(|error| error.to_string())?;
        let record = "\x17\x03\x03\0\x06secret";
        ask(&mut stream, record, PATIENCE).map_err(|error| error.to_string())?;
        drop(stream);
        let captured = capture.finish().map_err(|error| error.to_string())?;
        let streams = captured.streams();
        let there: Vec<_> = streams.iter().filter(|stream| stream.to == to).collect();
        let back: Vec<_> = streams.iter().filter(|stream| stream.from == to).collect();
        for direction in [&there, &back] {
            let [stream] = direction[..] else { return Err(format!("streams: {streams:?}")) };
            let expected = Some(Records { handshake: 0, encrypted: 1, rest: 0 });
            if stream.bytes != record.as_bytes() || !stream.whole || stream.records() != expected {
                return Err(format!("captured {stream:?}"));
            }
        }
        if !captured.contains(b"secret") || captured.contains(b"Secret") || captured.lost > 0 {
            return Err("the search found something else than what was sent".into());
        }
    }
    Ok(())
}

/// Hello, snapshot, live add to the newest proxy, del to all, errors, and nobody there.
fn the_agent_keeps_to_its_protocol() -> Result<(), String> {
    let world = World::create()?;
    let dir = TempDir::new("agent-protocol")?;
    let agent = Agent::start(&dir.0.join("sock")).map_err(|error| error.to_string())?;
    check("add", agent.add(&world.client), Err("no proxy is connected".into()))?;

    let old = StandIn::connect(agent.path())?;
    check("snapshot", old.serve_snapshot(&[])?, vec![world.client.uid.clone()])?;
    check("served", agent.wait_served(1, PATIENCE), true)?;
    let new = StandIn::connect(agent.path())?;
    let complaint = Ack::error("no room");
    check("snapshot", new.serve_snapshot(&[complaint])?, vec![world.client.uid.clone()])?;
    check("served", agent.wait_served(2, PATIENCE), true)?;
    let expected = vec![(world.client.uid.clone(), "no room".to_owned())];
    check("complaints", agent.complaints(), expected)?;

    std::thread::scope(|scope| {
        let adding = scope.spawn(|| agent.add(&world.server));
        let (request, netns) = new.answer(&Ack::error("bind failed"))?;
        check("request", uid_of(&request), Some(world.server.uid.clone()))?;
        check("namespace", netns.map(|netns| netns.id()), Some(world.server.netns.id()))?;
        check("add", adding.join().map_err(|_| "panic")?, Err("bind failed".into()))?;

        let deleting = scope.spawn(|| agent.del(&world.server.uid));
        for proxy in [&old, &new] {
            let (request, netns) = proxy.answer(&Ack::ok())?;
            check("request", request, Request::Del { uid: world.server.uid.as_str().into() })?;
            check("namespace", netns.is_none(), true)?;
        }
        check("del", deleting.join().map_err(|_| "panic")?, Ok(()))
    })
}

/// Sessions end when it stops, and the same pods are there when it is back.
fn the_agent_can_be_restarted() -> Result<(), String> {
    let world = World::create()?;
    let dir = TempDir::new("agent-restart")?;
    let mut agent = Agent::start(&dir.0.join("sock")).map_err(|error| error.to_string())?;
    agent.enroll(&world.client);
    agent.enroll(&world.server);
    agent.forget(&world.server.uid);
    for _ in 0..2 {
        let proxy = StandIn::connect(agent.path())?;
        check("snapshot", proxy.serve_snapshot(&[])?, vec![world.client.uid.clone()])?;
        check("served", agent.wait_served(1, PATIENCE), true)?;
        agent.stop();
        check("ended", proxy.receive()?.is_none(), true)?;
        check("refused", StandIn::connect(agent.path()).is_err(), true)?;
        agent.restart().map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A client and a server on two nodes, without redirection.
struct World {
    lab: Lab,
    client: Pod,
    server: Pod,
}

impl World {
    fn create() -> Result<Self, String> {
        let mut lab = Lab::create(78, None)?;
        let mut pod = |node: &str, name: &str| {
            lab.add_node(node)?;
            lab.add_pod(Self::plan(node, name))
        };
        let client = pod("node-a", "client")?;
        let server = pod("node-b", "server")?;
        Ok(Self { lab, client, server })
    }

    fn plan(node: &str, name: &str) -> PodPlan {
        PodPlan {
            node: node.into(),
            name: name.into(),
            namespace: "test".into(),
            service_account: name.into(),
            redirection: Redirection::Off,
        }
    }

    /// Sends bytes and the end, returns all that comes back.
    fn talk(&self, to: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let run = || {
            let mut stream = self.client.connect(to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(bytes)?;
            stream.shutdown(Shutdown::Write)?;
            let mut back = Vec::new();
            stream.read_to_end(&mut back)?;
            Ok(back)
        };
        run().map_err(|error: io::Error| format!("talking to {to}: {error}"))
    }
}

/// A proxy as the agent sees one.
struct StandIn {
    runtime: tokio::runtime::Runtime,
    connection: Connection,
}

impl StandIn {
    fn connect(path: &std::path::Path) -> Result<Self, String> {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let connection = runtime.block_on(async {
                let connection = Connection::connect(path)?;
                connection.send(&Hello.encode(), None).await?;
                Ok::<_, io::Error>(connection)
            })?;
            Ok(Self { runtime, connection })
        };
        run().map_err(|error: io::Error| format!("connecting to the agent: {error}"))
    }

    /// Answers the adds of a snapshot, with `acks` first and then well, and returns their uids.
    fn serve_snapshot(&self, acks: &[Ack]) -> Result<Vec<String>, String> {
        let mut uids = Vec::new();
        loop {
            let ack = acks.get(uids.len()).cloned().unwrap_or_else(Ack::ok);
            match self.answer(&ack)?.0 {
                Request::SnapshotSent => return Ok(uids),
                request => uids.extend(uid_of(&request)),
            }
        }
    }

    fn answer(&self, ack: &Ack) -> Result<(Request, Option<Netns>), String> {
        let got = self.receive()?.ok_or("the agent closed")?;
        let sent = self.runtime.block_on(self.connection.send(&ack.encode(), None));
        sent.map_err(|error| error.to_string())?;
        Ok(got)
    }

    fn receive(&self) -> Result<Option<(Request, Option<Netns>)>, String> {
        let mut buffer = [0; PACKET_BYTES_MAX];
        let packet = self.runtime.block_on(async {
            tokio::time::timeout(PATIENCE, self.connection.recv(&mut buffer)).await
        });
        let mut packet =
            packet.map_err(|_| "the agent says nothing")?.map_err(|error| error.to_string())?;
        if packet.is_end() {
            return Ok(None);
        }
        let request = Request::decode(&buffer[..packet.len]).map_err(|error| error.to_string())?;
        let netns = packet.fds.pop().map(Netns::from_fd).transpose();
        Ok(Some((request, netns.map_err(|error| error.to_string())?)))
    }
}

/// A folder that goes when this does.
struct TempDir(PathBuf);

impl TempDir {
    fn new(name: &str) -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("adit-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| error.to_string())?;
        Ok(Self(path))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn uid_of(request: &Request) -> Option<String> {
    match request {
        Request::Add { uid, .. } => Some(uid.to_string()),
        _ => None,
    }
}

fn v6(pod: &Pod) -> IpAddr {
    pod.ipv6.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6)
}

fn check<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, expected: T) -> Result<(), String> {
    if seen == expected {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, saw {seen:?}"))
}
