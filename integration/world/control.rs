//! The control plane of this project beside the proxies of a world.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use adit::cli::lab::{Proxy, ProxyPlan, manifests};

use super::{Context, Outcome, PORT, PROGRAM, VIP, World};

/// Where it is asked over TLS.
const CONTROL_PORT: u16 = 15_012;
/// What its log is called.
pub(crate) const CONTROL: &str = "control";

impl World {
    /// The whole world, whose mesh and certificates come from `adit control`; `more` is YAML beside
    /// that of the pods. Nothing is started yet but the nodes, the pods and the agents.
    pub(crate) fn of_manifests(more: &str) -> Outcome<Self> {
        let world = Self::lay_out(&[], None)?;
        world.write_manifests(more)?;
        Ok(world)
    }

    /// Writes the YAML of the pods, of the service and of `more`, over what is there.
    pub(crate) fn write_manifests(&self, more: &str) -> Outcome {
        let (vip, port) = VIP;
        let service = format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: cart, namespace: shop}}\n\
             spec: {{clusterIP: {vip}, selector: {{app: cart}}, \
             ports: [{{port: {port}, targetPort: {PORT}}}]}}\n"
        );
        let yaml = format!("{}{service}{more}", manifests::pods(&self.lab));
        let (path, new) = (self.dir().join("manifests.yaml"), self.dir().join("manifests.new"));
        fs::write(&new, yaml).during("writing the manifests")?;
        fs::rename(new, path).during("replacing the manifests")
    }

    /// Starts it in the namespace of node `a`, for the pods of all nodes, with the development root
    /// of the world and one token per node.
    pub(crate) fn start_control(&mut self) -> Outcome {
        let netns = &self.lab.node("a").ok_or("no node")?.netns;
        let dir = self.dir();
        let manifests = dir.join("manifests.yaml");
        let from = (CONTROL, netns);
        let address = self.control_address()?;
        let plan = ProxyPlan::control(Path::new(PROGRAM), from, address, &manifests, dir);
        let control = Proxy::start(plan).during("starting the control plane")?;
        self.proxies.insert(CONTROL.to_owned(), control);
        Ok(())
    }

    /// Starts the proxy of a node, which asks it.
    pub(crate) fn start_asking(&mut self, node: &str) -> Outcome {
        self.start_asking_with(node, &[])
    }

    /// The same with more environment.
    pub(crate) fn start_asking_with(
        &mut self,
        node: &str,
        environment: &[(&str, &str)],
    ) -> Outcome {
        let netns = &self.lab.node(node).ok_or("no such node")?.netns;
        let (agent, address) = (self.agents[node].path(), self.control_address()?);
        let from = (node, netns);
        let mut plan =
            ProxyPlan::from_control(Path::new(PROGRAM), from, agent, address, self.dir());
        for (name, value) in environment {
            plan = plan.with(name, value);
        }
        let proxy = Proxy::start(plan).during("starting a proxy")?;
        self.proxies.insert(node.to_owned(), proxy);
        Ok(())
    }

    /// Where it is.
    pub(crate) fn control_address(&self) -> Outcome<SocketAddr> {
        let node = self.lab.node("a").ok_or("no node")?;
        Ok(SocketAddr::from((node.ipv4, CONTROL_PORT)))
    }
}
