//! The one thread that enters the network namespaces of pods.
//!
//! It opens, binds and marks sockets there and hands them over; workers never call `setns`.

use std::io;
use std::net::TcpListener;

use super::netns::Netns;
use super::socket::SocketPlan;

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
#[derive(Clone, Debug)]
pub struct Opener {}

impl Opener {
    /// Starts the thread and checks that it can do its work: come back to its own namespace, and
    /// mark sockets if asked to.
    pub fn start(config: OpenerConfig) -> io::Result<Self> {
        let _ = config;
        Ok(Self {})
    }

    /// Opens the listeners of a pod, all or none. `None` is the proxy's own namespace.
    pub async fn listen(&self, netns: Option<Netns>) -> io::Result<Listeners> {
        let _ = netns;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Opens `count` unconnected, non-blocking TCP sockets in a pod.
    pub async fn sockets(
        &self,
        netns: Option<Netns>,
        plan: SocketPlan,
        count: usize,
    ) -> io::Result<Vec<socket2::Socket>> {
        let _ = (netns, plan, count);
        Err(io::ErrorKind::Unsupported.into())
    }
}
