//! Who calls.

use std::net::SocketAddr;

use tonic::{Request, Status};

use crate::creds::devca::NodeTokens;

/// What a listener knows of a connection; it rides along with each request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) address: SocketAddr,
    /// Encrypted connections are asked for a token.
    pub(super) tls: bool,
}

/// Who calls, and for which node.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) address: SocketAddr,
    /// The node whose token it showed. On the plaintext port none is needed, and a mesh without
    /// secrets is all there is to read.
    pub(super) node: Option<String>,
}

/// The caller, if it may call at all.
pub(super) fn caller<T>(request: &Request<T>, tokens: &NodeTokens) -> Result<Caller, Status> {
    let connection = request.extensions().get::<Connection>();
    let connection = connection.ok_or_else(|| Status::internal("no connection"))?;
    let header = request.metadata().get("authorization");
    let token = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let node = token.and_then(|token| tokens.check(token)).map(str::to_owned);
    if node.is_none() && (connection.tls || header.is_some()) {
        let text = "authentication failure: a token that `adit control` wrote for a node is needed";
        return Err(Status::unauthenticated(text));
    }
    Ok(Caller { address: connection.address, node })
}
