//! The static table (RFC 7541 appendix A).

/// The fields; the first has index 1.
pub(super) const STATIC_TABLE: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// How much of a field the static table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// All of it, at this index.
    Field(usize),
    /// Its name, first at this index.
    Name(usize),
    /// Nothing.
    Nothing,
}

/// Looks a field up.
pub(super) fn find(name: &[u8], value: &[u8]) -> Found {
    let mut found = Found::Nothing;
    for (at, &(known, known_value)) in STATIC_TABLE.iter().enumerate() {
        if known != name {
            continue;
        }
        if known_value == value {
            return Found::Field(at + 1);
        }
        if found == Found::Nothing {
            found = Found::Name(at + 1);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, value: &str, expected: Found) {
        assert_eq!(find(name.as_bytes(), value.as_bytes()), expected, "{name}: {value}");
    }

    #[test]
    fn fields_have_the_indices_of_the_rfc() {
        check(":authority", "10.0.0.1:80", Found::Name(1));
        check(":method", "CONNECT", Found::Name(2));
        check(":method", "POST", Found::Field(3));
        check(":status", "200", Found::Field(8));
        check(":status", "503", Found::Name(8));
        check(":status", "500", Found::Field(14));
        check("cookie", "a=b", Found::Name(32));
        check("www-authenticate", "", Found::Field(61));
        check("baggage", "", Found::Nothing);
    }
}
