//! The opener and the sockets it makes, in network namespaces of the test's own.

use std::error::Error;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use adit::sys::netns::Netns;
use adit::sys::opener::{Listeners, Opener, OpenerConfig};
use adit::sys::socket::{SocketPlan, bind_original_source};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};
use socket2::SockRef;
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// The tests of this file, by name.
pub(crate) const TESTS: crate::Tests = &[
    ("listens_in_a_fresh_namespace", listens_in_a_fresh_namespace),
    ("all_ports_or_none", all_ports_or_none),
    ("two_openers_share_ports_if_asked", two_openers_share_ports_if_asked),
    ("sockets_are_marked_and_in_the_pod", sockets_are_marked_and_in_the_pod),
    ("foreign_sources_can_be_bound", foreign_sources_can_be_bound),
    ("transparent_as_configured", transparent_as_configured),
    ("home_again_after_an_error", home_again_after_an_error),
    ("an_opener_at_home_does_not_travel", an_opener_at_home_does_not_travel),
    ("a_thousand_rounds_leak_nothing", a_thousand_rounds_leak_nothing),
    ("listens_without_ipv6", listens_without_ipv6),
];

const PORTS: [u16; 3] = [15001, 15006, 15008];
const MARK: u32 = 0x539;
const CONFIG: OpenerConfig = OpenerConfig {
    mark: Some(MARK),
    port_reuse: true,
    ipv6: true,
    backlog: 128,
    transparent: None,
};
const ALONE: OpenerConfig = OpenerConfig { port_reuse: false, ..CONFIG };

type Checked = Result<(), Box<dyn Error>>;

/// Listeners answer on both families, marked, shared and transparent.
fn listens_in_a_fresh_namespace() -> Result<(), String> {
    on_runtime(async {
        let pod = namespace()?;
        let opener = Opener::start(CONFIG)?;
        let listeners = opener.listen(Some(pod.clone())).await?;
        same("transparent", listeners.transparent, true)?;
        for (listener, port) in each(&listeners).into_iter().zip(PORTS) {
            let socket = SockRef::from(listener);
            same("address", listener.local_addr()?, SocketAddr::new(V6_ANY, port))?;
            same("mark", socket.mark()?, MARK)?;
            same("port reuse", socket.reuse_port()?, true)?;
            same("transparent for IPv4", socket.ip_transparent_v4()?, true)?;
            same("transparent for IPv6", socket.ip_transparent_v6()?, true)?;
            same("waits", kind(listener.accept()), Some(io::ErrorKind::WouldBlock))?;
            for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
                let client = pod.run(|| TcpStream::connect((ip, port)))?;
                let peer = listener.accept()?.1;
                same("peer", peer.ip().to_canonical(), ip)?;
                same("peer's port", peer.port(), client.local_addr()?.port())?;
            }
        }
        Ok(())
    })
}

/// One taken port refuses the pod, by name, and frees the others.
fn all_ports_or_none() -> Result<(), String> {
    on_runtime(async {
        let opener = Opener::start(ALONE)?;
        for taken in PORTS {
            let pod = namespace()?;
            let _holder = pod.run(|| TcpListener::bind((V6_ANY, taken)))?;
            let error = refusal(opener.listen(Some(pod.clone())).await)?;
            same("error", error.kind(), io::ErrorKind::AddrInUse)?;
            same("names it", error.to_string().contains(&format!("[::]:{taken}:")), true)?;
            for free in PORTS.into_iter().filter(|port| *port != taken) {
                pod.run(|| TcpListener::bind((V6_ANY, free)))?;
            }
        }
        Ok(())
    })
}

/// Two proxies overlap in one pod during an update, but only if both agree.
fn two_openers_share_ports_if_asked() -> Result<(), String> {
    on_runtime(async {
        for (config, refused) in [(CONFIG, None), (ALONE, Some(io::ErrorKind::AddrInUse))] {
            let pod = namespace()?;
            let (old, new) = (Opener::start(config)?, Opener::start(config)?);
            let _listeners = old.listen(Some(pod.clone())).await?;
            same("second", kind(new.listen(Some(pod)).await), refused)?;
        }
        Ok(())
    })
}

