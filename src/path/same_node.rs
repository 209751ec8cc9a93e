//! The same-node path: when both ends of a tunnel are in this process, the bytes of its streams go
//! from socket to socket.
//!
//! The tunnel stands first, and its CONNECT is answered as ever: identities, policy and whatever
//! the network between two pods forbids have had their say before a byte moves. Whoever asks
//! announces the stream before its CONNECT leaves; whoever answers finds it there only if it is
//! the same tunnel, and offers the application's socket before its 200 leaves. From then on the
//! stream carries no byte. It stays open as what holds the two ends together: its end, a cut at
//! either of them and the loss of the tunnel end the path.

use std::collections::HashMap;
use std::fmt;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream as Socket;
use tokio::sync::oneshot;

use crate::hbone::handshake::Keys;
use crate::model::canonical;
use crate::report::{Failure, Meter};
use crate::sys::socket;

/// The addresses of the two ends of a tunnel, as both of them see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ends {
    client: SocketAddr,
    server: SocketAddr,
}

/// One tunnel, told from every other one by what only its two ends know.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TunnelId {
    ends: Ends,
    /// A digest of a secret of the handshake: whoever rewrites addresses does not have it.
    proof: [u8; 32],
}

/// One stream of one tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    tunnel: TunnelId,
    stream: u32,
}

/// Where the two ends of a stream find each other. It holds the streams whose CONNECT is on its
/// way, of which there are no more than there are connections.
#[derive(Debug, Default)]
pub(super) struct Meetings(Mutex<HashMap<Place, Option<Offer>>>);

/// The place of the side that asks. It is given up when this is dropped.
#[derive(Debug)]
pub(super) struct Announced {
    meetings: Arc<Meetings>,
    place: Place,
}

/// What the side that answers gives.
#[derive(Debug)]
pub(super) struct Taken {
    /// The application's socket.
    pub(super) application: TcpStream,
    /// Where its bytes are counted.
    pub(super) meter: Meter,
    /// Says how it ended; dropped without a word, the path broke.
    pub(super) ended: oneshot::Sender<Ended>,
    /// Says that the side that answers wants no more, and what the side that asks is to report.
    pub(super) withdrawn: oneshot::Receiver<Failure>,
}

/// What waits to be taken. Dropped before, the application sees a reset.
#[derive(Debug)]
struct Offer(Option<Taken>);

/// What the side that answers keeps of its offer.
#[derive(Debug)]
pub(super) struct Offered {
    pub(super) ended: oneshot::Receiver<Ended>,
    // Dropping it withdraws the offer, too, also after it was taken.
    withdraw: oneshot::Sender<Failure>,
}

/// How the path ended, as the side that answers is to report it.
pub(super) type Ended = Result<(), Failure>;

impl Ends {
    /// Of a tunnel that we asked for.
    pub(super) fn dialled(socket: &Socket) -> Option<Self> {
        Some(Self::new(socket.local_addr().ok()?, socket.peer_addr().ok()?))
    }

    /// Of a tunnel that somebody asked us for.
    pub(super) fn accepted(socket: &Socket) -> Option<Self> {
        Some(Self::new(socket.peer_addr().ok()?, socket.local_addr().ok()?))
    }

    fn new(client: SocketAddr, server: SocketAddr) -> Self {
        // A listener of both families sees its IPv4 clients as IPv6 ones.
        Self { client: canonical(client), server: canonical(server) }
    }

    /// The tunnel between them that has these keys. One of TLS 1.2 cannot be told from others.
    pub(super) fn under(self, keys: &Keys) -> Option<TunnelId> {
        Some(TunnelId { ends: self, proof: keys.fingerprint()? })
    }
}

impl Meetings {
    /// Says that the bytes of a stream, whose CONNECT has not left, may take the path.
    pub(super) fn announce(self: &Arc<Self>, tunnel: TunnelId, stream: u32) -> Announced {
        let place = Place { tunnel, stream };
        self.places().insert(place, None);
        Announced { meetings: Arc::clone(self), place }
    }

    /// Whether the side that asks has announced this stream: then it is in this process.
    pub(super) fn is_announced(&self, tunnel: TunnelId, stream: u32) -> bool {
        self.places().contains_key(&Place { tunnel, stream })
    }

