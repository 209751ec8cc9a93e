//! From documents to objects: which kind it is, and what every object has.

use std::collections::HashMap;
use std::sync::Arc;

use serde_saphyr::Spanned;

use super::fields::{At, Fields, NOTHING_OF_A_MESH, Report, Unread};
use super::node::Node;
use super::{
    AuthorizationPolicy, EndpointSlice, Gateway, ManifestError, Manifests, Meta, Namespace, Note,
    Notes, PeerAuthentication, Pod, Service, ServiceEntry, WorkloadEntry,
};

/// The namespace of an object that names none, as for kubectl.
const DEFAULT_NAMESPACE: &str = "default";
/// Read and of no consequence: metadata that the API server and tools write.
const METADATA_SKIPPED: &[&str] = &[
    "creationTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
    "deletionGracePeriodSeconds",
];

/// Objects that are known and not served, and what happens instead.
const NOT_SERVED: &[(&str, &str)] = &[
    ("DestinationRule", "not served: a node proxy uses nothing of it; a waypoint would"),
    ("Deployment", "not served: nothing makes pods of it here; write each Pod with its podIP"),
    ("StatefulSet", "not served: nothing makes pods of it here; write each Pod with its podIP"),
    ("DaemonSet", "not served: nothing makes pods of it here; write each Pod with its podIP"),
    ("ReplicaSet", "not served: nothing makes pods of it here; write each Pod with its podIP"),
    ("Job", "not served: nothing makes pods of it here; write each Pod with its podIP"),
    ("CronJob", "not served: nothing makes pods of it here; write each Pod with its podIP"),
    ("RequestAuthentication", "not served: tokens are HTTP, a waypoint's work; nothing is checked"),
    ("EnvoyFilter", "not served: there is no Envoy here; nothing of it is applied"),
    ("VirtualService", "not served: HTTP routes are a waypoint's work; traffic goes as if absent"),
    ("HTTPRoute", "not served: HTTP routes are a waypoint's work; traffic goes as if absent"),
    ("Telemetry", "not served: access log and metrics are configured at each proxy"),
    ("IstioOperator", "not served: mesh settings are options of this command"),
    ("NetworkPolicy", "not served: it is the network's work, not the mesh's; nothing enforces it"),
    ("ConfigMap", "not served: mesh settings are options of this command"),
];

const NOT_SERVED_OTHERWISE: &str = "not served: this kind means nothing to a node proxy";