/// Sockets carry the mark and connect from inside the pod.
fn sockets_are_marked_and_in_the_pod() -> Result<(), String> {
    on_runtime(async {
        let pod = namespace()?;
        let opener = Opener::start(CONFIG)?;
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let server = pod.run(|| TcpListener::bind((ip, 0)))?;
            let plan = SocketPlan { ipv6: ip.is_ipv6(), transparent: true };
            let sockets = opener.sockets(Some(pod.clone()), plan, 3).await?;
            same("count", sockets.len(), 3)?;
            for socket in sockets {
                same("mark", socket.mark()?, MARK)?;
                connect(socket, server.local_addr()?).await?;
            }
        }
        let unmarked = Opener::start(OpenerConfig { mark: None, ..CONFIG })?;
        let plan = SocketPlan { ipv6: false, transparent: false };
        let sockets = unmarked.sockets(Some(pod), plan, 1).await?;
        same("marks without a mark", sockets.iter().map(|s| s.mark().ok()).collect(), vec![Some(0)])
    })
}

/// Only transparent sockets take somebody else's address, and no port before they connect.
fn foreign_sources_can_be_bound() -> Result<(), String> {
    on_runtime(async {
        let pod = namespace()?;
        let opener = Opener::start(CONFIG)?;
        for source in ["192.0.2.7", "2001:db8::7"] {
            let source: IpAddr = source.parse()?;
            for (transparent, refused) in [(true, None), (false, Some(NOT_HERE))] {
                let plan = SocketPlan { ipv6: source.is_ipv6(), transparent };
                let sockets = opener.sockets(Some(pod.clone()), plan, 1).await?;
                let socket = sockets.first().ok_or("no socket")?;
                same("bound", kind(bind_original_source(socket, source)), refused)?;
                if transparent {
                    let bound = socket.local_addr()?.as_socket();
                    same("source", bound, Some(SocketAddr::new(source, 0)))?;
                }
            }
        }
        Ok(())
    })
}

/// What the configuration says about original sources is what the listeners do.
fn transparent_as_configured() -> Result<(), String> {
    on_runtime(async {
        for (transparent, expected) in [(None, true), (Some(true), true), (Some(false), false)] {
            for ipv6 in [false, true] {
                let pod = namespace()?;
                let opener = Opener::start(OpenerConfig { transparent, ipv6, ..CONFIG })?;
                let listeners = opener.listen(Some(pod)).await?;
                same("told", listeners.transparent, expected)?;
                for listener in each(&listeners) {
                    same("family", listener.local_addr()?.is_ipv6(), ipv6)?;
                    let socket = SockRef::from(listener);
                    same("done for IPv4", socket.ip_transparent_v4()?, expected)?;
                    same("done for IPv6", ipv6 && socket.ip_transparent_v6()?, ipv6 && expected)?;
                }
            }
        }
        Ok(())
    })
}

/// After a failed request in a pod the next sockets are those of the opener's own namespace.
fn home_again_after_an_error() -> Result<(), String> {
    on_runtime(async {
        let (home, pod) = (namespace()?, namespace()?);
        let opener = home.run(|| Opener::start(ALONE))?;
        let server = home.run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let _holder = pod.run(|| TcpListener::bind((V6_ANY, PORTS[1])))?;
        for _ in 0..3 {
            refusal(opener.listen(Some(pod.clone())).await)?;
            let plan = SocketPlan { ipv6: false, transparent: false };
            for (netns, found) in [(None, true), (Some(pod.clone()), false)] {
                let sockets = opener.sockets(netns, plan, 1).await?;
                let socket = sockets.into_iter().next().ok_or("no socket")?;
                let connected = connect(socket, server.local_addr()?).await;
                same("connected", connected.is_ok(), found)?;
            }
        }
        Ok(())
    })
}

/// The opener of a dedicated proxy refuses pods, and serves its own namespace.
fn an_opener_at_home_does_not_travel() -> Result<(), String> {
    on_runtime(async {
        let (home, pod) = (namespace()?, namespace()?);
        let opener = home.run(|| Opener::start_at_home(ALONE))?;
        let refused = refusal(opener.listen(Some(pod)).await)?;
        same("error", refused.kind(), io::ErrorKind::PermissionDenied)?;
        for netns in [None, Some(home.clone())] {
            let listeners = opener.listen(netns).await?;
            home.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PORTS[0])))?;
            listeners.outbound.accept()?;
        }
        Ok(())
    })
}

