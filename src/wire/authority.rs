//! CONNECT authorities: `<ip or host name>:<port>` (spec hbone 3.1).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

/// A CONNECT target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    /// An address and port.
    Addr(SocketAddr),
    /// A service host name and service port.
    Host(Arc<str>, u16),
}

/// Why a text is not a CONNECT target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityError {
    /// There is no host.
    Host,
    /// There is no port, or it is not 1 to 65535.
    Port,
}

impl Authority {
    /// The port asked for.
    pub fn port(&self) -> u16 {
        match self {
            Self::Addr(addr) => addr.port(),
            Self::Host(_, port) => *port,
        }
    }

    /// The address asked for, if it was one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Addr(addr) => Some(addr.ip()),
            Self::Host(..) => None,
        }
    }
}

impl FromStr for Authority {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        let (host, port) = text.rsplit_once(':').ok_or(AuthorityError::Port)?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port.parse::<u16>() {
            Ok(port) if digits && port != 0 => port,
            _ => return Err(AuthorityError::Port),
        };
        if let Some(inner) = host.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(AuthorityError::Host)?;
            let ip = inner.parse::<std::net::Ipv6Addr>().map_err(|_| AuthorityError::Host)?;
            return Ok(Self::Addr(SocketAddr::new(IpAddr::V6(ip).to_canonical(), port)));
        }
        if let Ok(ip) = host.parse::<std::net::Ipv4Addr>() {
            return Ok(Self::Addr(SocketAddr::new(IpAddr::V4(ip), port)));
        }
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte);
        if host.is_empty() || host.len() > 253 || !host.bytes().all(legal) {
            return Err(AuthorityError::Host);
        }
        Ok(Self::Host(Arc::from(host), port))
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::Host(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "the host is neither an address nor a host name",
            Self::Port => "the port is not 1 to 65535",
        })
    }
}

impl std::error::Error for AuthorityError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, AuthorityError>) {
        let got = text.parse::<Authority>().map(|authority| authority.to_string());
        assert_eq!(got, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn parses_what_peers_send_and_refuses_the_rest() {
        check("10.0.0.1:80", Ok("10.0.0.1:80"));
        check("[2001:db8::1]:443", Ok("[2001:db8::1]:443"));
        check("[::ffff:10.0.0.1]:80", Ok("10.0.0.1:80"));
        check("cart.shop.svc.cluster.local:80", Ok("cart.shop.svc.cluster.local:80"));
        check("10.0.0.1", Err(AuthorityError::Port));
        check("10.0.0.1:", Err(AuthorityError::Port));
        check("10.0.0.1:0", Err(AuthorityError::Port));
        check("10.0.0.1:65536", Err(AuthorityError::Port));
        check("10.0.0.1:+80", Err(AuthorityError::Port));
        check(":80", Err(AuthorityError::Host));
        check("2001:db8::1:80", Err(AuthorityError::Host));
        check("[2001:db8::1:80", Err(AuthorityError::Host));
        check("[10.0.0.1]:80", Err(AuthorityError::Host));
        check("user@host:80", Err(AuthorityError::Host));
    }
}
