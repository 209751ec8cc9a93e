//! Integers with a prefix of 1 to 8 bits (RFC 7541 5.1).

/// The greatest integer that is read or written. No table, name or value of ours comes near it.
pub(super) const INTEGER_MAX: usize = (1 << 28) - 1;
/// Most bytes after the prefix: four carry 28 bits, one more is for a padded encoding.
const CONTINUATION_BYTES_MAX: u32 = 5;

/// Why bytes are not an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IntegerError {
    /// The bytes end within it.
    Truncated,
    /// It is above [`INTEGER_MAX`], or longer than any that is not.
    TooLarge,
}

/// Reads an integer with a prefix of `bits` bits and steps over it.
pub(super) fn decode(input: &mut &[u8], bits: u32) -> Result<usize, IntegerError> {
    let (&first, mut rest) = input.split_first().ok_or(IntegerError::Truncated)?;
    let prefix_max = prefix_max(bits);
    let mut value = usize::from(first & prefix_max);
    if value == usize::from(prefix_max) {
        let mut count = 0;
        loop {
            let (&byte, after) = rest.split_first().ok_or(IntegerError::Truncated)?;
            rest = after;
            // At most 7 bits shifted by 28, on top of what was below 2^28: no overflow.
            value += usize::from(byte & 0x7f) << (7 * count);
            count += 1;
            if value > INTEGER_MAX {
                return Err(IntegerError::TooLarge);
            }
            if byte & 0x80 == 0 {
                break;
            }
            if count == CONTINUATION_BYTES_MAX {
                return Err(IntegerError::TooLarge);
            }
        }
    }
    *input = rest;
    Ok(value)
}

/// Appends `value` with a prefix of `bits` bits, below the bits of `pattern`.
pub(super) fn encode(value: usize, bits: u32, pattern: u8, out: &mut Vec<u8>) {
    let prefix_max = prefix_max(bits);
    let rest = match u8::try_from(value) {
        Ok(value) if value < prefix_max => return out.push(pattern | value),
        _ => value - usize::from(prefix_max),
    };
    out.push(pattern | prefix_max);
    let mut rest = rest;
    while rest > 0x7f {
        out.push(low_bits(rest) | 0x80);
        rest >>= 7;
    }
    out.push(low_bits(rest));
}

fn prefix_max(bits: u32) -> u8 {
    u8::MAX >> (8 - bits)
}

fn low_bits(value: usize) -> u8 {
    u8::try_from(value & 0x7f).expect("seven bits fit a byte")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], bits: u32, expected: Result<usize, IntegerError>) {
        let mut input = bytes;
        assert_eq!(decode(&mut input, bits), expected, "{bytes:x?}");
        assert!(expected.is_err() || input.is_empty(), "{bytes:x?} leaves {input:x?}");
    }

    #[test]
    fn the_examples_of_the_rfc() {
        check(&[0b0000_1010], 5, Ok(10));
        check(&[0b0001_1111, 0b1001_1010, 0b0000_1010], 5, Ok(1337));
        check(&[0b0010_1010], 8, Ok(42));
        // The bits above the prefix belong to somebody else.
        check(&[0b1110_1010], 5, Ok(10));
    }

    #[test]
    fn what_is_too_large_or_cut_off_is_refused() {
        check(&[0x7f], 7, Err(IntegerError::Truncated));
        check(&[], 7, Err(IntegerError::Truncated));
        check(&[0x7f, 0x80], 7, Err(IntegerError::Truncated));
        check(&[0x7f, 0x80, 0x80, 0x80, 0x80, 0x00], 7, Ok(127));
        check(&[0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00], 7, Err(IntegerError::TooLarge));
        check(&[0x7f, 0x80, 0xff, 0xff, 0x7f], 7, Ok(INTEGER_MAX));
        check(&[0x7f, 0x81, 0xff, 0xff, 0x7f], 7, Err(IntegerError::TooLarge));
        check(&[0x7f, 0xff, 0xff, 0xff, 0xff, 0x7f], 7, Err(IntegerError::TooLarge));
        check(
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            8,
            Err(IntegerError::TooLarge),
        );
    }

    #[test]
    fn what_is_written_is_read() {
        for bits in 4..=8 {
            for power in 0..28 {
                for value in [(1 << power) - 1, 1 << power, (1 << power) + 1] {
                    let mut bytes = Vec::new();
                    encode(value, bits, 0, &mut bytes);
                    check(&bytes, bits, Ok(value));
                }
            }
        }
    }
}
