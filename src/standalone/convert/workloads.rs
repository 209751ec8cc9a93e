//! Pods, and endpoints that are no pods (spec xds 3 and 8.3).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use super::services::{has_service, hostname, port};
use super::waypoints::{Wanted, waypoint_of};
use super::{CLUSTER, Context, HBONE_PORT, Resources};
use crate::standalone::manifest::{
    EndpointSlice, Labels, Manifests, Meta, Note, Phase, Pod, Service, ServiceEntry, ServicePort,
    TargetPort, selects,
};
use crate::wire::xds::{ip_bytes, workload};

const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// Whether the node agent has taken a workload in.
pub(super) const REDIRECTION: &str = "ambient.istio.io/redirection";
const TUNNEL: &str = "networking.istio.io/tunnel";
const SIDECAR: &str = "sidecar.istio.io/status";

/// The services of a workload, by `<namespace>/<hostname>`.
pub(super) type Memberships = BTreeMap<String, workload::PortList>;

/// What a workload may be an endpoint of, by namespace: it is compared with that of its own only.
pub(super) struct Candidates<'a> {
    services: HashMap<&'a str, Vec<&'a Service>>,
    entries: HashMap<&'a str, Vec<&'a ServiceEntry>>,
    /// Pods by namespace and name.
    pods: HashSet<(&'a str, &'a str)>,
    /// Slices that name a pod, by the pod's namespace and name.
    slices: HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
}

/// Every pod with an address, and every listed endpoint that is no pod.
pub(super) fn convert(
    context: &Context<'_>,
    candidates: &Candidates<'_>,
    resources: &mut Resources,
) {
    for pod in &context.manifests.pods {
        if let Some(workload) = one(context, pod, candidates, resources) {
            resources.workload(workload);
        }
    }
    for slice in &context.manifests.slices {
        endpoints(context, slice, candidates, resources);
    }
}

fn one(
    context: &Context<'_>,
    pod: &Pod,
    candidates: &Candidates<'_>,
    resources: &mut Resources,
) -> Option<workload::Workload> {
    let meta = &pod.meta;
    let text = match (pod.phase, pod.ips.is_empty()) {
        (Phase::Alive, false) => None,
        (Phase::Alive, true) => Some("not served: a pod without status.podIP is reached by nobody"),
        (Phase::Succeeded | Phase::Failed, _) => Some("not served: the pod has ended"),
    };
    if let Some(text) = text {
        resources.note(Note::about("Pod", meta, "status", text));
        return None;
    }
    let of_waypoint = context.waypoints.owner_of(meta);
    let native = is_native(&meta.labels) || of_waypoint.is_some();
    let hbone = native || captured(context, pod);
    let waypoint = match of_waypoint {
        Some(_) => None,
        None => waypoint_of(context, ("Pod", meta), Wanted::ForWorkload, resources),
    };
    let (workload_type, workload_name) = owner(pod);
    let (canonical_name, canonical_revision) = canonical(&meta.labels, &workload_name);
    let network_mode = if pod.host_network {
        workload::NetworkMode::HostNetwork
    } else {
        workload::NetworkMode::Standard
    };
    Some(workload::Workload {
        uid: format!("{CLUSTER}//Pod/{}/{}", meta.namespace, meta.name),
        name: meta.name.to_string(),
        namespace: meta.namespace.to_string(),
        addresses: pod.ips.iter().map(|ip| ip_bytes(*ip)).collect(),
        tunnel_protocol: tunnel(hbone),
        native_tunnel: native,
        trust_domain: context.wire_trust_domain(),
        service_account: pod.service_account.to_string(),
        waypoint,
        node: pod.node.to_string(),
        canonical_name,
        canonical_revision,
        workload_type: workload_type.into(),
        workload_name,
        application_tunnel: of_waypoint.and_then(|waypoint| waypoint.tunnel),
        services: candidates.memberships(context, pod),
        authorization_policies: context.policies_of(&meta.namespace, &meta.labels),
        status: status(pod.ready && !meta.deleting),
        cluster_id: CLUSTER.to_owned(),
        network_mode: network_mode.into(),
        ..workload::Workload::default()
    })
}

