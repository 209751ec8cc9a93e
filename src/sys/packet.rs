//! Sockets that see every frame of a link, for looking at what is really on the wire.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// All protocols (ETH_P_ALL of linux/if_ether.h), in the order of the network.
const ALL_PROTOCOLS: u16 = 0x0003_u16.to_be();
/// What the kernel may keep for us, bytes; it takes less if its limit is lower.
const QUEUE_BYTES: usize = 8 << 20;

/// Receives a copy of every frame that a link sends or receives.
#[derive(Debug)]
pub struct PacketSocket {
    socket: Socket,
}

impl PacketSocket {
    /// Opens a socket on a link of the calling thread's network namespace.
    ///
    /// Errors: `EPERM` without `CAP_NET_RAW`, `EAFNOSUPPORT` if the kernel has no packet
    /// sockets, `ENODEV` if there is no such link.
    pub fn open(link: &str) -> io::Result<Self> {
        let index = if_nametoindex(link)?;
        // Protocol 0 receives nothing until the socket is bound to its link.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_recv_buffer_size(QUEUE_BYTES)?;
        socket.bind(&link_address(index)?)?;
        Ok(Self { socket })
    }

    /// Receives one frame from its Ethernet header on; `None` if none came in `timeout`.
    ///
    /// A frame longer than the buffer is cut.
    pub fn receive(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<Option<usize>> {
        self.socket.set_read_timeout(Some(timeout))?;
        match (&self.socket).read(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[expect(unsafe_code, reason = "the address of a link has no safe constructor")]
fn link_address(index: u32) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(|_| ErrorKind::InvalidInput)?;
    let family = u16::try_from(libc::AF_PACKET).map_err(|_| ErrorKind::InvalidInput)?;
    let len = u32::try_from(size_of::<libc::sockaddr_ll>())
        .map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: this is a Linux address type, which fits the storage.
    // JUSTIFICATION: socket2 and nix make link addresses from raw storage only.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = family;
    address.sll_protocol = ALL_PROTOCOLS;
    address.sll_ifindex = index;
    // SAFETY: the storage holds a sockaddr_ll of the family it names, `len` bytes long.
    // JUSTIFICATION: as above.
    Ok(unsafe { SockAddr::new(storage, len) })
}
