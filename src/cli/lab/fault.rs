//! Faults on the wire, made with nftables in a pod's or a node's namespace.

use std::net::IpAddr;

use super::error::LabError;
use super::link;
use super::nft::{Base, Batch, Family, Hook, Step};
use crate::sys::netns::Netns;

const TABLE: &str = "adit-faults";
/// Before everything that redirection does.
const PRIORITY: i32 = -310;
const DETOURS: &str = "adit-detours";
/// Just before what redirection translates.
const DETOUR_PRIORITY: i32 = -110;
const TCP: Step = Step::Protocol(6);

/// What happens to packets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Vanish,
    Reset,
}

/// Lets a fate befall the packets to a TCP port, replacing any fault there was.
pub(super) fn on_port(netns: &Netns, port: u16, fate: Fate) -> Result<(), LabError> {
    let mut batch = Batch::new(Family::Inet);
    batch.fresh_table(TABLE);
    let (base, step) = match fate {
        Fate::Vanish => (Hook::Prerouting, Step::Drop),
        Fate::Reset => (Hook::Input, Step::Reset),
    };
    let base = Base { kind: "filter", hook: base, priority: PRIORITY };
    batch.chain(TABLE, "arriving", Some(base));
    batch.rule(TABLE, "arriving", &[TCP, Step::Port(port), step]);
    if matches!(fate, Fate::Vanish) {
        let base = Base { kind: "filter", hook: Hook::Output, priority: PRIORITY };
        batch.chain(TABLE, "leaving", Some(base));
        batch.rule(TABLE, "leaving", &[TCP, Step::Port(port), Step::Drop]);
    }
    link::within(netns, || batch.commit())
}

/// Packets to a TCP port are not forwarded by the bridge of a node.
pub(super) fn on_bridge(netns: &Netns, port: u16) -> Result<(), LabError> {
    let mut batch = Batch::new(Family::Bridge);
    batch.fresh_table(TABLE);
    let base = Base { kind: "filter", hook: Hook::Forward, priority: PRIORITY };
    batch.chain(TABLE, "forwarded", Some(base));
    batch.rule(TABLE, "forwarded", &[TCP, Step::Port(port), Step::Drop]);
    link::within(netns, || batch.commit())
}

/// Connections from an address to a TCP port arrive at another one, replacing any detour there was.
pub(super) fn detour(
    netns: &Netns,
    from: IpAddr,
    (port, instead): (u16, u16),
) -> Result<(), LabError> {
    let mut batch = Batch::new(Family::Inet);
    batch.fresh_table(DETOURS);
    let base = Base { kind: "nat", hook: Hook::Prerouting, priority: DETOUR_PRIORITY };
    batch.chain(DETOURS, "arriving", Some(base));
    let steps = [TCP, Step::From(from), Step::Port(port), Step::Redirect(instead)];
    batch.rule(DETOURS, "arriving", &steps);
    link::within(netns, || batch.commit())
}

/// Ends all faults of a pod.
pub(super) fn clear(netns: &Netns) -> Result<(), LabError> {
    let mut batch = Batch::new(Family::Inet);
    batch.remove_table(TABLE);
    link::within(netns, || batch.commit())
}
