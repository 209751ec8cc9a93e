//! Nodes and pods of a laboratory: namespaces, links and addresses.
//!
//! Namespaces exist by their descriptors only, so nothing is left behind whatever happens to
//! this process. All pods are on one segment: nothing is forwarded, no sysctl is needed.
//!
//! ```text
//!             backbone: bridge
//!              │            │           <- link_between_nodes(), port_of(node)
//!      node-a: bridge    node-b: bridge
//!        │        │         │
//!      pod eth0  pod eth0  pod eth0
//! ```

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::error::LabError;
use super::fault;
use super::link::{self, Interface};
use super::redirect::{self, Redirection};
use crate::sys::netns::Netns;

/// Nodes of one laboratory; their numbers are in the third octet of addresses.
const NODES_MAX: usize = 200;
/// Pods of one node; their numbers are in the fourth octet, after those of nodes.
const PODS_MAX: u8 = 240;
/// Number of a node's first pod.
const FIRST_POD: u8 = 10;
/// The bridge in the backbone and in every node.
const BRIDGE: &str = "br0";
/// A pod's link.
const POD_LINK: &str = "eth0";
/// A node's link to the backbone.
const UPLINK: &str = "uplink0";
/// Prefix lengths: one segment for the whole laboratory.
const PREFIX_V4: u8 = 16;
const PREFIX_V6: u8 = 64;

/// Some nodes, their pods and the wire between them.
#[derive(Debug)]
pub struct Lab {
    number: u8,
    ipv6: bool,
    backbone: Netns,
    nodes: BTreeMap<String, Node>,
    pods: BTreeMap<String, Pod>,
}

/// One node: where its proxy runs.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub netns: Netns,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, if the laboratory has IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// The name of its link in the backbone.
    pub port: String,
    number: u8,
    pods: u8,
}

/// What a pod is to be.
#[derive(Clone, Debug)]
pub struct PodPlan {
    /// Its node.
    pub node: String,
    /// Its name, one of a kind in the laboratory.
    pub name: String,
    /// Its namespace in the mesh.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// What is captured in it.
    pub redirection: Redirection,
}

/// One pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What it was planned to be.
    pub plan: Arc<PodPlan>,
    /// Unique among all pods that ever were in this process's laboratories of that number.
    pub uid: String,
    /// Its network namespace.
    pub netns: Netns,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, if the laboratory has IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// The name of its link in its node's namespace.
    pub port: String,
}

impl Lab {
    /// Makes the backbone. `number` is the second octet of all addresses; `ipv6` is whether to
    /// use IPv6 besides IPv4, `None` meaning if this machine can.
    pub fn create(number: u8, ipv6: Option<bool>) -> Result<Self, LabError> {
        let backbone = namespace()?;
        let ipv6 = ipv6.unwrap_or_else(|| redirect::has_ipv6(&backbone));
        link::bridge(&backbone, BRIDGE, &[])?;
        Ok(Self { number, ipv6, backbone, nodes: BTreeMap::new(), pods: BTreeMap::new() })
    }

    /// Adds a node.
    pub fn add_node(&mut self, name: &str) -> Result<Node, LabError> {
        if self.nodes.contains_key(name) || self.nodes.len() >= NODES_MAX {
            return Err(LabError::Plan(format!("no room for a node {name}")));
        }
        let number = u8::try_from(self.nodes.len() + 1).unwrap_or(u8::MAX);
        let netns = namespace()?;
        let ipv4 = self.ipv4(number, 1);
        let ipv6 = self.ipv6.then(|| self.ipv6(number, 1));
        let port = format!("node{number}");
        link::bridge(&netns, BRIDGE, &interfaces(ipv4, ipv6))?;
        link::veth_to_bridge(&netns, UPLINK, &self.backbone, (&port, BRIDGE))?;
        link::enslave(&netns, UPLINK, BRIDGE)?;
        let node = Node { name: name.to_owned(), netns, ipv4, ipv6, port, number, pods: 0 };
        self.nodes.insert(name.to_owned(), node.clone());
        Ok(node)
    }

