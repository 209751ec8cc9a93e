//! Which waypoint takes the traffic of an object (spec discovery-and-balancing 6.5).

use std::collections::HashMap;

use super::services::hostname;
use super::{Context, HBONE_PORT, Resources};
use crate::standalone::manifest::{
    AllowedRoutes, Gateway, GatewayAddress, Meta, Note, Notes, selects,
};
use crate::wire::xds::{ip_bytes, workload};

/// Label of the pods and services of a gateway.
pub(super) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const USE_WAYPOINT: &str = "istio.io/use-waypoint";
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";
const CANARY: &str = "istio.io/use-waypoint-canary";
const WAYPOINT_FOR: &str = "istio.io/waypoint-for";
const INBOUND_BINDING: &str = "ambient.istio.io/waypoint-inbound-binding";

/// All waypoints, by namespace and name.
pub(super) struct Waypoints<'a> {
    list: HashMap<(&'a str, &'a str), Waypoint<'a>>,
}

/// One waypoint.
pub(super) struct Waypoint<'a> {
    pub(super) meta: &'a Meta,
    address: workload::GatewayAddress,
    allowed: &'a AllowedRoutes,
    services: bool,
    workloads: bool,
    /// How its pods want to be told where traffic was going.
    pub(super) tunnel: Option<workload::ApplicationTunnel>,
}

/// What wants a waypoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    ForService,
    ForWorkload,
}

impl<'a> Waypoints<'a> {
    pub(super) fn of(gateways: &'a [Gateway], notes: &mut Notes) -> Self {
        let mut list = HashMap::new();
        for gateway in gateways {
            let (services, workloads) = match gateway.meta.label(WAYPOINT_FOR) {
                None | Some("service") => (true, false),
                Some("workload") => (false, true),
                Some("all") => (true, true),
                Some(_) => (false, false),
            };
            let tunnel = gateway.meta.annotation(INBOUND_BINDING).and_then(binding);
            if tunnel.is_none() && gateway.meta.annotation(INBOUND_BINDING).is_some() {
                let field = format!("metadata.annotations.{INBOUND_BINDING}");
                let text = "not served: it is none of PROXY, PROXY/<port>, NONE and NONE/<port>";
                notes.push(Note::about("Gateway", &gateway.meta, field, text));
            }
            let waypoint = Waypoint {
                meta: &gateway.meta,
                address: address(gateway),
                allowed: &gateway.allowed,
                services,
                workloads,
                tunnel,
            };
            list.insert((&*gateway.meta.namespace, &*gateway.meta.name), waypoint);
        }
        Self { list }
    }

    /// The waypoint with this name.
    pub(super) fn get<'s>(&'s self, namespace: &'s str, name: &'s str) -> Option<&'s Waypoint<'a>> {
        self.list.get(&(namespace, name))
    }

    /// All of them, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Waypoint<'a>> {
        self.list.values()
    }

    /// The waypoint that a pod or service with these labels belongs to.
    pub(super) fn owner_of<'s>(&'s self, meta: &'s Meta) -> Option<&'s Waypoint<'a>> {
        self.get(&meta.namespace, meta.label(GATEWAY_NAME)?)
    }
}

/// The waypoint of an object, by its label or that of its namespace. Whatever keeps it from having
/// the one it names is told.
pub(super) fn waypoint_of(
    context: &Context<'_>,
    (kind, meta): (&str, &Meta),
    wanted: Wanted,
    resources: &mut Resources,
) -> Option<workload::GatewayAddress> {
    let own = meta.label(USE_WAYPOINT);
    if meta.label(CANARY).is_some() {
        let field = format!("metadata.labels.{CANARY}");
        let text = "not served: all traffic goes to the waypoint of istio.io/use-waypoint";
        resources.note(Note::about(kind, meta, field, text));
    }
    let inherited = |label| context.namespace_label(&meta.namespace, label);
    let name = own.or_else(|| inherited(USE_WAYPOINT))?;
    let home = if own.is_some() {
        meta.label(USE_WAYPOINT_NAMESPACE)
    } else {
        inherited(USE_WAYPOINT_NAMESPACE)
    };
    let home = home.unwrap_or(&meta.namespace);
    if name == "none" {
        return None;
    }
    let mut refuse = |reason: &str| {
        let text = format!("no waypoint is used, as with istiod: {home}/{name} {reason}");
        resources.note(Note::about(kind, meta, USE_WAYPOINT, text));
    };
    let Some(waypoint) = context.waypoints.get(home, name) else {
        refuse("is not there");
        return None;
    };
    let takes = match wanted {
        Wanted::ForService => waypoint.services,
        Wanted::ForWorkload => waypoint.workloads,
    };
    if !takes {
        // The namespace's waypoint is for one kind as a rule: only what is named is told.
        if own.is_some() {
            refuse("is not for this kind of traffic (label istio.io/waypoint-for)");
        }
        return None;
    }
    if !admits(context, waypoint, &meta.namespace) {
        refuse("does not admit this namespace (allowedRoutes)");
        return None;
    }
    Some(waypoint.address.clone())
}

fn admits(context: &Context<'_>, waypoint: &Waypoint<'_>, namespace: &str) -> bool {
    match waypoint.allowed {
        AllowedRoutes::All => true,
        AllowedRoutes::Same => *waypoint.meta.namespace == *namespace,
        AllowedRoutes::Labelled(labels) => {
            let of = context.namespaces.get(namespace);
            of.is_some_and(|of| selects(labels, &of.meta.labels))
        }
    }
}

/// The first hostname of its status, else the first address; a gateway written without a status
/// is where istiod would have put it: at the service of its name.
fn address(gateway: &Gateway) -> workload::GatewayAddress {
    use workload::gateway_address::Destination;
    let named = gateway.addresses.iter().find_map(|address| match address {
        GatewayAddress::Hostname(hostname) => Some(hostname.to_string()),
        GatewayAddress::Ip(_) => None,
    });
    let ip = gateway.addresses.iter().find_map(|address| match address {
        GatewayAddress::Ip(ip) => Some(*ip),
        GatewayAddress::Hostname(_) => None,
    });
    let destination = match (named, ip) {
        (None, Some(ip)) => Destination::Address(workload::NetworkAddress {
            network: String::new(),
            address: ip_bytes(ip),
            length: None,
        }),
        (named, _) => Destination::Hostname(workload::NamespacedHostname {
            namespace: gateway.meta.namespace.to_string(),
            hostname: named.unwrap_or_else(|| hostname(&gateway.meta)),
        }),
    };
    workload::GatewayAddress { destination: Some(destination), hbone_mtls_port: HBONE_PORT.into() }
}

/// `PROXY`, `PROXY/<port>`, `NONE` or `NONE/<port>`.
fn binding(text: &str) -> Option<workload::ApplicationTunnel> {
    use workload::application_tunnel::Protocol;
    let (protocol, port) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
    let protocol = match protocol {
        "PROXY" => Protocol::Proxy,
        "NONE" => Protocol::None,
        _ => return None,
    };
    let port = port.map_or(Some(0), |port| port.parse::<u16>().ok())?;
    Some(workload::ApplicationTunnel { protocol: protocol.into(), port: port.into() })
}
