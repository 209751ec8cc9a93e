//! A real proxy process in a node's namespace.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sys::child::kill_with_parent;
use crate::sys::clock::Clock;
use crate::sys::netns::Netns;

/// Between two looks at something that a process is to do.
const GLANCE: Duration = Duration::from_millis(10);
/// For one answer over HTTP.
const ANSWER: Duration = Duration::from_secs(5);
/// An answer over HTTP is cut after this, bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Lines of a log that are shown when a proxy does not start.
const LINES_SHOWN: usize = 15;
/// Ports of its servers (spec operations 5).
const ADMIN_PORT: u16 = 15_000;
const STATS_PORT: u16 = 15_020;
const READINESS_PORT: u16 = 15_021;

/// How to start a proxy.
#[derive(Clone, Debug)]
pub struct ProxyPlan {
    /// The program, usually `adit` itself.
    pub program: PathBuf,
    /// The namespace to run in.
    pub netns: Netns,
    /// The verb and its arguments.
    pub arguments: Vec<String>,
    /// Its environment (spec operations 2); nothing else of ours is passed on.
    pub environment: Vec<(String, String)>,
    /// Where its output goes.
    pub log: PathBuf,
}

/// A running proxy. It is ended when this is dropped, and killed if this process dies.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    netns: Netns,
    log: PathBuf,
    clock: Clock,
    /// The thread that started it must outlive it: the kernel takes that thread's end for ours.
    keeper: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl ProxyPlan {
    /// A proxy that takes its pods from an agent, its configuration from a file and its
    /// certificates from a development root.
    pub fn from_files(
        program: &Path,
        (node, netns): (&str, &Netns),
        agent: &Path,
        config: &Path,
        dir: &Path,
    ) -> Self {
        Self::proxy(program, (node, netns), agent, dir)
            .with("LOCAL_XDS_PATH", &text(config))
            .with("XDS_ADDRESS", "")
            .with("FAKE_CA", "true")
            .with("DEV_CA_DIR", &text(&dir.join("ca")))
    }

    /// A proxy that takes its pods from an agent, and all else from the control plane at an
    /// address, as [`ProxyPlan::control`] runs one.
    pub fn from_control(
        program: &Path,
        (node, netns): (&str, &Netns),
        agent: &Path,
        control: SocketAddr,
        dir: &Path,
    ) -> Self {
        let ca = dir.join("ca");
        let (address, root) = (format!("https://{control}"), text(&ca.join("root-cert.pem")));
        Self::proxy(program, (node, netns), agent, dir)
            .with("XDS_ADDRESS", &address)
            .with("XDS_ROOT_CA", &root)
            .with("CA_ADDRESS", &address)
            .with("CA_ROOT_CA", &root)
            .with("AUTH_TOKEN", &text(&ca.join("tokens").join(node)))
    }

    /// `adit control` for the mesh that is written in `manifests`.
    pub fn control(
        program: &Path,
        (name, netns): (&str, &Netns),
        listen: SocketAddr,
        manifests: &Path,
        dir: &Path,
    ) -> Self {
        let (manifests, ca, listen) = (text(manifests), text(&dir.join("ca")), listen.to_string());
        let arguments =
            ["control", "--manifests", &manifests, "--ca-dir", &ca, "--listen", &listen];
        Self::new(program, (name, netns), &arguments, dir)
    }

    /// What both kinds of proxies are told.
    fn proxy(program: &Path, (node, netns): (&str, &Netns), agent: &Path, dir: &Path) -> Self {
        Self::new(program, (node, netns), &["proxy"], dir)
            .with("NODE_NAME", node)
            .with("CLUSTER_ID", "Kubernetes")
            .with("INPOD_UDS", &text(agent))
    }

    fn new(program: &Path, (name, netns): (&str, &Netns), arguments: &[&str], dir: &Path) -> Self {
        let (program, netns) = (program.to_owned(), netns.clone());
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let log = dir.join(format!("{name}.log"));
        Self { program, netns, arguments, environment: Vec::new(), log }.with("RUST_LOG", "info")
    }

    /// Sets one more variable, or another value.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Proxy {
    /// Starts a proxy; it need not be ready when this returns.
    pub fn start(plan: ProxyPlan) -> io::Result<Self> {
        let (done, started) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let (netns, log) = (plan.netns.clone(), plan.log.clone());
        let run = move || {
            let child = plan.netns.enter().and_then(|()| command(&plan)?.spawn());
            if done.send(child).is_ok() {
                // Ends when the other side is dropped.
                let _ = stopped.recv();
            }
        };
        let keeper = thread::Builder::new().name("proxy-keeper".into()).spawn(run)?;
        let child = started.recv().map_err(|_| io::Error::other("the keeper died"))??;
        let keeper = Some((stop, keeper));
        Ok(Self { child, netns, log, clock: Clock::system(), keeper })
    }

    /// Waits until it says that it is ready. The error has the end of its log.
    pub fn wait_ready(&mut self, patience: Duration) -> io::Result<()> {
        let begin = self.clock.monotonic();
        loop {
            let Err(why) = self.get(READINESS_PORT, "/healthz/ready") else { return Ok(()) };
            let ended = self.child.try_wait()?;
            let late = self.clock.monotonic().duration_since(begin) > patience;
            if ended.is_some() || late {
                let what = ended.map_or_else(
                    || format!("the proxy is not ready after {patience:?}: {why}"),
                    |status| format!("the proxy ended: {status}"),
                );
                return Err(io::Error::other(format!("{what}\n{}", self.log_tail())));
            }
            thread::sleep(GLANCE);
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its metrics in the text format of spec operations 7.
    pub fn metrics(&self) -> io::Result<String> {
        self.get(STATS_PORT, "/metrics")
    }

    /// Its configuration dump (spec operations 6).
    pub fn config_dump(&self) -> io::Result<serde_json::Value> {
        serde_json::from_str(&self.get(ADMIN_PORT, "/config_dump")?).map_err(io::Error::other)
    }

    /// The body of the answer to a GET, if its status is 200.
    pub fn get(&self, port: u16, path: &str) -> io::Result<String> {
        self.netns.run(|| request(port, "GET", path))
    }

    /// The body of the answer to a POST, if its status is 200.
    pub fn post(&self, port: u16, path: &str) -> io::Result<String> {
        self.netns.run(|| request(port, "POST", path))
    }

    /// Its output so far.
    pub fn log(&self) -> io::Result<String> {
        fs::read_to_string(&self.log)
    }

    /// Waits for a line of its output, after the first `skip` bytes of it.
    pub fn wait_log(
        &self,
        skip: usize,
        patience: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> io::Result<String> {
        let begin = self.clock.monotonic();
        loop {
            let log = self.log()?;
            let found = log.get(skip..).and_then(|log| log.lines().find(|line| wanted(line)));
            if let Some(line) = found {
                return Ok(line.to_owned());
            }
            if self.clock.monotonic().duration_since(begin) > patience {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no such line in its log"));
            }
            thread::sleep(GLANCE);
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        // It cannot be somebody else's number: a child keeps it until it is waited for.
        Ok(kill(Pid::from_raw(id), signal)?)
    }

    /// Waits for its end; `None` if it goes on.
    pub fn wait_end(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let begin = self.clock.monotonic();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if self.clock.monotonic().duration_since(begin) > patience {
                return Ok(None);
            }
            thread::sleep(GLANCE);
        }
    }

    /// Asks it to end (SIGTERM) and kills it if it has not after `patience`.
    ///
    /// Returns how it ended: with a signal number if it was killed.
    pub fn terminate(mut self, patience: Duration) -> io::Result<ExitStatus> {
        self.end(patience)
    }

    fn end(&mut self, patience: Duration) -> io::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        if let Some(status) = self.wait_end(patience)? {
            return Ok(status);
        }
        self.child.kill()?;
        self.child.wait()
    }

    fn log_tail(&self) -> String {
        let log = self.log().unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.end(Duration::ZERO);
        if let Some((stop, keeper)) = self.keeper.take() {
            drop(stop);
            let _ = keeper.join();
        }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn command(plan: &ProxyPlan) -> io::Result<Command> {
    let output: File = OpenOptions::new().create(true).append(true).open(&plan.log)?;
    let mut command = Command::new(&plan.program);
    command
        .args(&plan.arguments)
        .env_clear()
        .envs(plan.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // Ctrl-C in a terminal is for us; we end our children ourselves.
        .process_group(0);
    kill_with_parent(&mut command);
    Ok(command)
}

/// One request to a server on loopback of the calling thread's namespace.
fn request(port: u16, method: &str, path: &str) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    body(&answer)
}

fn body(answer: &[u8]) -> io::Result<String> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer");
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(invalid)?;
    let status = head.split(' ').nth(1).ok_or_else(invalid)?;
    let chunked = head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked");
    let body = if chunked { unchunk(body).ok_or_else(invalid)? } else { body.to_owned() };
    if status == "200" {
        return Ok(body);
    }
    Err(io::Error::other(format!("status {status}: {}", body.trim())))
}

fn unchunk(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::body;

    #[test]
    fn answers_are_read() {
        let check = |answer: &str, expected: Result<&str, &str>| {
            let got = body(answer.as_bytes()).map_err(|error| error.to_string());
            assert_eq!(got.as_deref().map_err(String::as_str), expected, "{answer:?}");
        };
        check("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nready\n", Ok("ready\n"));
        check(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n\
             0\r\n\r\n",
            Ok("abcd"),
        );
        check("HTTP/1.1 500 No\r\n\r\nnot ready\n", Err("status 500: not ready"));
        check("HTTP/1.1 200 OK\r\n", Err("not an HTTP answer"));
        check(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nabc",
            Err("not an HTTP answer"),
        );
    }
}