    /// Adds a pod, programs its redirection and waits until its link carries packets.
    pub fn add_pod(&mut self, plan: PodPlan) -> Result<Pod, LabError> {
        let Some(node) = self.nodes.get_mut(&plan.node) else {
            return Err(LabError::Plan(format!("there is no node {}", plan.node)));
        };
        if self.pods.contains_key(&plan.name) || node.pods >= PODS_MAX {
            return Err(LabError::Plan(format!("no room for a pod {}", plan.name)));
        }
        let number = FIRST_POD + node.pods;
        node.pods += 1;
        let node = node.clone();
        let netns = namespace()?;
        let ipv4 = self.ipv4(node.number, number);
        let ipv6 = self.ipv6.then(|| self.ipv6(node.number, number));
        let port = format!("pod{number}");
        link::veth_to_bridge(&netns, POD_LINK, &node.netns, (&port, BRIDGE))?;
        let gateways: Vec<IpAddr> = [Some(IpAddr::V4(node.ipv4)), node.ipv6.map(IpAddr::V6)]
            .into_iter()
            .flatten()
            .collect();
        link::address(&netns, POD_LINK, &interfaces(ipv4, ipv6), &gateways)?;
        redirect::program(&netns, plan.redirection, self.ipv6)?;
        for place in [&netns, &node.netns, &self.backbone] {
            link::settle(place)?;
        }
        let uid = format!("{:08x}-0000-4000-8000-{number:012x}", u32::from(ipv4));
        let pod = Pod { uid, plan: Arc::new(plan), netns, ipv4, ipv6, port };
        self.pods.insert(pod.plan.name.clone(), pod.clone());
        Ok(pod)
    }

    /// Forgets a pod. Its namespace and links vanish with the last copy of it and the last
    /// socket in it.
    pub fn remove_pod(&mut self, name: &str) -> Option<Pod> {
        self.pods.remove(name)
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// A pod by its name.
    pub fn pod(&self, name: &str) -> Option<&Pod> {
        self.pods.get(name)
    }

    /// All pods, by name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Whether pods have IPv6 addresses.
    pub fn has_ipv6(&self) -> bool {
        self.ipv6
    }

    /// The namespace in which all traffic between nodes passes; see [`Node::port`].
    pub fn link_between_nodes(&self) -> &Netns {
        &self.backbone
    }

    /// Cuts a node off the others or connects it again.
    pub fn set_uplink(&self, node: &Node, up: bool) -> Result<(), LabError> {
        link::set_up(&self.backbone, &node.port, up)?;
        if up { link::settle(&self.backbone) } else { Ok(()) }
    }

    fn ipv4(&self, node: u8, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.number, node, host)
    }

    fn ipv6(&self, node: u8, host: u8) -> Ipv6Addr {
        let [lab, node, host] = [self.number, node, host].map(u16::from);
        Ipv6Addr::new(0xfdad, 0x1700, lab, 0, 0, 0, node, host)
    }
}

impl Node {
    /// Packets between pods of this node to this TCP port vanish, as a network policy of its CNI
    /// would have it, for as long as the node exists.
    pub fn drop_forwarded_port(&self, port: u16) -> Result<(), LabError> {
        fault::on_bridge(&self.netns, port)
    }
}

impl Pod {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        [Some(IpAddr::V4(self.ipv4)), self.ipv6.map(IpAddr::V6)].into_iter().flatten().collect()
    }

    /// Opens a connection as an application of this pod would.
    pub fn connect(&self, to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        self.netns.run(|| TcpStream::connect_timeout(&to, timeout))
    }

    /// Packets to this TCP port, from outside or by the pod itself, vanish.
    pub fn drop_port(&self, port: u16) -> Result<(), LabError> {
        fault::on_port(&self.netns, port, fault::Fate::Vanish)
    }

    /// Connections to this TCP port of the pod are answered with a reset.
    pub fn reset_port(&self, port: u16) -> Result<(), LabError> {
        fault::on_port(&self.netns, port, fault::Fate::Reset)
    }

    /// Connections from an address to this TCP port of the pod arrive at another port of it, for as
    /// long as the pod exists.
    pub fn detour(&self, from: IpAddr, (port, instead): (u16, u16)) -> Result<(), LabError> {
        fault::detour(&self.netns, from, (port, instead))
    }

    /// Ends what [`Pod::drop_port`] and [`Pod::reset_port`] began.
    pub fn clear_faults(&self) -> Result<(), LabError> {
        fault::clear(&self.netns)
    }

    /// Takes the pod's link up or down. Its default routes go with it when it goes down.
    pub fn set_link(&self, up: bool) -> Result<(), LabError> {
        link::set_up(&self.netns, POD_LINK, up)
    }
}

fn namespace() -> Result<Netns, LabError> {
    let netns = Netns::create().map_err(LabError::refused("making a network namespace"))?;
    link::loopback(&netns)?;
    Ok(netns)
}

fn interfaces(ipv4: Ipv4Addr, ipv6: Option<Ipv6Addr>) -> Vec<Interface> {
    let mut interfaces = vec![Interface { address: ipv4.into(), prefix: PREFIX_V4 }];
    interfaces.extend(ipv6.map(|ipv6| Interface { address: ipv6.into(), prefix: PREFIX_V6 }));
    interfaces
}
