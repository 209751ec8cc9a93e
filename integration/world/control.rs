//! The control plane of this project beside the proxies of a world.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use adit::cli::lab::{Proxy, ProxyPlan, manifests};

use super::{Context, Mesh, Outcome, PATIENCE, PODS, PROGRAM, World, until};

/// Where it is asked over TLS, and where its status page is.
const CONTROL_PORT: u16 = 15_012;
const STATUS_PORT: u16 = 15_010;
/// What its log is called.
pub(crate) const CONTROL: &str = "control";

/// The namespaces, the pods that every world has, and the service.
const MESH: &str = include_str!("../../deploy/samples/two-nodes/mesh.yaml");
/// Policies for it.
pub(crate) const ALLOW_WEB: &str = include_str!("../../deploy/samples/two-nodes/allow-web.yaml");
pub(crate) const DENY_INTRUDER: &str =
    include_str!("../../deploy/samples/two-nodes/deny-intruder.yaml");
pub(crate) const DENY_EVERYBODY_DRY_RUN: &str =
    include_str!("../../deploy/samples/two-nodes/deny-everybody-dry-run.yaml");
pub(crate) const STRICT: &str = include_str!("../../deploy/samples/two-nodes/strict.yaml");

impl World {
    /// The whole world, whose mesh and certificates come from `adit control`; `more` is YAML beside
    /// that of the pods. Nothing is started yet but the nodes, the pods and the agents.
    pub(crate) fn of_manifests(more: &str) -> Outcome<Self> {
        let mut world = Self::lay_out(Mesh::Manifests(more.to_owned()))?;
        world.write()?;
        world.generation = 1;
        Ok(world)
    }

    /// Writes the YAML of the pods, of the service and of `more`, over what is there; nobody need
    /// have taken it when this returns.
    pub(crate) fn write_manifests(&mut self, more: &str) -> Outcome {
        self.mesh = Mesh::Manifests(more.to_owned());
        if self.write()? {
            self.generation += 1;
        }
        Ok(())
    }

    /// Writes it in a world of a file, whose control plane is asked for certificates alone.
    pub(crate) fn write_manifests_for_authority(&self) -> Outcome {
        let path = self.dir().join("manifests.yaml");
        fs::write(path, self.manifests("")).during("writing the manifests")
    }

    /// The whole YAML.
    pub(super) fn manifests(&self, more: &str) -> String {
        let mut yaml = MESH.to_owned();
        let known = |name: &str| PODS.iter().any(|(_, pod, ..)| *pod == name);
        let later = self.lab.pods().filter(|pod| !known(&pod.plan.name)).map(manifests::pod);
        for document in later.chain((!more.is_empty()).then(|| more.to_owned())) {
            yaml.push_str("---\n");
            yaml.push_str(&document);
        }
        yaml
    }

    /// Starts it in the namespace of node `a`, for the pods of all nodes, with the development root
    /// of the world and one token per node, and waits until it serves.
    pub(crate) fn start_control(&mut self) -> Outcome {
        let netns = &self.lab.node("a").ok_or("no node")?.netns;
        let dir = self.dir();
        let manifests = dir.join("manifests.yaml");
        let from = (CONTROL, netns);
        let address = self.control_address()?;
        let plan = ProxyPlan::control(Path::new(PROGRAM), from, address, &manifests, dir);
        let skip = fs::read(&plan.log).map_or(0, |log| log.len());
        let control = Proxy::start(plan).during("starting the control plane")?;
        let serves = |line: &str| line.starts_with("serving on");
        control.wait_log(skip, PATIENCE, serves).during("waiting for the control plane")?;
        // It counts from what it finds.
        self.generation = 1;
        self.proxies.insert(CONTROL.to_owned(), control);
        Ok(())
    }

    /// Waits until every proxy has acknowledged the mesh as it is.
    pub(super) fn wait_acknowledged(&self) -> Outcome {
        let proxies = self.proxies.len() - 1;
        let generation = self.generation;
        let status = || -> Outcome<serde_json::Value> {
            let status = self.proxies[CONTROL].get(STATUS_PORT, "/status.json");
            serde_json::from_str(&status.during("asking the control plane")?).during("its status")
        };
        until(&format!("{proxies} proxies acknowledge generation {generation}"), || {
            let status = status()?;
            let current = |kinds: &serde_json::Value| {
                let kinds = kinds.as_array().map_or(&[][..], |kinds| kinds);
                kinds.len() == 2 && kinds.iter().all(|kind| kind["acknowledged"] == generation)
            };
            let listed = status["proxies"].as_array().map_or(&[][..], |proxies| proxies);
            let there = listed.iter().filter(|proxy| current(&proxy["resources"])).count();
            Ok(status["generation"] == generation && there == listed.len() && there == proxies)
        })
        .map_err(|error| format!("{error}; it says {:?}", status()))
    }

    /// Where it is.
    pub(crate) fn control_address(&self) -> Outcome<SocketAddr> {
        let node = self.lab.node("a").ok_or("no node")?;
        Ok(SocketAddr::from((node.ipv4, CONTROL_PORT)))
    }
}
