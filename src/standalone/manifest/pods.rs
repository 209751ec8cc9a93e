//! Namespaces, pods, and workloads that are no pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::fields::{Fields, Labels, NOTHING_OF_A_MESH, Unread};
use super::{Meta, parse_ip};

/// A namespace: its labels count for what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    pub(crate) meta: Meta,
}

/// A pod.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) meta: Meta,
    pub(crate) service_account: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) host_network: bool,
    pub(crate) ips: Vec<IpAddr>,
    pub(crate) phase: Phase,
    pub(crate) ready: bool,
    /// Named ports of its containers.
    pub(crate) ports: BTreeMap<Arc<str>, u16>,
    pub(crate) owner: Option<Owner>,
}

/// What made a pod.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) kind: Arc<str>,
    pub(crate) name: Arc<str>,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Pending, running, or not said.
    Alive,
    Succeeded,
    Failed,
}

/// A workload outside of Kubernetes.
#[derive(Clone, Debug)]
pub(crate) struct WorkloadEntry {
    pub(crate) meta: Meta,
    pub(crate) spec: EntrySpec,
}

/// A `WorkloadEntry`, alone or inside of a `ServiceEntry`.
#[derive(Clone, Debug)]
pub(crate) struct EntrySpec {
    pub(crate) address: EntryAddress,
    pub(crate) ports: BTreeMap<Arc<str>, u16>,
    pub(crate) labels: Labels,
    pub(crate) network: Arc<str>,
    /// Region, zone and subzone.
    pub(crate) locality: Arc<str>,
    pub(crate) weight: u32,
    pub(crate) service_account: Arc<str>,
}

/// Where a workload entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EntryAddress {
    Ip(IpAddr),
    /// To be resolved by the proxy.
    Host(Arc<str>),
}

impl Namespace {
    pub(super) fn read(fields: &Fields<'_>, meta: Meta) -> Option<Self> {
        fields.skip(&["spec", "status"]);
        Some(Self { meta })
    }
}

impl Pod {
    pub(super) fn read(fields: &Fields<'_>, meta: Meta) -> Option<Self> {
        let spec = fields.map("spec");
        let status = fields.map("status");
        let text = |name| spec.as_ref().and_then(|spec| spec.text(name));
        let mut ports = BTreeMap::new();
        for container in spec.iter().flat_map(|spec| spec.list("containers")) {
            for port in container.map().iter().flat_map(|map| map.list("ports")) {
                let Some(port) = port.map() else { continue };
                let number = port.parse("containerPort", "a port");
                if let (Some(name), Some(number)) = (port.text("name"), number) {
                    ports.insert(name, number);
                }
            }
        }
        let phase = match status.as_ref().and_then(|status| status.text("phase")).as_deref() {
            Some("Succeeded") => Phase::Succeeded,
            Some("Failed") => Phase::Failed,
            _ => Phase::Alive,
        };
        let pod = Self {
            service_account: text("serviceAccountName")
                .or_else(|| text("serviceAccount"))
                .unwrap_or_else(|| "default".into()),
            node: text("nodeName").unwrap_or_default(),
            host_network: spec.as_ref().is_some_and(|spec| spec.flag("hostNetwork")),
            ips: status.as_ref().map(pod_ips).unwrap_or_default(),
            phase,
            ready: status.as_ref().is_none_or(is_ready),
            ports,
            owner: owner(fields),
            meta,
        };
        // What runs in the pod is no business of the mesh.
        for part in [spec, status].iter().flatten() {
            part.finish(Unread::Ignore);
        }
        Some(pod)
    }
}

/// `podIPs`, else `podIP`.
fn pod_ips(status: &Fields<'_>) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = Vec::new();
    let listed = status.list("podIPs").into_iter().filter_map(|item| item.map());
    let first = status.parse::<IpAddr>("podIP", "an IP address");
    let listed = listed.filter_map(|item| item.parse("ip", "an IP address"));
    for ip in first.into_iter().chain(listed) {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    ips
}

/// By the condition `Ready`; a status that says nothing of conditions was written by hand, and is
/// of a pod that is meant to be used.
fn is_ready(status: &Fields<'_>) -> bool {
    let conditions = status.list("conditions");
    if conditions.is_empty() {
        return true;
    }
    conditions.iter().filter_map(|item| item.map()).any(|condition| {
        condition.text("type").as_deref() == Some("Ready")
            && condition.text("status").as_deref() == Some("True")
    })
}

/// The first owner in `metadata.ownerReferences`.
fn owner(fields: &Fields<'_>) -> Option<Owner> {
    let metadata = fields.map("metadata")?;
    let first = metadata.list("ownerReferences").into_iter().next()?.map()?;
    Some(Owner { kind: first.text("kind")?, name: first.text("name")? })
}

impl WorkloadEntry {
    pub(super) fn read(fields: &Fields<'_>, meta: Meta) -> Option<Self> {
        fields.skip(&["status"]);
        let Some(spec) = fields.map("spec") else {
            fields.problem("spec", "a WorkloadEntry has a spec");
            return None;
        };
        let mut spec = EntrySpec::read(&spec)?;
        for (key, value) in &meta.labels {
            spec.labels.entry(Arc::clone(key)).or_insert_with(|| Arc::clone(value));
        }
        Some(Self { meta, spec })
    }
}

impl EntrySpec {
    pub(super) fn read(spec: &Fields<'_>) -> Option<Self> {
        let Some(address) = spec.text("address") else {
            spec.problem("address", "an entry without an address is not supported");
            return None;
        };
        if address.starts_with("unix://") {
            spec.problem("address", "a Unix socket is not reached through a mesh");
            return None;
        }
        let ports = spec.map("ports").map(|ports| read_ports(&ports)).unwrap_or_default();
        let entry = Self {
            address: parse_ip(&address)
                .map_or_else(|| EntryAddress::Host(Arc::clone(&address)), EntryAddress::Ip),
            ports,
            labels: spec.labels("labels"),
            network: spec.text("network").unwrap_or_default(),
            locality: spec.text("locality").unwrap_or_default(),
            weight: spec.parse("weight", "a number").unwrap_or(0),
            service_account: spec.text("serviceAccount").unwrap_or_default(),
        };
        spec.finish(Unread::Tell(NOTHING_OF_A_MESH));
        Some(entry)
    }
}

/// Numbers by name.
fn read_ports(ports: &Fields<'_>) -> BTreeMap<Arc<str>, u16> {
    let names = ports.names();
    let number = |name: &&str| Some((Arc::from(*name), ports.parse(name, "a port")?));
    names.iter().filter_map(number).collect()
}
