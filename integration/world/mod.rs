//! Two nodes, their pods, an agent and the real proxy on each: what the tests of the whole stand
//! on.

pub(crate) mod control;
mod file;
pub(crate) mod frames;
pub(crate) mod gateway;
pub(crate) mod peer;
pub(crate) mod raw_agent;
mod refusal;
mod streams;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use adit::cli::lab::{Agent, Lab, Pod, PodPlan, Proxy, ProxyPlan, Redirection};
use raw_agent::RawAgent;
pub(crate) use streams::{
    End, accept_one, connect, echo, echo_and_end, listen, read_to_end, refused, reset, until,
};

/// The proxy under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_adit");
/// Far more than anything here takes: a test that would hang fails instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Where applications listen unless a test says otherwise.
pub(crate) const PORT: u16 = 8080;
/// The network of node `b`, if it has one of its own.
pub(crate) const BEYOND: &str = "beyond";
/// The service's address and port, which lead to the server's [`PORT`].
pub(crate) const VIP: (&str, u16) = ("10.250.0.1", 80);

/// What went wrong, for a person.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// Adds to an error what was being done.
pub(crate) trait Context<T> {
    fn during(self, what: &str) -> Outcome<T>;
}

impl<T, E: Display> Context<T> for Result<T, E> {
    fn during(self, what: &str) -> Outcome<T> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

/// Fails the test unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if $condition {
        } else {
            return Err(format!($($message)+));
        }
    };
}
pub(crate) use ensure;

/// Two nodes with a proxy each; `web` and `intruder` on the first, `cart` on the second, and
/// `legacy`, which is not in the mesh, on the first.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) agents: BTreeMap<String, Agent>,
    pub(crate) proxies: BTreeMap<String, Proxy>,
    mesh: Mesh,
    /// How many states of the mesh there were, and the text of the last.
    generation: u64,
    written: String,
    environment: Vec<(String, String)>,
    dir: TempDir,
}

/// Where the proxies learn what the mesh is.
enum Mesh {
    /// Kubernetes YAML, which `adit control` tells: that of the samples, the pods that came later
    /// and these documents.
    Manifests(String),
    /// A file, for what YAML of Kubernetes cannot say.
    File(file::File),
}

/// A folder that goes with the test.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> Outcome<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("adit-{}-{number}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).during("making a folder")?;
        // Through no symlink: the development CA takes none.
        Ok(Self(path.canonicalize().during("finding the folder")?))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Namespace and service account of the pods that every world has.
const PODS: [(&str, &str, &str, Redirection); 4] = [
    ("a", "web", "front", Redirection::Ambient),
    ("a", "intruder", "front", Redirection::Ambient),
    ("a", "legacy", "front", Redirection::Off),
    ("b", "cart", "shop", Redirection::Ambient),
];

impl World {
    /// The whole world, ready, without any policy.
    pub(crate) fn new() -> Outcome<Self> {
        Self::with_environment(&[])
    }

    /// The whole world, its proxies with more environment.
    pub(crate) fn with_environment(environment: &[(&str, &str)]) -> Outcome<Self> {
        let mut world = Self::of_manifests("")?;
        world.environment = environment.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect();
        world.start_control()?;
        for node in ["a", "b"] {
            world.start_proxy(node, node)?;
        }
        world.wait_ready()?;
        Ok(world)
    }

    /// Nodes, pods and agents.
    fn lay_out(mesh: Mesh) -> Outcome<Self> {
        let mut world = Self {
            lab: Lab::create(7, None).during("making the laboratory")?,
            agents: BTreeMap::new(),
            proxies: BTreeMap::new(),
            mesh,
            generation: 0,
            written: String::new(),
            environment: Vec::new(),
            dir: TempDir::new()?,
        };
        for node in ["a", "b"] {
            world.lab.add_node(node).during("making a node")?;
            let agent = Agent::start(&world.dir.path().join(format!("{node}.sock")));
            world.agents.insert(node.into(), agent.during("starting an agent")?);
        }
        for (node, name, namespace, redirection) in PODS {
            let pod = world.add_pod(node, name, namespace, redirection)?;
            if redirection == Redirection::Ambient {
                world.agents[node].enroll(&pod);
            }
        }
        Ok(world)
    }

    /// Makes a pod in the laboratory; the agent is not told.
    pub(crate) fn add_pod(
        &mut self,
        node: &str,
        name: &str,
        namespace: &str,
        redirection: Redirection,
    ) -> Outcome<Pod> {
        let plan = PodPlan {
            node: node.into(),
            name: name.into(),
            namespace: namespace.into(),
            service_account: name.into(),
            redirection,
        };
        self.lab.add_pod(plan).during("making a pod")
    }

    /// Starts one more proxy, called `name`, on a node.
    pub(crate) fn start_proxy(&mut self, node: &str, name: &str) -> Outcome {
        self.start_proxy_at((node, name), node, &[])
    }

