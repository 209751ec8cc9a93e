//! TLS on both sides of a tunnel: from a connection to a verified peer and keys.
//!
//! rustls does the handshake and nothing else: what follows is sealed and opened by the engine.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use rustls::CommonState;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::tunnel::Secured;
use crate::creds::{self, ClientTls, PeerError, Peers, Revocation, ServerTls, verified_peer};
use crate::hbone::handshake::{Handshake, HandshakeError};
use crate::model::VerifiedPeer;
use crate::report::{Direction, Failure, Reason, Report};

/// Bytes read at once. A flight with a chain of certificates takes two or three of these.
const READ: usize = 4 * 1024;

/// Why a handshake failed.
#[derive(Debug)]
pub(super) enum HelloError {
    /// The connection under it.
    Io(io::Error),
    /// What the peer said, or who it is.
    Handshake(HandshakeError),
}

/// Answers a handshake on 15008: who the peer is, or why it is refused.
pub(super) async fn accept<T>(
    io: T,
    ServerTls { config, peers }: ServerTls,
    report: &Report,
) -> Result<(Secured, VerifiedPeer), Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let fail = |error| failed(refused(&error), &error);
    let handshake = Handshake::server(config).map_err(|error| fail(error.into()))?;
    let done = run(handshake, io, |session| met(session, &peers)).await;
    let (mut secured, Met { h2, peer, revoked }) = done.map_err(fail)?;
    secured.revoked = revoked;
    if !h2 {
        return Err(Failure::new(Reason::NoAlpn, "the peer did not negotiate h2"));
    }
    let peer = peer.map_err(|error| Failure::new(Reason::PeerIdentity, error))?;
    if secured.keys.is_tls12() {
        report.tls12_tunnel(Direction::Inbound, Some(&peer));
    }
    Ok((secured, peer))
}

/// Opens a handshake to a hop, which has `limit` for it. The expected identities are part of the
/// configuration.
pub(super) async fn connect<T>(
    io: T,
    ClientTls { config, peers }: ClientTls,
    limit: Duration,
    report: &Report,
) -> Result<(Secured, Option<VerifiedPeer>), Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let fail = |error| failed(revocation(&error).unwrap_or(Reason::TunnelTls), &error);
    let handshake = Handshake::client(config, creds::unsent_server_name());
    let handshake = handshake.map_err(|error| fail(error.into()))?;
    let done = timeout(limit, run(handshake, io, |session| met(session, &peers))).await;
    let done = done.map_err(|_| Failure::new(Reason::TunnelTls, "timed out"))?;
    let (mut secured, Met { h2, peer, revoked }) = done.map_err(fail)?;
    secured.revoked = revoked;
    if !h2 {
        return Err(Failure::new(Reason::TunnelTls, "the far side did not negotiate h2"));
    }
    let peer = peer.ok();
    if secured.keys.is_tls12() {
        report.tls12_tunnel(Direction::Outbound, peer.as_ref());
    }
    Ok((secured, peer))
}

/// What a finished handshake has led to.
struct Met {
    h2: bool,
    peer: Result<VerifiedPeer, PeerError>,
    revoked: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

fn met(session: &CommonState, peers: &Peers) -> Met {
    let h2 = creds::negotiated_h2(session);
    let peer = verified_peer(session.peer_certificates());
    let revoked = peers.watch(session).map(|revoked| Box::pin(revoked) as Pin<Box<_>>);
    Met { h2, peer, revoked }
}

/// Brings a handshake to its end; `met` looks at who was met.
pub(super) async fn run<T, M>(
    mut handshake: Handshake,
    mut io: T,
    met: impl FnOnce(&CommonState) -> M,
) -> Result<(Secured, M), HelloError>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut said, mut heard) = (Vec::new(), vec![0; READ]);
    let mut count = 0;
    loop {
        let step = handshake.feed(&heard[..count], &mut said);
        if step == Ok(true) {
            break;
        }
        // Also if it failed: then it is an alert.
        let sent = say(&mut io, &mut said).await;
        step?;
        sent?;
        count = io.read(&mut heard).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    let met = met(handshake.session());
    let keys = handshake.finish()?;
    Ok((Secured { io: Box::new(io), keys, unsaid: said, id: None, revoked: None }, met))
}

async fn say(io: &mut (impl AsyncWrite + Unpin), said: &mut Vec<u8>) -> io::Result<()> {
    io.write_all(said).await?;
    said.clear();
    io.flush().await
}

/// Why we refused a client: for who it is, for what it speaks, or for how it speaks TLS.
fn refused(error: &HelloError) -> Reason {
    if let Some(reason) = revocation(error) {
        return reason;
    }
    match error {
        HelloError::Handshake(HandshakeError::Tls(error)) if creds::is_about_identity(error) => {
            Reason::PeerIdentity
        }
        HelloError::Handshake(HandshakeError::Tls(rustls::Error::NoApplicationProtocol)) => {
            Reason::NoAlpn
        }
        _ => Reason::TlsHandshake,
    }
}

/// The reason, if it is about whether the peer is revoked.
fn revocation(error: &HelloError) -> Option<Reason> {
    let HelloError::Handshake(HandshakeError::Tls(error)) = error else { return None };
    creds::is_about_revocation(error).map(|revocation| match revocation {
        Revocation::Revoked => Reason::PeerRevoked,
        Revocation::Unknown => Reason::RevocationUnknown,
    })
}

fn failed(reason: Reason, error: &HelloError) -> Failure {
    match error {
        HelloError::Handshake(HandshakeError::Tls(error)) => {
            Failure::new(reason, creds::explain(error))
        }
        HelloError::Handshake(error) => Failure::new(reason, error),
        HelloError::Io(error) => Failure::new(reason, error),
    }
}

impl From<HandshakeError> for HelloError {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

impl From<io::Error> for HelloError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
