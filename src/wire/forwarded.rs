//! The `forwarded` header: who called and which service was meant (spec hbone 3.2, 3.3).
//!
//! What it says is a claim, good for telemetry only.

use std::net::SocketAddr;
use std::sync::Arc;

/// Longest header that is looked at, in bytes.
pub const BYTES_MAX: usize = 1_024;
/// Longest `host` that is taken over, in bytes: a DNS name, a colon and a port.
pub const HOST_BYTES_MAX: usize = 259;

/// `for="<client>"`, and the service's host name if a service was addressed.
///
/// A host name that cannot stand unquoted is left out.
pub fn build(client: SocketAddr, host: Option<&str>) -> String {
    match host.filter(|host| is_host(host)) {
        Some(host) => format!("for=\"{client}\";host={host}"),
        None => format!("for=\"{client}\""),
    }
}

/// A header that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// The `host` parameter of the header's only element, if it can be read and has one.
pub fn host<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Arc<str>> {
    read(lines).ok().flatten()
}

/// The `host` parameter of the header's only element, if it has one.
///
/// A repeated header, several elements or a repeated `host` are refused: whoever reads the first
/// and whoever reads the last would disagree.
pub fn read<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> Result<Option<Arc<str>>, Unreadable> {
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() || line.len() > BYTES_MAX {
        return Err(Unreadable);
    }
    let line = std::str::from_utf8(line).map_err(|_| Unreadable)?;
    let mut found: Option<&str> = None;
    let mut quoted = false;
    let separator = |c: char| {
        if c == '"' {
            quoted = !quoted;
        }
        // A comma begins the next element; an escape would need a parser that nobody else has.
        !quoted && (c == ';' || c == ',') || c == '\\'
    };
    let mut rest = line;
    for parameter in line.split(separator) {
        rest = &rest[parameter.len()..];
        match rest.chars().next() {
            None => {}
            Some(';') => rest = &rest[1..],
            Some(_) => return Err(Unreadable),
        }
        let Some((name, value)) = parameter.split_once('=') else { continue };
        if name.trim().eq_ignore_ascii_case("host") && found.replace(value.trim()).is_some() {
            return Err(Unreadable);
        }
    }
    let Some(value) = found else { return Ok(None) };
    let host = match value.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').ok_or(Unreadable)?,
        None => value,
    };
    if is_host(host) { Ok(Some(Arc::from(host))) } else { Err(Unreadable) }
}

/// Whether it may be the value of `host`: a DNS name or an address, perhaps with a port.
fn is_host(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*:[]".contains(&byte);
    !text.is_empty() && text.len() <= HOST_BYTES_MAX && text.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_build(client: &str, name: Option<&str>, expected: &str) {
        let built = build(client.parse().expect("address"), name);
        assert_eq!(built, expected);
        let read = host([built.as_bytes()].into_iter());
        let kept = name.filter(|_| expected.contains("host="));
        assert_eq!(read.as_deref(), kept, "read back");
    }

    fn check(lines: &[&[u8]], expected: Option<&str>) {
        assert_eq!(host(lines.iter().copied()).as_deref(), expected, "{lines:?}");
    }

    #[test]
    fn nothing_said_is_not_unreadable() {
        let check = |lines: &[&[u8]], expected: Result<Option<&str>, Unreadable>| {
            let got = read(lines.iter().copied());
            assert_eq!(got.as_ref().map(|host| host.as_deref()).map_err(|e| *e), expected);
        };
        check(&[], Ok(None));
        check(&[b"for=x"], Ok(None));
        check(&[b"host=a.b"], Ok(Some("a.b")));
        check(&[b"host=a.b,for=x"], Err(Unreadable));
        check(&[b"host=a b"], Err(Unreadable));
        check(&[b"for=x", b"for=y"], Err(Unreadable));
    }

    #[test]
    fn builds_what_upstream_reads() {
        check_build("10.0.0.1:4000", None, "for=\"10.0.0.1:4000\"");
        check_build("10.0.0.1:4000", Some("a.b"), "for=\"10.0.0.1:4000\";host=a.b");
        check_build("[2001:db8::1]:4000", Some("a.b"), "for=\"[2001:db8::1]:4000\";host=a.b");
        for odd in ["", "a;b", "a,b", "a\"b", "a b", "a\r\nb", "caf\u{e9}"] {
            check_build("10.0.0.1:4000", Some(odd), "for=\"10.0.0.1:4000\"");
        }
    }

    #[test]
    fn reads_only_one_host_of_one_element() {
        check(&[], None);
        check(&[b""], None);
        check(&[b"for=\"1.2.3.4:5\";host=a.b"], Some("a.b"));
        check(&[b"host=a.b;for=\"[::1]:5\""], Some("a.b"));
        check(&[b"for=x; HoSt=\"a.b:80\" ;proto=http"], Some("a.b:80"));
        check(&[b"for=\"x;host=evil\";host=a.b"], Some("a.b"));
        check(&[b"for=\"x;host=evil\""], None);
        check(&[b"xhost=a.b"], None);
        check(&[b"host"], None);
        check(&[b"host="], None);
        check(&[b"host=\""], None);
        check(&[b"host=\"\""], None);
        check(&[b"host=\"a.b"], None);
        check(&[b"host=a b"], None);
        check(&[b"host=a.b;host=a.b"], None);
        check(&[b"host=a.b;host=c.d"], None);
        check(&[b"host=a.b,host=c.d"], None);
        check(&[b"host=a.b,for=x"], None);
        check(&[b"host=a.b;for=\"x\\\"y\""], None);
        check(&[b"host=a.b", b"host=a.b"], None);
        check(&[b"host=a.b", b"for=x"], None);
        check(&["host=\u{e9}".as_bytes()], None);
        check(&[b"host=a.b;for=\xff"], None);
        check(&[b"host=a\tb"], None);
    }

    #[test]
    fn is_bounded() {
        let name = |len: usize| format!("host={}", "a".repeat(len)).into_bytes();
        let longest = "a".repeat(HOST_BYTES_MAX);
        check(&[&name(HOST_BYTES_MAX)], Some(&longest));
        check(&[&name(HOST_BYTES_MAX + 1)], None);
        let padded = |len: usize| format!("host=a;{}", "x".repeat(len - 7)).into_bytes();
        check(&[&padded(BYTES_MAX)], Some("a"));
        check(&[&padded(BYTES_MAX + 1)], None);
    }

    #[test]
    fn any_bytes_are_read_or_ignored() {
        let mut rng = fastrand::Rng::with_seed(3);
        let pieces: [&[u8]; 10] =
            [b"host", b"=", b"a.b", b";", b"\"", b",", b"\\", b" ", b"\xc3\xa9", b"\xff"];
        for _ in 0..20_000 {
            let pick = |rng: &mut fastrand::Rng| pieces[rng.usize(..pieces.len())];
            let line: Vec<u8> = (0..rng.u8(..9)).flat_map(|_| pick(&mut rng)).copied().collect();
            if let Some(read) = host([&*line].into_iter()) {
                assert!(is_host(&read), "{}", String::from_utf8_lossy(&line));
            }
        }
    }
}
