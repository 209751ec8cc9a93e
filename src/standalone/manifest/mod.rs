//! The objects that users write, as plain values. What is not served is told, not dropped.

mod fields;
mod files;
mod gateways;
mod node;
mod object;
mod pods;
mod policies;
mod services;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) use fields::{At, Labels, Note, Notes};
pub(crate) use files::{Stamps, look, read};
pub(crate) use gateways::{AllowedRoutes, Gateway, GatewayAddress};
#[cfg(test)]
pub(crate) use object::read_texts;
pub(crate) use pods::{EntryAddress, EntrySpec, Namespace, Phase, Pod, WorkloadEntry};
pub(crate) use policies::{
    AuthorizationPolicy, Condition, Mode, Operation, PeerAuthentication, PolicyAction, RuleSpec,
    Source,
};
pub(crate) use services::{
    EndpointSlice, Resolution, Service, ServiceEntry, ServicePort, TargetPort,
};

/// What every object has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    /// As written, RFC 3339; such texts sort by time. Empty if it is not said.
    pub(crate) created: Arc<str>,
    pub(crate) deleting: bool,
    pub(crate) at: At,
}

/// Everything that was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manifests {
    pub(crate) namespaces: Vec<Namespace>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) services: Vec<Service>,
    pub(crate) slices: Vec<EndpointSlice>,
    pub(crate) service_entries: Vec<ServiceEntry>,
    pub(crate) workload_entries: Vec<WorkloadEntry>,
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) authorization: Vec<AuthorizationPolicy>,
    pub(crate) authentication: Vec<PeerAuthentication>,
    /// What is not served, and what happens instead.
    pub(crate) notes: Notes,
}

/// Why manifests cannot be used. They are used as a whole or not at all: what cannot be understood
/// might be what denies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ManifestError {
    /// Each with file, line, field and reason.
    pub(crate) problems: Notes,
}

impl Meta {
    /// A label of the object.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(|value| &**value)
    }

    /// An annotation of the object.
    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(|value| &**value)
    }
}

/// Whether `labels` has everything that `selector` asks for.
pub(crate) fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// A text as an address, if it is one.
fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.lines().join("\n"))
    }
}

impl std::error::Error for ManifestError {}

#[cfg(test)]
mod tests;
