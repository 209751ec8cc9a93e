//! Why a server of the control plane could not be asked, for people.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tonic::Status;

use crate::config::ServerAddress;

/// How much of a server's message is shown, bytes.
const MESSAGE_BYTES_MAX: usize = 512;
/// How many causes of an error are shown.
const CAUSES_MAX: usize = 8;

/// Why a server of the control plane could not be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelError {
    /// There are no root certificates to verify it with.
    Root {
        /// Where they should be.
        from: String,
        /// What is wrong with them.
        reason: String,
    },
    /// There is no token to show.
    TokenUnreadable {
        /// Where it should be.
        from: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No certificate can have such a name.
    Name {
        /// The name.
        host: String,
    },
    /// The name could not be resolved.
    Unresolved {
        /// The name.
        host: String,
        /// Why not.
        reason: String,
    },
    /// No connection.
    Unreachable {
        /// To where.
        address: SocketAddr,
        /// Why not.
        reason: String,
    },
    /// It took too long.
    Slow {
        /// The server.
        address: String,
        /// What did.
        what: &'static str,
        /// How long it may take.
        limit: Duration,
    },
    /// Without TLS, and not on this machine.
    NotLoopback {
        /// The server.
        address: String,
    },
    /// The TLS handshake failed.
    Tls {
        /// The server.
        address: String,
        /// Why.
        reason: String,
    },
    /// The server does not speak HTTP/2.
    NotHttp2 {
        /// The server.
        address: String,
    },
    /// The connection broke.
    Broken {
        /// How.
        reason: String,
    },
}

impl ChannelError {
    pub(super) fn broken(error: &dyn Error) -> Self {
        Self::Broken { reason: with_causes(error) }
    }

    pub(super) fn unreachable(address: SocketAddr, error: &io::Error) -> Self {
        Self::Unreachable { address, reason: error.to_string() }
    }

    pub(super) fn slow(address: &ServerAddress, what: &'static str, limit: Duration) -> Self {
        Self::Slow { address: address.authority(), what, limit }
    }
}

/// What an answer other than the one that was hoped for means, for people.
pub fn explain_status(status: &Status) -> String {
    let mut cause = status.source();
    for _ in 0..CAUSES_MAX {
        let Some(error) = cause else { break };
        if let Some(error) = error.downcast_ref::<ChannelError>() {
            return error.to_string();
        }
        cause = error.source();
    }
    let message = match status.source() {
        Some(error) => with_causes(error),
        None => status.message().to_owned(),
    };
    let cut = message.floor_char_boundary(MESSAGE_BYTES_MAX);
    let more = if cut < message.len() { "…" } else { "" };
    format!("{:?}: {}{more}", status.code(), &message[..cut])
}

/// An error with its causes; libraries tell each only its own part.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    for _ in 0..CAUSES_MAX {
        let Some(error) = cause else { break };
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root { from, reason } => {
                write!(f, "no root certificate to verify the server with: {from}: {reason}")
            }
            Self::TokenUnreadable { from, reason } => {
                write!(f, "no token to show to the server: {from}: {reason}")
            }
            Self::Name { host } => write!(f, "{host:?} is a name that no certificate can have"),
            Self::Unresolved { host, reason } => {
                write!(f, "{host:?} cannot be resolved: {reason}")
            }
            Self::Unreachable { address, reason } => {
                write!(f, "no connection to {address}: {reason}")
            }
            Self::Slow { address, what, limit } => {
                write!(f, "{address}: {what} took more than {} s", limit.as_secs())
            }
            Self::NotLoopback { address } => {
                write!(f, "{address} is not on this machine, and would be asked without TLS")
            }
            Self::Tls { address, reason } => {
                write!(f, "the TLS handshake with {address} failed: {reason}")
            }
            Self::NotHttp2 { address } => write!(f, "{address} does not speak HTTP/2"),
            Self::Broken { reason } => write!(f, "the connection broke: {reason}"),
        }
    }
}

impl Error for ChannelError {}
