//! From objects to the resources that a node proxy subscribes to (spec xds 8, policy 5 and 6).
//!
//! Pure: the same manifests give the same resources, in the same order.

mod authentication;
mod authorization;
mod entries;
mod services;
mod waypoints;
mod workloads;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::manifest::{Labels, Manifests, Namespace, Note, Notes, Phase};
use crate::wire::spiffe::Identity;
use crate::wire::xds::{security, workload};

use authentication::Authentication;
use waypoints::Waypoints;
use workloads::Candidates;

/// The trust domain that is left out on the wire (spec identity 1).
pub(crate) const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";
/// The mesh's root namespace: its policies count everywhere.
const ROOT_NAMESPACE: &str = "istio-system";
/// The cluster in names of workloads.
const CLUSTER: &str = "Kubernetes";
/// What hostnames of services end with.
const DOMAIN: &str = "svc.cluster.local";
/// Where a proxy takes tunnels.
const HBONE_PORT: u16 = 15008;

/// What a proxy can subscribe to, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Resources {
    pub(crate) addresses: BTreeMap<String, workload::Address>,
    pub(crate) policies: BTreeMap<String, security::Authorization>,
    /// By node: whose certificates its proxy may ask for.
    pub(crate) hosted: BTreeMap<Arc<str>, BTreeSet<Identity>>,
    /// What cannot apply, and what happens instead.
    pub(crate) notes: Notes,
}

/// What the parts of a conversion have in common.
struct Context<'a> {
    manifests: &'a Manifests,
    namespaces: HashMap<&'a str, &'a Namespace>,
    trust_domain: &'a str,
    waypoints: Waypoints<'a>,
    authentication: Authentication<'a>,
    /// Names of policies with a selector, by their namespace.
    selectors: HashMap<&'a str, Vec<(&'a Labels, String)>>,
}

/// Converts everything for a mesh of `trust_domain`.
pub(crate) fn convert(manifests: &Manifests, trust_domain: &str) -> Resources {
    let mut resources = Resources { notes: manifests.notes.clone(), ..Resources::default() };
    let waypoints = Waypoints::of(&manifests.gateways, &mut resources.notes);
    let authentication = Authentication::of(&manifests.authentication, &mut resources.notes);
    for policy in authentication.policies() {
        resources.policies.insert(format!("{}/{}", policy.namespace, policy.name), policy);
    }
    let mut selectors: HashMap<&str, Vec<_>> = HashMap::new();
    for policy in &manifests.authorization {
        let notes = &mut resources.notes;
        let Some(converted) = authorization::convert(policy, trust_domain, notes) else { continue };
        let name = format!("{}/{}", converted.namespace, converted.name);
        if let Some(selector) = policy.selector.as_ref().filter(|labels| !labels.is_empty()) {
            let of_namespace = selectors.entry(&policy.meta.namespace).or_default();
            of_namespace.push((selector, name.clone()));
        }
        resources.policies.insert(name, converted);
    }
    let namespaces = manifests.namespaces.iter().map(|ns| (&*ns.meta.name, ns)).collect();
    let context =
        Context { manifests, namespaces, trust_domain, waypoints, authentication, selectors };
    services::convert(&context, &mut resources);
    let candidates = Candidates::of(manifests);
    workloads::convert(&context, &candidates, &mut resources);
    entries::convert(&context, &candidates, &mut resources);
    resources.hosted = hosted(manifests, trust_domain);
    resources
}

/// The identities of each node's pods; those of failed pods are of nobody (spec identity 3).
fn hosted(manifests: &Manifests, trust_domain: &str) -> BTreeMap<Arc<str>, BTreeSet<Identity>> {
    let mut hosted: BTreeMap<Arc<str>, BTreeSet<Identity>> = BTreeMap::new();
    for pod in manifests.pods.iter().filter(|pod| pod.phase != Phase::Failed) {
        if !pod.node.is_empty() {
            let namespace = Arc::clone(&pod.meta.namespace);
            let identity = Identity::new(trust_domain, namespace, Arc::clone(&pod.service_account));
            hosted.entry(Arc::clone(&pod.node)).or_default().insert(identity);
        }
    }
    hosted
}

impl Resources {
    fn workload(&mut self, workload: workload::Workload) {
        let (uid, kind) = (workload.uid.clone(), workload::address::Type::Workload(workload));
        self.addresses.insert(uid, workload::Address { r#type: Some(kind) });
    }

    fn service(&mut self, service: workload::Service) {
        let name = format!("{}/{}", service.namespace, service.hostname);
        let kind = workload::address::Type::Service(service);
        self.addresses.insert(name, workload::Address { r#type: Some(kind) });
    }

    fn note(&mut self, note: Note) {
        self.notes.push(note);
    }
}

impl Context<'_> {
    /// Labels of a namespace; none if it was not written down.
    fn namespace_label(&self, namespace: &str, label: &str) -> Option<&str> {
        self.namespaces.get(namespace)?.meta.label(label)
    }

    /// The trust domain as it goes over the wire.
    fn wire_trust_domain(&self) -> String {
        let default = self.trust_domain == DEFAULT_TRUST_DOMAIN;
        if default { String::new() } else { self.trust_domain.to_owned() }
    }

    /// Names of the policies that select a workload (spec policy 2), sorted, those of peer
    /// authentication last.
    fn policies_of(&self, namespace: &str, labels: &Labels) -> Vec<String> {
        let mut homes = vec![namespace];
        if namespace != ROOT_NAMESPACE {
            homes.push(ROOT_NAMESPACE);
        }
        let candidates = homes.iter().filter_map(|home| self.selectors.get(home)).flatten();
        let selected = candidates.filter(|(s, _)| super::manifest::selects(s, labels));
        let mut names: Vec<String> = selected.map(|(_, name)| name.clone()).collect();
        names.sort();
        names.extend(self.authentication.name_for(namespace, labels));
        names
    }
}

#[cfg(test)]
mod tests;
