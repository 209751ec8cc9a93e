//! The examples of RFC 7541 appendix C.

use super::{Decoder, Field, decode, field, hex, remembered};

type List = &'static [(&'static str, &'static str)];
/// The fields of a block, then the table, newest first, and its size.
type Outcome = (List, List, usize);

/// Blocks of one connection.
pub(super) struct Example {
    section: &'static str,
    /// Bytes of the table.
    table: usize,
    pub(super) rows: &'static [Row],
}

pub(super) struct Row {
    pub(super) block: &'static str,
    outcome: Outcome,
}

const CUSTOM: (&str, &str) = ("custom-key", "custom-value");
const NO_CACHE: (&str, &str) = ("cache-control", "no-cache");
const AUTHORITY: (&str, &str) = (":authority", "www.example.com");
const GET: (&str, &str) = (":method", "GET");
const HTTP: (&str, &str) = (":scheme", "http");
const ROOT: (&str, &str) = (":path", "/");
const FOUND: (&str, &str) = (":status", "302");
const TEMPORARY: (&str, &str) = (":status", "307");
const PRIVATE: (&str, &str) = ("cache-control", "private");
const DATE_21: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:21 GMT");
const DATE_22: (&str, &str) = ("date", "Mon, 21 Oct 2013 20:13:22 GMT");
const LOCATION: (&str, &str) = ("location", "https://www.example.com");
const GZIP: (&str, &str) = ("content-encoding", "gzip");
const COOKIE: (&str, &str) =
    ("set-cookie", "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");

const REQUESTS: [Outcome; 3] = [
    (&[GET, HTTP, ROOT, AUTHORITY], &[AUTHORITY], 57),
    (&[GET, HTTP, ROOT, AUTHORITY, NO_CACHE], &[NO_CACHE, AUTHORITY], 110),
    (
        &[GET, (":scheme", "https"), (":path", "/index.html"), AUTHORITY, CUSTOM],
        &[CUSTOM, NO_CACHE, AUTHORITY],
        164,
    ),
];
const RESPONSES: [Outcome; 3] = [
    (&[FOUND, PRIVATE, DATE_21, LOCATION], &[LOCATION, DATE_21, PRIVATE, FOUND], 222),
    (&[TEMPORARY, PRIVATE, DATE_21, LOCATION], &[TEMPORARY, LOCATION, DATE_21, PRIVATE], 222),
    (
        &[(":status", "200"), PRIVATE, DATE_22, LOCATION, GZIP, COOKIE],
        &[COOKIE, GZIP, DATE_22],
        215,
    ),
];

const fn row(block: &'static str, outcome: Outcome) -> Row {
    Row { block, outcome }
}

pub(super) const EXAMPLES: &[Example] = &[
    Example {
        section: "C.2",
        table: 4_096,
        rows: &[
            row("040c 2f73 616d 706c 652f 7061 7468", (&[(":path", "/sample/path")], &[], 0)),
            row("1008 7061 7373 776f 7264 0673 6563 7265 74", (&[("password", "secret")], &[], 0)),
            row("82", (&[GET], &[], 0)),
            row(
                "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
                (&[("custom-key", "custom-header")], &[("custom-key", "custom-header")], 55),
            ),
        ],
    },
    Example {
        section: "C.3",
        table: 4_096,
        rows: &[
            row("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUESTS[0]),
            row("8286 84be 5808 6e6f 2d63 6163 6865", REQUESTS[1]),
            row(
                "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
                REQUESTS[2],
            ),
        ],
    },
    Example {
        section: "C.4",
        table: 4_096,
        rows: &[
            row("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUESTS[0]),
            row("8286 84be 5886 a8eb 1064 9cbf", REQUESTS[1]),
            row("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf", REQUESTS[2]),
        ],
    },
    Example {
        section: "C.5",
        table: 256,
        rows: &[
            row(
                "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
                 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
                 6c65 2e63 6f6d",
                RESPONSES[0],
            ),
            row("4803 3330 37c1 c0bf", RESPONSES[1]),
            row(
                "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
                 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
                 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
                 3d31",
                RESPONSES[2],
            ),
        ],
    },
    Example {
        section: "C.6",
        table: 256,
        rows: &[
            row(
                "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
                RESPONSES[0],
            ),
            row("4883 640e ffc1 c0bf", RESPONSES[1]),
            row(
                "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
                RESPONSES[2],
            ),
        ],
    },
];

impl Example {
    /// A decoder whose peer has chosen the table of the example.
    pub(super) fn decoder(&self) -> Decoder {
        let mut decoder = Decoder::new();
        if self.table == 256 {
            decoder.limit_table(256);
            decode(&mut decoder, &hex("3fe101")).unwrap();
        }
        decoder
    }
}

#[test]
fn the_examples_of_the_rfc() {
    for example in EXAMPLES {
        let mut decoder = example.decoder();
        for (at, row) in example.rows.iter().enumerate() {
            let (listed, left, left_size) = row.outcome;
            let place = format!("{}.{}", example.section, at + 1);
            let fields = decode(&mut decoder, &hex(row.block)).unwrap();
            assert_eq!(fields, owned(listed), "{place}");
            let table = remembered(&decoder);
            assert_eq!(table, owned(left), "{place}: the table");
            let size: usize = table.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
            assert_eq!(size, left_size, "{place}: its size");
        }
    }
}

fn owned(fields: &[(&str, &str)]) -> Vec<Field> {
    fields.iter().map(|(name, value)| field(name, value)).collect()
}
