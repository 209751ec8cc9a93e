//! The laboratory itself: what its pods can reach, and what their rules capture.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use adit::cli::lab::{
    HBONE_PORT, Lab, OUTBOUND_PORT, PLAINTEXT_PORT, PROXY_MARK, Pod, PodPlan, Redirection,
};
use adit::sys::socket::{SocketPlan, bind_original_source, original_destination};

/// For everything that should happen.
const PATIENCE: Duration = Duration::from_secs(5);
/// For what should never happen.
const SHORT: Duration = Duration::from_millis(200);
/// Where the applications of these tests listen.
const APP_PORT: u16 = 8080;

/// The tests of this file.
pub(crate) const TESTS: crate::Tests = &[
    ("pods_reach_each_other", pods_reach_each_other),
    ("outbound_is_captured", outbound_is_captured),
    ("inbound_is_captured", inbound_is_captured),
    ("the_tunnel_port_is_not_captured", the_tunnel_port_is_not_captured),
    ("the_proxy_is_not_captured", the_proxy_is_not_captured),
    ("own_address_is_not_captured", own_address_is_not_captured),
    ("dedicated_captures_outbound_only", dedicated_captures_outbound_only),
    ("source_address_can_be_kept", source_address_can_be_kept),
    ("faults_begin_and_end", faults_begin_and_end),
    ("links_can_be_cut", links_can_be_cut),
];

/// Pods of different nodes and of one node, over IPv4 and IPv6.
pub(crate) fn pods_reach_each_other() -> Result<(), String> {
    let world = World::create(Redirection::Off)?;
    for (from, to) in [(&world.a, &world.b), (&world.b, &world.a), (&world.a, &world.c)] {
        for address in to.addresses() {
            let listener = listen(to, address, APP_PORT)?;
            let client = connect(from, SocketAddr::new(address, APP_PORT))?;
            let (server, peer) = accept(&listener)?;
            check("peer", peer.ip(), same_family(from, address))?;
            check("redirected", redirected_from(&server)?, None)?;
            exchange(client, server)?;
        }
    }
    Ok(())
}

/// A connection of the application arrives on 15001 with the destination it wanted.
pub(crate) fn outbound_is_captured() -> Result<(), String> {
    let world = World::create(Redirection::Ambient)?;
    for address in world.b.addresses() {
        // Nobody listens there, and it need not be a pod's address either.
        for wanted in [SocketAddr::new(address, APP_PORT), SocketAddr::new(address, HBONE_PORT)] {
            let listener = listen(&world.a, any(address), OUTBOUND_PORT)?;
            let client = connect(&world.a, wanted)?;
            let (server, peer) = accept(&listener)?;
            check("original destination", redirected_from(&server)?, Some(wanted))?;
            check("peer", peer, local(&client)?)?;
            exchange(client, server)?;
        }
    }
    Ok(())
}

/// Plaintext from outside arrives on 15006, on whatever port it was for.
pub(crate) fn inbound_is_captured() -> Result<(), String> {
    let world = World::create(Redirection::Ambient)?;
    for address in world.b.addresses() {
        let listener = listen(&world.b, any(address), PLAINTEXT_PORT)?;
        let wanted = SocketAddr::new(address, APP_PORT);
        let client = connect(&world.c, wanted)?;
        let (server, peer) = accept(&listener)?;
        check("original destination", redirected_from(&server)?, Some(wanted))?;
        check("peer", peer.ip(), same_family(&world.c, address))?;
        exchange(client, server)?;
    }
    Ok(())
}

/// Port 15008 of a pod is reached directly from outside.
pub(crate) fn the_tunnel_port_is_not_captured() -> Result<(), String> {
    let world = World::create(Redirection::Ambient)?;
    for address in world.b.addresses() {
        let _decoy = listen(&world.b, any(address), PLAINTEXT_PORT)?;
        let listener = listen(&world.b, any(address), HBONE_PORT)?;
        let client = connect(&world.c, SocketAddr::new(address, HBONE_PORT))?;
        let (server, _) = accept(&listener)?;
        check("redirected", redirected_from(&server)?, None)?;
        exchange(client, server)?;
    }
    Ok(())
}

