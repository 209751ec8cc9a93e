//! Header blocks.

use adit::hbone::hpack::{Decoder, FIELD_OVERHEAD, Limits};

const LIMITS: Limits = Limits { list_size_max: 1_024, fields_max: 16, work_max: 8_192 };

/// Blocks, each behind a byte that says how long it is. Delivered lists stay within their limit,
/// and a decoder that is saved and restored goes on as if nothing had happened.
pub(super) fn run(input: &[u8]) {
    let mut decoder = Decoder::new();
    let mut rest = input;
    while let Some((&len, after)) = rest.split_first() {
        let (block, after) = after.split_at(after.len().min(usize::from(len)));
        rest = after;
        let mut saved = Vec::new();
        decoder.save(&mut saved);
        let mut restored = Decoder::restore(&mut saved.as_slice()).expect("it was saved by us");
        let (mut bytes, mut fields) = (0, 0);
        let result = decoder.decode(block, LIMITS, |name, value| {
            bytes += name.len() + value.len() + FIELD_OVERHEAD;
            fields += 1;
        });
        assert!(bytes <= LIMITS.list_size_max && fields <= LIMITS.fields_max);
        assert_eq!(restored.decode(block, LIMITS, |_, _| {}), result);
        if result.is_err() {
            return;
        }
        assert_eq!(restored, decoder);
    }
    // What no decoder has saved is refused or is one.
    if let Ok(mut any) = Decoder::restore(&mut &input[..]) {
        let _ = any.decode(b"\xbe\x82", LIMITS, |_, _| {});
    }
}
