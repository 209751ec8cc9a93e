//! Services and workloads outside of Kubernetes: `ServiceEntry` and `WorkloadEntry`.

use std::collections::HashMap;
use std::sync::Arc;

use super::services::{hostname, ports};
use super::waypoints::{Wanted, waypoint_of};
use super::workloads::{
    Candidates, Memberships, REDIRECTION, canonical, is_native, is_selected, targets, tunnel,
};
use super::{CLUSTER, Context, Resources};
use crate::standalone::manifest::{
    EntryAddress, EntrySpec, Meta, Note, Resolution, ServiceEntry, WorkloadEntry,
};
use crate::wire::xds::{ip_bytes, workload};

use workload::load_balancing::{HealthPolicy, Mode};

/// Every service entry with its endpoints, and every workload entry.
pub(super) fn convert(
    context: &Context<'_>,
    candidates: &Candidates<'_>,
    resources: &mut Resources,
) {
    let oldest = oldest(context);
    for entry in &context.manifests.service_entries {
        for host in &entry.hosts {
            let canonical = oldest.get(host).is_some_and(|meta| **meta == entry.meta);
            let service = service(context, entry, (host, canonical), resources);
            resources.service(service);
        }
        inline(context, entry, resources);
    }
    for entry in &context.manifests.workload_entries {
        let workload = workload_entry(context, entry, candidates, resources);
        resources.workload(workload);
    }
}

/// Of several entries with one host the oldest is the canonical one.
fn oldest<'a>(context: &Context<'a>) -> HashMap<&'a Arc<str>, &'a Meta> {
    let mut oldest: HashMap<&Arc<str>, &Meta> = HashMap::new();
    for entry in &context.manifests.service_entries {
        for host in &entry.hosts {
            let first = oldest.entry(host).or_insert(&entry.meta);
            let age = |meta: &'a Meta| (&meta.created, &meta.namespace, &meta.name);
            if age(&entry.meta) < age(first) {
                *first = &entry.meta;
            }
        }
    }
    oldest
}

fn service(
    context: &Context<'_>,
    entry: &ServiceEntry,
    (host, canonical): (&str, bool),
    resources: &mut Resources,
) -> workload::Service {
    let meta = &entry.meta;
    if entry.addresses.is_empty() {
        let text = "there is none, and none is allocated: the host is reached by name only";
        resources.note(Note::about("ServiceEntry", meta, "spec.addresses", text));
    }
    let addresses = entry.addresses.iter().map(|range| {
        let single = range.prefix_len() == range.max_prefix_len();
        workload::NetworkAddress {
            network: String::new(),
            address: ip_bytes(range.trunc().addr()),
            length: (!single).then(|| range.prefix_len().into()),
        }
    });
    let passthrough = (entry.resolution == Resolution::None).then(|| workload::LoadBalancing {
        routing_preference: Vec::new(),
        mode: Mode::Passthrough.into(),
        health_policy: HealthPolicy::AllowAll.into(),
    });
    workload::Service {
        name: meta.name.to_string(),
        namespace: meta.namespace.to_string(),
        hostname: host.to_owned(),
        addresses: addresses.collect(),
        ports: ports(&entry.ports),
        subject_alt_names: entry.subject_alt_names.iter().map(ToString::to_string).collect(),
        waypoint: waypoint_of(context, ("ServiceEntry", meta), Wanted::ForService, resources),
        load_balancing: passthrough,
        canonical,
        ..workload::Service::default()
    }
}

