//! The one thread that enters the network namespaces of pods.
//!
//! It opens, binds and marks sockets there and hands them over; workers never call `setns`.
//! After every request, failed or panicked ones included, the thread is back in the namespace
//! it started in. If it ever cannot go back the process aborts: every later socket would belong
//! to the wrong pod.

use std::io::{self, Write};
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::mpsc as sync_mpsc;
use std::thread::{self, JoinHandle};

use socket2::{Domain, Socket};
use tokio::sync::{mpsc, oneshot};

use super::netns::Netns;
use super::socket::{SocketPlan, new_tcp};

mod listen;

/// Name of the thread.
const THREAD: &str = "adit-opener";
/// Requests that wait for the thread; more callers wait for room.
const REQUESTS_MAX: usize = 64;
/// The most sockets one request is given, so that no pod holds up the others for long.
pub const SOCKETS_PER_REQUEST_MAX: usize = 64;

/// How sockets are made in a pod.
#[derive(Clone, Copy, Debug)]
pub struct OpenerConfig {
    /// `SO_MARK` on every socket.
    pub mark: Option<u32>,
    /// `SO_REUSEPORT` on listeners.
    pub port_reuse: bool,
    /// Listen on `[::]` instead of `0.0.0.0`.
    pub ipv6: bool,
    /// Backlog of listeners.
    pub backlog: u32,
    /// Whether listeners and dials keep the original source; `None` is "if it works".
    pub transparent: Option<bool>,
}

/// The three listening sockets of one pod.
#[derive(Debug)]
pub struct Listeners {
    /// 15001
    pub outbound: TcpListener,
    /// 15006
    pub plaintext: TcpListener,
    /// 15008
    pub hbone: TcpListener,
    /// Whether connections from here may keep their original source.
    pub transparent: bool,
}

/// The handle to the opener thread. The thread ends when the last handle is dropped.
///
/// A request whose future is dropped before its turn is skipped; sockets that nobody waits for
/// any more are closed.
#[derive(Clone, Debug)]
pub struct Opener {
    config: OpenerConfig,
    jobs: mpsc::Sender<Job>,
}

/// One request, its answer included.
type Job = Box<dyn FnOnce(&Home) + Send>;

impl Opener {
    /// Starts the thread and checks that it can do its work: come back to its own namespace, and
    /// mark sockets if asked to (spec node-and-pods 4).
    ///
    /// The namespace of the calling thread becomes the thread's own.
    pub fn start(config: OpenerConfig) -> io::Result<Self> {
        let (opener, _thread) = Self::spawn(config, Travel::Anywhere)?;
        Ok(opener)
    }

    /// Like [`Self::start`] for a proxy that serves its own namespace only (dedicated mode):
    /// needs no privilege to enter others, and refuses every request to do so.
    pub fn start_at_home(config: OpenerConfig) -> io::Result<Self> {
        let (opener, _thread) = Self::spawn(config, Travel::Never)?;
        Ok(opener)
    }

    /// Opens the listeners of a pod, all or none. `None` is the proxy's own namespace.
    ///
    /// Where `[::]` cannot be had because there is no IPv6, it is `0.0.0.0`. Errors name the
    /// address and what could not be done with it.
    pub async fn listen(&self, netns: Option<Netns>) -> io::Result<Listeners> {
        let config = self.config;
        self.ask(netns, move || listen::open(&config)).await
    }

    /// Opens `count` unconnected, non-blocking TCP sockets in a pod.
    ///
    /// Fewer, but at least one, if `count` is more than [`SOCKETS_PER_REQUEST_MAX`] or
    /// descriptors run out.
    pub async fn sockets(
        &self,
        netns: Option<Netns>,
        plan: SocketPlan,
        count: usize,
    ) -> io::Result<Vec<Socket>> {
        let mark = self.config.mark;
        self.ask(netns, move || open_sockets(plan, mark, count)).await
    }

