//! What an application says before its CONNECT is answered. It travels with the CONNECT: a peer
//! that takes the one takes the other, and the answer's round trip is saved.

use std::io::{self, ErrorKind, Read};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::direct::forget_readiness;
use crate::path::buffers::{Appetite, Buffers};
use crate::path::same_node::{Announced, Meetings, Taken, TunnelId};

/// So much is on its way at most before anybody has agreed to take it.
const FIRST_MAX: usize = 64 * 1024;

/// The first bytes of one connection. They are kept until the answer, because a CONNECT that was
/// not processed is sent again through another tunnel, and they with it.
#[derive(Debug)]
pub(in crate::path) struct First<'a> {
    /// Who speaks; gone when there is nothing more to come, which whoever asks again is told, too.
    application: Option<&'a TcpStream>,
    said: Vec<u8>,
    /// Where the far end may be met, and the stream that was announced there.
    meetings: Option<Arc<Meetings>>,
    announced: Option<Announced>,
}

impl<'a> First<'a> {
    pub(in crate::path) fn new(application: &'a TcpStream) -> Self {
        Self { application: Some(application), ..Self::none() }
    }

    /// Of an application whose far end may be in this process, too: then its bytes do not take the
    /// tunnel, and none of them before it is known.
    pub(in crate::path) fn near(meetings: &Arc<Meetings>) -> Self {
        Self { meetings: Some(Arc::clone(meetings)), ..Self::none() }
    }

    /// Of a stream that is not an application's own.
    pub(in crate::path) fn none() -> Self {
        Self { application: None, said: Vec::new(), meetings: None, announced: None }
    }

    /// What was heard so far.
    pub(in crate::path) fn said(&self) -> &[u8] {
        &self.said
    }

    /// Announces the stream that it will travel in, whose CONNECT has not left.
    pub(super) fn announce(&mut self, tunnel: Option<TunnelId>, stream: u32) {
        let meetings = self.meetings.as_ref().zip(tunnel);
        self.announced = meetings.map(|(meetings, tunnel)| meetings.announce(tunnel, stream));
    }

    /// What the far end has offered, if it was met.
    pub(in crate::path) fn met(&mut self) -> Option<Taken> {
        self.announced.take()?.take()
    }

    /// Takes what is there already, whether or not the reactor has been told of it.
    pub(super) fn hear_now(&mut self, buffers: &Rc<Buffers>) -> io::Result<()> {
        let read = |application: &TcpStream, space: &mut [u8]| {
            let socket = SockRef::from(application);
            (&*socket).read(space)
        };
        match self.hear(buffers, read) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            heard => heard.map(|_| ()),
        }
    }

    /// Takes what comes next; how much of it is new.
    pub(super) fn poll_hear(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &Rc<Buffers>,
    ) -> Poll<io::Result<usize>> {
        while let Some(application) = self.application {
            ready!(application.poll_read_ready(cx))?;
            match self.hear(buffers, TcpStream::try_read) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Ok(0) => break,
                heard => return Poll::Ready(heard),
            }
        }
        Poll::Pending
    }

    fn hear(
        &mut self,
        buffers: &Rc<Buffers>,
        read: impl FnOnce(&TcpStream, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Some(application) = self.application else { return Ok(0) };
        let mut buffer = buffers.borrow(&Appetite::default());
        let space = buffer.as_mut();
        let most = space.len().min(FIRST_MAX - self.said.len());
        let count = read(application, &mut space[..most])?;
        self.said.extend_from_slice(&space[..count]);
        if count == 0 || self.said.len() == FIRST_MAX {
            self.application = None;
        } else if count < most {
            forget_readiness(application, Interest::READABLE);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