/// The endpoints inside of an entry; with DNS and none of them, the hosts themselves.
fn inline(context: &Context<'_>, entry: &ServiceEntry, resources: &mut Resources) {
    let meta = &entry.meta;
    let uid = |place: &str| {
        let Meta { namespace, name, .. } = meta;
        format!("{CLUSTER}/networking.istio.io/ServiceEntry/{namespace}/{name}/{place}")
    };
    for spec in &entry.endpoints {
        let place = match &spec.address {
            EntryAddress::Ip(ip) => ip.to_string(),
            EntryAddress::Host(host) => host.to_string(),
        };
        let mut services = Memberships::new();
        for host in &entry.hosts {
            let name = format!("{}/{host}", meta.namespace);
            services.insert(name, entry_targets(entry, spec));
        }
        let base = base(context, meta, spec);
        let name = format!("{}-{place}", meta.name);
        let tunnel_protocol = tunnel(is_native(&spec.labels));
        let workload =
            workload::Workload { uid: uid(&place), name, services, tunnel_protocol, ..base };
        resources.workload(workload);
    }
    if entry.resolution == Resolution::Dns && entry.endpoints.is_empty() && entry.selector.is_none()
    {
        for host in &entry.hosts {
            let name = format!("{}/{host}", meta.namespace);
            let list = targets(&entry.ports, |_| None);
            resources.workload(workload::Workload {
                uid: uid(host),
                name: format!("{}-{host}", meta.name),
                namespace: meta.namespace.to_string(),
                hostname: host.to_string(),
                trust_domain: context.wire_trust_domain(),
                services: [(name, list)].into(),
                cluster_id: CLUSTER.to_owned(),
                ..workload::Workload::default()
            });
        }
    }
}

fn workload_entry(
    context: &Context<'_>,
    entry: &WorkloadEntry,
    candidates: &Candidates<'_>,
    resources: &mut Resources,
) -> workload::Workload {
    let (meta, spec) = (&entry.meta, &entry.spec);
    let mut services = Memberships::new();
    for of in candidates.entries(&meta.namespace, &spec.labels) {
        for host in &of.hosts {
            services.insert(format!("{}/{host}", meta.namespace), entry_targets(of, spec));
        }
    }
    for of in candidates.services(&meta.namespace).filter(|of| is_selected(of, &spec.labels)) {
        let name = format!("{}/{}", meta.namespace, hostname(&of.meta));
        services.insert(name, targets(&of.ports, |port| spec.ports.get(port).copied()));
    }
    let native = is_native(&spec.labels);
    let hbone = native || meta.annotation(REDIRECTION) == Some("enabled");
    let (canonical_name, canonical_revision) = canonical(&spec.labels, &meta.name);
    workload::Workload {
        uid: format!(
            "{CLUSTER}/networking.istio.io/WorkloadEntry/{}/{}",
            meta.namespace, meta.name
        ),
        name: meta.name.to_string(),
        tunnel_protocol: tunnel(hbone),
        native_tunnel: native,
        waypoint: waypoint_of(context, ("WorkloadEntry", meta), Wanted::ForWorkload, resources),
        canonical_name,
        canonical_revision,
        workload_type: workload::WorkloadType::Pod.into(),
        workload_name: meta.name.to_string(),
        services,
        ..base(context, meta, spec)
    }
}

/// What both kinds of entries have in common.
fn base(context: &Context<'_>, meta: &Meta, spec: &EntrySpec) -> workload::Workload {
    let (addresses, hostname) = match &spec.address {
        EntryAddress::Ip(ip) => (vec![ip_bytes(*ip)], String::new()),
        EntryAddress::Host(host) => (Vec::new(), host.to_string()),
    };
    let mut parts = spec.locality.split('/').map(str::to_owned);
    let locality = (!spec.locality.is_empty()).then(|| workload::Locality {
        region: parts.next().unwrap_or_default(),
        zone: parts.next().unwrap_or_default(),
        subzone: parts.next().unwrap_or_default(),
    });
    workload::Workload {
        namespace: meta.namespace.to_string(),
        addresses,
        hostname,
        network: spec.network.to_string(),
        trust_domain: context.wire_trust_domain(),
        service_account: spec.service_account.to_string(),
        authorization_policies: context.policies_of(&meta.namespace, &spec.labels),
        cluster_id: CLUSTER.to_owned(),
        locality,
        capacity: (spec.weight > 0).then_some(spec.weight),
        ..workload::Workload::default()
    }
}

/// Where the ports of an entry lead: an endpoint may say so by the name of the port.
fn entry_targets(entry: &ServiceEntry, spec: &EntrySpec) -> workload::PortList {
    let mut list = targets(&entry.ports, |name| spec.ports.get(name).copied());
    for of in &entry.ports {
        let Some(own) = spec.ports.get(&of.name) else { continue };
        let same = |port: &&mut workload::Port| port.service_port == u32::from(of.port);
        if let Some(port) = list.ports.iter_mut().find(same) {
            port.target_port = u32::from(*own);
        }
    }
    list
}
