//! The Huffman code of texts (RFC 7541 5.2 and appendix B).
//!
//! The code is canonical: codes of one length are consecutive and in the order of their symbols,
//! and each length goes on where the one before stopped. So the lengths say everything.

const SYMBOLS: usize = 257;
/// The symbol that is never sent; its code, all ones, is what padding is made of.
const END: usize = 256;
const CODE_BITS_MAX: usize = 30;
/// Codes of up to so many bits, all common symbols, are looked up at once.
const SHORT_BITS: u32 = 8;
/// Padding is shorter than this.
const BYTE_BITS: u32 = 8;

/// Bits of each symbol's code.
const LENGTHS: [u8; SYMBOLS] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

static CODE: Code = Code::new();

/// Why a text cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HuffmanError {
    /// The symbol that is never sent was sent.
    End,
    /// The last bits are neither a symbol nor fewer than eight ones.
    Padding,
}

struct Code {
    /// Each symbol's code, in its lowest bits.
    codes: [u32; SYMBOLS],
    /// Symbols in the order of their codes.
    symbols: [u16; SYMBOLS],
    /// For each length: the first code above those of this length, at the top of 32 bits.
    ends: [u64; CODE_BITS_MAX + 1],
    /// For each length: where its first symbol stands in `symbols`, and its first code.
    firsts: [(u16, u32); CODE_BITS_MAX + 1],
    /// Symbol and bits for each beginning that a short code has; no bits for the others.
    short: [(u8, u8); 1 << SHORT_BITS],
}

/// Appends the decoded text. A byte is at most 1.6 symbols.
pub(super) fn decode(text: &[u8], out: &mut Vec<u8>) -> Result<(), HuffmanError> {
    let mut bytes = text.iter();
    // The next bits, from the top; below them ones, as if padding never ended.
    let (mut bits, mut count) = (u64::MAX, 0_u32);
    loop {
        while count <= u64::BITS - BYTE_BITS {
            let Some(&byte) = bytes.next() else { break };
            let shift = u64::BITS - BYTE_BITS - count;
            bits &= !(u64::from(!byte) << shift);
            count += BYTE_BITS;
        }
        let window = bits >> 32;
        let (symbol, length) = CODE.first_symbol(window);
        if length > count {
            let padding = bits == u64::MAX && count < BYTE_BITS;
            return if padding { Ok(()) } else { Err(HuffmanError::Padding) };
        }
        out.push(u8::try_from(symbol).map_err(|_| HuffmanError::End)?);
        bits = (bits << length) | ((1 << length) - 1);
        count -= length;
    }
}

/// Length of the encoded text in bytes.
pub(super) fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|&byte| usize::from(LENGTHS[usize::from(byte)])).sum();
    bits.div_ceil(8)
}

/// Appends the encoded text.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut count) = (0_u64, 0_u32);
    for &byte in text {
        let length = u32::from(LENGTHS[usize::from(byte)]);
        bits = (bits << length) | u64::from(CODE.codes[usize::from(byte)]);
        count += length;
        while count >= BYTE_BITS {
            count -= BYTE_BITS;
            out.push((bits >> count).to_le_bytes()[0]);
        }
    }
    if count > 0 {
        let missing = BYTE_BITS - count;
        out.push(((bits << missing) | ((1 << missing) - 1)).to_le_bytes()[0]);
    }
}

impl Code {
    const fn new() -> Self {
        let mut code = Self {
            codes: [0; SYMBOLS],
            symbols: [0; SYMBOLS],
            ends: [0; CODE_BITS_MAX + 1],
            firsts: [(0, 0); CODE_BITS_MAX + 1],
            short: [(0, 0); 1 << SHORT_BITS],
        };
        let (mut next, mut place, mut length) = (0_u32, 0_u16, 1);
        while length <= CODE_BITS_MAX {
            next <<= 1;
            code.firsts[length] = (place, next);
            let (mut symbol, mut value) = (0, 0_u16);
            while symbol < SYMBOLS {
                if LENGTHS[symbol] as usize == length {
                    code.codes[symbol] = next;
                    code.symbols[place as usize] = value;
                    code.add_short(value, length, next);
                    next += 1;
                    place += 1;
                }
                symbol += 1;
                value += 1;
            }
            code.ends[length] = (next as u64) << (32 - length);
            length += 1;
        }
        code
    }

