//! The `traceparent` header: one trace id for both proxies of a connection (spec hbone 3.2, 3.3).

use std::fmt;

/// Length of the header's value, in bytes.
const LEN: usize = 55;

/// A trace and one span of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace; never 0.
    pub trace_id: u128,
    /// The span; never 0.
    pub span_id: u64,
    /// Trace flags.
    pub flags: u8,
}

impl TraceParent {
    /// A trace from two random numbers. 0 is not an id and becomes 1.
    pub fn new(trace_id: u128, span_id: u64) -> Self {
        Self { trace_id: trace_id.max(1), span_id: span_id.max(1), flags: 0 }
    }

    /// Reads `00-<32 hex>-<16 hex>-<2 hex>`, lower case, and nothing else.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let header: &[u8; LEN] = header.try_into().ok()?;
        if &header[..3] != b"00-" || header[35] != b'-' || header[52] != b'-' {
            return None;
        }
        let trace_id = hex(&header[3..35])?;
        let span_id = u64::try_from(hex(&header[36..52])?).ok()?;
        let flags = u8::try_from(hex(&header[53..])?).ok()?;
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, flags })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace_id, span_id, flags } = self;
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{flags:02x}")
    }
}

/// At most 32 lower-case hexadecimal digits as a number.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn check(header: &[u8], expected: Option<(u128, u64, u8)>) {
        let got = TraceParent::parse(header).map(|t| (t.trace_id, t.span_id, t.flags));
        assert_eq!(got, expected, "{}", String::from_utf8_lossy(header));
    }

    #[test]
    fn parses_strictly() {
        let ids = (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331, 1);
        check(GOOD.as_bytes(), Some(ids));
        check(b"", None);
        check(&GOOD.as_bytes()[..54], None);
        check(format!("{GOOD}0").as_bytes(), None);
        check(GOOD.replacen("00", "01", 1).as_bytes(), None);
        check(GOOD.to_uppercase().as_bytes(), None);
        check(GOOD.replace('-', "_").as_bytes(), None);
        check(GOOD.replacen("0a", "+a", 1).as_bytes(), None);
        check(b"00-00000000000000000000000000000000-b7ad6b7169203331-01", None);
        check(b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", None);
        // Enough characters, too few parts: what makes a careless parser index out of bounds.
        check(b"00-0af7651916cd43dd8448eb211c80319cb7ad6b716920333101aa", None);
        check(&[0xff; LEN], None);
    }

    #[test]
    fn any_single_byte_may_be_anything() {
        for at in 0..LEN {
            for byte in 0..=u8::MAX {
                let mut header = GOOD.as_bytes().to_vec();
                header[at] = byte;
                if let Some(parsed) = TraceParent::parse(&header) {
                    assert_eq!(parsed.to_string().as_bytes(), header);
                }
            }
        }
    }

    #[test]
    fn prints_what_it_parses() {
        let trace = TraceParent::new(u128::MAX, 5);
        assert_eq!(trace.to_string(), "00-ffffffffffffffffffffffffffffffff-0000000000000005-00");
        assert_eq!(TraceParent::parse(trace.to_string().as_bytes()), Some(trace));
        let least = TraceParent::new(0, 0);
        assert_eq!(TraceParent::parse(least.to_string().as_bytes()), Some(least));
    }
}
