//! The demo's mesh: two nodes, six pods, what they are allowed, a proxy on each node, and a control
//! plane that tells them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::lab::{Agent, App, Lab, Pod, PodPlan, Proxy, ProxyPlan, Redirection, Service};

/// Second octet of all addresses: one that few networks use.
const LAB_NUMBER: u8 = 244;
/// The two nodes.
pub(super) const CLIENT_NODE: &str = "node-a";
pub(super) const SERVER_NODE: &str = "node-b";
/// The namespace of all pods of the mesh.
const NAMESPACE: &str = "shop";
const TRUST_DOMAIN: &str = "cluster.local";
/// Where applications ask for payments: not the address of any pod.
const SERVICE_ADDRESS: ([u8; 4], u16) = ([10, 96, 0, 10], 80);
/// The port that needs an identity, and the one that anybody may ask.
pub(super) const API_PORT: u16 = 8080;
pub(super) const HEALTH_PORT: u16 = 9090;
/// The port for bulk data.
const BULK_PORT: u16 = 7000;
/// The mesh at the beginning; its addresses are those that the laboratory gives out.
const SAMPLE: &str = include_str!("../../../deploy/samples/demo/mesh.yaml");
/// The policy's name there, and the clients that it names.
pub(super) const CLIENTS_POLICY: &str = "payments-clients";
const CLIENTS: [&str; 2] = ["frontend", "batch"];
/// Where the control plane runs, and its port.
pub(super) const CONTROL: &str = "control";
const CONTROL_PORT: u16 = 15_012;
/// For a proxy to be ready.
const READY: Duration = Duration::from_secs(20);
/// For a proxy to end by itself.
const GOODBYE: Duration = Duration::from_secs(2);

/// What is in force; edited live.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Plaintext to payments is refused.
    pub(super) strict: bool,
    /// Service accounts that may use the API.
    pub(super) clients: Vec<&'static str>,
}

/// Everything that runs. Dropping it ends it all.
#[derive(Debug)]
pub(super) struct Mesh {
    // In the order in which they should end: clients of something before it.
    pub(super) proxies: BTreeMap<String, Proxy>,
    pub(super) control: Proxy,
    _agents: Vec<Agent>,
    _apps: Vec<App>,
    pub(super) lab: Lab,
    config: PathBuf,
    dir: PrivateDir,
}

/// A folder of our own that goes when this does.
#[derive(Debug)]
pub(super) struct PrivateDir(pub(super) PathBuf);

impl Mesh {
    /// Builds it; `say` is told what is being done.
    pub(super) fn build(dir: PrivateDir, say: &dyn Fn(&str)) -> io::Result<Self> {
        let mut lab = Lab::create(LAB_NUMBER, None)?;
        let mut agents = Vec::new();
        for node in [CLIENT_NODE, SERVER_NODE] {
            say(&format!("making {node}: a network namespace on the wire"));
            lab.add_node(node)?;
            agents.push((node, Agent::start(&dir.0.join(format!("{node}.sock")))?));
        }
        for (node, name, redirection) in PODS {
            say(&format!("making pod {name}: a namespace, links, redirection rules"));
            let plan = PodPlan {
                node: (*node).into(),
                name: (*name).into(),
                namespace: NAMESPACE.into(),
                service_account: (*name).into(),
                redirection: *redirection,
            };
            let pod = lab.add_pod(plan)?;
            let agent = agents.iter().find(|(of, _)| of == node);
            if let (Some((_, agent)), Redirection::Ambient) = (agent, redirection) {
                agent.enroll(&pod);
            }
        }
        let apps = apps(&lab)?;
        let config = dir.0.join("mesh.yaml");
        replace(&config, &text(&Rules::at_start()))?;
        let program = std::env::current_exe()?;
        say("starting the control plane, on a node of its own");
        let place = lab.add_node(CONTROL)?;
        let address = SocketAddr::from((place.ipv4, CONTROL_PORT));
        let from = (CONTROL, &place.netns);
        let control = ProxyPlan::control(&program, from, address, &config, &dir.0);
        let control = Proxy::start(control)?;
        control.wait_log(0, READY, |line| line.starts_with("serving on"))?;
        let mut proxies = BTreeMap::new();
        for (node, agent) in &agents {
            say(&format!("starting the proxy of {node}"));
            let place = lab.node(node).ok_or(io::ErrorKind::NotFound)?;
            let from = (*node, &place.netns);
            let plan = ProxyPlan::from_control(&program, from, agent.path(), address, &dir.0)
                .with("IPV6_ENABLED", if lab.has_ipv6() { "true" } else { "false" });
            proxies.insert((*node).to_owned(), Proxy::start(plan)?);
        }
        for (node, proxy) in &mut proxies {
            say(&format!("waiting for the proxy of {node} to be ready"));
            proxy.wait_ready(READY)?;
        }
        let agents = agents.into_iter().map(|(_, agent)| agent).collect();
        Ok(Self { proxies, control, _agents: agents, _apps: apps, lab, config, dir })
    }

