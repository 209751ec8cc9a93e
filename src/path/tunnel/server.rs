//! The side of a tunnel that answers: CONNECTs arrive, each becomes a stream or a status.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use h2::server::{Builder, Connection, SendResponse};
use h2::{PingPong, RecvStream};
use http::{HeaderMap, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};

use super::chunk::Chunk;
use super::keepalive::{self, Metered};
use super::stream::{Stream, StreamError};
use super::{SEND_BUFFER_MAX, Settings};

/// Closed streams whose late frames are still recognised, and how many a peer may open and reset at
/// once before the connection is ended (promise A3).
const RESET_STREAMS_MAX: usize = 50;
const PENDING_RESETS_MAX: usize = 20;
const ERROR_RESETS_MAX: usize = 1_024;
/// The engine refuses a header list of this many times the limit by itself and tells nobody; what
/// is between is refused by us, so that it is counted.
const HEADER_LIST_SLACK: u32 = 2;
/// What RFC 9113 6.5.2 adds for each field.
const FIELD_OVERHEAD: usize = 32;

/// One tunnel that a peer opened. As server we never end it for being idle once it has carried a
/// stream, because peers do not retry.
pub(in crate::path) struct Server<T> {
    connection: Connection<Metered<T>, Chunk>,
    pings: Option<PingPong>,
    received: Rc<Cell<u64>>,
    settings: Settings,
}

/// One request that arrived.
pub(in crate::path) struct Incoming {
    /// Its head.
    pub(in crate::path) head: Request<()>,
    receiver: RecvStream,
    respond: SendResponse<Chunk>,
}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Server<T> {
    /// Starts HTTP/2 on a finished TLS connection and reads the peer's preface.
    pub(in crate::path) async fn start(io: T, settings: &Settings) -> Result<Self, StreamError> {
        let (io, received) = Metered::new(io);
        let mut connection = Builder::new()
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .max_frame_size(settings.frame_size)
            .max_header_list_size(settings.limits.server_header_list * HEADER_LIST_SLACK)
            .max_concurrent_streams(settings.limits.streams_per_tunnel)
            .max_concurrent_reset_streams(RESET_STREAMS_MAX)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
            .max_send_buffer_size(SEND_BUFFER_MAX)
            .handshake::<_, Chunk>(io)
            .await?;
        let pings = connection.ping_pong();
        Ok(Self { connection, pings, received, settings: *settings })
    }

    /// The next request; drives everything else on the tunnel meanwhile. `None` at the end.
    pub(in crate::path) async fn next(&mut self) -> Option<Result<Incoming, StreamError>> {
        let incoming = poll_fn(|cx| self.connection.poll_accept(cx)).await?;
        Some(incoming.map_err(StreamError::from).map(|(request, respond)| {
            let (head, receiver) = request.into_parts();
            Incoming { head: Request::from_parts(head, ()), receiver, respond }
        }))
    }

    /// What ends when the peer is found dead. To be run beside [`Server::next`].
    pub(in crate::path) fn watch(&mut self) -> impl Future<Output = ()> + use<T> {
        let (pings, received, limits) =
            (self.pings.take(), Rc::clone(&self.received), self.settings.limits);
        async move {
            match pings {
                Some(pings) => keepalive::watch(pings, received, limits).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Begins to close: GOAWAY without a last stream, a ping, then the final GOAWAY, so that no
    /// stream the peer opens meanwhile is lost.
    pub(in crate::path) fn close(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// Lets frames that are queued reach the wire before the tunnel is dropped; does not wait.
    pub(in crate::path) async fn flush(&mut self) {
        poll_fn(|cx| {
            let _ = self.connection.poll_closed(cx);
            Poll::Ready(())
        })
        .await;
    }
}

impl Incoming {
    /// The size of the header list, as RFC 9113 6.5.2 counts it, without pseudo-headers other than
    /// the target.
    pub(in crate::path) fn header_list(&self) -> usize {
        let target = self.head.uri().authority().map_or(0, |authority| authority.as_str().len());
        let fields = self.head.headers().iter();
        let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD);
        target + FIELD_OVERHEAD + fields.sum::<usize>()
    }

    /// Answers 200 and makes it a stream.
    pub(in crate::path) fn accept(mut self, headers: HeaderMap) -> Result<Stream, StreamError> {
        let mut response = Response::new(());
        *response.headers_mut() = headers;
        let sender = self.respond.send_response(response, false)?;
        Ok(Stream::new(sender, self.receiver, None))
    }

    /// Answers with an error status and nothing else.
    pub(in crate::path) fn refuse(mut self, status: StatusCode) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        // The peer may have gone already; then there is nobody to tell.
        let _ = self.respond.send_response(response, true);
    }

    /// Waits until the peer gives the request up.
    pub(in crate::path) async fn abandoned(&mut self) {
        let _ = poll_fn(|cx| self.respond.poll_reset(cx)).await;
    }
}
