//! TLS on both sides of a tunnel: from a connection to a verified peer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::creds::{self, verified_peer};
use crate::model::VerifiedPeer;
use crate::report::{Failure, Reason};

/// Answers a handshake on 15008: who the peer is, or why it is refused.
pub(super) async fn accept(
    socket: TcpStream,
    config: Arc<ServerConfig>,
) -> Result<(server::TlsStream<TcpStream>, VerifiedPeer), Failure> {
    let stream = TlsAcceptor::from(config).accept(socket).await.map_err(|error| refused(&error))?;
    let (_, session) = stream.get_ref();
    if !creds::negotiated_h2(session) {
        return Err(Failure::new(Reason::NoAlpn, "the peer did not negotiate h2"));
    }
    let peer = verified_peer(session.peer_certificates())
        .map_err(|error| Failure::new(Reason::PeerIdentity, error))?;
    Ok((stream, peer))
}

/// Opens a handshake to a hop, which has `limit` for it. The expected identities are part of the
/// configuration.
pub(super) async fn connect<T>(
    transport: T,
    config: Arc<ClientConfig>,
    limit: Duration,
) -> Result<client::TlsStream<T>, Failure>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = TlsConnector::from(config).connect(creds::unsent_server_name(), transport);
    let stream = timeout(limit, handshake)
        .await
        .map_err(|_| Failure::new(Reason::TunnelTls, "timed out"))?
        .map_err(|error| failed(Reason::TunnelTls, &error))?;
    if !creds::negotiated_h2(stream.get_ref().1) {
        return Err(Failure::new(Reason::TunnelTls, "the far side did not negotiate h2"));
    }
    Ok(stream)
}

/// Why we refused a client: for who it is, for what it speaks, or for how it speaks TLS.
fn refused(error: &io::Error) -> Failure {
    let reason = match creds::tls_error(error) {
        Some(error) if creds::is_about_identity(error) => Reason::PeerIdentity,
        Some(rustls::Error::NoApplicationProtocol) => Reason::NoAlpn,
        _ => Reason::TlsHandshake,
    };
    failed(reason, error)
}

fn failed(reason: Reason, error: &io::Error) -> Failure {
    match creds::tls_error(error) {
        Some(inner) => Failure::new(reason, creds::explain(inner)),
        None => Failure::new(reason, error),
    }
}
