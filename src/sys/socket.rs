//! Sockets as this field needs them: transparent, marked, with their original destination.

use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// The longest idle time and interval that the kernel takes (`MAX_TCP_KEEPIDLE`), in seconds.
const KEEPALIVE_SECONDS_MAX: u64 = 32_767;
/// The most probes that the kernel takes (`MAX_TCP_KEEPCNT`).
const KEEPALIVE_RETRIES_MAX: u32 = 127;

/// TCP keepalive and user timeout of one socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Liveness {
    /// Idle time, interval and retries, if keepalive is on. Whole seconds; what is outside the
    /// kernel's range (1 to 32,767 s, 1 to 127 probes) is moved to its edge.
    pub keepalive: Option<(Duration, Duration, u32)>,
    /// `TCP_USER_TIMEOUT`, if set. Whole milliseconds, at least one.
    pub user_timeout: Option<Duration>,
}

/// What a new connecting socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketPlan {
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
    /// May be bound to addresses that are not ours.
    pub transparent: bool,
}

impl SocketPlan {
    /// A new TCP socket for this plan in the namespace of the calling thread: non-blocking,
    /// closed on exec, marked with `mark` (spec hbone 9).
    ///
    /// Errors: `EPERM` for a mark or a transparent socket without `CAP_NET_ADMIN`,
    /// `EAFNOSUPPORT` where there is no IPv6, `EMFILE`.
    pub fn create(self, mark: Option<u32>) -> io::Result<Socket> {
        let domain = if self.ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = new_tcp(domain, mark)?;
        // With it, a socket may be bound to any address: free binding would add nothing.
        match (self.transparent, self.ipv6) {
            (true, true) => socket.set_ip_transparent_v6(true)?,
            (true, false) => socket.set_ip_transparent_v4(true)?,
            (false, _) => {}
        }
        Ok(socket)
    }
}

/// Where a redirected connection was going; `None` if it was not redirected. `local` is the address
/// that the socket has here.
///
/// IPv4 addresses come out as IPv4, also those that the socket has in mapped form.
pub fn original_destination(socket: &impl AsFd, local: SocketAddr) -> Option<SocketAddr> {
    let (socket, local) = (SockRef::from(socket), canonical(local));
    // An IPv4 connection on a `[::]` listener is an IPv6 socket, but the kernel tracks it as
    // IPv4. Asking a truly IPv6 socket at the IPv4 level would look up a made-up 127.0.0.6.
    let original = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    elsewhere(canonical(original.ok()?.as_socket()?), local)
}

/// Sets TCP_NODELAY, keepalive and user timeout. What a listener has of these, the connections that
/// it accepts have as well.
pub fn tune(socket: &impl AsFd, liveness: &Liveness) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    if let Some((idle, interval, retries)) = liveness.keepalive {
        let keepalive = TcpKeepalive::new()
            .with_time(keepalive_seconds(idle))
            .with_interval(keepalive_seconds(interval))
            .with_retries(retries.clamp(1, KEEPALIVE_RETRIES_MAX));
        socket.set_tcp_keepalive(&keepalive)?;
    }
    if let Some(timeout) = liveness.user_timeout {
        // Zero milliseconds would mean "the system's default".
        socket.set_tcp_user_timeout(Some(timeout.max(Duration::from_millis(1))))?;
    }
    Ok(())
}

/// Makes the next close send RST and discard what was not sent.
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Sends FIN: nothing more will be written. The other direction goes on. Fine if the connection is
/// over already.
pub fn finish(socket: &impl AsFd) -> io::Result<()> {
    match SockRef::from(socket).shutdown(Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        result => result,
    }
}

/// Binds a transparent socket to somebody else's address, any port, chosen at connect.
///
/// Choosing late lets one source hold a port once per destination instead of once in all, and
/// spares the kernel the search of the whole port range. An IPv4 address on an IPv6 socket is
/// bound in mapped form. Errors: `InvalidInput` for an IPv6 address on an IPv4 socket,
/// `EADDRNOTAVAIL` if the socket is not transparent, `EINVAL` for a link-local address.
pub fn bind_original_source(socket: &impl AsFd, source: IpAddr) -> io::Result<()> {
    setsockopt(socket, IpBindAddressNoPort, &true)?;
    bind(socket, source, 0)
}