/// Marked sockets leave the pod as they are.
pub(crate) fn the_proxy_is_not_captured() -> Result<(), String> {
    let world = World::create(Redirection::Ambient)?;
    for address in world.c.addresses() {
        let _decoy = listen(&world.a, any(address), OUTBOUND_PORT)?;
        let listener = listen(&world.c, address, APP_PORT)?;
        let to = SocketAddr::new(address, APP_PORT);
        let client = marked(&world.a, None, to)?;
        let (server, peer) = accept(&listener)?;
        check("peer", peer.ip(), same_family(&world.a, address))?;
        exchange(client, server)?;
    }
    Ok(())
}

/// A pod that calls itself, by its own address or by loopback, is not captured.
pub(crate) fn own_address_is_not_captured() -> Result<(), String> {
    let world = World::create(Redirection::Ambient)?;
    for address in world.a.addresses() {
        let loopback = if address.is_ipv4() {
            IpAddr::from([127, 0, 0, 1])
        } else {
            IpAddr::V6(Ipv6Addr::LOCALHOST)
        };
        for own in [address, loopback] {
            let _decoys =
                [listen(&world.a, own, OUTBOUND_PORT)?, listen(&world.a, own, PLAINTEXT_PORT)?];
            let listener = listen(&world.a, own, APP_PORT)?;
            let client = connect(&world.a, SocketAddr::new(own, APP_PORT))?;
            let (server, _) = accept(&listener)?;
            exchange(client, server)?;
        }
    }
    Ok(())
}

/// With a proxy of its own a pod's outbound connections are captured, inbound ones are not.
pub(crate) fn dedicated_captures_outbound_only() -> Result<(), String> {
    let world = World::create(Redirection::Dedicated)?;
    for address in world.b.addresses() {
        let wanted = SocketAddr::new(address, APP_PORT);
        let outbound = listen(&world.a, any(address), OUTBOUND_PORT)?;
        let client = connect(&world.a, wanted)?;
        let (server, _) = accept(&outbound)?;
        check("original destination", redirected_from(&server)?, Some(wanted))?;
        exchange(client, server)?;

        let inbound = listen(&world.b, address, APP_PORT)?;
        let client = connect(&world.c, wanted)?;
        let (server, _) = accept(&inbound)?;
        check("redirected", redirected_from(&server)?, None)?;
        exchange(client, server)?;
    }
    Ok(())
}

/// The proxy connects to its pod's application from a client's address, and the answer finds
/// its way back although that address is elsewhere.
pub(crate) fn source_address_can_be_kept() -> Result<(), String> {
    let world = World::create(Redirection::Ambient)?;
    for address in world.b.addresses() {
        let listener = listen(&world.b, address, APP_PORT)?;
        let source = same_family(&world.a, address);
        let client = marked(&world.b, Some(source), SocketAddr::new(address, APP_PORT))?;
        let (server, peer) = accept(&listener)?;
        check("peer", peer.ip(), source)?;
        exchange(client, server)?;
    }
    Ok(())
}

/// A port that drops, a port that resets, and neither.
pub(crate) fn faults_begin_and_end() -> Result<(), String> {
    let world = World::create(Redirection::Off)?;
    for address in world.b.addresses() {
        let listener = listen(&world.b, address, APP_PORT)?;
        let to = SocketAddr::new(address, APP_PORT);
        world.b.drop_port(APP_PORT)?;
        let dropped = world.a.connect(to, SHORT).map_err(|error| error.kind());
        check("dropped", dropped.err(), Some(ErrorKind::TimedOut))?;
        world.b.reset_port(APP_PORT)?;
        let reset = world.a.connect(to, PATIENCE).map_err(|error| error.kind());
        check("reset", reset.err(), Some(ErrorKind::ConnectionRefused))?;
        world.b.clear_faults()?;
        let client = connect(&world.a, to)?;
        exchange(client, accept(&listener)?.0)?;
    }
    Ok(())
}

/// A node that is cut off is not reached, its own pods reach each other, and it comes back.
pub(crate) fn links_can_be_cut() -> Result<(), String> {
    let world = World::create(Redirection::Off)?;
    let node = world.lab.node("node-b").ok_or("no node-b")?.clone();
    let to = SocketAddr::new(world.b.ipv4.into(), APP_PORT);
    let listener = listen(&world.b, to.ip(), APP_PORT)?;
    world.lab.set_uplink(&node, false)?;
    check("reached", world.a.connect(to, SHORT).is_ok(), false)?;
    world.lab.set_uplink(&node, true)?;
    let client = connect(&world.a, to)?;
    exchange(client, accept(&listener)?.0)
}

