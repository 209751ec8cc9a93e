//! Bytes both ways, until both sides finish, one breaks, or the connection is cut.
//!
//! What becomes of ends and resets is the table of spec hbone 12.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

use super::buffers::{Appetite, Buffers};
use super::connections::Connection;
use super::tunnel::{Delivered, Drawn, LINGER, Receiver, Sender, Stream, StreamError, Tap};
use crate::report::{Direction, Failure, Live, Reason};
use crate::sys::socket;

mod plain;
mod same_node;

pub(super) use plain::plain;
pub(super) use same_node::{offered, same_node};

/// How long an answer that nobody waits for may be kept for the application's first words: what an
/// application that is near says at once.
const ANSWER_KEPT: Duration = Duration::from_millis(1);
/// How often the kernel is asked whether the application has taken everything.
const UNSENT_CHECK: Duration = Duration::from_millis(2);
/// Bytes one direction moves before it lets others have the worker.
const TURN: usize = 1024 * 1024;

/// What a pipe needs besides its two ends.
pub(super) struct Around<'a> {
    pub(super) connection: &'a Connection,
    pub(super) buffers: &'a Rc<Buffers>,
    pub(super) live: &'a Live,
    pub(super) direction: Direction,
}

/// One of the pipes of this room, at work.
pub(super) type Carried<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// How both directions together came to an end.
enum End {
    /// Both finished.
    Clean,
    /// The application's socket broke.
    Application(io::Error),
    /// The far side reset the stream, or the tunnel was lost.
    Far(StreamError),
    /// The far side has finished and wants no more of what the application says.
    NoMore,
    /// We ended it.
    Cut(Failure),
}

/// How one direction came to an end.
enum Half {
    Done,
    Application(io::Error),
    Far(StreamError),
}

/// An error of the application's socket that the kernel told only once.
type Noted = RefCell<Option<io::Error>>;

impl Around<'_> {
    fn sent_by_application(&self, count: usize) {
        match self.direction {
            Direction::Outbound => self.live.request_bytes(count as u64),
            Direction::Inbound => self.live.response_bytes(count as u64),
        }
    }

    fn sent_to_application(&self, count: usize) {
        match self.direction {
            Direction::Outbound => self.live.response_bytes(count as u64),
            Direction::Inbound => self.live.request_bytes(count as u64),
        }
    }
}

/// Between an application's socket and a stream of a tunnel.
///
/// What lives as long as the connection is small on purpose: no argument is kept twice, as those of
/// an `async fn` are, and what is needed only at times is boxed.
pub(super) fn tunnel<'a>(
    application: TcpStream,
    mut stream: Stream,
    around: &'a Around<'_>,
) -> impl Future<Output = Result<(), Failure>> + 'a {
    let tap = Tap::new(application, around.live.meter(), around.direction);
    async move {
        let kept = stream.kept_answer().map(|answer| {
            Box::pin(async {
                sleep(ANSWER_KEPT).await;
                answer.give();
            })
        });
        let end = {
            let both_ways = pin!(both_ways(&tap, &mut stream, around));
            with_answer(kept, both_ways).await
        };
        Box::pin(ended(end, tap.socket(), &mut stream)).await
    }
}

/// Gives the answer in time, and goes on.
async fn with_answer(
    kept: Option<Pin<Box<impl Future<Output = ()>>>>,
    mut both_ways: Pin<&mut impl Future<Output = End>>,
) -> End {
    if let Some(mut given) = kept {
        tokio::select! {
            biased;
            end = &mut both_ways => return end,
            () = &mut given => {}
        }
    }
    both_ways.await
}

/// Carries the end of one side over to the other.
async fn ended(end: End, application: &TcpStream, stream: &mut Stream) -> Result<(), Failure> {
    match end {
        End::Clean | End::NoMore => Ok(()),
        End::Application(error) => {
            // The bytes read before the reset go before it.
            let _ = timeout(LINGER, stream.sender.flushed()).await;
            stream.reset();
            let _ = socket::reset_on_close(application);
            Err(Failure::new(Reason::ApplicationReset, error))
        }
        End::Far(error) => {
            taken_by_application(application).await;
            let _ = socket::reset_on_close(application);
            Err(broken_by(error))
        }
        End::Cut(failure) => {
            stream.reset();
            let _ = socket::reset_on_close(application);
            Err(failure)
        }
    }
}

