//! Bytes from socket to socket, when the tunnel between the two only holds them together.
//!
//! The side that asks moves them. The side that answers waits, and each hears of the other's end
//! at once; the stream carries the same news behind it, as between nodes.

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::plain::{Broken, Socket, both_ways, reset_both};
use super::{Around, LINGER, broken_by};
use crate::path::same_node::{Offered, Taken};
use crate::path::tunnel::{Stream, StreamError};
use crate::report::{Failure, Reason};
use crate::sys::socket;

/// How the path came to an end.
enum End {
    /// Both applications finished.
    Clean,
    /// A socket broke.
    Broken(Broken),
    /// The far side wants no more.
    Withdrawn(Failure),
    /// The far side reset the stream, or the tunnel was lost.
    Far(StreamError),
    /// We ended it.
    Cut(Failure),
}

/// The side that asks: between its application's socket and the one that it was given.
pub(in crate::path) async fn same_node(
    mut application: TcpStream,
    mut stream: Stream,
    taken: Taken,
    around: &Around<'_>,
) -> Result<(), Failure> {
    let Taken { application: far, meter, ended, withdrawn } = taken;
    around.live.meter().same_node();
    meter.same_node();
    let mut far = match TcpStream::from_std(far) {
        Ok(far) => far,
        Err(error) => {
            stream.reset();
            let _ = socket::reset_on_close(&application);
            return Err(Failure::new(Reason::Dial, error));
        }
    };
    let sent_by = |count: usize| {
        around.sent_by_application(count);
        meter.request_bytes(count as u64);
    };
    let sent_to = |count: usize| {
        around.sent_to_application(count);
        meter.response_bytes(count as u64);
    };
    let end = tokio::select! {
        biased;
        failure = around.connection.cut() => End::Cut(failure),
        said = withdrawn => End::Withdrawn(said.unwrap_or_else(|_| left("the far side"))),
        error = stream.sender.reset_by_peer() => End::Far(error),
        end = both_ways(&mut application, &mut far, around.buffers, (sent_by, sent_to)) => {
            end.map_or_else(End::Broken, |()| End::Clean)
        }
    };
    let broke = matches!(end, End::Broken(_));
    let (ours, theirs) = match end {
        End::Clean => {
            // Nobody waits for it any more if the tunnel was lost together with the last byte.
            let _ = ended.send(Ok(()));
            let _ = timeout(LINGER, stream.end()).await;
            return Ok(());
        }
        End::Broken(Broken { socket: Socket::Application, error }) => {
            (Failure::new(Reason::ApplicationReset, error), left("the client"))
        }
        End::Broken(Broken { socket: Socket::Far, error }) => {
            (left("the server"), Failure::new(Reason::ApplicationReset, error))
        }
        End::Withdrawn(failure) => (failure.clone(), failure),
        End::Far(error) => {
            let failure = broken_by(error);
            (failure.clone(), failure)
        }
        End::Cut(failure) => (failure, left("the client's side")),
    };
    let _ = ended.send(Err(theirs));
    stream.reset();
    reset_both(&application, &far, broke).await;
    Err(ours)
}

/// The side that answers, while the side that asks moves the bytes.
pub(in crate::path) async fn offered(
    mut stream: Stream,
    mut offered: Offered,
    around: &Around<'_>,
) -> Result<(), Failure> {
    let result = tokio::select! {
        biased;
        failure = around.connection.cut() => {
            offered.withdraw(left("the server's side"));
            Err(failure)
        }
        ended = &mut offered.ended => ended.unwrap_or_else(|_| Err(left("the client's side"))),
        error = stream.sender.reset_by_peer() => {
            let failure = broken_by(error);
            offered.withdraw(failure.clone());
            Err(failure)
        }
    };
    match result {
        Ok(()) => {
            let _ = timeout(LINGER, stream.end()).await;
        }
        Err(_) => stream.reset(),
    }
    result
}

/// What one end reports when the other one, or its application, has ended the path.
fn left(who: &str) -> Failure {
    Failure::new(Reason::PeerReset, format!("{who} ended it on this node"))
}
