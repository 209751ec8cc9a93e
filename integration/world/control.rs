//! The control plane of this project beside the proxies of a world.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use adit::cli::lab::{PodPlan, Proxy, ProxyPlan};

use super::{Context, Outcome, PROGRAM, World};

impl World {
    /// Starts `adit control` in the namespace of a node, for the pods of all nodes, with the
    /// development root of the world and one token per node.
    pub(crate) fn start_control(&mut self, node: &str) -> Outcome {
        let manifests = self.dir.path().join("pods.yaml");
        let mut yaml = String::new();
        for pod in self.lab.pods() {
            let PodPlan { node, name, namespace, service_account, .. } = &*pod.plan;
            let _ = write!(
                yaml,
                "---\napiVersion: v1\nkind: Pod\n\
                 metadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec: {{nodeName: {node}, serviceAccountName: {service_account}}}\n\
                 status: {{podIP: {}}}\n",
                pod.ipv4
            );
        }
        fs::write(&manifests, yaml).during("writing the pods")?;
        let netns = &self.lab.node(node).ok_or("no such node")?.netns;
        let dir = self.dir.path();
        let none = Path::new("");
        let mut plan = ProxyPlan::from_files(Path::new(PROGRAM), (node, netns), none, none, dir);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        plan.arguments = ["control", "--manifests", &text(manifests), "--ca-dir"]
            .map(str::to_owned)
            .into_iter()
            .chain([text(dir.join("ca"))])
            .collect();
        let name = format!("{node}-control");
        plan.log = dir.join(format!("{name}.log"));
        let control = Proxy::start(plan).during("starting the control plane")?;
        self.proxies.insert(name, control);
        Ok(())
    }
}
