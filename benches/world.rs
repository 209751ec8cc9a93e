//! The world of the bench: two nodes, and for every kind of proxy the same pods.

use std::fs;
use std::io;
use std::net::SocketAddr;

use adit::cli::lab::{Capture, HBONE_PORT, Lab, LabError, Pod, PodPlan, Redirection};
use adit::sys::netns::Netns;
use clap::ValueEnum;

use crate::delay;
use crate::load;
use crate::proxies::{self, Proxies};

/// The node of the clients.
pub(crate) const NEAR: &str = "node-a";
/// The node of the servers.
pub(crate) const FAR: &str = "node-b";
/// Second octet of the pods' addresses.
const LAB_NUMBER: u8 = 77;

/// A kind of proxy between the applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Variant {
    /// `adit proxy`.
    Adit,
    /// `h2` over rustls.
    Stock,
    /// `splice` in plain text.
    Null,
    /// No proxy and no redirection.
    None,
}

impl Variant {
    pub(crate) const ALL: [Self; 4] = [Self::Adit, Self::Stock, Self::Null, Self::None];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Adit => "adit",
            Self::Stock => "stock",
            Self::Null => "null",
            Self::None => "none",
        }
    }

    /// Whether what it carries between nodes is to be encrypted.
    pub(crate) fn encrypts(self) -> bool {
        matches!(self, Self::Adit | Self::Stock)
    }
}

/// Two nodes with pods, proxies and applications, all running.
pub(crate) struct World {
    pub(crate) sides: Vec<Side>,
    /// A pod on the clients' node that is not in the mesh.
    pub(crate) outside: Pod,
    /// Holds the namespaces of the nodes.
    _lab: Lab,
}

/// The pods of one kind of proxy, and its processes.
pub(crate) struct Side {
    pub(crate) variant: Variant,
    /// On the near node.
    pub(crate) client: Pod,
    /// On the far node.
    pub(crate) server: Pod,
    /// A server on the near node.
    pub(crate) neighbour: Pod,
    pub(crate) proxies: Proxies,
    /// Whether adit's bytes between pods of a node leave the tunnel out.
    pub(crate) direct: bool,
}

impl Side {
    /// Looks for a request on the wire between the nodes: a proxy that only relays is fast, and its
    /// figures would say nothing. The kinds that do not encrypt show that the look can find it.
    fn check_wire(&self, lab: &Lab) -> io::Result<()> {
        let node = lab.node(FAR).ok_or(io::ErrorKind::NotFound)?;
        let capture = Capture::start(lab.link_between_nodes(), &node.port)?;
        load::idle(&self.client.netns, address(&self.server, load::ANSWER), &mut Vec::new(), 1)?;
        let readable = capture.finish()?.contains(&load::REQUEST);
        let name = self.variant.name();
        match (readable, self.variant.encrypts()) {
            (true, true) => Err(io::Error::other(format!("{name} sent a request in plain text"))),
            (false, false) => Err(io::Error::other(format!("no request of {name} was captured"))),
            _ => Ok(()),
        }
    }
}

impl World {
    /// Builds it, and starts proxies and applications. `same_node` is adit's `SAME_NODE`; without a
    /// number of workers each proxy has its default.
    pub(crate) fn build(
        variants: &[Variant],
        same_node: &str,
        workers: Option<usize>,
    ) -> io::Result<Self> {
        let mut lab = Lab::create(LAB_NUMBER, Some(false))?;
        lab.add_node(NEAR)?;
        lab.add_node(FAR)?;
        let outside = pod(&mut lab, NEAR, "outside", Redirection::Off)?;
        let mut pods = Vec::new();
        for &variant in variants {
            let redirection = match variant {
                Variant::None => Redirection::Off,
                _ => Redirection::Ambient,
            };
            let mut add = |node, role| {
                pod(&mut lab, node, &format!("{role}-{}", variant.name()), redirection)
            };
            let (client, server) = (add(NEAR, "client")?, add(FAR, "server")?);
            let neighbour = add(NEAR, "neighbour")?;
            if variant.encrypts() {
                // Its tunnels are long. Nobody else opens one from there to here.
                server.detour(neighbour.ipv4.into(), (HBONE_PORT, delay::PORT))?;
                delay::serve(&server.netns, address(&server, HBONE_PORT))?;
            }
            for pod in [&server, &neighbour] {
                choose_other_ports(&pod.netns)?;
                load::serve(&pod.netns)?;
            }
            pods.push((variant, client, server, neighbour));
        }
        let start = |(variant, client, server, neighbour): (Variant, Pod, Pod, Pod)| {
            let near = [client.clone(), neighbour.clone()];
            let far = std::slice::from_ref(&server);
            let proxies = proxies::start(variant, &lab, (&near, far), (same_node, workers))?;
            let direct = same_node == "direct";
            Ok(Side { variant, client, server, neighbour, proxies, direct })
        };
        let sides = pods.into_iter().map(start).collect::<io::Result<Vec<_>>>()?;
        for side in &sides {
            side.check_wire(&lab)?;
        }
        Ok(Self { sides, outside, _lab: lab })
    }
}

/// Makes the kernel choose local ports in a server's pod from another range than in clients'.
///
/// A proxy that keeps the original source of a connection that came in plain text opens a second
/// one from the same address to the same place. If the kernel chooses the port of the first, the
/// two are one to connection tracking, and the second never opens. The null relay, to which all
/// comes in plain text, would meet that every few thousand connections.
fn choose_other_ports(netns: &Netns) -> io::Result<()> {
    netns.run(|| fs::write("/proc/sys/net/ipv4/ip_local_port_range", "10000 32767"))
}

/// Where an application of a pod listens.
pub(crate) fn address(pod: &Pod, port: u16) -> SocketAddr {
    SocketAddr::new(pod.ipv4.into(), port)
}

fn pod(lab: &mut Lab, node: &str, name: &str, what: Redirection) -> Result<Pod, LabError> {
    lab.add_pod(PodPlan {
        node: node.to_owned(),
        name: name.to_owned(),
        namespace: "bench".to_owned(),
        service_account: name.to_owned(),
        redirection: what,
    })
}
