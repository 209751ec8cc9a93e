//! The redirection rules of a pod, as the node agent of a mesh programs them (spec redirection 3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use super::error::LabError;
use super::link;
use super::nft::{Base, Batch, Family, Hook, Step};
use crate::sys::netns::Netns;

/// Where captured connections of the pod go.
pub const OUTBOUND_PORT: u16 = 15_001;
/// Where captured plaintext to the pod goes.
pub const PLAINTEXT_PORT: u16 = 15_006;
/// The tunnel port, which is never captured.
pub const HBONE_PORT: u16 = 15_008;
/// Mark of packets that the proxy sends.
pub const PROXY_MARK: u32 = 0x539;

/// The bits of a mark that count.
const MARK_MASK: u32 = 0xfff;
/// Mark of connections that the proxy opened to the application.
const CONNECTION_MARK: u32 = 0x111;
/// Table of the route that brings marked answers back.
const ROUTE_TABLE: u32 = 100;
/// Priority of the rule that leads there.
const RULE_PRIORITY: u32 = 32_764;
/// Source address of probes by the node's own agents.
const PROBE_SOURCES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 7, 127)),
    IpAddr::V6(Ipv6Addr::new(0xfd16, 0x9254, 0x7127, 0x1337, 0xffff, 0xffff, 0xffff, 0xffff)),
];
const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

const NAT: &str = "istio-ambient-nat";
const MANGLE: &str = "istio-ambient-mangle";
const PREROUTING: &str = "istio-prerouting";
const OUTPUT: &str = "istio-output";
/// Priority of destination NAT.
const NAT_PRIORITY: i32 = -100;
/// Priority of mangling.
const MANGLE_PRIORITY: i32 = -150;

const TCP: Step = Step::Protocol(6);
const FROM_PROXY: Step = Step::Mark { value: PROXY_MARK, mask: MARK_MASK };
const NOT_FROM_PROXY: Step = Step::NotMark { value: PROXY_MARK, mask: MARK_MASK };
const MARKED: Step = Step::Mark { value: CONNECTION_MARK, mask: MARK_MASK };

/// What is captured in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirection {
    /// Nothing: the pod is not part of the mesh.
    Off,
    /// Everything that a node's shared proxy needs, without DNS.
    Ambient,
    /// Only connections out of the pod, for a proxy of its own (spec redirection 7).
    Dedicated,
}

/// Programs the rules in a pod's namespace. What was there before is replaced.
pub(super) fn program(netns: &Netns, what: Redirection, ipv6: bool) -> Result<(), LabError> {
    let families = if ipv6 { 2 } else { 1 };
    let batch = match what {
        Redirection::Off => return Ok(()),
        Redirection::Ambient => ambient(families),
        Redirection::Dedicated => dedicated(),
    };
    link::within(netns, || batch.commit())?;
    if what == Redirection::Ambient {
        link::mark_route(netns, ipv6, &MARK_ROUTE)?;
    }
    Ok(())
}

const MARK_ROUTE: link::MarkRoute = link::MarkRoute {
    mark: CONNECTION_MARK,
    mask: MARK_MASK,
    table: ROUTE_TABLE,
    priority: RULE_PRIORITY,
};

/// The numbers in the comments are those of spec redirection 3.
fn ambient(families: usize) -> Batch {
    let mut batch = Batch::new(Family::Inet);
    tables(&mut batch);
    let mut rule = |table, chain, steps: &[Step]| counted(&mut batch, table, chain, steps);

    // 2
    let remember = Step::SetConnectionMark { value: CONNECTION_MARK, mask: MARK_MASK };
    rule(MANGLE, PREROUTING, &[FROM_PROXY, remember]);
    // 3, 4
    for probe in &PROBE_SOURCES[..families] {
        rule(NAT, PREROUTING, &[TCP, Step::From(*probe), Step::Accept]);
        rule(NAT, OUTPUT, &[TCP, Step::To(*probe), Step::Accept]);
    }
    // 5
    for loopback in &LOOPBACKS[..families] {
        let inbound = [TCP, Step::NotTo(*loopback), Step::NotPort(HBONE_PORT), NOT_FROM_PROXY];
        rule(NAT, PREROUTING, &[&inbound[..], &[Step::Redirect(PLAINTEXT_PORT)]].concat());
    }
    // 6
    let ours = Step::ConnectionMark { value: CONNECTION_MARK, mask: MARK_MASK };
    rule(MANGLE, OUTPUT, &[ours, Step::RestoreMark]);
    // 11
    rule(NAT, OUTPUT, &[TCP, MARKED, Step::Accept]);
    // 12
    for loopback in &LOOPBACKS[..families] {
        rule(NAT, OUTPUT, &[Step::OverLoopback, Step::NotTo(*loopback), Step::Accept]);
    }
    // 13
    for loopback in &LOOPBACKS[..families] {
        let outbound = [TCP, Step::NotTo(*loopback), NOT_FROM_PROXY];
        rule(NAT, OUTPUT, &[&outbound[..], &[Step::Redirect(OUTBOUND_PORT)]].concat());
    }
    batch
}

fn tables(batch: &mut Batch) {
    for (table, kinds, priority) in
        [(NAT, ["nat", "nat"], NAT_PRIORITY), (MANGLE, ["filter", "route"], MANGLE_PRIORITY)]
    {
        batch.fresh_table(table);
        let hooks = [("prerouting", Hook::Prerouting), ("output", Hook::Output)];
        for ((name, hook), kind) in hooks.into_iter().zip(kinds) {
            batch.chain(table, name, Some(Base { kind, hook, priority }));
        }
        for (base, chain) in [("prerouting", PREROUTING), ("output", OUTPUT)] {
            batch.chain(table, chain, None);
            counted(batch, table, base, &[Step::Jump(chain)]);
        }
    }
}

fn dedicated() -> Batch {
    let mut batch = Batch::new(Family::Inet);
    batch.fresh_table(NAT);
    let base = Base { kind: "nat", hook: Hook::Output, priority: NAT_PRIORITY };
    batch.chain(NAT, "output", Some(base));
    let steps = [TCP, Step::NotOverLoopback, NOT_FROM_PROXY, Step::Redirect(OUTBOUND_PORT)];
    counted(&mut batch, NAT, "output", &steps);
    batch
}

/// A rule with its counter where the agent puts it: before what the rule does.
fn counted(batch: &mut Batch, table: &str, chain: &str, steps: &[Step]) {
    let (matches, action) = steps.split_at(steps.len().saturating_sub(1));
    batch.rule(table, chain, &[matches, &[Step::Counter], action].concat());
}

/// Whether IPv6 can be used in new namespaces of this machine.
pub(super) fn has_ipv6(netns: &Netns) -> bool {
    netns.run(|| UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))).is_ok()
}
