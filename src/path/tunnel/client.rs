//! The side of a tunnel that asks: one HTTP/2 connection, many CONNECTs.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use h2::client::{Builder, Connection, SendRequest};
use http::{HeaderMap, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{interval, timeout};

use super::chunk::Chunk;
use super::keepalive::{self, Metered};
use super::stream::{Stream, StreamError};
use super::{SEND_BUFFER_MAX, Settings};
use crate::sys::clock::Clock;

/// How often an unused tunnel looks whether it is time to go.
const RETIRE_CHECK: Duration = Duration::from_secs(1);

/// One tunnel we opened.
#[derive(Debug)]
pub(super) struct Tunnel {
    requests: RefCell<Option<SendRequest<Chunk>>>,
    streams: Cell<usize>,
    streams_max: usize,
    unused_since: Cell<Option<Instant>>,
    clock: Clock,
}

/// One stream's place in its tunnel.
#[derive(Debug)]
pub(super) struct StreamSlot {
    tunnel: Rc<Tunnel>,
}

/// The answer to a CONNECT.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) stream: Stream,
}

/// Why a CONNECT did not become a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConnectError {
    /// The peer provably did not process it: it may be sent again through another tunnel.
    NotProcessed(String),
    /// The peer answered with something else than 200.
    Refused(StatusCode),
    /// The exchange broke.
    Broken(StreamError),
    /// No answer came in time.
    Timeout,
}

/// Starts HTTP/2 on a finished TLS connection. The second value drives it and must be run.
pub(super) async fn start<T>(
    io: T,
    settings: &Settings,
    (streams_max, unused_release): (usize, Duration),
    clock: Clock,
) -> Result<(Rc<Tunnel>, impl Future<Output = ()> + use<T>), h2::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (io, received) = Metered::new(io);
    let limits = settings.limits;
    let (requests, mut connection) = Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_frame_size(settings.frame_size)
        .max_header_list_size(limits.client_header_list)
        .max_send_buffer_size(SEND_BUFFER_MAX)
        .initial_max_send_streams(streams_max)
        .enable_push(false)
        .handshake::<_, Chunk>(io)
        .await?;
    let pings = connection.ping_pong();
    let tunnel = Rc::new(Tunnel {
        requests: RefCell::new(Some(requests)),
        streams: Cell::new(0),
        streams_max,
        unused_since: Cell::new(Some(clock.monotonic())),
        clock,
    });
    let driven = Rc::clone(&tunnel);
    let driver = async move {
        let retire = retire_when_unused(Rc::clone(&driven), unused_release);
        let lost = async {
            match pings {
                Some(pings) => keepalive::watch(pings, received, limits).await,
                None => std::future::pending().await,
            }
        };
        drive(connection, retire, lost).await;
        driven.close();
    };
    Ok((tunnel, driver))
}

/// Runs until the connection ends by itself or its peer is found dead. Retiring only takes away our
/// handle; the engine then says GOAWAY and closes when the last stream is done.
async fn drive<T>(
    connection: Connection<T, Chunk>,
    retire: impl Future<Output = ()>,
    lost: impl Future<Output = ()>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let connection = async {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "tunnel ended");
        }
    };
    let retire = async {
        retire.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = connection => {}
        () = lost => tracing::warn!("tunnel lost: no byte and no answer to a ping"),
        () = retire => {}
    }
}

async fn retire_when_unused(tunnel: Rc<Tunnel>, release: Duration) {
    let mut tick = interval(RETIRE_CHECK);
    loop {
        tick.tick().await;
        let Some(since) = tunnel.unused_since.get() else { continue };
        if tunnel.clock.monotonic().duration_since(since) >= release {
            tunnel.close();
            return;
        }
    }
}

impl Tunnel {
    /// Whether another stream may be opened now.
    pub(super) fn has_room(&self) -> bool {
        let requests = self.requests.borrow();
        let Some(requests) = requests.as_ref() else { return false };
        self.streams.get() < self.streams_max.min(requests.current_max_send_streams())
    }

    /// Whether it will take no more streams.
    pub(super) fn is_closed(&self) -> bool {
        self.requests.borrow().is_none()
    }

    /// Takes no more streams; those that are open go on.
    pub(super) fn close(&self) {
        self.requests.borrow_mut().take();
    }

    /// Keeps a place for a stream that is about to be opened.
    pub(super) fn reserve(self: &Rc<Self>) -> StreamSlot {
        self.streams.set(self.streams.get() + 1);
        self.unused_since.set(None);
        StreamSlot { tunnel: Rc::clone(self) }
    }

    /// Sends one CONNECT and waits for its answer, at most `limit`.
    pub(super) async fn connect(
        self: &Rc<Self>,
        slot: StreamSlot,
        request: Request<()>,
        limit: Duration,
    ) -> Result<Answer, ConnectError> {
        let gone = || ConnectError::NotProcessed("the tunnel takes no more streams".to_owned());
        let mut requests = self.requests.borrow().clone().ok_or_else(gone)?;
        let exchange = async {
            if let Err(error) = poll_fn(|cx| requests.poll_ready(cx)).await {
                self.close();
                return Err(ConnectError::NotProcessed(error.to_string()));
            }
            let (response, sender) = requests.send_request(request, false).map_err(|error| {
                self.close();
                ConnectError::NotProcessed(error.to_string())
            })?;
            let mut sender = Unanswered(Some(sender));
            let response = response.await.map_err(|error| self.classify(error))?;
            let (head, receiver) = response.into_parts();
            if head.status != StatusCode::OK {
                sender.0 = None;
                return Err(ConnectError::Refused(head.status));
            }
            let sender = sender.0.take().ok_or(ConnectError::Timeout)?;
            let stream = Stream::new(sender, receiver, Some(slot));
            Ok(Answer { headers: head.headers, stream })
        };
        timeout(limit, exchange).await.unwrap_or(Err(ConnectError::Timeout))
    }

    /// RFC 9113 6.8 and 8.7: a stream above the last one a GOAWAY names, and one reset with
    /// REFUSED_STREAM, was not processed.
    fn classify(&self, error: h2::Error) -> ConnectError {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        if error.is_remote() && (error.is_go_away() || refused) {
            if error.is_go_away() {
                self.close();
            }
            return ConnectError::NotProcessed(error.to_string());
        }
        if !error.is_reset() {
            self.close();
        }
        ConnectError::Broken(error.into())
    }
}

/// A CONNECT whose answer nobody waits for any more is reset as an error: the far side may have
/// opened its leg already, and must not take the end for a clean one.
struct Unanswered(Option<h2::SendStream<Chunk>>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(mut sender) = self.0.take() {
            sender.send_reset(h2::Reason::CONNECT_ERROR);
        }
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let tunnel = &self.tunnel;
        tunnel.streams.set(tunnel.streams.get() - 1);
        if tunnel.streams.get() == 0 {
            tunnel.unused_since.set(Some(tunnel.clock.monotonic()));
        }
    }
}