/// One document of one file.
type Read = fn(&Fields<'_>, Meta, &mut Manifests);

/// Kind, the group its `apiVersion` must name, whether it has a namespace, and its reader.
const SERVED: &[(&str, &str, bool, Read)] = &[
    ("Namespace", "", false, |f, m, out| out.namespaces.extend(Namespace::read(f, m))),
    ("Pod", "", true, |f, m, out| out.pods.extend(Pod::read(f, m))),
    ("Service", "", true, |f, m, out| out.services.extend(Service::read(f, m))),
    // Identities need no object: whether one exists follows from the pods.
    ("ServiceAccount", "", true, |f, _, _| f.skip(&["secrets", "imagePullSecrets"])),
    ("EndpointSlice", "discovery.k8s.io", true, |f, m, out| {
        out.slices.extend(EndpointSlice::read(f, m));
    }),
    ("ServiceEntry", "networking.istio.io", true, |f, m, out| {
        out.service_entries.extend(ServiceEntry::read(f, m));
    }),
    ("WorkloadEntry", "networking.istio.io", true, |f, m, out| {
        out.workload_entries.extend(WorkloadEntry::read(f, m));
    }),
    ("Gateway", "gateway.networking.k8s.io", true, |f, m, out| {
        out.gateways.extend(Gateway::read(f, m));
    }),
    ("AuthorizationPolicy", "security.istio.io", true, |f, m, out| {
        out.authorization.extend(AuthorizationPolicy::read(f, m));
    }),
    ("PeerAuthentication", "security.istio.io", true, |f, m, out| {
        out.authentication.extend(PeerAuthentication::read(f, m));
    }),
];

/// Reads texts, each with the name of its file.
pub(crate) fn read_texts<'a>(
    texts: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Manifests, ManifestError> {
    let mut manifests = Manifests::default();
    let mut problems = Notes::default();
    let mut seen = HashMap::new();
    for (file, text) in texts {
        let report = Report::new(file.into());
        match Node::documents(text) {
            Ok(documents) => {
                for document in &documents {
                    report.about(String::new());
                    read_document(document, &report, &mut manifests, &mut seen);
                }
            }
            Err(error) => report.problem(error.line, "", with_hint(text, error.reason)),
        }
        let (notes, wrong) = report.into_parts();
        manifests.notes.extend(notes);
        problems.extend(wrong);
    }
    if problems.is_empty() { Ok(manifests) } else { Err(ManifestError { problems }) }
}

type Seen = HashMap<(String, Arc<str>, Arc<str>), At>;

fn read_document(doc: &Spanned<Node>, report: &Report, out: &mut Manifests, seen: &mut Seen) {
    let Some(fields) = Fields::of(doc, "", report) else { return };
    let (Some(version), Some(kind)) = (fields.text("apiVersion"), fields.text("kind")) else {
        return report.problem(fields.line, "", "an object has an apiVersion and a kind");
    };
    if &*kind == "List" || (kind.ends_with("List") && fields.has("items")) {
        fields.skip(&["metadata"]);
        for item in fields.list("items") {
            report.about(String::new());
            read_document(item.node(), report, out, seen);
        }
        return;
    }
    read_object(&fields, (&version, &kind), out, seen);
}

fn read_object(
    fields: &Fields<'_>,
    (version, kind): (&str, &str),
    out: &mut Manifests,
    seen: &mut Seen,
) {
    let report = fields.report;
    report.about(kind.to_owned());
    let served = SERVED.iter().find(|(name, ..)| *name == kind);
    let namespaced = served.is_none_or(|&(_, _, namespaced, _)| namespaced);
    let Some(meta) = read_meta(fields, namespaced) else { return };
    let shown = if namespaced {
        format!("{kind} {}/{}", meta.namespace, meta.name)
    } else {
        format!("{kind} {}", meta.name)
    };
    report.about(shown);
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let Some((_, _, _, read)) = served.filter(|(_, expected, ..)| *expected == group) else {
        return report.note(fields.line, "", not_served(kind, served.is_some()));
    };
    let key = (kind.to_owned(), Arc::clone(&meta.namespace), Arc::clone(&meta.name));
    if let Some(first) = seen.insert(key, meta.at.clone()) {
        return report.problem(fields.line, "", format!("it is there twice; first at {first}"));
    }
    read(fields, meta, out);
    fields.finish(Unread::Tell(NOTHING_OF_A_MESH));
}

fn not_served(kind: &str, other_group: bool) -> &'static str {
    if other_group {
        return "not served: an object of this kind and another apiVersion is meant for others";
    }
    let known = NOT_SERVED.iter().find(|(name, _)| *name == kind);
    known.map_or(NOT_SERVED_OTHERWISE, |(_, text)| text)
}

fn read_meta(fields: &Fields<'_>, namespaced: bool) -> Option<Meta> {
    let metadata = fields.map("metadata");
    let Some(name) = metadata.as_ref().and_then(|metadata| metadata.text("name")) else {
        let flat = fields.has("metadata") && fields.has("name");
        let hint = if flat { "; its fields stand at the left margin: indent them" } else { "" };
        fields.problem("metadata", format!("an object has a name{hint}"));
        return None;
    };
    let metadata = metadata?;
    let namespace = metadata.text("namespace");
    let namespace = if namespaced {
        namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.into())
    } else {
        Arc::clone(&name)
    };
    let meta = Meta {
        namespace,
        name,
        labels: metadata.labels("labels"),
        annotations: metadata.labels("annotations"),
        created: metadata.text("creationTimestamp").unwrap_or_default(),
        deleting: metadata.has("deletionTimestamp"),
        at: At { file: Arc::clone(&fields.report.file), line: fields.line },
    };
    metadata.skip(METADATA_SKIPPED);
    metadata.finish(Unread::Tell("it means nothing here"));
    Some(meta)
}

/// What a reader of a broken text should know: YAML copied from a page often lost its indentation.
fn with_hint(text: &str, reason: String) -> String {
    let mut lines = text.lines().skip_while(|line| line.trim() != "metadata:");
    let after = lines.nth(1).unwrap_or_default();
    if after.starts_with("name:") || after.starts_with("labels:") {
        return format!("{reason}; fields stand at the left margin: the indentation seems lost");
    }
    reason
}

impl Note {
    /// A remark about an object as it was converted.
    pub(crate) fn about(
        kind: &str,
        meta: &Meta,
        field: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        let object = format!("{kind} {}/{}", meta.namespace, meta.name);
        Self { at: meta.at.clone(), object, field: field.into(), text: text.into() }
    }
}