/// Whether the node agent of an ambient mesh would have taken the pod in (spec node-and-pods 8).
/// There is no agent here that could write its annotation, but one that is there counts.
fn captured(context: &Context<'_>, pod: &Pod) -> bool {
    let meta = &pod.meta;
    if let Some(redirection) = meta.annotation(REDIRECTION) {
        return redirection == "enabled";
    }
    if pod.host_network || meta.annotation(SIDECAR).is_some() {
        return false;
    }
    match meta.label(DATAPLANE_MODE) {
        Some(mode) => mode == "ambient",
        None => {
            &*meta.namespace != "kube-system"
                && context.namespace_label(&meta.namespace, DATAPLANE_MODE) == Some("ambient")
        }
    }
}

/// What made the pod, and its name. The replica set of a deployment carries its name and a hash.
fn owner(pod: &Pod) -> (workload::WorkloadType, String) {
    use workload::WorkloadType::{Cronjob, Deployment, Job, Pod as Alone};
    let Some(owner) = &pod.owner else { return (Alone, pod.meta.name.to_string()) };
    let stem = || owner.name.rsplit_once('-').map_or(&*owner.name, |(stem, _)| stem).to_owned();
    match &*owner.kind {
        "ReplicaSet" => (Deployment, stem()),
        "CronJob" => (Cronjob, owner.name.to_string()),
        "Job" => (Job, owner.name.to_string()),
        _ => (Deployment, owner.name.to_string()),
    }
}

/// Name and revision by which people know a workload.
pub(super) fn canonical(labels: &Labels, otherwise: &str) -> (String, String) {
    let first = |names: &[&str]| names.iter().find_map(|name| labels.get(*name)).map(|v| &**v);
    let name = first(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision =
        first(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    (name.unwrap_or(otherwise).to_owned(), revision.unwrap_or("latest").to_owned())
}

/// Whether a workload says that it takes tunnels itself.
pub(super) fn is_native(labels: &Labels) -> bool {
    labels.get(TUNNEL).is_some_and(|value| &**value == "http")
}

pub(super) fn tunnel(hbone: bool) -> i32 {
    let protocol =
        if hbone { workload::TunnelProtocol::Hbone } else { workload::TunnelProtocol::None };
    protocol.into()
}

fn status(healthy: bool) -> i32 {
    let status = if healthy {
        workload::WorkloadStatus::Healthy
    } else {
        workload::WorkloadStatus::Unhealthy
    };
    status.into()
}

impl<'a> Candidates<'a> {
    pub(super) fn of(manifests: &'a Manifests) -> Self {
        let names = |pod: &'a Pod| (&*pod.meta.namespace, &*pod.meta.name);
        let mut this = Self {
            services: HashMap::new(),
            entries: HashMap::new(),
            pods: manifests.pods.iter().map(names).collect(),
            slices: HashMap::new(),
        };
        for service in manifests.services.iter().filter(|service| !service.external_name) {
            this.services.entry(&service.meta.namespace).or_default().push(service);
        }
        for entry in manifests.service_entries.iter().filter(|entry| entry.selector.is_some()) {
            this.entries.entry(&entry.meta.namespace).or_default().push(entry);
        }
        for slice in &manifests.slices {
            for pod in slice.endpoints.iter().filter_map(|endpoint| endpoint.pod.as_deref()) {
                let slices = this.slices.entry((&*slice.meta.namespace, pod)).or_default();
                slices.push(slice);
            }
        }
        this
    }

    /// The services of a namespace.
    pub(super) fn services(&self, namespace: &str) -> impl Iterator<Item = &'a Service> {
        self.services.get(namespace).into_iter().flatten().copied()
    }

    /// The service entries of a namespace that select a workload with these labels.
    pub(super) fn entries(
        &self,
        namespace: &str,
        labels: &Labels,
    ) -> impl Iterator<Item = &'a ServiceEntry> {
        let entries = self.entries.get(namespace).into_iter().flatten().copied();
        entries.filter(|entry| entry.selector.as_ref().is_some_and(|s| selects(s, labels)))
    }

    /// Everything that a pod is an endpoint of: what selects it, and what lists it.
    fn memberships(&self, context: &Context<'_>, pod: &Pod) -> Memberships {
        let (meta, mut found) = (&pod.meta, Memberships::new());
        let named = |name: &str| pod.ports.get(name).copied();
        let slices = self.slices.get(&(&*meta.namespace, &*meta.name));
        for service in self.services(&meta.namespace) {
            let mut slices = slices.into_iter().flatten();
            let slice = slices.find(|slice| slice.service == service.meta.name);
            let ports = match (is_selected(service, &meta.labels), slice) {
                (true, _) => targets(&service.ports, named),
                (false, Some(slice)) => listed(&service.ports, slice),
                (false, None) => continue,
            };
            let name = format!("{}/{}", meta.namespace, hostname(&service.meta));
            found.insert(name, ports);
        }
        for entry in self.entries(&meta.namespace, &meta.labels) {
            for host in &entry.hosts {
                let name = format!("{}/{host}", meta.namespace);
                found.insert(name, targets(&entry.ports, named));
            }
        }
        if let Some(waypoint) = context.waypoints.owner_of(meta)
            && !has_service(context, waypoint.meta)
        {
            let name = format!("{}/{}", meta.namespace, hostname(waypoint.meta));
            let ports = vec![port(HBONE_PORT, HBONE_PORT)];
            found.insert(name, workload::PortList { ports });
        }
        found
    }

    fn service(&self, namespace: &str, name: &str) -> Option<&'a Service> {
        self.services(namespace).find(|service| &*service.meta.name == name)
    }
}

