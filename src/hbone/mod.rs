//! HBONE's tunnel engine: TLS records in place and HTTP/2 CONNECT, without sockets and clocks.
//!
//! An [`Engine`] is one tunnel after its handshake. It owns no buffer of the fast path: its driver
//! lends it two batches (about 256 KiB each, shared by all tunnels of a worker), and all times are
//! arguments. The driver has these duties:
//!
//! **Reading the tunnel.** [`Engine::begin`] puts what is left of a cut record to the front of the
//! batch; the socket is read behind it; [`Engine::receive`] takes the filled part, and
//! [`Engine::next`] gives events until `None`. All are taken, or bytes are lost. The first time
//! this happens before the socket is asked: bytes may have come with the handshake. Reading never
//! waits for writing. When the socket is at its end, [`Engine::end_of_input`] says what that means.
//!
//! **Bytes for an application** ([`http2::Event::Data`]) lie where they were opened. They are
//! written at once; for those that were taken [`http2::Connection::taken`] gives credit, the rest
//! goes to [`http2::Connection::park`]. While something is parked, more of that stream is parked
//! without an event. When the application can be written again, it is given
//! [`http2::Connection::parked`], and [`http2::Connection::taken_parked`] is told. An
//! [`http2::Event::End`] or [`http2::Event::Reset`] by the peer comes behind what is parked.
//!
//! **Bytes of an application.** [`Engine::plan`] gives the room and the slots to `readv` into, then
//! [`Engine::seal`] is told how many came (also if none did) and how much of the batch is to be
//! written. What the socket does not take goes to [`Engine::keep_unsent`]; while that is not empty
//! nothing is sealed, and when the socket can be written again [`Engine::unsent`] is written and
//! [`Engine::sent`] told. With [`http2::Room::Wait`] the application is left alone until
//! [`http2::Connection::next_turn`] names its stream; as server before
//! [`http2::Connection::respond`] nothing does, and the driver asks again after it. Small bytes
//! gather for [`http2::Connection::hold_ms`]. At the application's end
//! [`http2::Connection::finish`], at its reset [`http2::Connection::reset`] with CONNECT_ERROR.
//!
//! **After every round of the above**, while nothing is unsent: [`Engine::flush`] if
//! [`Engine::wants_flush`], and turns from [`http2::Connection::next_turn`] until there is none.
//!
//! **Time.** [`Engine::tick`] at [`Engine::next_deadline`], which is asked for again after every
//! round.
//!
//! **Ends.** [`http2::Connection::release`] when a stream is not named any more. An error of any
//! call ends every stream as if it were reset; [`Engine::flush`] has the last words, and when
//! [`Engine::is_finished`] the socket is closed.
//!
//! **Another process.** [`Engine::freeze`] gives the state between any two of these calls, and
//! [`Engine::resume`] goes on with it; what a driver knows of its streams it carries over itself.
//!
//! ```text
//! readable:  kept = begin(batch); n = read(socket, batch[kept..])
//!            input = receive(batch[..kept + n])
//!            while let Some(event) = next(input, now)?:
//!                Data(stream, bytes) => k = write(app, bytes)
//!                                       taken(stream, k, now); park(stream, bytes[k..])
//! app ready: plan = plan(stream, batch)?; n = readv(app, plan.slots(batch))
//!            len = seal(plan, batch, n)?
//!            k = write(socket, batch[..len]); keep_unsent(batch[k..len])
//! writable:  sent(write(socket, unsent()))
//! always:    if wants_flush(): len = flush(batch)?; written as above
//!            while unsent() is empty and next_turn() names a stream: as "app ready"
//! ```

mod engine;
pub mod error;
pub mod frame;
mod frozen;
pub mod handshake;
pub mod hpack;
pub mod http2;
pub mod limits;
mod plan;
pub mod record;
#[cfg(test)]
pub(crate) mod testing;

pub use engine::{Engine, Input};
pub use frozen::ResumeError;
pub use plan::{Plan, Slots};

/// Which end of a tunnel we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We opened the connection and send CONNECTs.
    Client,
    /// We accepted the connection and answer CONNECTs.
    Server,
}
