//! Services, their endpoints, and services outside of Kubernetes.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::fields::{Fields, Labels, NOTHING_OF_A_MESH, Unread};
use super::pods::EntrySpec;
use super::{Meta, parse_ip};

/// A Kubernetes service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) meta: Meta,
    pub(crate) selector: Labels,
    /// Empty for a headless one, and for one that was never given any.
    pub(crate) cluster_ips: Vec<IpAddr>,
    /// `clusterIP: None`.
    pub(crate) headless: bool,
    pub(crate) external_name: bool,
    pub(crate) ports: Vec<ServicePort>,
    /// `IPv4`, `IPv6` or both.
    pub(crate) ip_families: Vec<Arc<str>>,
    pub(crate) publish_not_ready: bool,
    /// `internalTrafficPolicy: Local`.
    pub(crate) local_only: bool,
    pub(crate) distribution: Option<Arc<str>>,
}

/// A port of a service.
#[derive(Clone, Debug)]
pub(crate) struct ServicePort {
    pub(crate) name: Arc<str>,
    pub(crate) port: u16,
    pub(crate) target: TargetPort,
}

/// Where a port of a service leads on its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TargetPort {
    Number(u16),
    /// Each pod says its number.
    Name(Arc<str>),
}

/// Endpoints of a service that are listed.
#[derive(Clone, Debug)]
pub(crate) struct EndpointSlice {
    pub(crate) meta: Meta,
    pub(crate) service: Arc<str>,
    pub(crate) ports: Vec<(Arc<str>, u16)>,
    pub(crate) endpoints: Vec<SliceEndpoint>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct SliceEndpoint {
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) ready: bool,
    /// The pod it is, if it is one.
    pub(crate) pod: Option<Arc<str>>,
    pub(crate) node: Arc<str>,
}

/// A service outside of Kubernetes.
#[derive(Clone, Debug)]
pub(crate) struct ServiceEntry {
    pub(crate) meta: Meta,
    pub(crate) hosts: Vec<Arc<str>>,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) ports: Vec<ServicePort>,
    pub(crate) resolution: Resolution,
    pub(crate) endpoints: Vec<EntrySpec>,
    pub(crate) selector: Option<Labels>,
    pub(crate) subject_alt_names: Vec<Arc<str>>,
}

/// How the endpoints of a service entry are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// The address that the client chose.
    None,
    Static,
    Dns,
}

impl Service {
    pub(super) fn read(fields: &Fields<'_>, meta: Meta) -> Option<Self> {
        fields.skip(&["status"]);
        let Some(spec) = fields.map("spec") else {
            fields.problem("spec", "a Service has a spec");
            return None;
        };
        let external_name = spec.text("type").as_deref() == Some("ExternalName");
        let service = Self {
            meta,
            selector: spec.labels("selector"),
            cluster_ips: cluster_ips(&spec),
            headless: spec.text("clusterIP").as_deref() == Some("None"),
            external_name,
            ports: spec.list("ports").iter().filter_map(|port| read_port(&port.map()?)).collect(),
            ip_families: spec.texts("ipFamilies"),
            publish_not_ready: spec.flag("publishNotReadyAddresses"),
            local_only: spec.text("internalTrafficPolicy").as_deref() == Some("Local"),
            distribution: spec.text("trafficDistribution"),
        };
        spec.skip(&["externalName", "ipFamilyPolicy", "allocateLoadBalancerNodePorts"]);
        if spec.text("sessionAffinity").is_some_and(|kind| &*kind != "None") {
            spec.note(
                "sessionAffinity",
                "not served: each connection chooses anew, as with istiod",
            );
        }
        spec.skip(&["sessionAffinityConfig"]);
        spec.finish(Unread::Tell(NOTHING_OF_A_MESH));
        Some(service)
    }
}

/// `clusterIPs`, else `clusterIP`; `None` is a headless service.
fn cluster_ips(spec: &Fields<'_>) -> Vec<IpAddr> {
    let one = spec.text("clusterIP");
    let mut texts = spec.texts("clusterIPs");
    if texts.is_empty() {
        texts.extend(one);
    }
    let mut ips = Vec::new();
    for text in texts.iter().filter(|text| !text.is_empty() && &***text != "None") {
        match parse_ip(text) {
            Some(ip) => ips.push(ip),
            None => spec.problem("clusterIP", format!("{text:?} is no IP address")),
        }
    }
    ips
}