/// Binds a transparent socket to somebody else's address and this port.
///
/// A port that other connections of that source have is taken all the same; whether the pair of
/// addresses is free shows when connecting (`EADDRNOTAVAIL`). Errors: as for
/// [`bind_original_source`], and `EADDRINUSE` if somebody listens on that port.
pub fn bind_original_source_port(socket: &impl AsFd, source: SocketAddr) -> io::Result<()> {
    SockRef::from(socket).set_reuse_address(true)?;
    bind(socket, source.ip(), source.port())
}

fn bind(socket: &impl AsFd, source: IpAddr, port: u16) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let ipv6 = socket.domain()? == Domain::IPV6;
    let address = match source.to_canonical() {
        IpAddr::V4(ip) if ipv6 => IpAddr::V6(ip.to_ipv6_mapped()),
        IpAddr::V6(_) if !ipv6 => {
            let why = "an IPv4 socket cannot have an IPv6 source";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        same => same,
    };
    socket.bind(&SocketAddr::new(address, port).into())
}

/// A TCP socket, non-blocking, closed on exec, marked.
pub(super) fn new_tcp(domain: Domain, mark: Option<u32>) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    Ok(socket)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        // Keeps the scope of a link-local address.
        IpAddr::V6(_) => address,
    }
}

/// The original destination, unless it is where the connection arrived: connection tracking also
/// answers for connections that nobody redirected.
fn elsewhere(original: SocketAddr, local: SocketAddr) -> Option<SocketAddr> {
    let redirected = (original.ip(), original.port()) != (local.ip(), local.port());
    redirected.then_some(original)
}

fn keepalive_seconds(asked: Duration) -> Duration {
    Duration::from_secs(asked.as_secs().clamp(1, KEEPALIVE_SECONDS_MAX))
}

