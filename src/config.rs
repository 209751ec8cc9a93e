//! Environment and files to one plain value (spec operations 2 and 3).
//!
//! Everything is read once, through functions that are passed in, and everything that is wrong is
//! reported at once.

mod authority;
mod dump;
mod env;
mod mesh_file;
mod mesh_source;
mod parts;
mod revocation;
mod upstream;
mod values;
mod workers;

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::model::PodName;
use crate::sys::process;
use env::Env;
use mesh_file::ProxyConfig;
use upstream::Known;

pub(crate) use env::shown;

pub use authority::{CertificateSource, DevelopmentCa};
pub use mesh_source::{MeshSource, XdsConfig, XdsNode, XdsSnapshot};
pub use revocation::{RevocationConfig, UnknownRevocation};
pub use upstream::{AddressError, ServerAddress, Token, TrustRoot, Upstream};

/// Everything the proxy was told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who and where we are.
    pub node: NodeConfig,
    /// One pod or all pods of a node.
    pub mode: Mode,
    /// Sockets, tunnels and pools.
    pub data_path: DataPathConfig,
    /// Certificates.
    pub identity: IdentityConfig,
    /// Where the mesh comes from; a configuration that was read names something.
    pub mesh_from: Option<MeshSource>,
    /// Number of worker threads; at least 1.
    pub workers: usize,
    /// What is logged and how.
    pub log: LogConfig,
    /// Addresses of the admin, stats and readiness servers.
    pub servers: ServersConfig,
    /// How long connections may go on after a request to stop.
    pub termination_deadline: Duration,
    /// Every bound of the data path.
    pub limits: Limits,
    /// Version of the mesh, as `ISTIO_META_ISTIO_VERSION` tells it.
    pub istio_version: Option<String>,
    /// What is not wrong but should be known.
    pub warnings: Vec<String>,
}

/// Who and where we are.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Own network id; empty is the default network.
    pub network: Arc<str>,
    /// Own node; `None` means that all workloads count as local.
    pub node_name: Option<Arc<str>>,
    /// Cluster id.
    pub cluster_id: Arc<str>,
    /// DNS domain of the cluster.
    pub cluster_domain: Arc<str>,
}

/// One pod or all pods of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All pods that the node agent hands over on this socket.
    Shared {
        /// The agent's socket.
        agent_socket: PathBuf,
    },
    /// The one pod whose network namespace we run in.
    Dedicated {
        /// That pod.
        pod: PodName,
    },
}

/// Sockets, tunnels and pools.
#[derive(Clone, Debug)]
pub struct DataPathConfig {
    /// HTTP/2 stream window, bytes.
    pub stream_window: u32,
    /// HTTP/2 connection window, bytes.
    pub connection_window: u32,
    /// Largest HTTP/2 frame, bytes.
    pub frame_size: u32,
    /// Streams we open on one tunnel before we open another.
    pub pool_streams_max: u16,
    /// How long an unused tunnel is kept.
    pub pool_unused_release: Duration,
    /// TCP keepalive, if on.
    pub keepalive: Option<Keepalive>,
    /// `TCP_USER_TIMEOUT`, if on.
    pub user_timeout: Option<Duration>,
    /// Mark on every socket in a pod.
    pub packet_mark: Option<u32>,
    /// Whether applications see the original source address.
    pub original_source: OriginalSource,
    /// `SO_REUSEPORT` on listeners.
    pub port_reuse: bool,
    /// Deliver PROXY application tunnels on loopback.
    pub localhost_app_tunnel: bool,
    /// How bytes go between two pods of this node.
    pub same_node: SameNode,
    /// Describe ourselves in the answer to CONNECT.
    pub response_baggage: bool,
    /// Listen on IPv6 too.
    pub ipv6: bool,
}

/// TCP keepalive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Probes before the connection is dead.
    pub retries: u32,
}