/// Whether a service selects a workload with these labels; one without a selector selects nothing.
pub(super) fn is_selected(service: &Service, labels: &Labels) -> bool {
    !service.selector.is_empty() && selects(&service.selector, labels)
}

/// Where each port of a service leads on a workload. A port whose name the workload does not have
/// is left out.
pub(super) fn targets(
    ports: &[ServicePort],
    named: impl Fn(&str) -> Option<u16>,
) -> workload::PortList {
    let ports = ports.iter().filter_map(|of| {
        let target = match &of.target {
            TargetPort::Number(number) => *number,
            TargetPort::Name(name) => named(name)?,
        };
        Some(port(of.port, target))
    });
    workload::PortList { ports: ports.collect() }
}

/// The same by a slice: its ports have the names of the service's.
fn listed(ports: &[ServicePort], slice: &EndpointSlice) -> workload::PortList {
    let ports = ports.iter().filter_map(|of| {
        let (_, number) = slice.ports.iter().find(|(name, _)| *name == of.name)?;
        Some(port(of.port, *number))
    });
    workload::PortList { ports: ports.collect() }
}

/// The endpoints of a slice that are no pods.
fn endpoints(
    context: &Context<'_>,
    slice: &EndpointSlice,
    candidates: &Candidates<'_>,
    resources: &mut Resources,
) {
    let meta = &slice.meta;
    let Some(service) = candidates.service(&meta.namespace, &slice.service) else {
        let text = format!("not served: there is no service {}", slice.service);
        return resources.note(Note::about("EndpointSlice", meta, "", text));
    };
    for endpoint in &slice.endpoints {
        if let Some(pod) = &endpoint.pod {
            if !candidates.pods.contains(&(&*meta.namespace, &**pod)) {
                let text = format!("not served: there is no pod {pod}");
                resources.note(Note::about("EndpointSlice", meta, "endpoints", text));
            }
            continue;
        }
        for ip in &endpoint.ips {
            let services = format!("{}/{}", meta.namespace, hostname(&service.meta));
            resources.workload(workload::Workload {
                uid: slice_uid(meta, *ip),
                name: format!("{}-{ip}", meta.name),
                namespace: meta.namespace.to_string(),
                addresses: vec![ip_bytes(*ip)],
                trust_domain: context.wire_trust_domain(),
                node: endpoint.node.to_string(),
                services: [(services, listed(&service.ports, slice))].into(),
                status: status(endpoint.ready),
                cluster_id: CLUSTER.to_owned(),
                // Not found by its address: nobody knows what is there.
                network_mode: workload::NetworkMode::HostNetwork.into(),
                ..workload::Workload::default()
            });
        }
    }
}

fn slice_uid(meta: &Meta, ip: IpAddr) -> String {
    format!("{CLUSTER}/discovery.k8s.io/EndpointSlice/{}/{}/{ip}", meta.namespace, meta.name)
}