    /// Starts one more proxy for a node, in the namespace of the node `place` and with more
    /// environment.
    pub(crate) fn start_proxy_at(
        &mut self,
        (node, name): (&str, &str),
        place: &str,
        environment: &[(&str, &str)],
    ) -> Outcome {
        let netns = &self.lab.node(place).ok_or("no such node")?.netns;
        let (agent, dir) = (self.agents[node].path().to_owned(), self.dir.path());
        let (program, from) = (Path::new(PROGRAM), (node, netns));
        let mut plan = match &self.mesh {
            Mesh::Manifests(_) => {
                ProxyPlan::from_control(program, from, &agent, self.control_address()?, dir)
            }
            Mesh::File(_) => {
                ProxyPlan::from_files(program, from, &agent, &dir.join("mesh.yaml"), dir)
            }
        };
        let own = self.environment.iter().map(|(name, value)| (&**name, &**value));
        for (variable, value) in own.chain(environment.iter().copied()) {
            plan = plan.with(variable, value);
        }
        plan.log = dir.join(format!("{name}.log"));
        let proxy = Proxy::start(plan).during("starting a proxy")?;
        self.proxies.insert(name.into(), proxy);
        Ok(())
    }

    /// Puts another agent, which knows nothing yet, in the place of a node's own.
    pub(crate) fn foreign_agent(&mut self, node: &str) -> Outcome<RawAgent> {
        let agent = self.agents.get_mut(node).ok_or("no such node")?;
        agent.stop();
        RawAgent::listen(agent.path())
    }

    /// Waits until every proxy is ready.
    pub(crate) fn wait_ready(&mut self) -> Outcome {
        let proxies = self.proxies.iter_mut().filter(|(name, _)| *name != control::CONTROL);
        for (_, proxy) in proxies {
            proxy.wait_ready(PATIENCE).during("waiting for a proxy")?;
        }
        Ok(())
    }

    pub(crate) fn pod(&self, name: &str) -> &Pod {
        self.lab.pod(name).unwrap_or_else(|| panic!("no pod {name}"))
    }

    /// The server's address of a family.
    pub(crate) fn server(&self, ipv6: bool) -> SocketAddr {
        let cart = self.pod("cart");
        let ip = if ipv6 { cart.ipv6.map(IpAddr::V6) } else { Some(IpAddr::V4(cart.ipv4)) };
        SocketAddr::new(ip.expect("the laboratory has this family"), PORT)
    }

    pub(crate) fn proxy(&self, name: &str) -> &Proxy {
        &self.proxies[name]
    }

    /// Replaces the policies, documents of Kubernetes, and waits until every proxy has them.
    pub(crate) fn set_policies(&mut self, policies: &str) -> Outcome {
        let Mesh::Manifests(more) = &mut self.mesh else {
            return Err("this world has a file".to_owned());
        };
        policies.clone_into(more);
        self.publish()
    }

    /// Writes the mesh as the world now is, and waits until every proxy has it.
    pub(crate) fn publish(&mut self) -> Outcome {
        if !self.write()? {
            return Ok(());
        }
        self.generation += 1;
        match &self.mesh {
            Mesh::Manifests(_) => self.wait_acknowledged(),
            Mesh::File(_) => self.wait_published(),
        }
    }

    /// Writes it in one step, as an editor or a ConfigMap does; whether it is another one.
    fn write(&mut self) -> Outcome<bool> {
        let (text, name) = match &self.mesh {
            Mesh::Manifests(more) => (self.manifests(more), "manifests.yaml"),
            Mesh::File(file) => (file.describe(self), "mesh.yaml"),
        };
        if text == self.written {
            return Ok(false);
        }
        let (path, new) = (self.dir.path().join(name), self.dir.path().join("new"));
        fs::write(&new, &text).during("writing the mesh")?;
        fs::rename(&new, &path).during("replacing the mesh")?;
        self.written = text;
        Ok(true)
    }

    /// Waits for a line of a proxy's log.
    pub(crate) fn wait_log(&self, proxy: &str, parts: &[&str]) -> Outcome<String> {
        self.proxy(proxy)
            .wait_log(0, PATIENCE, |line| parts.iter().all(|part| line.contains(part)))
            .map_err(|error| {
                let log = self.proxy(proxy).log().unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(12).collect();
                format!("no line with {parts:?} in the log of {proxy}: {error}; last: {tail:#?}")
            })
    }

    /// Waits until a metric is as wanted.
    pub(crate) fn wait_metric(
        &self,
        proxy: &str,
        begins: &str,
        wanted: impl Fn(f64) -> bool,
    ) -> Outcome {
        until(begins, || Ok(wanted(self.metric(proxy, begins)?)))
    }

    /// The value of a metric whose line begins with this text.
    pub(crate) fn metric(&self, proxy: &str, begins: &str) -> Outcome<f64> {
        let text = self.proxy(proxy).metrics().during("reading metrics")?;
        let line = text.lines().find(|line| line.starts_with(begins));
        let value = line.and_then(|line| line.rsplit(' ').next()).and_then(|v| v.parse().ok());
        value.ok_or_else(|| format!("no metric {begins}"))
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}