/// Whether applications see the original source address (spec hbone 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalSource {
    /// If the listener can be made transparent.
    Auto,
    /// Always; not being able to is fatal.
    Always,
    /// Never.
    Never,
}

/// How the bytes of a tunnel go whose both ends are in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameNode {
    /// Through the tunnel, encrypted, as between nodes.
    Tunnel,
    /// From socket to socket; the tunnel stands, and carries the CONNECT, its answer and the end.
    Direct,
}

/// What TLS offers and takes, toward peers and the control plane (spec identity 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsPolicy {
    /// TLS 1.3.
    #[default]
    Tls13,
    /// TLS 1.3, and TLS 1.2 with those that speak nothing newer.
    Tls12,
    /// TLS 1.3 with the post-quantum hybrid key exchange and no other.
    PostQuantum,
}

/// Certificates.
#[derive(Clone, Debug)]
pub struct IdentityConfig {
    /// Where they come from; a configuration that was read names something.
    pub certificates_from: Option<CertificateSource>,
    /// Lifetime of a certificate.
    pub certificate_ttl: Duration,
    /// What TLS offers and takes.
    pub tls: TlsPolicy,
    /// Revocation lists, if peers are to be looked up in any.
    pub revocation: Option<RevocationConfig>,
}

/// A configuration that does not come from a control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalSource {
    /// A file, read again when it changes.
    Path(PathBuf),
    /// The text itself.
    Inline(String),
}

/// What is logged and how.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Comma list of `level` and `target=level`.
    pub filter: String,
    /// Plain text or JSON.
    pub json: bool,
    /// Policy decisions at INFO instead of DEBUG.
    pub policy_decisions_at_info: bool,
}

/// Addresses of the servers for people and machines.
#[derive(Clone, Copy, Debug)]
pub struct ServersConfig {
    /// Admin, on loopback.
    pub admin_port: u16,
    /// Metrics, on all addresses.
    pub stats: SocketAddr,
    /// Readiness, on all addresses.
    pub readiness: SocketAddr,
}

/// Every bound of the data path, printed at start and under `limits` in the config dump.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// From accept on 15008 to the first whole CONNECT.
    pub first_connect_ms: u64,
    /// To open a TCP connection.
    pub dial_ms: u64,
    /// For the answer to our own CONNECT.
    pub connect_answer_ms: u64,
    /// For the local workload's record to arrive.
    pub workload_wait_ms: u64,
    /// For a policy that a workload names to arrive.
    pub policy_wait_ms: u64,
    /// For the control plane to say who a destination is, where it is asked one by one.
    pub lookup_wait_ms: u64,
    /// Streams a peer may have open on one tunnel.
    pub streams_per_tunnel: u32,
    /// Header list we accept as server, bytes.
    pub server_header_list: u32,
    /// Header list we accept as client, bytes.
    pub client_header_list: u32,
    /// Open connections of one pod.
    pub connections_per_pod: usize,
    /// Open connections of all pods.
    pub connections: usize,
    /// TLS handshakes in flight of one pod.
    pub handshakes_per_pod: usize,
    /// TLS handshakes in flight of all pods.
    pub handshakes: usize,
    /// What peers are granted to send on all streams together, beyond the first 64 KiB of each.
    pub granted_bytes: u64,
    /// Between HTTP/2 keepalive pings.
    pub ping_interval_ms: u64,
    /// For the answer to a ping.
    pub ping_timeout_ms: u64,
    /// Pause after an accept that failed for lack of resources.
    pub accept_backoff_ms: u64,
    /// Backlog of a listener.
    pub backlog: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            first_connect_ms: 10_000,
            dial_ms: 10_000,
            connect_answer_ms: 20_000,
            workload_wait_ms: 5_000,
            policy_wait_ms: 1_000,
            lookup_wait_ms: 5_000,
            streams_per_tunnel: 200,
            server_header_list: 64 * 1024,
            client_header_list: 16 * 1024,
            connections_per_pod: 10_000,
            connections: 60_000,
            handshakes_per_pod: 64,
            handshakes: 1_024,
            granted_bytes: 256 * 1024 * 1024,
            ping_interval_ms: 10_000,
            ping_timeout_ms: 20_000,
            accept_backoff_ms: 50,
            backlog: 1_024,
        }
    }
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The variable or file.
    pub name: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What the configuration is read from besides the environment's variables.
