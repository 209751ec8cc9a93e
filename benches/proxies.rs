//! The proxy processes of one side, what they cost, and how they are started.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::ops::Sub;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};

use adit::cli::lab::{Lab, Pod};
use nix::unistd::{SysconfVar, sysconf};

use crate::relay::{Plan, PlannedPod, READY};
use crate::stock::Material;
use crate::world::Variant;

/// Processes, killed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    children: Vec<Child>,
}

/// CPU seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

/// Starts the proxies of two nodes with these pods.
pub(crate) fn start(variant: Variant, lab: &Lab, near: &[Pod], far: &[Pod]) -> io::Result<Proxies> {
    let mut proxies = Proxies::default();
    match variant {
        Variant::Adit => {
            let _ = lab;
            return Err(io::ErrorKind::Unsupported.into());
        }
        Variant::Stock | Variant::Null => {
            let kind = variant.name();
            let tls = Material::generate().map_err(io::Error::other)?;
            let mesh: Vec<_> = near.iter().chain(far).map(|pod| pod.ipv4.into()).collect();
            for pods in [near, far] {
                let pods = pods.iter().map(planned).collect();
                let plan = Plan { pods, mesh: mesh.clone(), tls: tls.clone() };
                proxies.children.push(relay(kind, &plan)?);
            }
        }
        Variant::None => {}
    }
    Ok(proxies)
}

/// A pod for a process that is not ours by descent: through our own descriptor.
fn planned(pod: &Pod) -> PlannedPod {
    let fd = pod.netns.fd().as_raw_fd();
    let netns = format!("/proc/{}/fd/{fd}", std::process::id()).into();
    PlannedPod { address: pod.ipv4.into(), netns }
}

/// Starts this binary as a relay, and waits until it listens.
fn relay(kind: &str, plan: &Plan) -> io::Result<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--relay", kind])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
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
    Err(io::Error::other(format!("the {kind} relay did not start")))
}

impl Proxies {
    pub(crate) fn count(&self) -> usize {
        self.children.len()
    }

    /// What all of them have used since their start.
    pub(crate) fn cpu(&self) -> io::Result<Cpu> {
        let ticks = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
        let mut cpu = Cpu::default();
        for child in &self.children {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
            // The name may have spaces; after it, the state is the third field of proc(5).
            let fields = stat.rsplit(") ").next().unwrap_or_default();
            let mut times = fields.split(' ').skip(11).map(|field| field.parse::<f64>());
            let mut next = || times.next().and_then(Result::ok).unwrap_or_default() / ticks;
            cpu.user += next();
            cpu.system += next();
        }
        Ok(cpu)
    }

    /// Resident memory of all of them, KiB.
    pub(crate) fn resident_kib(&self) -> io::Result<f64> {
        let mut total = 0.0;
        for child in &self.children {
            let status = fs::read_to_string(format!("/proc/{}/status", child.id()))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
            total += kib.ok_or(io::ErrorKind::InvalidData)?;
        }
        Ok(total)
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Nothing is left to do about a process that is not there any more.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}
