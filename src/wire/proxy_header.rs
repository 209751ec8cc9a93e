//! PROXY protocol version 2: who called, in front of the bytes of an application tunnel (spec hbone
//! 6).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::spiffe::Identity;

/// Longest SPIFFE id that is sent, in bytes (the limit of the SPIFFE specification).
pub const IDENTITY_BYTES_MAX: usize = 2_048;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const VERSION_COMMAND: u8 = 0x21;
/// Address family and transport: TCP over IPv4.
const TCP4: u8 = 0x11;
/// TCP over IPv6.
const TCP6: u8 = 0x21;
/// Not specified, no addresses: the only other value a sender may use.
const UNSPECIFIED: u8 = 0x00;
/// The TLV that carries the peer's SPIFFE id as ASCII.
const TLV_IDENTITY: u8 = 0xd0;

/// Why there is no header for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeaderError {
    /// The SPIFFE id is longer than [`IDENTITY_BYTES_MAX`].
    IdentityTooLong,
    /// The SPIFFE id is not ASCII.
    IdentityNotAscii,
}

/// The header for a connection from `source` to `destination`, and the peer's identity if it has
/// one. Two address families give a header without addresses.
pub fn encode(
    source: SocketAddr,
    destination: SocketAddr,
    identity: Option<&Identity>,
) -> Result<Vec<u8>, ProxyHeaderError> {
    let mut body = Vec::new();
    let family = match (source.ip().to_canonical(), destination.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            body.extend_from_slice(&from.octets());
            body.extend_from_slice(&to.octets());
            TCP4
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            body.extend_from_slice(&from.octets());
            body.extend_from_slice(&to.octets());
            TCP6
        }
        _ => UNSPECIFIED,
    };
    if family != UNSPECIFIED {
        body.extend_from_slice(&source.port().to_be_bytes());
        body.extend_from_slice(&destination.port().to_be_bytes());
    }
    if let Some(identity) = identity {
        // Leaving it out would turn a caller with an identity into one without.
        let id = identity.to_string();
        if !id.is_ascii() {
            return Err(ProxyHeaderError::IdentityNotAscii);
        }
        let len = length(id.len(), IDENTITY_BYTES_MAX)?;
        body.push(TLV_IDENTITY);
        body.extend_from_slice(&len.to_be_bytes());
        body.extend_from_slice(id.as_bytes());
    }
    let len = length(body.len(), usize::from(u16::MAX))?;
    let mut header = Vec::with_capacity(SIGNATURE.len() + 4 + body.len());
    header.extend_from_slice(&SIGNATURE);
    header.extend_from_slice(&[VERSION_COMMAND, family]);
    header.extend_from_slice(&len.to_be_bytes());
    header.append(&mut body);
    Ok(header)
}

impl fmt::Display for ProxyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IdentityTooLong => "the SPIFFE id is too long for a PROXY header",
            Self::IdentityNotAscii => "the SPIFFE id is not ASCII",
        })
    }
}

impl std::error::Error for ProxyHeaderError {}

/// A length as the format carries it.
fn length(len: usize, max: usize) -> Result<u16, ProxyHeaderError> {
    let fits = u16::try_from(len).ok().filter(|_| len <= max);
    fits.ok_or(ProxyHeaderError::IdentityTooLong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &str, to: &str, id: Option<&Identity>, expected: &[u8]) {
        let header = encode(from.parse().expect("from"), to.parse().expect("to"), id);
        let header = header.expect("within limits");
        assert_eq!(header[..12], *b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A");
        assert_eq!(&header[12..], expected, "{from} {to}");
        let len = usize::from(u16::from_be_bytes([header[14], header[15]]));
        assert_eq!(len, header.len() - 16);
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        check(
            "10.1.2.3:258",
            "10.4.5.6:80",
            None,
            &[0x21, 0x11, 0, 12, 10, 1, 2, 3, 10, 4, 5, 6, 1, 2, 0, 80],
        );
        let mut v6 = vec![0x21, 0x21, 0, 36];
        v6.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        v6.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        v6.extend([0, 1, 0, 2]);
        check("[2001:db8::1]:1", "[2001:db8::2]:2", None, &v6);
        check("10.1.2.3:258", "[2001:db8::2]:2", None, &[0x21, 0, 0, 0]);
    }

    #[test]
    fn the_identity_follows_the_addresses() {
        let id = Identity::new("td", "n", "s");
        let mut expected =
            vec![0x21, 0x11, 0, 36, 10, 1, 2, 3, 10, 4, 5, 6, 1, 2, 0, 80, 0xd0, 0, 21];
        expected.extend(b"spiffe://td/ns/n/sa/s");
        check("[::ffff:10.1.2.3]:258", "10.4.5.6:80", Some(&id), &expected);
        let mut mixed = vec![0x21, 0, 0, 24, 0xd0, 0, 21];
        mixed.extend(b"spiffe://td/ns/n/sa/s");
        check("10.1.2.3:258", "[2001:db8::2]:2", Some(&id), &mixed);
    }

    #[test]
    fn an_identity_that_does_not_fit_is_an_error_and_not_left_out() {
        let peer = "10.1.2.3:258".parse().expect("address");
        let try_with = |sa: &str| encode(peer, peer, Some(&Identity::new("td", "n", sa)));
        let room = IDENTITY_BYTES_MAX - "spiffe://td/ns/n/sa/".len();
        assert!(try_with(&"x".repeat(room)).is_ok());
        assert_eq!(try_with(&"x".repeat(room + 1)), Err(ProxyHeaderError::IdentityTooLong));
        assert_eq!(try_with(&"x".repeat(70_000)), Err(ProxyHeaderError::IdentityTooLong));
        assert_eq!(try_with("caf\u{e9}"), Err(ProxyHeaderError::IdentityNotAscii));
    }
}
