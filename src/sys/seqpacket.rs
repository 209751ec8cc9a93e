//! Unix sockets that keep packets apart and carry descriptors (spec node-and-pods 1).

use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::ptr;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How many descriptors one received packet has room for. More are closed by the kernel, and
/// the packet counts as truncated.
pub const FDS_PER_PACKET_MAX: usize = 8;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;
/// Bytes of one descriptor in a control message.
const FD_BYTES: usize = size_of::<RawFd>();
/// Words of the buffer for control messages: one header and the descriptors, padded.
const CONTROL_WORDS: usize =
    (size_of::<libc::cmsghdr>() + FDS_PER_PACKET_MAX * FD_BYTES).div_ceil(size_of::<usize>());

/// One end of a connection. All methods need a tokio runtime with I/O enabled.
#[derive(Debug)]
pub struct Connection {
    socket: AsyncFd<Socket>,
}

/// What [`Connection::recv`] received.
#[derive(Debug)]
pub struct Packet {
    /// How many bytes of the buffer were filled.
    pub len: usize,
    /// Bytes or descriptors were lost, because there was no room for them.
    pub truncated: bool,
    /// The descriptors that came with the packet, closed on exec.
    pub fds: Vec<OwnedFd>,
}

impl Packet {
    /// Whether the other side has closed. An empty packet looks just the same.
    pub fn is_end(&self) -> bool {
        self.len == 0 && self.fds.is_empty() && !self.truncated
    }
}

impl Connection {
    /// Connects to a listener.
    ///
    /// Errors: `NotFound` or `ConnectionRefused` if nobody listens, `WouldBlock` if the
    /// listener's backlog is full: the kernel offers no way to wait for room, so the caller
    /// tries again later.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = new_seqpacket()?;
        socket.connect(&SockAddr::unix(path)?)?;
        Ok(Self { socket: watch(socket)? })
    }

    /// Receives one packet. Safe to cancel: either a packet is returned or none is taken.
    pub async fn recv(&self, buf: &mut [u8]) -> io::Result<Packet> {
        self.socket.async_io(Interest::READABLE, |socket| receive(socket, buf)).await
    }

    /// Sends one packet, whole, and a descriptor with it if there is one.
    ///
    /// Errors: `EMSGSIZE` for a packet that the socket cannot take whole, `BrokenPipe` if the
    /// other side has closed.
    pub async fn send(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.socket.async_io(Interest::WRITABLE, |socket| transmit(socket, bytes, fd)).await
    }
}

/// Accepts connections at a path. The path stays when the listener goes.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<Socket>,
}

impl Listener {
    /// Listens at `path`. A socket that somebody left there is removed first; anything else
    /// there is an error (`AddrInUse`).
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
            // Whatever else is there makes the bind fail.
            _ => {}
        }
        let socket = new_seqpacket()?;
        socket.bind(&SockAddr::unix(path)?)?;
        socket.listen(BACKLOG)?;
        Ok(Self { socket: watch(socket)? })
    }

    /// Accepts one connection. Safe to cancel.
    pub async fn accept(&self) -> io::Result<Connection> {
        let (socket, _) = self.socket.async_io(Interest::READABLE, Socket::accept).await?;
        socket.set_nonblocking(true)?;
        Ok(Connection { socket: watch(socket)? })
    }
}

fn new_seqpacket() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)
}

/// Lets the runtime of the calling task watch a socket.
#[expect(unsafe_code, reason = "the safe constructor is deprecated")]
fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a Socket owns its descriptor, keeps the same one until it is dropped, and the
    // AsyncFd owns the Socket from here on and never gives it away.
    // JUSTIFICATION: tokio has no seqpacket type of its own.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

fn transmit(socket: &Socket, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let fds: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    // The kernel takes a packet whole or not at all, so the count says nothing new.
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?;
    Ok(())
}

#[expect(unsafe_code, reason = "recvmsg, whose descriptors must not leak when truncated")]
fn receive(socket: &Socket, buf: &mut [u8]) -> io::Result<Packet> {
    // Words, because control messages must be aligned.
    let mut control = [0_usize; CONTROL_WORDS];
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: msghdr is plain data for which all zeros is a valid value: no buffers at all.
    // JUSTIFICATION: its padding is private on some targets, so it cannot be written literally.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = ptr::from_mut(&mut iov);
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: the header points to one iovec over `buf` and to `control`, with their true
    // lengths; all three outlive the call, and nothing else uses them meanwhile.
    // JUSTIFICATION: nix's wrapper gives back no descriptors at all when the kernel reports
    // MSG_CTRUNC, so those that did arrive would stay open for good.
    let received =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC) };
    let len = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let mut fds = Vec::new();
    // SAFETY: recvmsg succeeded and has filled `control`, which is alive and was not read yet.
    // The CMSG functions stay within it, and the kernel writes whole messages. Payloads may be
    // unaligned, hence `read_unaligned`. Each descriptor was installed for us by this call and
    // has no other owner.
    // JUSTIFICATION: the kernel's message format is reached through pointers only.
    unsafe {
        let mut next = libc::CMSG_FIRSTHDR(&raw const header);
        while let Some(message) = next.as_ref() {
            if (message.cmsg_level, message.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let data: *const RawFd = libc::CMSG_DATA(next).cast();
                let overhead = data.byte_offset_from_unsigned(next);
                for index in 0..message.cmsg_len.saturating_sub(overhead) / FD_BYTES {
                    fds.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            next = libc::CMSG_NXTHDR(&raw const header, next);
        }
    }
    let truncated = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    Ok(Packet { len, truncated, fds })
}

#[cfg(test)]
mod tests;
