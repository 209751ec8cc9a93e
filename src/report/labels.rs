//! What is known of the two ends of a connection, by name: from the records, else from what the
//! peers say of themselves (spec operations 7 and 8).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};

use super::{Connection, Direction, ResponseFlag, Side, Transport};
use crate::wire::spiffe::Identity;

/// Longest claim that is repeated, bytes; a longer one counts as not made.
const CLAIM_BYTES_MAX: usize = 253;
/// The value of a label that is not known.
const UNKNOWN: &str = "unknown";

/// Label names in the order in which they are exposed (spec operations 7).
const NAMES: [&str; 27] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_service",
    "destination_service_namespace",
    "destination_service_name",
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
    "source_region",
    "source_zone",
    "destination_region",
    "destination_zone",
];
/// The last ones, which are left out when no locality is known.
const LOCALITY_NAMES: usize = 4;

/// Whether what peers say of themselves may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claims {
    /// Where the record is silent.
    Used,
    /// Never.
    Ignored,
}

/// The names of one end. The record overrides the claim field by field; empty is unknown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Names<'a> {
    /// The pod; only records name it.
    pub(super) pod: Option<&'a Arc<str>>,
    pub(super) workload: Option<&'a Arc<str>>,
    pub(super) canonical_service: Option<&'a Arc<str>>,
    pub(super) canonical_revision: Option<&'a Arc<str>>,
    pub(super) app: Option<&'a Arc<str>>,
    pub(super) namespace: Option<&'a Arc<str>>,
    pub(super) cluster: Option<&'a Arc<str>>,
    pub(super) region: Option<&'a Arc<str>>,
    pub(super) zone: Option<&'a Arc<str>>,
    /// Whether any of it is a claim.
    pub(super) claimed: bool,
}

/// The labels of the traffic metrics of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Labels(Box<[Value]>);

/// One label's value.
#[derive(Clone, Debug)]
enum Value {
    Fixed(&'static str),
    Shared(Arc<str>),
}

impl<'a> Names<'a> {
    pub(super) fn of(side: &'a Side, claims: Claims) -> Self {
        let record = side.workload.as_deref();
        let claim = side.claimed.as_deref().filter(|_| claims == Claims::Used);
        let mut claimed = false;
        let mut pick = |recorded: Option<&'a Arc<str>>, said: Option<&'a Arc<str>>| {
            let recorded = recorded.filter(|text| !text.is_empty());
            recorded.or_else(|| {
                let said = said.filter(|text| !text.is_empty() && text.len() <= CLAIM_BYTES_MAX)?;
                claimed = true;
                Some(said)
            })
        };
        let said_workload = claim.and_then(|c| c.workload_name.as_ref());
        let canonical = record.map(|w| &w.canonical_name);
        let mut names = Self {
            pod: pick(record.map(|w| &w.name), None),
            workload: pick(record.map(|w| &w.workload_name), said_workload),
            canonical_service: pick(canonical, claim.and_then(|c| c.service_name.as_ref())),
            canonical_revision: pick(
                record.map(|w| &w.canonical_revision),
                claim.and_then(|c| c.service_version.as_ref()),
            ),
            // A claim has no name for it but the workload's (spec operations 7).
            app: pick(canonical, said_workload),
            namespace: pick(record.map(|w| &w.namespace), claim.and_then(|c| c.namespace.as_ref())),
            cluster: pick(record.map(|w| &w.cluster_id), claim.and_then(|c| c.cluster.as_ref())),
            region: pick(record.map(|w| &w.locality.region), claim.and_then(|c| c.region.as_ref())),
            zone: pick(record.map(|w| &w.locality.zone), claim.and_then(|c| c.zone.as_ref())),
            claimed: false,
        };
        names.claimed = claimed;
        names
    }
}

impl Labels {
    /// The labels of a connection, and whether any of them is only a claim.
    pub(super) fn of(connection: &Connection, flag: ResponseFlag, claims: Claims) -> (Self, bool) {
        let source = Names::of(&connection.source, claims);
        let destination = Names::of(&connection.destination, claims);
        let service = connection.service.as_deref();
        let tunnelled = connection.transport != Transport::Plaintext;
        let source_identity = connection.source.identity.as_ref().filter(|_| tunnelled);
        let recorded = connection.destination.workload.as_deref().map(|w| w.identity());
        let destination_identity = recorded.as_ref().or(connection.destination.identity.as_ref());

        let mut values = Vec::with_capacity(NAMES.len());
        values.push(Value::Fixed(connection.direction.reporter()));
        push_side(&mut values, &source, source_identity);
        values.push(Value::of(service.map(|s| &s.key.hostname)));
        values.push(Value::of(service.map(|s| &s.key.namespace)));
        values.push(Value::of(service.map(|s| &s.name)));
        push_side(&mut values, &destination, destination_identity);
        push_end(&mut values, flag, tunnelled);
        let localities = [source.region, source.zone, destination.region, destination.zone];
        if localities.iter().any(Option::is_some) {
            values.extend(localities.map(Value::of));
        }
        (Self(values.into_boxed_slice()), source.claimed || destination.claimed)
    }

    /// The labels of what is counted when there are too many others.
    pub(super) fn of_the_rest(connection: &Connection, flag: ResponseFlag) -> Self {
        let mut values = vec![Value::Fixed(connection.direction.reporter())];
        values.resize(NAMES.len() - LOCALITY_NAMES - 3, Value::Fixed(UNKNOWN));
        push_end(&mut values, flag, connection.transport != Transport::Plaintext);
        Self(values.into_boxed_slice())
    }

    /// Names and values in order.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        NAMES.into_iter().zip(self.0.iter().map(Value::as_str))
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        self.pairs().try_for_each(|pair| pair.encode(encoder.encode_label()))
    }
}

impl Direction {
    /// The `reporter` label.
    pub fn reporter(self) -> &'static str {
        match self {
            Self::Outbound => "source",
            Self::Inbound => "destination",
        }
    }

    /// The access log's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

impl Value {
    fn of(text: Option<&Arc<str>>) -> Self {
        match text {
            Some(text) if !text.is_empty() => Self::Shared(Arc::clone(text)),
            _ => Self::Fixed(UNKNOWN),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Fixed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// The eight labels that source and destination have in common.
fn push_side(values: &mut Vec<Value>, names: &Names<'_>, identity: Option<&Identity>) {
    values.push(Value::of(names.workload));
    values.push(Value::of(names.canonical_service));
    values.push(Value::of(names.canonical_revision));
    values.push(Value::of(names.namespace));
    values.push(match identity {
        Some(identity) => Value::Shared(Arc::from(identity.uri())),
        None => Value::Fixed(UNKNOWN),
    });
    values.push(Value::of(names.app));
    values.push(Value::of(names.canonical_revision));
    values.push(Value::of(names.cluster));
}

/// The three labels after the destination.
fn push_end(values: &mut Vec<Value>, flag: ResponseFlag, tunnelled: bool) {
    values.push(Value::Fixed("tcp"));
    values.push(Value::Fixed(flag.as_str()));
    values.push(Value::Fixed(if tunnelled { "mutual_tls" } else { UNKNOWN }));
}

#[cfg(test)]
mod tests;
