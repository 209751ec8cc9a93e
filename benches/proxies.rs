//! The proxy processes of one side, what they cost, and how they are started.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::ops::Sub;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use adit::cli::lab::{Agent, Lab, Pod, Proxy, ProxyPlan};
use adit::sys::child::kill_with_parent;
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;
use serde_json::{Value, json};

use crate::PATIENCE;
use crate::pki::Material;
use crate::relay::{Plan, PlannedPod, READY};
use crate::world::{FAR, NEAR, Variant};

/// As many as the proxies of today have on a machine of two cores.
const RELAY_WORKERS: usize = 2;

/// Processes, killed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    ids: Vec<u32>,
    relays: Vec<Child>,
    // In this order: first the proxies end, then their agents, then their files go.
    adit: Vec<Proxy>,
    agents: Vec<Agent>,
    folder: Option<Folder>,
}

/// A folder that is removed when dropped.
#[derive(Debug)]
struct Folder(PathBuf);

/// CPU seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

/// Starts the proxies of two nodes with these pods. `same_node` is adit's `SAME_NODE`; without a
/// number of workers each has its default.
pub(crate) fn start(
    variant: Variant,
    lab: &Lab,
    (near, far): (&[Pod], &[Pod]),
    (same_node, workers): (&str, Option<usize>),
) -> io::Result<Proxies> {
    let mut proxies = Proxies::default();
    match variant {
        Variant::Adit => {
            proxies.start_adit(lab, [(NEAR, near), (FAR, far)], (same_node, workers))?;
        }
        Variant::Stock | Variant::Null => {
            let kind = variant.name();
            let tls = Material::generate().map_err(io::Error::other)?;
            let mesh: Vec<_> = near.iter().chain(far).map(|pod| pod.ipv4.into()).collect();
            for pods in [near, far] {
                let pods = pods.iter().map(planned).collect();
                let (mesh, tls) = (mesh.clone(), tls.clone());
                let workers = workers.unwrap_or(RELAY_WORKERS);
                let plan = Plan { pods, mesh, tls, workers };
                let relay = start_other(&["--relay", kind], &plan)?;
                proxies.ids.push(relay.id());
                proxies.relays.push(relay);
            }
        }
        Variant::None => {}
    }
    Ok(proxies)
}

fn planned(pod: &Pod) -> PlannedPod {
    PlannedPod { address: pod.ipv4.into(), netns: reachable(pod) }
}

/// A pod's namespace for a process that is not ours by descent: through our own descriptor.
pub(crate) fn reachable(pod: &Pod) -> PathBuf {
    let fd = pod.netns.fd().as_raw_fd();
    format!("/proc/{}/fd/{fd}", std::process::id()).into()
}

/// Starts this binary as something else, tells it a plan, and waits until it is ready.
pub(crate) fn start_other(arguments: &[&str], plan: &impl Serialize) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    kill_with_parent(&mut command);
    let mut child = command.spawn()?;
    if let Some(stdin) = child.stdin.take() {
        serde_json::to_writer(stdin, plan)?;
    }
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    if line.trim() == READY {
        return Ok(child);
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::other(format!("{} did not start", arguments.join(" "))))
}

/// What a proxy is told about a pod (spec operations 4).
fn workload(pod: &Pod) -> Value {
    let plan = &pod.plan;
    json!({
        "uid": format!("Kubernetes//Pod/{}/{}", plan.namespace, plan.name),
        "name": plan.name,
        "namespace": plan.namespace,
        "serviceAccount": plan.service_account,
        "trustDomain": "cluster.local",
        "workloadIps": [pod.ipv4],
        "protocol": "HBONE",
        "node": plan.node,
        "services": {},
    })
}

impl Proxies {
    /// Starts `adit proxy` on both nodes, with its defaults but for `SAME_NODE`.
    fn start_adit(
        &mut self,
        lab: &Lab,
        nodes: [(&str, &[Pod]); 2],
        (same_node, workers): (&str, Option<usize>),
    ) -> io::Result<()> {
        let folder = Folder::create()?;
        let config = folder.0.join("mesh.json");
        let pods = nodes.iter().flat_map(|(_, pods)| pods.iter());
        let workloads: Vec<Value> = pods.map(workload).collect();
        fs::write(&config, json!({"workloads": workloads}).to_string())?;
        for (name, pods) in nodes {
            let node = lab.node(name).ok_or(io::ErrorKind::NotFound)?;
            let agent = Agent::start(&folder.0.join(format!("{name}.sock")))?;
            pods.iter().for_each(|pod| agent.enroll(pod));
            let program = Path::new(env!("CARGO_BIN_EXE_adit"));
            let place = (name, &node.netns);
            let plan = ProxyPlan::from_files(program, place, agent.path(), &config, &folder.0);
            let plan = match workers {
                Some(count) => plan.with("ZTUNNEL_WORKER_THREADS", &count.to_string()),
                None => plan,
            };
            let mut proxy = Proxy::start(plan.with("SAME_NODE", same_node))?;
            proxy.wait_ready(PATIENCE)?;
            self.ids.push(proxy.id());
            self.adit.push(proxy);
            self.agents.push(agent);
        }
        self.folder = Some(folder);
        Ok(())
    }

