//! A small control plane for one machine: Kubernetes YAML in, delta xDS and certificates out.
//!
//! In a cluster the control plane is istiod. This one is for demos, tests and laboratories, and
//! means by every label and object what istiod means by it, as far as a node proxy sees it.
//!
//! ```text
//!  *.yaml ─► manifest ─► convert ─► serve ─► delta xDS, certificates, status page
//! ```

mod convert;
mod manifest;
mod serve;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::creds::devca::DevCaError;

pub use serve::Control;

/// What a control plane is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A file, or a folder of `*.yaml`.
    pub manifests: PathBuf,
    /// Where proxies connect with TLS.
    pub listen: SocketAddr,
    /// Where they connect without, and where the status page is.
    pub plaintext: SocketAddr,
    /// The folder of the development root.
    pub ca_dir: PathBuf,
    /// The trust domain of the mesh.
    pub trust_domain: Arc<str>,
}

/// Why there is no control plane.
#[derive(Debug)]
pub enum ControlError {
    /// The manifests cannot be used: file, line, field and reason of each mistake.
    Manifests(String),
    /// The development root cannot be used.
    Authority(DevCaError),
    /// The tokens of nodes cannot be written.
    Tokens {
        /// Where they were to be.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// An address cannot be listened on.
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifests(problems) => write!(f, "the manifests cannot be used:\n{problems}"),
            Self::Authority(error) => error.fmt(f),
            Self::Tokens { path, reason } => {
                write!(f, "cannot write tokens to {}: {reason}", path.display())
            }
            Self::Listen { address, error } => write!(f, "cannot listen on {address}: {error}"),
        }
    }
}

impl std::error::Error for ControlError {}