/// What is reported of a stream that ended other than cleanly.
fn broken_by(error: StreamError) -> Failure {
    let reason = match error {
        StreamError::Reset { .. } => Reason::PeerReset,
        StreamError::Lost(_) | StreamError::Violation(_) => Reason::TunnelLost,
        StreamError::Revoked => Reason::PeerRevoked,
    };
    Failure::new(reason, error)
}

async fn both_ways(tap: &Rc<Tap>, stream: &mut Stream, around: &Around<'_>) -> End {
    let noted = Noted::default();
    let mut broken = pin!(broken(tap.socket(), &noted));
    let Stream { sender, receiver, .. } = stream;
    let mut up = pin!(upward(tap, sender, &noted));
    let mut down = pin!(downward(tap, receiver));
    let (mut up_left, mut down_left, mut broken_left) = (true, true, true);
    let mut up_refused = None;
    let mut linger = None::<Pin<Box<Sleep>>>;
    loop {
        tokio::select! {
            biased;
            failure = around.connection.cut() => return End::Cut(failure),
            half = &mut down, if down_left => {
                down_left = false;
                match half {
                    Half::Done => {}
                    Half::Far(error) => return End::Far(error),
                    Half::Application(error) => {
                        note(&noted, error);
                        linger = Some(Box::pin(sleep(LINGER)));
                    }
                }
            }
            half = &mut up, if up_left => {
                up_left = false;
                match half {
                    Half::Done => {}
                    Half::Application(error) => return End::Application(error),
                    // What arrived before a reset is still being delivered: `down` will meet it.
                    Half::Far(error) => up_refused = Some(error),
                }
            }
            () = &mut broken, if broken_left => {
                broken_left = false;
                linger = Some(Box::pin(sleep(LINGER)));
            }
            () = expired(&mut linger) => up_left = false,
        }
        if !up_left && let Some(error) = noted.borrow_mut().take() {
            return End::Application(error);
        }
        if !up_left && !down_left {
            return match up_refused {
                None => End::Clean,
                Some(StreamError::Reset { clean: true, .. }) => End::NoMore,
                Some(error) => End::Far(error),
            };
        }
    }
}

/// From the application to the far side.
async fn upward(tap: &Tap, sender: &mut Sender, noted: &Noted) -> Half {
    let appetite = Appetite::default();
    let mut turn = 0;
    loop {
        match sender.draw(tap, &appetite).await {
            Drawn::Bytes(count) => yield_after(&mut turn, count).await,
            Drawn::End => {
                if let Some(error) = noted.borrow_mut().take() {
                    return Half::Application(error);
                }
                return sender.finish().map_or_else(Half::Far, |()| Half::Done);
            }
            Drawn::Application(error) => return Half::Application(error),
            Drawn::Far(error) => return Half::Far(error),
        }
    }
}

/// From the far side to the application. Credit goes back when the application has taken the bytes.
async fn downward(tap: &Rc<Tap>, receiver: &mut Receiver) -> Half {
    match receiver.deliver(tap).await {
        Delivered::End => {
            socket::finish(tap.socket()).map_or_else(Half::Application, |()| Half::Done)
        }
        Delivered::Application(error) => Half::Application(error),
        Delivered::Far(error) => Half::Far(error),
    }
}

/// Waits until the application's socket has an error, also while nobody reads or writes it.
async fn broken(socket: &TcpStream, noted: &Noted) {
    loop {
        if socket.ready(Interest::ERROR).await.is_err() {
            return;
        }
        match socket.take_error() {
            Ok(Some(error)) | Err(error) => return note(noted, error),
            // Not ours to handle: forget the readiness and wait for the next one.
            Ok(None) => {
                let nothing = || Err::<(), _>(io::Error::from(io::ErrorKind::WouldBlock));
                let _ = socket.try_io(Interest::ERROR, nothing);
            }
        }
    }
}

/// Waits, within bounds, until the application's kernel has acknowledged everything we wrote.
async fn taken_by_application(application: &TcpStream) {
    let taken = async {
        while socket::unsent(application).is_ok_and(|bytes| bytes > 0) {
            sleep(UNSENT_CHECK).await;
        }
    };
    let _ = timeout(LINGER, taken).await;
}

async fn yield_after(turn: &mut usize, count: usize) {
    *turn += count;
    if *turn >= TURN {
        *turn = 0;
        tokio::task::yield_now().await;
    }
}

async fn expired(timer: &mut Option<Pin<Box<Sleep>>>) {
    match timer {
        Some(timer) => timer.as_mut().await,
        None => std::future::pending().await,
    }
}

fn note(noted: &Noted, error: io::Error) {
    noted.borrow_mut().get_or_insert(error);
}

#[cfg(test)]
mod tests;
