//! The fields of a request or a response, and whether they may stand together
//! (RFC 9113 8.2, 8.3 and 8.5).

use std::fmt;

/// Names and values in their order, pseudo-fields first. They are bytes of a stranger.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields {
    bytes: Vec<u8>,
    /// Where each name and each value ends.
    ends: Vec<(u32, u32)>,
}

/// Fields that concern one connection only, and may not be sent in HTTP/2 (8.2.2).
const OF_CONNECTIONS: [&[u8]; 5] =
    [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];

impl Fields {
    /// Adds one.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.bytes.extend_from_slice(name);
        let name_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        // The list is limited to far less than 2^32 bytes.
        let end = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        self.ends.push((end(name_end), end(self.bytes.len())));
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|&(_, end)| end as usize));
        starts.zip(&self.ends).map(|(start, &(name_end, end))| {
            let (name_end, end) = (name_end as usize, end as usize);
            (&self.bytes[start..name_end], &self.bytes[name_end..end])
        })
    }

    /// The value of the first one with this name.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter().find(|&(other, _)| other == name).map(|(_, value)| value)
    }

    /// Whether these are the fields of a request that is not malformed. Of extended CONNECT
    /// (RFC 8441) nothing is known here.
    pub(super) fn is_request(&self) -> bool {
        const KNOWN: [&[u8]; 4] = [b":method", b":authority", b":scheme", b":path"];
        if !self.are_legal(&KNOWN) {
            return false;
        }
        let rest = (self.get(b":scheme").is_some(), self.get(b":path").is_some());
        match self.get(b":method") {
            Some(b"CONNECT") => self.get(b":authority").is_some() && rest == (false, false),
            Some(method) => !method.is_empty() && rest == (true, true),
            None => false,
        }
    }

    /// The status of a response that is not malformed.
    pub(super) fn response_status(&self) -> Option<u16> {
        let status = self.get(b":status").filter(|_| self.are_legal(&[b":status"]))?;
        let &[hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = status else {
            return None;
        };
        let digit = |byte: u8| u16::from(byte - b'0');
        Some(digit(hundreds) * 100 + digit(tens) * 10 + digit(ones))
    }

    /// Whether names and values are well formed, and pseudo-fields known, single and in front.
    fn are_legal(&self, pseudo: &[&[u8]]) -> bool {
        let mut regular = false;
        let mut seen = 0_u8;
        for (name, value) in self.iter() {
            if !is_value(value) {
                return false;
            }
            if name.first() == Some(&b':') {
                let Some(at) = pseudo.iter().position(|&known| known == name) else {
                    return false;
                };
                if regular || seen & (1 << at) != 0 {
                    return false;
                }
                seen |= 1 << at;
                continue;
            }
            regular = true;
            let te = name == b"te" && value != b"trailers";
            if !is_name(name) || OF_CONNECTIONS.contains(&name) || te {
                return false;
            }
        }
        true
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        f.debug_map().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

/// A token in lower case (RFC 9110 5.6.2).
fn is_name(name: &[u8]) -> bool {
    let token = |&byte: &u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' => true,
        other => b"!#$%&'*+-.^_`|~".contains(&other),
    };
    !name.is_empty() && name.iter().all(token)
}

/// No line ends, no NUL, no blank at either end (8.2.1).
fn is_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
        && !blank(value.first())
        && !blank(value.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        let mut fields = Fields::default();
        for line in text.split('|').filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once('=').unwrap();
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    #[test]
    fn requests_are_well_formed_or_refused() {
        const OK: &str = ":method=CONNECT|:authority=a:1";
        for (text, expected) in [
            (OK.to_owned(), true),
            (format!("{OK}|baggage=a=b,c=d|forwarded=for=x"), true),
            (format!("{OK}|te=trailers"), true),
            (format!("{OK}|te=gzip"), false),
            (format!("{OK}|Upper=x"), false),
            (format!("{OK}|sp ace=x"), false),
            (format!("{OK}|=x"), false),
            (format!("{OK}|a= x"), false),
            (format!("{OK}|a=x\t"), false),
            (format!("{OK}|a=x\ny"), false),
            (format!("{OK}|a=x\0y"), false),
            (format!("{OK}|connection=close"), false),
            (format!("{OK}|transfer-encoding=chunked"), false),
            (format!("{OK}|:path=/"), false),
            (format!("{OK}|:scheme=https"), false),
            (format!("{OK}|:protocol=websocket"), false),
            (format!("{OK}|:authority=b:1"), false),
            (format!("a=x|{OK}"), false),
            (":method=CONNECT".into(), false),
            (":authority=a:1".into(), false),
            (String::new(), false),
            (":method=GET|:scheme=https|:path=/|:authority=a".into(), true),
            (":method=GET|:scheme=https|:path=/".into(), true),
            (":method=GET|:path=/".into(), false),
            (":method=|:scheme=https|:path=/".into(), false),
            (":method=CONNECT|:authority=a:1|:status=200".into(), false),
        ] {
            assert_eq!(fields(&text).is_request(), expected, "{text}");
        }
    }

    #[test]
    fn responses_have_one_status() {
        for (text, expected) in [
            (":status=200", Some(200)),
            (":status=503|a=b", Some(503)),
            (":status=099", None),
            (":status=20", None),
            (":status=2000", None),
            (":status=2x0", None),
            (":status=200|:status=200", None),
            (":status=200|:path=/", None),
            ("a=b|:status=200", None),
            ("a=b", None),
        ] {
            assert_eq!(fields(text).response_status(), expected, "{text}");
        }
    }

    #[test]
    fn what_was_pushed_is_found() {
        let fields = fields("a=1|b=|a=3");
        let all: Vec<_> = fields.iter().collect();
        assert_eq!(all, [(&b"a"[..], &b"1"[..]), (b"b", b""), (b"a", b"3")]);
        assert_eq!(
            (fields.get(b"a"), fields.get(b"b"), fields.get(b"c")),
            (Some(&b"1"[..]), Some(&b""[..]), None)
        );
    }
}