    /// Edits what is in force, as a person would: the file is replaced.
    pub(super) fn apply(&self, rules: &Rules) -> io::Result<()> {
        replace(&self.config, &text(rules))
    }

    /// A pod of this mesh.
    pub(super) fn pod(&self, name: &str) -> io::Result<&Pod> {
        self.lab.pod(name).ok_or_else(|| io::Error::other(format!("no pod {name}")))
    }

    /// The proxy of a node.
    pub(super) fn proxy(&self, node: &str) -> io::Result<&Proxy> {
        self.proxies.get(node).ok_or_else(|| io::Error::other(format!("no proxy on {node}")))
    }

    /// Where clients ask for payments.
    pub(super) fn service(&self) -> SocketAddr {
        SocketAddr::from(SERVICE_ADDRESS)
    }

    /// Where it really is.
    pub(super) fn health(&self) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(self.pod("payments")?.ipv4.into(), HEALTH_PORT))
    }

    /// Where a pod takes bulk data.
    pub(super) fn bulk(&self, pod: &str) -> io::Result<SocketAddr> {
        Ok(SocketAddr::new(self.pod(pod)?.ipv4.into(), BULK_PORT))
    }

    /// Whether an address is the control plane's.
    pub(super) fn is_control(&self, address: SocketAddr) -> bool {
        let place = self.lab.node(CONTROL);
        place.is_some_and(|node| address.ip() == IpAddr::V4(node.ipv4))
    }

    /// The folder with the configuration and the proxies' logs.
    pub(super) fn dir(&self) -> &Path {
        &self.dir.0
    }

    /// The configuration's file.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// Ends the proxies the way a cluster would, then everything else.
    pub(super) fn end(mut self) -> io::Result<()> {
        for (_, proxy) in std::mem::take(&mut self.proxies) {
            proxy.terminate(GOODBYE)?;
        }
        self.control.terminate(GOODBYE)?;
        Ok(())
    }
}

impl Rules {
    /// What the demo begins with.
    pub(super) fn at_start() -> Self {
        Self { strict: true, clients: CLIENTS.to_vec() }
    }
}

impl PrivateDir {
    /// Makes one that nobody else can look into.
    pub(super) fn create() -> io::Result<Self> {
        let name = format!("adit-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        // Nothing can be done about what cannot be removed.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Node, name, what is captured. The service account has the pod's name.
const PODS: &[(&str, &str, Redirection)] = &[
    (CLIENT_NODE, "frontend", Redirection::Ambient),
    (CLIENT_NODE, "batch", Redirection::Ambient),
    (CLIENT_NODE, "intruder", Redirection::Ambient),
    (CLIENT_NODE, "legacy", Redirection::Off),
    (SERVER_NODE, "payments", Redirection::Ambient),
    (SERVER_NODE, "plain", Redirection::Off),
];

/// The identity of a pod.
pub(super) fn identity(pod: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{pod}")
}

fn apps(lab: &Lab) -> io::Result<Vec<App>> {
    let mut apps = Vec::new();
    let plan = [
        ("payments", API_PORT, Service::Peer),
        ("payments", HEALTH_PORT, Service::Echo),
        ("payments", BULK_PORT, Service::Sink),
        ("plain", BULK_PORT, Service::Sink),
        ("plain", API_PORT, Service::Echo),
    ];
    for (pod, port, service) in plan {
        let pod = lab.pod(pod).ok_or(io::ErrorKind::NotFound)?;
        apps.push(App::start(pod, port, service)?);
    }
    Ok(apps)
}

/// The mesh with these rules: the sample, edited as a person would edit it.
fn text(rules: &Rules) -> String {
    let denied = |line: &&str| {
        CLIENTS.iter().any(|client| {
            let principal = format!("- {TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{client}");
            line.trim() == principal && !rules.clients.contains(client)
        })
    };
    let lines: Vec<&str> = SAMPLE.lines().filter(|line| !denied(line)).collect();
    let text = lines.join("\n") + "\n";
    if rules.strict { text } else { text.replace("mode: STRICT", "mode: PERMISSIVE") }
}

/// Replaces a file at once, so that nobody reads half of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}
