//! Waypoints: gateways of the class `istio-waypoint`.

use std::net::IpAddr;
use std::sync::Arc;

use super::fields::{Fields, Labels, NOTHING_OF_A_MESH, Unread};
use super::{Meta, parse_ip};

/// The class of waypoints.
const WAYPOINT_CLASS: &str = "istio-waypoint";

/// A waypoint.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    pub(crate) meta: Meta,
    pub(crate) allowed: AllowedRoutes,
    /// From its status.
    pub(crate) addresses: Vec<GatewayAddress>,
}

/// Whose traffic a waypoint takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AllowedRoutes {
    /// That of its own namespace.
    Same,
    All,
    /// That of namespaces with these labels.
    Labelled(Labels),
}

/// Where a waypoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GatewayAddress {
    Ip(IpAddr),
    Hostname(Arc<str>),
}

impl Gateway {
    pub(super) fn read(fields: &Fields<'_>, meta: Meta) -> Option<Self> {
        let Some(spec) = fields.map("spec") else {
            fields.problem("spec", "a Gateway has a spec");
            return None;
        };
        let class = spec.text("gatewayClassName").unwrap_or_default();
        if &*class != WAYPOINT_CLASS {
            let text = format!("not served: only {WAYPOINT_CLASS} concerns a node proxy");
            spec.note("gatewayClassName", text);
            fields.skip(&["status"]);
            return None;
        }
        let status = fields.map("status");
        let addresses = status.iter().flat_map(|status| status.list("addresses"));
        let addresses = addresses.filter_map(|item| {
            let value = item.map()?.text("value")?;
            Some(parse_ip(&value).map_or(GatewayAddress::Hostname(value), GatewayAddress::Ip))
        });
        let addresses = addresses.collect();
        let listeners = spec.list("listeners");
        let allowed = listeners.iter().find_map(|item| allowed_routes(&item.map()?));
        spec.finish(Unread::Tell(NOTHING_OF_A_MESH));
        Some(Self { meta, allowed: allowed.unwrap_or(AllowedRoutes::Same), addresses })
    }
}

fn allowed_routes(listener: &Fields<'_>) -> Option<AllowedRoutes> {
    let namespaces = listener.map("allowedRoutes")?.map("namespaces")?;
    match namespaces.text("from").as_deref() {
        Some("All") => Some(AllowedRoutes::All),
        Some("Selector") => {
            let selector = namespaces.map("selector")?;
            let labels = selector.labels("matchLabels");
            if selector.has("matchExpressions") {
                let text = "not supported: write matchLabels";
                selector.problem("matchExpressions", text);
            }
            Some(AllowedRoutes::Labelled(labels))
        }
        _ => Some(AllowedRoutes::Same),
    }
}
