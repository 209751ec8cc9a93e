//! The side of a tunnel that answers: CONNECTs arrive, each becomes a stream or a status.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use http::{HeaderMap, Request, StatusCode};

use super::driver::Driver;
use super::link::{Link, Request as Arrived};
use super::stream::{Handle, Stream, StreamError};
use super::{Secured, Settings, headers};
use crate::path::same_node::{Meetings, TunnelId};

/// One tunnel that a peer opened. As server we never end it for being idle once it has carried a
/// stream, because peers do not retry.
#[derive(Debug)]
pub(in crate::path) struct Server {
    driver: Driver,
    /// The caller knows how it ended.
    told: bool,
}

/// One request that arrived. Dropped without an answer it is reset.
pub(in crate::path) struct Incoming {
    /// Its head.
    pub(in crate::path) head: Request<()>,
    list_size: usize,
    handle: Handle,
}

impl Server {
    /// Goes on after the TLS handshake.
    pub(in crate::path) fn start(
        secured: Secured,
        settings: &Settings,
    ) -> Result<Self, StreamError> {
        let link = Link::new(secured, settings)?;
        Ok(Self { driver: Driver::new(link), told: false })
    }

    /// The next request; drives everything else on the tunnel meanwhile. `None` at the end.
    pub(in crate::path) async fn next(&mut self) -> Option<Result<Incoming, StreamError>> {
        let Self { driver, told } = self;
        poll_fn(|cx| {
            if let Some(arrived) = driver.link.core().requests.pop_front() {
                return Poll::Ready(Some(Ok(Incoming::new(arrived, &driver.link))));
            }
            let ended = driver.poll(cx, None);
            if let Some(arrived) = driver.link.core().requests.pop_front() {
                // Polled again by the caller, who asks for the next one.
                return Poll::Ready(Some(Ok(Incoming::new(arrived, &driver.link))));
            }
            ended.map(|error| {
                let untold = !std::mem::replace(told, true);
                error.filter(|_| untold).map(|error| Err(error.into()))
            })
        })
        .await
    }

    /// Begins to close: GOAWAY without a last stream, a ping, then the final GOAWAY, so that no
    /// stream the peer opens meanwhile is lost.
    pub(in crate::path) fn close(&mut self) {
        self.driver.link.close();
    }
}

impl Incoming {
    fn new(arrived: Arrived, link: &Rc<Link>) -> Self {
        let Arrived { stream, fields, too_large } = arrived;
        let list_size = if too_large { usize::MAX } else { headers::size(&fields) };
        let handle = Handle { link: Rc::clone(link), stream };
        Self { head: headers::request(&fields), list_size, handle }
    }

    /// The size of the header list, as RFC 9113 6.5.2 counts it.
    pub(in crate::path) fn header_list(&self) -> usize {
        self.list_size
    }

    /// What the stream is known by, if the side that asks has announced it in this process.
    pub(in crate::path) fn announced(&self, meetings: &Meetings) -> Option<(TunnelId, u32)> {
        let Handle { link, stream } = &self.handle;
        let id = link.id?;
        meetings.is_announced(id, *stream).then_some((id, *stream))
    }

    /// Answers 200 and makes it a stream. If its first bytes are here already, nobody waits for the
    /// answer: it is kept for a moment, so that it leaves together with what the application says
    /// to them, and [`Stream::kept_answer`] is to be
    /// given in the end.
    pub(in crate::path) fn accept(self, headers: &HeaderMap) -> Result<Stream, StreamError> {
        if !self.keep_answer(headers)? {
            self.answer(StatusCode::OK, headers, false)?;
        }
        Ok(Stream::new(self.handle, None))
    }

    /// Keeps the answer, if the peer has spoken already; whether it has.
    fn keep_answer(&self, headers: &HeaderMap) -> Result<bool, StreamError> {
        let Handle { link, stream } = &self.handle;
        let mut core = link.core();
        if core.engine.http().parked(*stream).is_empty() {
            return Ok(false);
        }
        if let Some(error) = core.broken(*stream) {
            return Err(error);
        }
        if let Some(seat) = core.seats.get_mut(*stream) {
            seat.kept_answer = Some(Box::new(headers.clone()));
        }
        Ok(true)
    }

    /// Answers with an error status and nothing else.
    pub(in crate::path) fn refuse(self, status: StatusCode) {
        // The peer may have gone already; then there is nobody to tell.
        let _ = self.answer(status, &HeaderMap::new(), true);
    }

    fn answer(&self, status: StatusCode, map: &HeaderMap, end: bool) -> Result<(), StreamError> {
        let Handle { link, stream } = &self.handle;
        let mut core = link.core();
        let fields = headers::fields(map);
        let told = core.engine.http_mut().respond(*stream, status.as_u16(), fields, end);
        core.settle(link);
        if told { Ok(()) } else { Err(core.closed(*stream)) }
    }

    /// Waits until the peer gives the request up.
    pub(in crate::path) async fn abandoned(&mut self) {
        let Handle { link, stream } = &self.handle;
        poll_fn(|cx| {
            let mut core = link.core();
            if core.broken(*stream).is_some() {
                return Poll::Ready(());
            }
            if let Some(seat) = core.seats.get_mut(*stream) {
                seat.sender_waits(cx);
            }
            Poll::Pending
        })
        .await;
    }
}