    /// Offers an application's socket; `None` if nobody waits for it any more.
    pub(super) fn offer(
        &self,
        (tunnel, stream): (TunnelId, u32),
        application: TcpStream,
        meter: Meter,
    ) -> Option<Offered> {
        let (told, ended) = oneshot::channel();
        let (keep, withdrawn) = oneshot::channel();
        let taken = Taken { application, meter, ended: told, withdrawn };
        *self.places().get_mut(&Place { tunnel, stream })? = Some(Offer(Some(taken)));
        Some(Offered { ended, withdraw: keep })
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Place, Option<Offer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Announced {
    /// What was offered, once the CONNECT was answered.
    pub(super) fn take(&self) -> Option<Taken> {
        self.meetings.places().get_mut(&self.place)?.as_mut()?.0.take()
    }
}

impl Offered {
    /// Ends the path, for a reason that the side that asks has, too.
    pub(super) fn withdraw(self, failure: Failure) {
        // Whoever has ended it already does not hear this.
        let _ = self.withdraw.send(failure);
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        // What it held is dropped after the lock.
        let _left = self.meetings.places().remove(&self.place);
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(taken) = &self.0 {
            let _ = socket::reset_on_close(&taken.application);
        }
    }
}

impl fmt::Debug for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelId").field("ends", &self.ends).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::TcpListener;

    use super::*;
    use crate::path::tunnel::in_memory::live;
    use crate::report::{Direction, Reason};

    fn tunnel(client: &str, proof: u8) -> TunnelId {
        let ends = Ends::new(client.parse().unwrap(), "10.0.0.2:15008".parse().unwrap());
        TunnelId { ends, proof: [proof; 32] }
    }

    /// The application, and the socket that leads to it.
    fn application() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let leg = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, leg)
    }

    fn meter() -> Meter {
        live(Direction::Inbound).meter()
    }

    #[test]
    fn a_stream_is_met_where_it_was_announced_and_nowhere_else() {
        let meetings = Arc::new(Meetings::default());
        let here = tunnel("10.0.0.1:40000", 1);
        let announced = meetings.announce(here, 5);
        // The two ends may write the same address in two ways.
        assert!(meetings.is_announced(tunnel("[::ffff:10.0.0.1]:40000", 1), 5));
        let elsewhere = [
            (here, 7),
            (tunnel("10.0.0.1:40001", 1), 5),
            // The same addresses in another network, or what somebody in between has made of them.
            (tunnel("10.0.0.1:40000", 2), 5),
        ];
        for place in elsewhere {
            assert!(!meetings.is_announced(place.0, place.1), "{place:?}");
            let (mut application, leg) = application();
            assert!(meetings.offer(place, leg, meter()).is_none(), "{place:?}");
            let seen = application.read(&mut [0]).unwrap_err();
            assert_eq!(seen.kind(), ErrorKind::ConnectionReset);
        }
        assert!(announced.take().is_none());
        drop(announced);
        assert!(meetings.places().is_empty());
    }

    #[test]
    fn what_is_offered_is_taken_once_and_each_side_hears_of_the_others_end() {
        let meetings = Arc::new(Meetings::default());
        let here = tunnel("10.0.0.1:40000", 1);
        let announced = meetings.announce(here, 1);
        let offered = meetings.offer((here, 1), application().1, meter()).unwrap();
        let mut taken = announced.take().expect("it was offered");
        assert!(announced.take().is_none());
        drop(announced);
        assert!(taken.withdrawn.try_recv().is_err());
        let Offered { mut ended, withdraw } = offered;
        taken.ended.send(Err(Failure::from(Reason::PeerReset))).unwrap();
        assert_eq!(ended.try_recv().unwrap().unwrap_err().reason, Reason::PeerReset);
        Offered { ended, withdraw }.withdraw(Reason::PodRemoved.into());
        assert_eq!(taken.withdrawn.try_recv().unwrap().reason, Reason::PodRemoved);
    }

    #[test]
    fn what_nobody_takes_is_reset() {
        let meetings = Arc::new(Meetings::default());
        let here = tunnel("10.0.0.1:40000", 1);
        let announced = meetings.announce(here, 1);
        let (mut application, leg) = application();
        let mut offered = meetings.offer((here, 1), leg, meter()).unwrap();
        drop(announced);
        let seen = application.read(&mut [0]).unwrap_err();
        assert_eq!(seen.kind(), ErrorKind::ConnectionReset);
        assert!(offered.ended.try_recv().is_err());
        assert!(meetings.offer((here, 1), self::application().1, meter()).is_none());
    }
}
