//! Bytes between two sockets in plain text: what is little is copied, the rest is spliced.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{Sleep, sleep};

use super::super::buffers::{Appetite, Buffer, Buffers};
use super::super::pipes::Borrowed;
use super::{Around, LINGER, expired, taken_by_application, yield_after};
use crate::report::{Failure, Reason};
use crate::sys::socket;

/// Between two sockets, as it is.
pub(in crate::path) async fn plain(
    mut application: TcpStream,
    mut far: TcpStream,
    around: &Around<'_>,
) -> Result<(), Failure> {
    let result = {
        let moved = (|n| around.sent_by_application(n), |n| around.sent_to_application(n));
        let both = both_ways(&mut application, &mut far, around.buffers, moved);
        tokio::select! {
            biased;
            failure = around.connection.cut() => Err(failure),
            result = both => result.map_err(|Broken { error, .. }| {
                Failure::new(Reason::ApplicationReset, error)
            }),
        }
    };
    if let Err(failure) = &result {
        reset_both(&application, &far, failure.reason == Reason::ApplicationReset).await;
    }
    result
}

/// Resets both. If one of them broke, what the other is owed goes before that.
pub(super) async fn reset_both(application: &TcpStream, far: &TcpStream, broke: bool) {
    if broke {
        taken_by_application(application).await;
        taken_by_application(far).await;
    }
    let _ = socket::reset_on_close(application);
    let _ = socket::reset_on_close(far);
}

/// One of the two sockets.
#[derive(Clone, Copy)]
pub(super) enum Socket {
    Application,
    Far,
}

/// Which of them broke first.
pub(super) struct Broken {
    pub(super) socket: Socket,
    pub(super) error: io::Error,
}

/// Which of its two sockets stopped a direction.
enum Stopped {
    Reader(io::Error),
    Writer(io::Error),
}

/// Until both directions have ended. What moves is told to the one or the other of `moved`: sent by
/// the application, or to it.
pub(super) async fn both_ways(
    application: &mut TcpStream,
    far: &mut TcpStream,
    buffers: &Rc<Buffers>,
    (sent_by, sent_to): (impl Fn(usize), impl Fn(usize)),
) -> Result<(), Broken> {
    let (near_read, near_write) = application.split();
    let (far_read, far_write) = far.split();
    let mut up = pin!(one_way(&near_read, far_write, buffers, sent_by));
    let mut down = pin!(one_way(&far_read, near_write, buffers, sent_to));
    let (mut up_left, mut down_left) = (true, true);
    let mut first = None;
    let mut linger = None::<Pin<Box<Sleep>>>;
    loop {
        let (ended, reader, writer) = tokio::select! {
            biased;
            ended = &mut down, if down_left => {
                down_left = false;
                (ended, Socket::Far, Socket::Application)
            }
            ended = &mut up, if up_left => {
                up_left = false;
                (ended, Socket::Application, Socket::Far)
            }
            () = expired(&mut linger) => return first.map_or(Ok(()), Err),
        };
        match ended {
            Ok(()) => {}
            Err(Stopped::Reader(error)) => {
                return Err(first.unwrap_or(Broken { socket: reader, error }));
            }
            // What the broken socket sent before it broke is still worth delivering.
            Err(Stopped::Writer(error)) => {
                first.get_or_insert(Broken { socket: writer, error });
                linger = Some(Box::pin(sleep(LINGER)));
            }
        }
        if !up_left && !down_left {
            return first.map_or(Ok(()), Err);
        }
    }
}

async fn one_way(
    read: &ReadHalf<'_>,
    mut write: WriteHalf<'_>,
    buffers: &Rc<Buffers>,
    moved: impl Fn(usize),
) -> Result<(), Stopped> {
    let appetite = Appetite::default();
    let mut turn = 0;
    loop {
        read.readable().await.map_err(Stopped::Reader)?;
        // Little is copied faster than it is moved from page to page.
        let pipe = if appetite.is_large() { buffers.pipes().borrow() } else { None };
        let count = match pipe {
            Some(pipe) => splice_once(read, &write, pipe, &moved).await?,
            None => copy_once(read, &mut write, (buffers, &appetite), &moved).await?,
        };
        match count {
            None => {}
            Some(0) => return write.shutdown().await.map_err(Stopped::Writer),
            Some(count) => {
                appetite.learn(count, appetite.size());
                yield_after(&mut turn, count).await;
            }
        }
    }
}

/// Moves what is there now through a buffer; `None` if nothing is, 0 at the end.
async fn copy_once(
    read: &ReadHalf<'_>,
    write: &mut WriteHalf<'_>,
    (buffers, appetite): (&Rc<Buffers>, &Appetite),
    moved: &impl Fn(usize),
) -> Result<Option<usize>, Stopped> {
    let mut buffer = buffers.borrow(appetite);
    let Some(count) = read_once(read, &mut buffer, appetite.size()) else { return Ok(None) };
    let count = count.map_err(Stopped::Reader)?;
    write.write_all(&buffer.as_slice()[..count]).await.map_err(Stopped::Writer)?;
    moved(count);
    Ok(Some(count))
}

/// The same through a pipe, which is empty again when this is over. Bytes count when they have left
/// it; if this is dropped before, they are gone with it.
async fn splice_once(
    read: &ReadHalf<'_>,
    write: &WriteHalf<'_>,
    mut pipe: Borrowed,
    moved: &impl Fn(usize),
) -> Result<Option<usize>, Stopped> {
    let (from, to): (&TcpStream, &TcpStream) = (read.as_ref(), write.as_ref());
    let count = match from.try_io(Interest::READABLE, || pipe.fill(from)) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        result => result.map_err(Stopped::Reader)?,
    };
    while pipe.filled() > 0 {
        to.writable().await.map_err(Stopped::Writer)?;
        match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => moved(result.map_err(Stopped::Writer)?),
        }
    }
    Ok(Some(count))
}

/// One read of what is there now; `None` if nothing is.
fn read_once(read: &ReadHalf<'_>, buffer: &mut Buffer, most: usize) -> Option<io::Result<usize>> {
    let space = buffer.as_mut();
    let most = most.min(space.len());
    match read.try_read(&mut space[..most]) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        result => Some(result),
    }
}
