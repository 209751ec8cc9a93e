//! The three listening sockets of a pod, all or none (spec hbone 9, spec node-and-pods 4).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket};

use super::super::socket::new_tcp;
use super::{Listeners, OpenerConfig};

/// Where applications' connections are redirected to.
const OUTBOUND_PORT: u16 = 15001;
/// Where plaintext connections to applications are redirected to.
const PLAINTEXT_PORT: u16 = 15006;
/// Where tunnels arrive.
const HBONE_PORT: u16 = 15008;

/// Opens the listeners in the namespace of the calling thread.
pub(super) fn open(config: &OpenerConfig) -> io::Result<Listeners> {
    in_a_family(config.ipv6, |ip| open_on(ip, config)).map_err(io::Error::from)
}

/// What could not be done. The error is kept as it came from the system until it has been
/// decided what it means.
#[derive(Debug)]
struct Failed {
    step: &'static str,
    address: SocketAddr,
    error: io::Error,
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        let Failed { step, address, error } = failed;
        Self::new(error.kind(), format!("cannot {step} {address}: {error}"))
    }
}

/// Opens on `[::]`, or on `0.0.0.0` if that is asked for or there is no IPv6.
fn in_a_family<T>(ipv6: bool, open: impl Fn(IpAddr) -> Result<T, Failed>) -> Result<T, Failed> {
    let ipv4 = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    if !ipv6 {
        return open(ipv4);
    }
    open(Ipv6Addr::UNSPECIFIED.into()).or_else(|failed| match failed.error.raw_os_error() {
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => open(ipv4),
        _ => Err(failed),
    })
}

fn open_on(ip: IpAddr, config: &OpenerConfig) -> Result<Listeners, Failed> {
    let bind = |port| bind(SocketAddr::new(ip, port), config);
    let (hbone, hbone_transparent) = bind(HBONE_PORT)?;
    let (plaintext, plaintext_transparent) = bind(PLAINTEXT_PORT)?;
    let (outbound, outbound_transparent) = bind(OUTBOUND_PORT)?;
    // No connection is taken before every port is ours.
    Ok(Listeners {
        hbone: listen(hbone, ip, HBONE_PORT, config.backlog)?,
        plaintext: listen(plaintext, ip, PLAINTEXT_PORT, config.backlog)?,
        outbound: listen(outbound, ip, OUTBOUND_PORT, config.backlog)?,
        transparent: hbone_transparent && plaintext_transparent && outbound_transparent,
    })
}

/// A bound socket, and whether it is transparent.
fn bind(address: SocketAddr, config: &OpenerConfig) -> Result<(Socket, bool), Failed> {
    let failed = |step| move |error| Failed { step, address, error };
    let domain = Domain::for_address(address);
    let socket = new_tcp(domain, config.mark).map_err(failed("open a socket for"))?;
    if config.port_reuse {
        socket.set_reuse_port(true).map_err(failed("share the port of"))?;
    } else {
        socket.set_reuse_address(true).map_err(failed("reuse"))?;
    }
    if address.is_ipv6() {
        // The system's default may be otherwise.
        socket.set_only_v6(false).map_err(failed("also take IPv4 on"))?;
    }
    let transparent = match config.transparent {
        Some(false) => false,
        Some(true) => {
            let step = "keep original sources (needs CAP_NET_ADMIN) on";
            make_transparent(&socket, domain).map_err(failed(step))?;
            true
        }
        None => make_transparent(&socket, domain).is_ok(),
    };
    socket.bind(&address.into()).map_err(failed("listen on"))?;
    Ok((socket, transparent))
}

/// On a `[::]` socket both levels: its IPv4 connections read the IPv4 one.
fn make_transparent(socket: &Socket, domain: Domain) -> io::Result<()> {
    socket.set_ip_transparent_v4(true)?;
    if domain == Domain::IPV6 {
        socket.set_ip_transparent_v6(true)?;
    }
    Ok(())
}

fn listen(socket: Socket, ip: IpAddr, port: u16, backlog: u32) -> Result<TcpListener, Failed> {
    // More than the system allows is cut to that by the kernel.
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let address = SocketAddr::new(ip, port);
    socket.listen(backlog).map_err(|error| Failed { step: "listen on", address, error })?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const CONFIG: OpenerConfig = OpenerConfig {
        mark: None,
        port_reuse: false,
        ipv6: true,
        backlog: 16,
        transparent: Some(false),
    };

    #[test]
    fn without_ipv6_it_listens_on_ipv4() {
        // (wanted IPv6, error of `[::]`) -> families tried, and whether it worked
        let check = |ipv6, error: Option<i32>, expected: (&[&str], bool)| {
            let tried = RefCell::new(Vec::new());
            let open = |ip: IpAddr| {
                tried.borrow_mut().push(ip.to_string());
                let address = SocketAddr::new(ip, 1);
                let failed = |code| {
                    let error = io::Error::from_raw_os_error(code);
                    Err(Failed { step: "listen on", address, error })
                };
                if ip.is_ipv6() { error.map_or(Ok(()), failed) } else { Ok(()) }
            };
            let worked = in_a_family(ipv6, open).is_ok();
            assert_eq!(
                (tried.into_inner(), worked),
                (expected.0.iter().map(|ip| (*ip).to_owned()).collect(), expected.1)
            );
        };
        check(false, None, (&["0.0.0.0"], true));
        check(true, None, (&["::"], true));
        check(true, Some(libc::EAFNOSUPPORT), (&["::", "0.0.0.0"], true));
        check(true, Some(libc::EADDRNOTAVAIL), (&["::", "0.0.0.0"], true));
        check(true, Some(libc::EADDRINUSE), (&["::"], false));
        check(true, Some(libc::EPERM), (&["::"], false));
    }

    #[test]
    fn listeners_have_the_options_asked_for() {
        for (address, port_reuse) in [("[::]:0", true), ("[::]:0", false), ("0.0.0.0:0", true)] {
            let address: SocketAddr = address.parse().unwrap();
            let config = OpenerConfig { port_reuse, ..CONFIG };
            let (socket, transparent) = bind(address, &config).unwrap();
            assert!(!transparent && !socket.ip_transparent_v4().unwrap());
            assert_eq!(socket.reuse_port().unwrap(), port_reuse);
            assert_eq!(socket.reuse_address().unwrap(), !port_reuse);
            assert!(socket.nonblocking().unwrap());
            if address.is_ipv6() {
                assert!(!socket.only_v6().unwrap());
            }
        }
    }

    #[test]
    fn an_error_names_the_step_and_the_address() {
        let taken = bind("127.0.0.1:0".parse().unwrap(), &CONFIG).unwrap().0;
        let address = taken.local_addr().unwrap().as_socket().unwrap();
        let _listening = listen(taken, address.ip(), address.port(), 1).unwrap();
        let error = io::Error::from(bind(address, &CONFIG).unwrap_err());
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("cannot listen on {address}: ")), "{error}");
    }
}
