//! Where the mesh's configuration comes from, and as whom the control plane is asked for it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::LocalSource;
use super::env::{Env, shown};
use super::mesh_file::ProxyConfig;
use super::upstream::{self, Known, Upstream};
use super::values::duration_within;

const ADDRESS: &str = "XDS_ADDRESS";
const PATH: &str = "LOCAL_XDS_PATH";
const TEXT: &str = "LOCAL_XDS";
const ON_DEMAND: &str = "XDS_ON_DEMAND";
const METADATA_PREFIX: &str = "ISTIO_META_";
const METADATA_JSON_PREFIX: &str = "ISTIO_METAJSON_";
const SNAPSHOT: &str = "XDS_SNAPSHOT_PATH";
const SNAPSHOT_FILE: &str = "adit-xds.snapshot";
const SNAPSHOT_AGE_DEFAULT: Duration = Duration::from_secs(24 * 3_600);
const SNAPSHOT_AGES: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 3_600);
/// What istiod takes for an address where none is known (spec xds 2).
const INSTANCE_IP_DEFAULT: &str = "1.1.1.1";
/// The literal form that istiod knows, whatever the cluster's domain is.
const DOMAIN_SUFFIX: &str = "svc.cluster.local";

/// Where the mesh's configuration comes from: one writer, so never from two places.
#[derive(Clone, Debug)]
pub enum MeshSource {
    /// A file or a text.
    Local(LocalSource),
    /// A control plane.
    Server(Box<XdsConfig>),
}

/// How the control plane is asked.
#[derive(Clone, Debug)]
pub struct XdsConfig {
    /// Where it is, and what it is shown.
    pub server: Upstream,
    /// As whom it is asked.
    pub node: XdsNode,
    /// It is asked for each address as it is needed, and not for all.
    pub on_demand: bool,
    /// Where what it says is kept for the next process, if it is.
    pub snapshot: Option<XdsSnapshot>,
}

/// A file that outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdsSnapshot {
    /// The file.
    pub path: PathBuf,
    /// Older ones are not used.
    pub age_max: Duration,
}

/// Who we are to the control plane (spec xds 2).
#[derive(Clone, Debug, PartialEq)]
pub struct XdsNode {
    /// `ztunnel~<ip>~<pod>.<namespace>~<namespace>.svc.cluster.local`
    pub id: String,
    /// What else it is told; may hold secrets of whoever wrote it.
    pub metadata: BTreeMap<String, Value>,
}

/// The file or text that was given, else the control plane that was named, else istiod.
pub(super) fn mesh_source(
    env: &mut Env<'_>,
    proxy: &ProxyConfig,
    known: &Known<'_>,
    shared: Option<&Path>,
) -> Option<MeshSource> {
    let local = local_source(env);
    let discovery = proxy.discovery_address.as_deref().filter(|address| !address.is_empty());
    let silenced = env.is_set(ADDRESS) && env.text(ADDRESS).is_none();
    let named = env.text(ADDRESS).is_some() || (discovery.is_some() && !silenced);
    match local {
        Some((name, _)) if named => {
            let text = "is refused because a control plane is named too (XDS_ADDRESS or \
                discoveryAddress): the mesh has one writer. Set XDS_ADDRESS to nothing, or unset \
                this";
            env.wrong(name, text);
            None
        }
        Some((_, local)) => Some(MeshSource::Local(local)),
        None if silenced => {
            let text = "is empty, and nothing else says what the mesh is: set it to a control \
                plane, or LOCAL_XDS_PATH to a configuration file";
            env.wrong(ADDRESS, text);
            None
        }
        None => {
            let on_demand = env.switch(ON_DEMAND, false);
            if on_demand && env.text("NODE_NAME").is_none() {
                env.wrong(ON_DEMAND, "needs NODE_NAME: a node's own pods come unasked");
            }
            let address = upstream::address(env, ADDRESS, discovery)?;
            let server = Upstream::read(env, "XDS", address, known);
            let (node, snapshot) = (node(env, proxy), snapshot(env, shared));
            let config = XdsConfig { server, node, on_demand, snapshot };
            Some(MeshSource::Server(Box::new(config)))
        }
    }
}

/// With the variable that says so.
fn local_source(env: &mut Env<'_>) -> Option<(&'static str, LocalSource)> {
    match (env.text(PATH), env.text(TEXT)) {
        (Some(_), Some(_)) => {
            env.wrong(PATH, "is refused together with LOCAL_XDS: set one of them");
            None
        }
        (Some(path), None) => Some((PATH, LocalSource::Path(path.into()))),
        (None, Some(text)) => Some((TEXT, LocalSource::Inline(text))),
        (None, None) => None,
    }
}

/// The file that was named, else one beside the agent's socket in a cluster: that folder outlives
/// the pod, and no reboot.
fn snapshot(env: &mut Env<'_>, shared: Option<&Path>) -> Option<XdsSnapshot> {
    let age = duration_within(SNAPSHOT_AGES);
    let age_max = env.value("XDS_SNAPSHOT_MAX_AGE", age).unwrap_or(SNAPSHOT_AGE_DEFAULT);
    let path = if env.is_set(SNAPSHOT) {
        PathBuf::from(env.text(SNAPSHOT)?)
    } else {
        let folder = shared?.parent().filter(|_| env.is_set("KUBERNETES_SERVICE_HOST"))?;
        folder.join(SNAPSHOT_FILE)
    };
    if !path.is_absolute() {
        env.wrong(SNAPSHOT, format!("{} is not an absolute path", shown(&path.to_string_lossy())));
    }
    Some(XdsSnapshot { path, age_max })
}

fn node(env: &mut Env<'_>, proxy: &ProxyConfig) -> XdsNode {
    let text = |name: &str| env.text(name).unwrap_or_default();
    let (pod, namespace) = (text("POD_NAME"), text("POD_NAMESPACE"));
    let ip = env.text("INSTANCE_IP").unwrap_or_else(|| INSTANCE_IP_DEFAULT.to_owned());
    let id = format!("ztunnel~{ip}~{pod}.{namespace}~{namespace}.{DOMAIN_SUFFIX}");
    let base = [
        ("NAME", pod),
        ("NAMESPACE", namespace),
        ("INSTANCE_IPS", ip),
        ("NODE_NAME", text("NODE_NAME")),
    ];
    let mut metadata: BTreeMap<String, Value> =
        base.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let texts = |(name, value): (String, String)| (name, Value::from(value));
    metadata.extend(proxy.all_metadata().map(texts));
    metadata.extend(env.prefixed(METADATA_PREFIX).into_iter().map(texts));
    for (name, text) in env.prefixed(METADATA_JSON_PREFIX) {
        match serde_json::from_str(&text) {
            Ok(value) => drop(metadata.insert(name, value)),
            Err(_) => env.warn(
                &format!("{METADATA_JSON_PREFIX}{name}"),
                "it is no JSON, and the control plane is not told of it",
            ),
        }
    }
    XdsNode { id, metadata }
}
