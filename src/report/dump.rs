//! The config dump: what the proxy knows and serves, in the form istioctl reads (spec operations
//! 6).
//!
//! It is written straight from borrowed values, sorted, so that a large mesh costs no second copy
//! of itself and two dumps can be compared.

mod certificate;
mod mesh;
mod policy;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::{Connection, Direction, PodConnections, Transport};
use crate::model::{PodName, Snapshot};

pub use certificate::{Certificate, pem, pem_text};

/// Everything that is dumped.
#[derive(Debug)]
pub struct Dump<'a> {
    /// The mesh.
    pub snapshot: &'a Snapshot,
    /// The certificates, in any order.
    pub certificates: &'a [Certificate],
    /// The pods served, in any order; `None` in dedicated mode.
    pub pods: Option<&'a [PodState]>,
    /// Open connections by pod uid.
    pub connections: &'a BTreeMap<Box<str>, PodConnections>,
    /// Where the stream from the control plane stands, if there is one.
    pub control_plane: Option<&'a serde_json::Value>,
    /// Where the revocation lists stand, if there are to be any.
    pub revocation: Option<&'a serde_json::Value>,
    /// What was built and how.
    pub version: &'a Version,
    /// The effective configuration, with the limits.
    pub config: &'a serde_json::Value,
}

/// One pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodState {
    /// Kubernetes pod uid.
    pub uid: Arc<str>,
    /// Whether its listeners are open.
    pub up: bool,
    /// What the agent calls it.
    pub name: PodName,
}

/// What was built and how (spec operations 1 and 6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Version of this proxy.
    pub version: String,
    /// Commit it was built from.
    pub git_revision: String,
    /// Compiler.
    pub rust_version: String,
    /// `debug` or `release`.
    pub build_profile: String,
    /// Whether the commit was built as it is.
    pub build_status: String,
    /// Version of the mesh it belongs to.
    pub istio_version: String,
    /// Library behind TLS.
    pub crypto_provider: String,
}

/// The dump as indented JSON, or the reason why there is none.
pub fn render(dump: &Dump<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    match serde_json::to_writer_pretty(&mut body, dump) {
        Ok(()) => body.push(b'\n'),
        // Only a map key that is no text could fail, and there is none.
        Err(error) => body = serde_json::json!({ "error": error.to_string() }).to_string().into(),
    }
    body
}

impl Serialize for Dump<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("workloads", &mesh::Workloads(self.snapshot))?;
        map.serialize_entry("services", &mesh::Services(self.snapshot))?;
        map.serialize_entry("policies", &policy::Policies(self.snapshot))?;
        map.serialize_entry("certificates", &certificate::Certificates(self.certificates))?;
        if let Some(pods) = self.pods {
            let states = pods.iter().map(|pod| (&pod.uid, self.state_of(pod)));
            map.serialize_entry("workloadState", &states.collect::<BTreeMap<_, _>>())?;
        }
        if let Some(status) = self.control_plane {
            map.serialize_entry("controlPlane", status)?;
        }
        if let Some(status) = self.revocation {
            map.serialize_entry("revocation", status)?;
        }
        map.serialize_entry("version", self.version)?;
        map.serialize_entry("config", self.config)?;
        map.end()
    }
}

#[derive(Serialize)]
struct StateView<'a> {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<ConnectionsView>,
    info: InfoView<'a>,
}

#[derive(Default, Serialize)]
struct ConnectionsView {
    inbound: Vec<ConnectionView>,
    outbound: Vec<ConnectionView>,
    #[serde(skip_serializing_if = "is_zero")]
    omitted: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionView {
    src: String,
    original_dst: Option<String>,
    actual_dst: String,
    protocol: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InfoView<'a> {
    name: &'a str,
    namespace: &'a str,
    service_account: &'a str,
}

impl Dump<'_> {
    fn state_of<'a>(&self, pod: &'a PodState) -> StateView<'a> {
        let open = self.connections.get(&*pod.uid);
        StateView {
            state: if pod.up { "Up" } else { "Pending" },
            connections: pod.up.then(|| open.map(ConnectionsView::of).unwrap_or_default()),
            info: InfoView {
                name: &pod.name.name,
                namespace: &pod.name.namespace,
                service_account: &pod.name.service_account,
            },
        }
    }
}

impl ConnectionsView {
    fn of(open: &PodConnections) -> Self {
        let views = |list: &[Connection]| list.iter().map(ConnectionView::of).collect();
        Self {
            inbound: views(&open.inbound),
            outbound: views(&open.outbound),
            omitted: open.omitted,
        }
    }
}

impl ConnectionView {
    fn of(connection: &Connection) -> Self {
        let actual_dst = connection.destination.addr.to_string();
        let named = connection.original_destination.as_deref().map(str::to_owned);
        let original_dst = match connection.direction {
            Direction::Inbound => named,
            // istioctl wants a text here; what was not redirected elsewhere went where it asked.
            Direction::Outbound => Some(named.unwrap_or_else(|| actual_dst.clone())),
        };
        Self {
            src: connection.source.addr.to_string(),
            original_dst,
            actual_dst,
            protocol: match connection.transport {
                Transport::Hbone => "HBONE",
                Transport::DoubleHbone => "DOUBLEHBONE",
                Transport::Plaintext => "TCP",
            },
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests;
