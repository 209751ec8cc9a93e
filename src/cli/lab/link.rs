//! Bridges, veth pairs, addresses, routes and rules, over netlink.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage, State};
use rtnetlink::packet_route::route::{RouteScope, RouteType};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};
use tokio::task::JoinSet;

use super::error::LabError;
use crate::sys::netns::Netns;

/// For one series of netlink requests.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at the state of links.
const GLANCE: Duration = Duration::from_millis(5);

/// How link-layer addresses begin that are made from an IPv4 address.
const LOCALLY_ADMINISTERED: [u8; 2] = [0x02, 0x00];

/// An address with the length of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
}

/// Marked packets are for this host, whatever their destination (spec redirection 2).
#[derive(Clone, Copy, Debug)]
pub(super) struct MarkRoute {
    pub(super) mark: u32,
    pub(super) mask: u32,
    pub(super) table: u32,
    pub(super) priority: u32,
}

/// Runs `work` on a thread inside the namespace.
pub(super) fn within<T: Send>(
    netns: &Netns,
    work: impl FnOnce() -> Result<T, LabError> + Send,
) -> Result<T, LabError> {
    netns.run(|| Ok(work())).map_err(LabError::refused("entering a network namespace")).flatten()
}

/// Brings loopback up.
pub(super) fn loopback(netns: &Netns) -> Result<(), LabError> {
    talk(netns, "bringing loopback up", async |handle| {
        handle.link().set(LinkUnspec::new_with_name("lo").up().build()).execute().await
    })
}

/// Makes a bridge with these addresses, up. It has the link-layer address of its first one: a
/// bridge that was given none takes that of a port, and another one's as ports come and go. What
/// its neighbours still send to the one before it then takes for somebody else's.
pub(super) fn bridge(netns: &Netns, name: &str, addresses: &[Interface]) -> Result<(), LabError> {
    talk(netns, &format!("making bridge {name}"), async |handle| {
        let mut bridge = LinkBridge::new(name).up();
        if let Some(Interface { address: IpAddr::V4(address), .. }) = addresses.first() {
            bridge = bridge.address([&LOCALLY_ADMINISTERED[..], &address.octets()].concat());
        }
        handle.link().add(bridge.build()).execute().await?;
        let index = index_of(&handle, name).await?;
        assign(&handle, index, addresses).await
    })
    .map_err(|error| missing_kind(error, "bridge"))
}

/// Makes a pair of links: `name` here and `peer` there, both up, `peer` a port of `bridge`.
pub(super) fn veth_to_bridge(
    here: &Netns,
    name: &str,
    there: &Netns,
    (peer, bridge): (&str, &str),
) -> Result<(), LabError> {
    let what = format!("making the links {name} and {peer}");
    let other = LinkUnspec::new_with_name(peer)
        .append_extra_attribute(LinkAttribute::NetNsFd(there.fd().as_raw_fd()))
        .build();
    talk(here, &what, async |handle| {
        let pair = LinkVeth::new(name, peer)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(other)))
            .up()
            .build();
        handle.link().add(pair).execute().await
    })
    .map_err(|error| missing_kind(error, "veth"))?;
    talk(there, &what, async |handle| {
        let bridge = index_of(&handle, bridge).await?;
        let port = LinkUnspec::new_with_name(peer).controller(bridge).up().build();
        handle.link().set(port).execute().await
    })
}

/// Makes a link a port of a bridge of the same namespace.
pub(super) fn enslave(netns: &Netns, link: &str, bridge: &str) -> Result<(), LabError> {
    talk(netns, &format!("making {link} a port of {bridge}"), async |handle| {
        let bridge = index_of(&handle, bridge).await?;
        let port = LinkUnspec::new_with_name(link).controller(bridge).up().build();
        handle.link().set(port).execute().await
    })
}

/// Gives a link addresses that can be used at once, and routes by way of `gateways`.
pub(super) fn address(
    netns: &Netns,
    link: &str,
    addresses: &[Interface],
    gateways: &[IpAddr],
) -> Result<(), LabError> {
    talk(netns, &format!("giving {link} addresses and routes"), async |handle| {
        let index = index_of(&handle, link).await?;
        assign(&handle, index, addresses).await?;
        for gateway in gateways {
            let route = match gateway {
                IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
                    .gateway(*v4)
                    .output_interface(index)
                    .build(),
                IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
                    .gateway(*v6)
                    .output_interface(index)
                    .build(),
            };
            handle.route().add(route).execute().await?;
        }
        Ok(())
    })
}