struct Surroundings<'a> {
    /// The text of a file; `NotFound` if there is none.
    file: &'a dyn Fn(&Path) -> io::Result<String>,
    /// Whether there is something at a path.
    exists: &'a dyn Fn(&Path) -> bool,
    /// CPUs this process may use.
    cpus: usize,
    /// We are the superuser.
    root: bool,
}

impl Config {
    /// Reads the configuration through `lookup`, reporting everything that is wrong at once.
    /// `names` lists the variables, for those of which only the beginning is known.
    ///
    /// Also reads the mesh file (spec operations 3), if there is one, and counts the CPUs.
    pub fn read(
        lookup: impl Fn(&str) -> Option<String>,
        names: impl Fn() -> Vec<String>,
    ) -> Result<Self, Vec<ConfigError>> {
        let surroundings = Surroundings {
            file: &|path| fs::read_to_string(path),
            exists: &|path| path.exists(),
            cpus: process::available_cpus(),
            root: nix::unistd::geteuid().is_root(),
        };
        Self::read_in(Env::new(&lookup, &names), &surroundings)
    }

    fn read_in(
        mut env: Env<'_>,
        surroundings: &Surroundings<'_>,
    ) -> Result<Self, Vec<ConfigError>> {
        let proxy = ProxyConfig::read(&mut env, surroundings.file);
        let mode = parts::mode(&mut env);
        let data_path = parts::data_path(&mut env, matches!(mode, Mode::Shared { .. }));
        let servers = parts::servers(&mut env, &proxy, data_path.ipv6);
        let node = parts::node(&mut env, &proxy);
        let known = Known { cluster_id: &node.cluster_id, exists: surroundings.exists };
        let source = authority::certificate_source(&mut env, surroundings.root, &known);
        let agent = match &mode {
            Mode::Shared { agent_socket } => Some(agent_socket.as_path()),
            Mode::Dedicated { .. } => None,
        };
        let mesh_from = mesh_source::mesh_source(&mut env, &proxy, &known, agent);
        let config = Self {
            node,
            identity: parts::identity(&mut env, source),
            mesh_from,
            workers: workers::count(&mut env, &proxy, surroundings.cpus),
            log: parts::log(&mut env),
            termination_deadline: parts::termination_deadline(&mut env),
            istio_version: parts::istio_version(&mut env, &proxy),
            limits: Limits::default(),
            warnings: Vec::new(),
            mode,
            data_path,
            servers,
        };
        parts::absent(&mut env, &proxy);
        let warnings = env.finish()?;
        Ok(Self { warnings, ..config })
    }
}

/// What `adit control` takes from the environment.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// What is logged.
    pub log: LogConfig,
    /// Where the development root is kept.
    pub ca_dir: PathBuf,
}

impl ControlConfig {
    /// Reads it through `lookup`; a `ca_dir` that was named elsewhere is not looked up.
    pub fn read(
        lookup: impl Fn(&str) -> Option<String>,
        ca_dir: Option<PathBuf>,
    ) -> Result<Self, Vec<ConfigError>> {
        let mut env = Env::new(&lookup, &Vec::new);
        let log = parts::log(&mut env);
        let root = nix::unistd::geteuid().is_root();
        let ca_dir = ca_dir.or_else(|| authority::development_ca_dir(&mut env, root));
        env.finish()?;
        Ok(Self { log, ca_dir: ca_dir.unwrap_or_default() })
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