    /// Enters all beginnings of [`SHORT_BITS`] bits that start with this code.
    const fn add_short(&mut self, symbol: u16, length: usize, code: u32) {
        if length > SHORT_BITS as usize {
            return;
        }
        let free = SHORT_BITS as usize - length;
        let mut at = 0;
        while at < 1 << free {
            // Only bytes have short codes.
            self.short[((code as usize) << free) + at] =
                (symbol.to_le_bytes()[0], length.to_le_bytes()[0]);
            at += 1;
        }
    }

    /// The symbol that 32 bits begin with, and the length of its code.
    fn first_symbol(&self, window: u64) -> (u16, u32) {
        let (symbol, length) = self.short[usize::from((window >> 24).to_le_bytes()[0])];
        if length > 0 {
            return (u16::from(symbol), u32::from(length));
        }
        for length in SHORT_BITS..30 {
            let at = length as usize;
            if window < self.ends[at] {
                return (self.symbol(at, window >> (32 - length)), length);
            }
        }
        (self.symbol(CODE_BITS_MAX, window >> 2), 30)
    }

    /// The symbol of a code of `length` bits; the end's for one that is none.
    fn symbol(&self, length: usize, code: u64) -> u16 {
        let (place, first) = self.firsts[length];
        let at = usize::from(place) + usize::try_from(code - u64::from(first)).unwrap_or(END);
        self.symbols.get(at).copied().unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &[u8], expected: Result<&[u8], HuffmanError>) {
        let mut out = Vec::new();
        assert_eq!(decode(text, &mut out).map(|()| out.as_slice()), expected, "{text:x?}");
    }

    #[test]
    fn codes_are_those_of_the_rfc() {
        let rows = [
            (0, 0x1ff8, 13),
            (10, 0x3fff_fffc, 30),
            (usize::from(b'0'), 0x0, 5),
            (usize::from(b'A'), 0x21, 6),
            (usize::from(b'z'), 0x7b, 7),
            (usize::from(b'\\'), 0x7_fff0, 19),
            (127, 0xfff_fffc, 28),
            (128, 0xf_ffe6, 20),
            (199, 0x1ff_ffec, 25),
            (255, 0x3ff_ffee, 26),
            (END, 0x3fff_ffff, 30),
        ];
        for (symbol, code, length) in rows {
            assert_eq!((CODE.codes[symbol], LENGTHS[symbol]), (code, length), "symbol {symbol}");
        }
        let used: u64 = LENGTHS.iter().map(|&length| 1 << (32 - length)).sum();
        assert_eq!(used, 1 << 32, "the code is complete");
    }

    #[test]
    fn every_symbol_survives_alone_and_beside_every_other() {
        for first in 0..=255_u8 {
            for second in 0..=255_u8 {
                for text in [&[first, second][..], &[first][..], &[b'a', first, second, b'0']] {
                    let mut encoded = Vec::new();
                    encode(text, &mut encoded);
                    assert_eq!(encoded.len(), encoded_len(text));
                    check(&encoded, Ok(text));
                }
            }
        }
    }

    #[test]
    fn what_is_no_text_is_refused() {
        check(b"", Ok(b""));
        // 'a' is 00011, and three ones.
        check(&[0b0001_1111], Ok(b"a"));
        check(&[0b0001_1110], Err(HuffmanError::Padding));
        check(&[0b0001_1000], Err(HuffmanError::Padding));
        check(&[0b0001_1111, 0xff], Err(HuffmanError::Padding));
        check(&[0xff], Err(HuffmanError::Padding));
        check(&[0xff, 0xff, 0xff], Err(HuffmanError::Padding));
        check(&[0xff, 0xff, 0xff, 0xff], Err(HuffmanError::End));
        check(&[0xff, 0xff, 0xff, 0xfc], Err(HuffmanError::End));
        // Twenty-three bits of a code of thirty.
        check(&[0xff, 0xff, 0xfe], Err(HuffmanError::Padding));
    }
}