    fn spawn(config: OpenerConfig, travel: Travel) -> io::Result<(Self, JoinHandle<()>)> {
        let (jobs, queue) = mpsc::channel(REQUESTS_MAX);
        let (report, ready) = sync_mpsc::channel();
        let thread =
            thread::Builder::new().name(THREAD.to_owned()).spawn(move || {
                match Home::find(travel).and_then(|home| check_mark(&config).map(|()| home)) {
                    Ok(home) => {
                        let _ = report.send(Ok(()));
                        serve(&home, queue);
                    }
                    Err(error) => {
                        let _ = report.send(Err(error));
                    }
                }
            })?;
        ready.recv().unwrap_or_else(|_| Err(gone()))?;
        Ok((Self { config, jobs }, thread))
    }

    /// Lets the thread do `work` in a namespace and waits for the answer.
    async fn ask<T: Send + 'static>(
        &self,
        netns: Option<Netns>,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        let job = move |home: &Home| {
            if reply.is_closed() {
                return;
            }
            // An answer that nobody takes is dropped, which closes its sockets.
            let _ = reply.send(home.visit(netns.as_ref(), work));
        };
        self.jobs.send(Box::new(job)).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// The namespace the thread belongs to.
struct Home {
    netns: Netns,
    travel: Travel,
}

/// Whether the thread may leave its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Travel {
    Anywhere,
    Never,
}

impl Home {
    /// Remembers the namespace of this thread and proves that it can be entered.
    fn find(travel: Travel) -> io::Result<Self> {
        let netns =
            Netns::current().map_err(|error| context("find our network namespace", error))?;
        if travel == Travel::Anywhere {
            netns.enter().map_err(|error| {
                context("enter network namespaces (needs CAP_SYS_ADMIN)", error)
            })?;
        }
        Ok(Self { netns, travel })
    }

    /// Does `work` in a namespace and comes back, whatever happens. A panic becomes an error.
    fn visit<T>(
        &self,
        netns: Option<&Netns>,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let done = catch_unwind(AssertUnwindSafe(|| {
            let _back = match netns {
                Some(netns) if netns.id() != self.netns.id() => Some(self.leave_for(netns)?),
                _ => None,
            };
            work()
        }));
        done.unwrap_or_else(|_| Err(io::Error::other("the opener panicked in this request")))
    }

    fn leave_for(&self, netns: &Netns) -> io::Result<ComeBack<'_>> {
        if self.travel == Travel::Never {
            let why = "this proxy serves its own network namespace only";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        // Made before leaving: a setns that fails half-way must be undone, too.
        let back = ComeBack { home: &self.netns };
        netns.enter().map_err(|error| context("enter the pod's network namespace", error))?;
        Ok(back)
    }
}

/// Brings the thread home when dropped.
struct ComeBack<'a> {
    home: &'a Netns,
}

impl Drop for ComeBack<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.home.enter() {
            let message = "adit: the opener cannot return to its network namespace";
            // Not through the log, whose thread would not get to write it.
            let _ = writeln!(io::stderr(), "{message}: {error}; aborting");
            process::abort();
        }
    }
}

fn serve(home: &Home, mut queue: mpsc::Receiver<Job>) {
    while let Some(job) = queue.blocking_recv() {
        job(home);
    }
}

fn check_mark(config: &OpenerConfig) -> io::Result<()> {
    let Some(mark) = config.mark else { return Ok(()) };
    let socket = new_tcp(Domain::IPV4, None)?;
    socket.set_mark(mark).map_err(|error| {
        context(&format!("mark sockets with {mark} (needs CAP_NET_ADMIN or CAP_NET_RAW)"), error)
    })
}

fn open_sockets(plan: SocketPlan, mark: Option<u32>, count: usize) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for _ in 0..count.min(SOCKETS_PER_REQUEST_MAX) {
        match plan.create(mark) {
            Ok(socket) => sockets.push(socket),
            Err(error) if sockets.is_empty() => return Err(context("open a socket", error)),
            Err(_) => break,
        }
    }
    Ok(sockets)
}

/// Says what could not be done, and keeps the kind of the error.
fn context(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

fn gone() -> io::Error {
    io::Error::other("the opener thread has ended")
}

#[cfg(test)]
mod tests;