    pub(crate) fn count(&self) -> usize {
        self.ids.len()
    }

    /// The threads that carry bytes: `workers` of each, whose names begin with this.
    pub(crate) fn worker_threads(&self, begin: &str, workers: usize) -> io::Result<Vec<u32>> {
        let mut threads = Vec::new();
        for id in &self.ids {
            for task in fs::read_dir(format!("/proc/{id}/task"))? {
                let task = task?;
                let name = fs::read_to_string(task.path().join("comm"))?;
                if name.starts_with(begin) {
                    threads.extend(task.file_name().to_str().and_then(|id| id.parse::<u32>().ok()));
                }
            }
        }
        if threads.len() == workers * self.count() {
            return Ok(threads);
        }
        Err(io::Error::other(format!("{} proxies have {} workers", self.count(), threads.len())))
    }

    /// What all of them have used since their start.
    pub(crate) fn cpu(&self) -> io::Result<Cpu> {
        let ticks = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
        let mut cpu = Cpu::default();
        for id in &self.ids {
            let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
            // The name may have spaces; after it, the state is the third field of proc(5).
            let fields = stat.rsplit(") ").next().unwrap_or_default();
            let mut times = fields.split(' ').skip(11).map(|field| field.parse::<f64>());
            let mut next = || times.next().and_then(Result::ok).unwrap_or_default() / ticks;
            cpu.user += next();
            cpu.system += next();
        }
        Ok(cpu)
    }

    /// Connections that adit took from the wire so far, with and without mutual TLS.
    pub(crate) fn taken(&self) -> io::Result<[f64; 2]> {
        let mut taken = [0.0, 0.0];
        self.inbound("istio_tcp_connections_opened_total", |line, count| {
            let plain = !line.contains("connection_security_policy=\"mutual_tls\"");
            taken[usize::from(plain)] += count;
        })?;
        Ok(taken)
    }

    /// Connections whose bytes went from socket to socket and that have ended.
    pub(crate) fn direct(&self) -> io::Result<f64> {
        let mut total = 0.0;
        self.inbound("adit_same_node_connections_total", |_, count| total += count)?;
        Ok(total)
    }

    /// What the receiving side of every adit has counted, line by line.
    fn inbound(&self, name: &str, mut each: impl FnMut(&str, f64)) -> io::Result<()> {
        for proxy in &self.adit {
            let metrics = proxy.metrics()?;
            let begins = format!("{name}{{");
            let counted = metrics.lines().filter(|line| {
                line.starts_with(&begins) && line.contains("reporter=\"destination\"")
            });
            for line in counted {
                let count = line.rsplit(' ').next().and_then(|count| count.parse().ok());
                each(line, count.ok_or(io::ErrorKind::InvalidData)?);
            }
        }
        Ok(())
    }

    /// Files that the one has open that has the most.
    pub(crate) fn open_files(&self) -> io::Result<usize> {
        let files = |id: &u32| Ok(fs::read_dir(format!("/proc/{id}/fd"))?.count());
        let files: Vec<usize> = self.ids.iter().map(files).collect::<io::Result<_>>()?;
        Ok(files.into_iter().max().unwrap_or(0))
    }

    /// Resident memory of all of them, KiB.
    pub(crate) fn resident_kib(&self) -> io::Result<f64> {
        let mut total = 0.0;
        for id in &self.ids {
            let status = fs::read_to_string(format!("/proc/{id}/status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
            total += kib.ok_or(io::ErrorKind::InvalidData)?;
        }
        Ok(total)
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        for child in &mut self.relays {
            // Nothing is left to do about a process that is not there any more.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Folder {
    fn create() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("adit-bench-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // In a folder for temporary files it may also stay.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}
