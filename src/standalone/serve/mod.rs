//! The server: one state of the mesh, many streams.

mod access;
mod authority;
mod catalogue;
mod discovery;
mod listen;
mod proxies;
mod reload;
mod session;
mod status;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{ControlError, Settings};
use crate::creds::devca::{CERTIFICATE_FILE, ControlServer, DevCa};
use crate::sys::clock::Clock;
use authority::Authority;
use catalogue::Catalogue;
use discovery::Discovery;
use listen::Services;
use proxies::Proxies;
use reload::Reload;
use status::Status;

/// Names by which proxies know the control plane.
const NAMES: &[&str] = &[
    "localhost",
    "istiod.istio-system",
    "istiod.istio-system.svc",
    "istiod.istio-system.svc.cluster.local",
];
/// Connections that wait to be accepted: after a restart all nodes come at once.
const BACKLOG: i32 = 1024;
/// Where the tokens are, in the folder of the development root.
const TOKENS: &str = "tokens";

/// A control plane that listens, and serves when it is run.
#[derive(Debug)]
pub struct Control {
    /// Where proxies connect with TLS.
    pub address: SocketAddr,
    /// Where the status page is.
    pub plaintext: SocketAddr,
    /// The root certificate that proxies verify the server with.
    pub root: PathBuf,
    /// The token of each node that has pods.
    pub tokens: Vec<(String, PathBuf)>,
    /// What is not served, one line each.
    pub not_served: Vec<String>,
    listeners: (TcpListener, TcpListener),
    server: Arc<ControlServer>,
    ca: Arc<DevCa>,
    ca_dir: PathBuf,
    reload: Reload,
}

impl Control {
    /// Reads the manifests, opens the development root and listens.
    pub async fn start(settings: Settings, clock: Clock) -> Result<Self, ControlError> {
        let Settings { manifests, listen, plaintext, ca_dir, trust_domain } = settings;
        let reload = reload::first(manifests, trust_domain)
            .map_err(|error| ControlError::Manifests(error.to_string()))?;
        let ca = DevCa::open(&ca_dir, clock.clone()).map_err(ControlError::Authority)?;
        let ca = Arc::new(ca);
        let listener = bind(listen).await?;
        let plaintext_listener = bind(plaintext).await?;
        let address = local(&listener, listen)?;
        let mut ips: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        if !address.ip().is_unspecified() && !ips.contains(&address.ip()) {
            ips.push(address.ip());
        }
        let names = NAMES.iter().map(ToString::to_string).collect();
        let server = Arc::new(ControlServer::new(Arc::clone(&ca), names, ips, clock));
        let nodes = reload.catalogue().borrow().nodes();
        let tokens = write_tokens(&ca_dir, &ca, &nodes).map_err(|error| ControlError::Tokens {
            path: ca_dir.join(TOKENS),
            reason: error.to_string(),
        })?;
        let not_served = reload.loaded().borrow().notes.clone();
        Ok(Self {
            address,
            plaintext: local(&plaintext_listener, plaintext)?,
            root: ca_dir.join(CERTIFICATE_FILE),
            tokens,
            not_served,
            listeners: (listener, plaintext_listener),
            server,
            ca,
            ca_dir,
            reload,
        })
    }

    /// Serves until the future is dropped.
    pub async fn run(self) {
        let proxies = Proxies::default();
        let (ca, catalogue) = (&self.ca, self.reload.catalogue());
        let discovery = Discovery {
            ca: Arc::clone(ca),
            catalogue: catalogue.clone(),
            proxies: proxies.clone(),
        };
        let authority = Authority { ca: Arc::clone(ca), catalogue: catalogue.clone() };
        let status = Status { catalogue, loaded: self.reload.loaded(), proxies };
        let known = self.tokens.into_iter().map(|(node, _)| node).collect();
        let nodes = follow_nodes(self.reload.catalogue(), self.ca_dir, Arc::clone(ca), known);
        let services = Services::new(discovery, authority, status);
        let (tls, plaintext) = self.listeners;
        let mut tasks = JoinSet::new();
        tasks.spawn(listen::accept(tls, Some(self.server), services.clone()));
        tasks.spawn(listen::accept(plaintext, None, services));
        tasks.spawn(nodes);
        tasks.spawn(self.reload.run());
        // None of them ends by itself.
        while tasks.join_next().await.is_some() {}
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ControlError> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.and_then(|listener| {
        SockRef::from(&listener).listen(BACKLOG)?;
        Ok(listener)
    });
    listener.map_err(|error| ControlError::Listen { address, error })
}

fn local(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, ControlError> {
    listener.local_addr().map_err(|error| ControlError::Listen { address, error })
}

/// Writes tokens for nodes that appear later. Those that are `known` are left alone: a proxy may be
/// reading its own at this moment.
async fn follow_nodes(
    mut catalogue: watch::Receiver<Arc<Catalogue>>,
    ca_dir: PathBuf,
    ca: Arc<DevCa>,
    mut known: BTreeSet<String>,
) {
    while catalogue.changed().await.is_ok() {
        let mut nodes = catalogue.borrow_and_update().nodes();
        nodes.retain(|node| !known.contains(node));
        match write_tokens(&ca_dir, &ca, &nodes) {
            Ok(written) => known.extend(written.into_iter().map(|(node, _)| node)),
            Err(error) => tracing::error!(%error, "cannot write the tokens of nodes"),
        }
    }
}

/// Writes a token for each node, readable by this user alone.
fn write_tokens(ca_dir: &Path, ca: &DevCa, nodes: &[String]) -> io::Result<Vec<(String, PathBuf)>> {
    let dir = ca_dir.join(TOKENS);
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?,
    }
    let mut written = Vec::new();
    for node in nodes {
        let Some(token) = ca.tokens().issue(node) else {
            tracing::warn!(node, "no token: this is no name of a node");
            continue;
        };
        let path = dir.join(node);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        // The folder is ours alone; a link in it was made by us, and is not followed all the same.
        let mut file = options.custom_flags(libc::O_NOFOLLOW).open(&path)?;
        io::Write::write_all(&mut file, token.as_bytes())?;
        written.push((node.clone(), path));
    }
    Ok(written)
}

#[cfg(test)]
mod tests;