/// Neither sockets nor namespaces stay behind, whether requests succeed or fail.
fn a_thousand_rounds_leak_nothing() -> Result<(), String> {
    const ROUNDS: usize = 1000;
    on_runtime(async {
        let (free, taken) = (bare_namespace()?, bare_namespace()?);
        let _holder = taken.run(|| TcpListener::bind((V6_ANY, PORTS[0])))?;
        let opener = Opener::start(ALONE)?;
        for _ in 0..ROUNDS {
            // Ports that were not closed could not be bound again.
            drop(opener.listen(Some(free.clone())).await?);
            refusal(opener.listen(Some(taken.clone())).await)?;
            let plan = SocketPlan { ipv6: true, transparent: true };
            drop(opener.sockets(Some(free.clone()), plan, 1).await?);
        }
        let left = (sockets_in(&free)?, sockets_in(&taken)?);
        same("sockets left", left, ("sockets: used 0".into(), "sockets: used 1".into()))?;
        let owners = (Arc::strong_count(free.fd()), Arc::strong_count(taken.fd()));
        same("owners of the namespaces", owners, (1, 1))
    })
}

/// A namespace whose IPv6 is off still gets its listeners.
fn listens_without_ipv6() -> Result<(), String> {
    on_runtime(async {
        let pod = namespace()?;
        pod.run(|| fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"))?;
        let v6 = kind(pod.run(|| TcpListener::bind((Ipv6Addr::LOCALHOST, 0))));
        same("IPv6 in the namespace", v6, Some(NOT_HERE))?;
        let listeners = Opener::start(CONFIG)?.listen(Some(pod.clone())).await?;
        for (listener, port) in each(&listeners).into_iter().zip(PORTS) {
            let client = pod.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)))?;
            let port = listener.accept()?.1.port();
            same("peer's port", port, client.local_addr()?.port())?;
        }
        Ok(())
    })
}

const V6_ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const NOT_HERE: io::ErrorKind = io::ErrorKind::AddrNotAvailable;

fn on_runtime(test: impl Future<Output = Checked>) -> Result<(), String> {
    // Whatever is missing, this is the error that names the remedy.
    bare_namespace().map_err(|error| error.to_string())?;
    let runtime = runtime().map_err(|error| error.to_string())?;
    runtime.block_on(test).map_err(|error| error.to_string())
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// A new namespace with loopback up.
fn namespace() -> Result<Netns, Box<dyn Error>> {
    let netns = bare_namespace()?;
    netns.run(|| runtime()?.block_on(loopback_up()))?;
    Ok(netns)
}

/// A new namespace in which there was never a socket.
fn bare_namespace() -> Result<Netns, Box<dyn Error>> {
    Netns::create().map_err(|error| {
        let remedy = "run as root, or `unshare -rUmn cargo test --test integration`";
        format!("cannot make a network namespace ({error}): {remedy}").into()
    })
}

async fn loopback_up() -> io::Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let up = LinkMessageBuilder::<LinkUnspec>::new().name("lo".to_owned()).up().build();
    handle.link().set(up).execute().await.map_err(io::Error::other)
}

async fn connect(socket: socket2::Socket, server: SocketAddr) -> io::Result<()> {
    TcpSocket::from_std_stream(socket.into()).connect(server).await?;
    Ok(())
}

/// How many sockets exist in a namespace, whoever holds them.
fn sockets_in(netns: &Netns) -> Result<String, Box<dyn Error>> {
    let text = netns.run(|| fs::read_to_string("/proc/thread-self/net/sockstat"))?;
    let line = text.lines().find(|line| line.starts_with("sockets:"));
    Ok(line.ok_or("no line about sockets")?.to_owned())
}

fn each(listeners: &Listeners) -> [&TcpListener; 3] {
    [&listeners.outbound, &listeners.plaintext, &listeners.hbone]
}

fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

fn refusal<T>(result: io::Result<T>) -> Result<io::Error, Box<dyn Error>> {
    result.err().ok_or_else(|| "should have been refused".into())
}

fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Checked {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: found {found:?}, expected {expected:?}").into())
}
