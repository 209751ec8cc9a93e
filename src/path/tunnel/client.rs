//! The side of a tunnel that asks: one HTTP/2 connection, many CONNECTs.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, StatusCode};
use tokio::time::timeout;

use super::driver::Driver;
use super::first::First;
use super::link::Link;
use super::stream::{Handle, Stream, StreamError};
use super::{Secured, Settings, headers};
use crate::hbone::error::Error;
use crate::hbone::http2::{By, OpenError};

/// One tunnel we opened.
#[derive(Debug)]
pub(super) struct Tunnel {
    link: Rc<Link>,
    streams: Cell<usize>,
    streams_max: usize,
    unused_since: Cell<Option<Instant>>,
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
    /// The application's socket broke while it was waited for.
    Application(String),
    /// The exchange broke.
    Broken(StreamError),
    /// No answer came in time.
    Timeout,
}

/// Goes on after the TLS handshake. The second value drives the tunnel and must be run.
pub(super) fn start(
    secured: Secured,
    settings: &Settings,
    unused_release: Duration,
) -> Result<(Rc<Tunnel>, impl Future<Output = ()> + use<>), Error> {
    let link = Link::new(secured, settings)?;
    let mut driver = Driver::new(Rc::clone(&link));
    let tunnel = Rc::new(Tunnel {
        streams: Cell::new(0),
        streams_max: settings.client_streams as usize,
        unused_since: Cell::new(Some(link.now())),
        link,
    });
    let driven = Rc::clone(&tunnel);
    let driving = async move {
        let ended = poll_fn(|cx| {
            let retires = driven.unused_since.get().map(|since| since + unused_release);
            if retires.is_some_and(|due| due <= driven.link.now()) {
                driven.close();
            }
            let retires = retires.filter(|_| !driven.is_closed());
            driver.poll(cx, retires)
        })
        .await;
        match ended {
            Some(Error::Silent) => tracing::warn!("tunnel lost: {}", Error::Silent),
            Some(error) => tracing::debug!(%error, "tunnel ended"),
            None => {}
        }
    };
    Ok((tunnel, driving))
}

impl Tunnel {
    /// Whether another stream may be opened now, and would be heard.
    pub(super) fn has_room(&self) -> bool {
        let (core, now) = (self.link.core(), self.link.now());
        let http = core.engine.http();
        self.streams.get() < self.streams_max && http.can_open().is_ok() && !http.is_choked(now)
    }

    /// Whether it will take no more streams.
    pub(super) fn is_closed(&self) -> bool {
        self.link.core().engine.http().can_open() == Err(OpenError::Closing)
    }

    /// Takes no more streams; those that are open go on.
    pub(super) fn close(&self) {
        self.link.close();
    }

    /// Keeps a place for a stream that is about to be opened.
    pub(super) fn reserve(self: &Rc<Self>) -> StreamSlot {
        self.streams.set(self.streams.get() + 1);
        self.unused_since.set(None);
        StreamSlot { tunnel: Rc::clone(self) }
    }

    /// Sends one CONNECT, with what the application says meanwhile, and waits for its answer, at
    /// most `limit`.
    pub(super) async fn connect(
        &self,
        slot: StreamSlot,
        request: Request<()>,
        limit: Duration,
        first: &mut First<'_>,
    ) -> Result<Answer, ConnectError> {
        first.hear_now(&self.link.buffers).map_err(broken)?;
        let handle = self.ask(&request, first)?;
        let answered = timeout(limit, self.answer(handle.stream, first));
        let (status, headers) = answered.await.unwrap_or(Err(ConnectError::Timeout))?;
        if status != StatusCode::OK {
            return Err(ConnectError::Refused(status));
        }
        Ok(Answer { headers, stream: Stream::new(handle, Some(slot)) })
    }

    /// Opens a stream, and says the first bytes in it. If nobody waits for the answer any more it
    /// is reset as an error: the far side may have opened its leg already, and must not take the
    /// end for a clean one.
    fn ask(&self, request: &Request<()>, first: &mut First<'_>) -> Result<Handle, ConnectError> {
        let authority = request.uri().authority().map_or("", |authority| authority.as_str());
        let fields = headers::fields(request.headers());
        let link = &self.link;
        let mut core = link.core();
        let opened = core.engine.http_mut().open(authority, fields, link.now());
        let stream = opened.map_err(|error| ConnectError::NotProcessed(error.to_string()))?;
        core.seats.add(stream);
        first.announce(link.id, stream);
        core.say(stream, first.said(), link);
        core.settle(link);
        Ok(Handle { link: Rc::clone(link), stream })
    }

    async fn answer(
        &self,
        stream: u32,
        first: &mut First<'_>,
    ) -> Result<(StatusCode, HeaderMap), ConnectError> {
        let (status, fields) = *poll_fn(|cx| {
            let link = &self.link;
            let mut core = link.core();
            let core = &mut *core;
            let Some(seat) = core.seats.get_mut(stream) else { return Poll::Pending };
            if let Some(answer) = seat.answer.take() {
                return Poll::Ready(Ok(answer));
            }
            if let Some((code, by)) = seat.reset {
                return Poll::Ready(Err(match by {
                    By::PeerUnprocessed => ConnectError::NotProcessed(code.to_string()),
                    By::Peer | By::Us => ConnectError::Broken(StreamError::from_code(code)),
                }));
            }
            if let Some(error) = core.engine.http().error() {
                return Poll::Ready(Err(ConnectError::Broken(error.into())));
            }
            seat.receiver_waits(cx);
            while core.has_said_all(stream) {
                let known = first.said().len();
                match ready!(first.poll_hear(cx, &link.buffers)) {
                    Ok(_) => core.say(stream, &first.said()[known..], link),
                    Err(error) => return Poll::Ready(Err(broken(error))),
                }
                core.settle(link);
            }
            Poll::Pending
        })
        .await?;
        // The engine lets only statuses of three digits pass.
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        Ok((status, headers::map(&fields)))
    }
}

fn broken(error: io::Error) -> ConnectError {
    ConnectError::Application(error.to_string())
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        let tunnel = &self.tunnel;
        tunnel.streams.set(tunnel.streams.get() - 1);
        if tunnel.streams.get() == 0 {
            tunnel.unused_since.set(Some(tunnel.link.now()));
            // It has a time to be polled at that it did not know of.
            tunnel.link.core().driver.wake_by_ref();
        }
    }
}