/// Takes a link up or down.
pub(super) fn set_up(netns: &Netns, link: &str, up: bool) -> Result<(), LabError> {
    talk(netns, &format!("changing the state of {link}"), async |handle| {
        let link = LinkUnspec::new_with_name(link);
        let link = if up { link.up() } else { link.down() };
        handle.link().set(link.build()).execute().await
    })
}

/// Waits until every link that is up can carry packets.
pub(super) fn settle(netns: &Netns) -> Result<(), LabError> {
    talk(netns, "waiting for links to come up", async |handle| {
        loop {
            let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
            if links.iter().all(is_settled) {
                return Ok(());
            }
            tokio::time::sleep(GLANCE).await;
        }
    })
}

/// Adds the route and the rule for marked packets.
pub(super) fn mark_route(netns: &Netns, ipv6: bool, plan: &MarkRoute) -> Result<(), LabError> {
    let table = plan.table;
    talk(netns, &format!("adding the local route of table {table}"), async |handle| {
        let index = index_of(&handle, "lo").await?;
        let local = |route: &mut rtnetlink::packet_route::route::RouteMessage| {
            route.header.kind = RouteType::Local;
            route.header.scope = RouteScope::Host;
        };
        let mut route =
            RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index).table_id(table).build();
        local(&mut route);
        handle.route().add(route).execute().await?;
        if ipv6 {
            let mut route = RouteMessageBuilder::<Ipv6Addr>::new()
                .output_interface(index)
                .table_id(table)
                .build();
            local(&mut route);
            handle.route().add(route).execute().await?;
        }
        Ok(())
    })?;
    let what = format!("adding the rule for mark {:#x}", plan.mark);
    talk(netns, &what, async |handle| {
        let families = [AddressFamily::Inet, AddressFamily::Inet6];
        for family in families.into_iter().take(if ipv6 { 2 } else { 1 }) {
            let mut rule = handle
                .rule()
                .add()
                .action(RuleAction::ToTable)
                .table_id(table)
                .priority(plan.priority)
                .fw_mark(plan.mark);
            rule.message_mut().header.family = family;
            rule.message_mut().attributes.push(RuleAttribute::FwMask(plan.mask));
            rule.execute().await?;
        }
        Ok(())
    })
    .map_err(|error| match error {
        LabError::Refused { answer, .. } if is_unsupported(&answer) => LabError::Missing {
            feature: "policy routing by packet mark".into(),
            answer,
            remedy: "use a kernel built with CONFIG_IP_MULTIPLE_TABLES and \
                     CONFIG_IPV6_MULTIPLE_TABLES"
                .into(),
        },
        other => other,
    })
}

/// One series of netlink requests in a namespace, with a bound on its time.
fn talk<T: Send, F>(
    netns: &Netns,
    what: &str,
    requests: impl FnOnce(Handle) -> F + Send,
) -> Result<T, LabError>
where
    F: Future<Output = Result<T, rtnetlink::Error>>,
{
    netns
        .run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (connection, handle, _) = new_connection()?;
                let mut driver = JoinSet::new();
                driver.spawn(connection);
                let answer = tokio::time::timeout(PATIENCE, requests(handle)).await;
                answer.map_err(io::Error::from)?.map_err(into_io)
            })
        })
        .map_err(LabError::refused(what))
}

async fn index_of(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    Ok(links.try_next().await?.map_or(0, |link| link.header.index))
}

async fn assign(
    handle: &Handle,
    index: u32,
    addresses: &[Interface],
) -> Result<(), rtnetlink::Error> {
    for interface in addresses {
        let mut request = handle.address().add(index, interface.address, interface.prefix);
        if interface.address.is_ipv6() {
            // Nobody else has it: no need to ask around for a second or two.
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await?;
    }
    Ok(())
}

fn is_settled(link: &LinkMessage) -> bool {
    use rtnetlink::packet_route::link::LinkFlags;
    if !link.header.flags.contains(LinkFlags::Up) {
        return true;
    }
    link.attributes.iter().all(|attribute| match attribute {
        LinkAttribute::OperState(state) => matches!(state, State::Up | State::Unknown),
        _ => true,
    })
}

fn missing_kind(error: LabError, kind: &str) -> LabError {
    match error {
        LabError::Refused { answer, .. } if is_unsupported(&answer) => LabError::Missing {
            feature: format!("links of kind {kind}"),
            answer,
            remedy: format!("load its module (modprobe {kind}) or use a kernel built with it"),
        },
        other => other,
    }
}

fn is_unsupported(answer: &io::Error) -> bool {
    matches!(answer.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT))
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