/// A port of a `Service` or a `ServiceEntry`; `None` for what is not TCP.
fn read_port(port: &Fields<'_>) -> Option<ServicePort> {
    let number: u16 = match port.parse(if port.has("number") { "number" } else { "port" }, "a port")
    {
        Some(number) => number,
        None => {
            port.problem("port", "a port has a number");
            return None;
        }
    };
    if port.text("protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("UDP")) {
        port.skip(&["name", "targetPort", "nodePort", "appProtocol"]);
        port.note("protocol", "not served: only TCP is carried; UDP goes its way untouched");
        return None;
    }
    let target = match port.parse::<String>("targetPort", "a port or the name of one") {
        None => TargetPort::Number(number),
        Some(text) => match text.parse() {
            Ok(number) => TargetPort::Number(number),
            Err(_) => TargetPort::Name(text.into()),
        },
    };
    let name = port.text("name").unwrap_or_default();
    port.skip(&["nodePort", "appProtocol"]);
    port.finish(Unread::Tell(NOTHING_OF_A_MESH));
    Some(ServicePort { name, port: number, target })
}

impl EndpointSlice {
    pub(super) fn read(fields: &Fields<'_>, meta: Meta) -> Option<Self> {
        let Some(service) = meta.label("kubernetes.io/service-name").map(Arc::from) else {
            fields.note("metadata", "not served: no label kubernetes.io/service-name");
            return None;
        };
        if fields.text("addressType").as_deref() == Some("FQDN") {
            fields.note("addressType", "not served: endpoints are addresses");
            return None;
        }
        let mut ports = Vec::new();
        for port in fields.list("ports").iter().filter_map(|port| port.map()) {
            let name = port.text("name").unwrap_or_default();
            ports.extend(port.parse("port", "a port").map(|number| (name, number)));
        }
        let endpoints = fields.list("endpoints");
        let endpoints = endpoints.iter().filter_map(|item| {
            let endpoint = item.map()?;
            let target = endpoint.map("targetRef");
            let pod = target.filter(|target| target.text("kind").as_deref() == Some("Pod"));
            let ready = endpoint.map("conditions");
            let addresses = endpoint.list("addresses");
            Some(SliceEndpoint {
                ips: addresses.iter().filter_map(|ip| ip.parse("an IP address")).collect(),
                ready: ready.is_none_or(|ready| !ready.has("ready") || ready.flag("ready")),
                pod: pod.and_then(|pod| pod.text("name")),
                node: endpoint.text("nodeName").unwrap_or_default(),
            })
        });
        let endpoints = endpoints.collect();
        Some(Self { service, ports, endpoints, meta })
    }
}

impl ServiceEntry {
    pub(super) fn read(fields: &Fields<'_>, meta: Meta) -> Option<Self> {
        let allocated = fields.map("status").map(|status| {
            let items = status.list("addresses").into_iter().filter_map(|item| item.map());
            items.filter_map(|item| item.parse("value", "an IP address")).collect::<Vec<IpAddr>>()
        });
        let Some(spec) = fields.map("spec") else {
            fields.problem("spec", "a ServiceEntry has a spec");
            return None;
        };
        let mut addresses = Vec::new();
        for item in spec.list("addresses") {
            let Some(text) = item.parse::<String>("an address or a range") else { continue };
            match text.parse().ok().or_else(|| parse_ip(&text).map(IpNet::from)) {
                Some(range) => addresses.push(range),
                None => spec.problem("addresses", format!("{text:?} is no address or range")),
            }
        }
        if addresses.is_empty() {
            addresses.extend(allocated.into_iter().flatten().map(IpNet::from));
        }
        let resolution = match spec.text("resolution").as_deref() {
            None | Some("NONE") => Resolution::None,
            Some("STATIC") => Resolution::Static,
            Some("DNS" | "DNS_ROUND_ROBIN") => Resolution::Dns,
            Some(other) => {
                spec.problem("resolution", format!("{other:?} is none of NONE, STATIC and DNS"));
                return None;
            }
        };
        let selector = spec.map("workloadSelector").map(|selector| selector.labels("labels"));
        let entry = Self {
            meta,
            hosts: spec.texts("hosts"),
            addresses,
            ports: spec.list("ports").iter().filter_map(|port| read_port(&port.map()?)).collect(),
            resolution,
            endpoints: spec
                .list("endpoints")
                .iter()
                .filter_map(|item| EntrySpec::read(&item.map()?))
                .collect(),
            selector,
            subject_alt_names: spec.texts("subjectAltNames"),
        };
        spec.skip(&["location"]);
        if !spec.texts("exportTo").is_empty() {
            spec.note("exportTo", "not served: every namespace sees it");
        }
        spec.finish(Unread::Tell(NOTHING_OF_A_MESH));
        Some(entry)
    }
}
