//! A mesh that a file tells, for what YAML of Kubernetes cannot say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use adit::cli::lab::{Pod, PodPlan, Redirection};

use super::{BEYOND, Context, Mesh, Outcome, PATIENCE, PORT, VIP, World, gateway};

/// What is in the file beside the pods.
#[derive(Default)]
pub(super) struct File {
    /// YAML list items.
    policies: String,
    /// Which of them a workload names.
    listed: BTreeMap<String, Vec<String>>,
    /// If node `b` is a network of its own: who may answer there, as the service says.
    beyond: Option<Vec<String>>,
}

impl World {
    /// The whole world, ready, with a file and certificates of a development root.
    pub(crate) fn of_file() -> Outcome<Self> {
        Self::with_file(File::default())
    }

    /// The same as two networks, [`BEYOND`] being that of node `b`, with `legacy` as the gateway
    /// to it; `names` may answer there.
    pub(crate) fn apart(names: &[&str]) -> Outcome<Self> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Self::with_file(File { beyond: Some(names), ..File::default() })
    }

    fn with_file(file: File) -> Outcome<Self> {
        let network = if file.beyond.is_some() { BEYOND } else { "" };
        let mut world = Self::lay_out(Mesh::File(file))?;
        world.write()?;
        world.generation = 1;
        world.start_proxy("a", "a")?;
        world.start_proxy_at(("b", "b"), "b", &[("NETWORK", network)])?;
        world.wait_ready()?;
        Ok(world)
    }

    /// Replaces the policies (YAML list items), and which of them workloads name, and waits until
    /// every proxy has them.
    pub(crate) fn set_file(&mut self, policies: &str, listed: &[(&str, &[&str])]) -> Outcome {
        let Mesh::File(file) = &mut self.mesh else {
            return Err("this world has manifests".to_owned());
        };
        policies.clone_into(&mut file.policies);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        file.listed = listed.iter().map(|(pod, list)| ((*pod).to_owned(), names(list))).collect();
        self.publish()
    }

    /// Writes the configuration file as it is, good or bad, over what is there.
    pub(crate) fn overwrite_config(&mut self, text: &[u8]) -> Outcome {
        self.written.clear();
        fs::write(self.dir().join("mesh.yaml"), text).during("overwriting the configuration")
    }

    /// The configuration as it was written last.
    pub(crate) fn config_text(&self) -> &str {
        &self.written
    }

    /// Waits until every proxy has published the file.
    pub(super) fn wait_published(&self) -> Outcome {
        let mark = format!("generation={} ", self.generation);
        for (name, proxy) in &self.proxies {
            proxy
                .wait_log(0, PATIENCE, |line| {
                    line.contains("configuration published") && line.contains(&mark)
                })
                .during(&format!("waiting for {name} to publish {mark}"))?;
        }
        Ok(())
    }
}

impl File {
    /// The whole text.
    pub(super) fn describe(&self, world: &World) -> String {
        let mut text = "workloads:\n".to_owned();
        for pod in world.lab.pods() {
            self.workload(world, pod, &mut text);
        }
        let (vip, port) = VIP;
        let names = self.beyond.iter().flatten();
        let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
        let _ = write!(
            text,
            "services:\n- {{name: cart, namespace: shop, hostname: cart.shop.svc.cluster.local, \
             vips: [\"/{vip}\", \"{BEYOND}/{vip}\"], ports: {{{port}: {PORT}}}, \
             subjectAltNames: [{}]}}\npolicies:\n{}",
            names.join(", "),
            if self.policies.is_empty() { "  []\n" } else { &self.policies }
        );
        text
    }

    fn workload(&self, world: &World, pod: &Pod, text: &mut String) {
        let PodPlan { node, name, namespace, service_account, redirection } = &*pod.plan;
        let protocol = if *redirection == Redirection::Off { "TCP" } else { "HBONE" };
        let ips: Vec<String> = pod.addresses().iter().map(|ip| format!("\"{ip}\"")).collect();
        let services = match name.as_str() {
            "cart" => format!("{{\"shop/cart.shop.svc.cluster.local\": {{{}: {PORT}}}}}", VIP.1),
            _ => "{}".to_owned(),
        };
        let listed = self.listed.get(name).cloned().unwrap_or_default().join(", ");
        let network = match (&self.beyond, node.as_str()) {
            (Some(_), "b") => format!(
                "network: {BEYOND}, networkGateway: {{destination: \"/{}\", \
                 hboneMtlsPort: {}}}, ",
                world.pod("legacy").ipv4,
                gateway::HBONE
            ),
            _ => String::new(),
        };
        let _ = writeln!(
            text,
            "- {{uid: \"c//Pod/{namespace}/{name}\", name: {name}, namespace: {namespace}, \
             serviceAccount: {service_account}, trustDomain: cluster.local, node: {node}, {network}\
             workloadIps: [{}], protocol: {protocol}, authorizationPolicies: [{listed}], \
             services: {services}}}",
            ips.join(", "),
        );
    }
}