/// Bytes written to the socket that the peer has not acknowledged yet.
#[expect(unsafe_code, reason = "an ioctl without a safe wrapper")]
pub fn unsent(socket: &impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: SIOCOUTQ (TIOCOUTQ) writes one int, to a place that outlives the call.
    // JUSTIFICATION: neither nix nor socket2 offers this request.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut count) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

    use super::*;

    fn pair(listen: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(listen).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn addresses_are_canonical() {
        #[track_caller]
        fn check(input: &str, expected: &str) {
            assert_eq!(canonical(input.parse().unwrap()), expected.parse().unwrap());
        }
        check("10.1.2.3:80", "10.1.2.3:80");
        check("[::ffff:10.1.2.3]:80", "10.1.2.3:80");
        check("[2001:db8::1]:80", "[2001:db8::1]:80");
        check("[fe80::1%7]:80", "[fe80::1%7]:80");
        check("[::10.1.2.3]:80", "[::10.1.2.3]:80");
    }

    #[test]
    fn only_what_went_elsewhere_was_redirected() {
        #[track_caller]
        fn check(original: &str, local: &str, redirected: bool) {
            let original = original.parse().unwrap();
            let expected = redirected.then_some(original);
            assert_eq!(elsewhere(original, local.parse().unwrap()), expected);
        }
        check("10.0.0.9:80", "127.0.0.1:15001", true);
        check("10.0.0.2:80", "10.0.0.2:15006", true);
        check("10.0.0.9:15006", "10.0.0.2:15006", true);
        check("10.0.0.2:15006", "10.0.0.2:15006", false);
        check("[fe80::1%3]:15006", "[fe80::1]:15006", false);
    }

    #[test]
    fn a_connection_that_nobody_redirected_has_no_original_destination() {
        for listen in ["127.0.0.1:0", "[::]:0"] {
            let (client, accepted) = pair(listen);
            for socket in [accepted, client] {
                let local = socket.local_addr().unwrap();
                assert_eq!(original_destination(&socket, local), None, "{listen}");
            }
        }
        let (unix, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(original_destination(&unix, (Ipv4Addr::LOCALHOST, 1).into()), None);
    }

    #[test]
    fn tuning_reaches_the_kernel() {
        let seconds = Duration::from_secs;
        let check = |liveness: Liveness, expected: (bool, u64, u64, u32, Option<Duration>)| {
            let (client, _accepted) = pair("127.0.0.1:0");
            tune(&client, &liveness).unwrap();
            let socket = SockRef::from(&client);
            assert!(socket.tcp_nodelay().unwrap());
            assert_eq!(socket.keepalive().unwrap(), expected.0);
            if expected.0 {
                assert_eq!(socket.tcp_keepalive_time().unwrap(), seconds(expected.1));
                assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(expected.2));
                assert_eq!(socket.tcp_keepalive_retries().unwrap(), expected.3);
            }
            assert_eq!(socket.tcp_user_timeout().unwrap(), expected.4);
        };
        let keepalive = |idle, interval, retries| Liveness {
            keepalive: Some((idle, interval, retries)),
            user_timeout: None,
        };
        check(Liveness::default(), (false, 0, 0, 0, None));
        check(keepalive(seconds(180), seconds(75), 9), (true, 180, 75, 9, None));
        check(keepalive(Duration::ZERO, seconds(100_000), 0), (true, 1, 32_767, 1, None));
        check(keepalive(seconds(7), Duration::from_millis(9), 999), (true, 7, 1, 127, None));
        let timeout = |user_timeout| Liveness { keepalive: None, user_timeout };
        check(timeout(Some(seconds(1800))), (false, 0, 0, 0, Some(seconds(1800))));
        let least = Some(Duration::from_millis(1));
        check(timeout(Some(Duration::ZERO)), (false, 0, 0, 0, least));
    }

    #[test]
    fn accepted_connections_are_as_their_listener() {
        for listen in ["127.0.0.1:0", "[::]:0"] {
            let listener = TcpListener::bind(listen).unwrap();
            let seconds = Duration::from_secs;
            let keepalive = Some((seconds(7), seconds(5), 3));
            tune(&listener, &Liveness { keepalive, user_timeout: Some(seconds(9)) }).unwrap();
            let port = listener.local_addr().unwrap().port();
            let _client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let socket = SockRef::from(&accepted);
            assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), seconds(7));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), seconds(5));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(seconds(9)));
        }
    }

    #[test]
    fn a_reset_socket_resets_and_others_end() {
        for (reset, expected) in [(true, Some(io::ErrorKind::ConnectionReset)), (false, None)] {
            let (client, mut accepted) = pair("127.0.0.1:0");
            if reset {
                reset_on_close(&client).unwrap();
            }
            drop(client);
            assert_eq!(accepted.read(&mut [0; 1]).err().map(|error| error.kind()), expected);
        }
    }

    #[test]
    fn planned_sockets_do_not_block_and_do_not_outlive_exec() {
        for ipv6 in [false, true] {
            let plan = SocketPlan { ipv6, transparent: false };
            let socket = plan.create(None).unwrap();
            let status = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL).unwrap());
            let flags = FdFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFD).unwrap());
            assert!(status.contains(OFlag::O_NONBLOCK));
            assert!(flags.contains(FdFlag::FD_CLOEXEC), "{}", socket.as_raw_fd());
        }
    }

    #[test]
    fn the_source_is_bound_without_a_port() {
        let bind = |ipv6, source: IpAddr| {
            let socket = SocketPlan { ipv6, transparent: false }.create(None).unwrap();
            bind_original_source(&socket, source)?;
            Ok::<_, io::Error>(socket.local_addr().unwrap().as_socket().unwrap())
        };
        let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
        let mapped = IpAddr::from(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        assert_eq!(bind(false, localhost).unwrap(), SocketAddr::new(localhost, 0));
        assert_eq!(bind(false, mapped).unwrap(), SocketAddr::new(localhost, 0));
        assert_eq!(bind(true, localhost).unwrap(), SocketAddr::new(mapped, 0));
        let refused = bind(false, Ipv6Addr::LOCALHOST.into()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        let foreign = bind(false, Ipv4Addr::new(192, 0, 2, 1).into()).unwrap_err();
        assert_eq!(foreign.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
