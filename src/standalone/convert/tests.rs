//! Objects in, resources out; the examples of spec policy 8 with their decisions.

mod decisions;
mod mesh;
mod samples;

use super::*;
use crate::standalone::manifest::read_texts;

/// Converts YAML for the trust domain `corp.example`.
fn convert_yaml(yaml: &str) -> Resources {
    let manifests = read_texts([("test.yaml", yaml)]).unwrap_or_else(|error| panic!("{error}"));
    convert(&manifests, "corp.example")
}

fn workload<'a>(resources: &'a Resources, uid: &str) -> &'a workload::Workload {
    match resources.addresses.get(uid).and_then(|address| address.r#type.as_ref()) {
        Some(workload::address::Type::Workload(workload)) => workload,
        other => panic!("{uid}: {other:?}"),
    }
}

fn service<'a>(resources: &'a Resources, name: &str) -> &'a workload::Service {
    match resources.addresses.get(name).and_then(|address| address.r#type.as_ref()) {
        Some(workload::address::Type::Service(service)) => service,
        other => panic!("{name}: {other:?}"),
    }
}

fn notes(resources: &Resources) -> Vec<String> {
    resources.notes.list.iter().map(ToString::to_string).collect()
}