/// Two nodes: `a` and `c` on the first, `b` on the second; `c` is never redirected.
struct World {
    lab: Lab,
    a: Pod,
    b: Pod,
    c: Pod,
}

impl World {
    fn create(redirection: Redirection) -> Result<Self, String> {
        let mut lab = Lab::create(77, None)?;
        lab.add_node("node-a")?;
        lab.add_node("node-b")?;
        let mut pod = |node: &str, name: &str, redirection| {
            lab.add_pod(PodPlan {
                node: node.into(),
                name: name.into(),
                namespace: "test".into(),
                service_account: name.into(),
                redirection,
            })
        };
        let a = pod("node-a", "a", redirection)?;
        let b = pod("node-b", "b", redirection)?;
        let c = pod("node-a", "c", Redirection::Off)?;
        Ok(Self { lab, a, b, c })
    }
}

/// Where an accepted connection was going.
fn redirected_from(socket: &TcpStream) -> Result<Option<SocketAddr>, String> {
    let local = socket.local_addr().map_err(|error| format!("its own address: {error}"))?;
    Ok(original_destination(socket, local))
}

fn listen(pod: &Pod, address: IpAddr, port: u16) -> Result<TcpListener, String> {
    pod.netns
        .run(|| TcpListener::bind((address, port)))
        .map_err(|error| format!("listening on {address} port {port}: {error}"))
}

fn connect(pod: &Pod, to: SocketAddr) -> Result<TcpStream, String> {
    pod.connect(to, PATIENCE).map_err(|error| format!("connecting to {to}: {error}"))
}

/// A connection as the proxy makes it in a pod, from `source` if there is one.
fn marked(pod: &Pod, source: Option<IpAddr>, to: SocketAddr) -> Result<TcpStream, String> {
    let open = || -> io::Result<TcpStream> {
        let plan = SocketPlan { ipv6: to.is_ipv6(), transparent: source.is_some() };
        let socket = plan.create(Some(PROXY_MARK))?;
        if let Some(source) = source {
            bind_original_source(&socket, source)?;
        }
        socket.set_nonblocking(false)?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Ok(socket.into())
    };
    pod.netns.run(open).map_err(|error| format!("connecting marked to {to}: {error}"))
}

fn accept(listener: &TcpListener) -> Result<(TcpStream, SocketAddr), String> {
    let run = || -> io::Result<(TcpStream, SocketAddr)> {
        // A receive timeout bounds accept too.
        socket2::SockRef::from(listener).set_read_timeout(Some(PATIENCE))?;
        let (stream, peer) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok((stream, peer))
    };
    run().map_err(|error| format!("accepting: {error}"))
}

/// Bytes there and back, then the end.
fn exchange(mut client: TcpStream, mut server: TcpStream) -> Result<(), String> {
    let mut run = || -> io::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        client.write_all(b"ping")?;
        let mut bytes = [0; 4];
        server.read_exact(&mut bytes)?;
        server.write_all(&bytes)?;
        let mut back = [0; 4];
        client.read_exact(&mut back)?;
        if &back == b"ping" { Ok(()) } else { Err(io::Error::other("other bytes came back")) }
    };
    run().map_err(|error| format!("exchanging bytes: {error}"))
}

fn local(stream: &TcpStream) -> Result<SocketAddr, String> {
    stream.local_addr().map_err(|error| error.to_string())
}

fn same_family(pod: &Pod, like: IpAddr) -> IpAddr {
    match pod.ipv6 {
        Some(ipv6) if like.is_ipv6() => ipv6.into(),
        _ => pod.ipv4.into(),
    }
}

fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { IpAddr::from([0; 4]) } else { Ipv6Addr::UNSPECIFIED.into() }
}

fn check<T: PartialEq + std::fmt::Debug>(what: &str, seen: T, expected: T) -> Result<(), String> {
    if seen == expected {
        return Ok(());
    }
    Err(format!("{what}: expected {expected:?}, saw {seen:?}"))
}
