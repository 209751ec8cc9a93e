//! Tests of field compression.

use super::*;

mod examples;
mod model;

const PLENTY: Limits = Limits { list_size_max: 1 << 20, fields_max: 1 << 12, work_max: 1 << 24 };

type Field = (Vec<u8>, Vec<u8>);

fn decode_within(
    decoder: &mut Decoder,
    block: &[u8],
    limits: Limits,
) -> (Vec<Field>, Result<Block, DecodeError>) {
    let mut fields = Vec::new();
    let result = decoder.decode(block, limits, |name, value| {
        fields.push((name.to_vec(), value.to_vec()));
    });
    (fields, result)
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<Field>, DecodeError> {
    let (fields, result) = decode_within(decoder, block, PLENTY);
    result.map(|_| fields)
}

/// What a table remembers, newest first, as one sees it by naming one index after another.
fn remembered(decoder: &Decoder) -> Vec<Field> {
    (62..=126)
        .map_while(|index: u8| decode(&mut decoder.clone(), &[0x80 | index]).ok())
        .flatten()
        .collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap();
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn field(name: &str, value: &str) -> Field {
    (name.into(), value.into())
}

#[test]
fn what_is_no_block_is_refused_by_name() {
    let rows: &[(&str, DecodeError)] = &[
        ("80", DecodeError::Index),
        ("be", DecodeError::Index),
        ("ff00", DecodeError::Index),
        ("ff80ffff7f", DecodeError::Index),
        ("ff80ffffff7f", DecodeError::Integer),
        ("ff80808080808000", DecodeError::Integer),
        ("ff", DecodeError::Truncated),
        ("ff80", DecodeError::Truncated),
        ("40", DecodeError::Truncated),
        ("4001", DecodeError::Truncated),
        ("400161", DecodeError::Truncated),
        ("40016101", DecodeError::Truncated),
        ("7e0161", DecodeError::Index),
        ("0f2f0161", DecodeError::Index),
        ("1f2f0161", DecodeError::Index),
        ("007f8080808001", DecodeError::Integer),
        ("0081180161", DecodeError::HuffmanPadding),
        ("008118", DecodeError::HuffmanPadding),
        ("0084ffffffff00", DecodeError::HuffmanEnd),
        ("3fe21f", DecodeError::TableSize),
        ("202020", DecodeError::TableSizePlace),
        ("8220", DecodeError::TableSizePlace),
        ("3f", DecodeError::Truncated),
    ];
    for &(block, expected) in rows {
        let found = decode(&mut Decoder::new(), &hex(block));
        assert_eq!(found, Err(expected), "{block}");
        assert_eq!(expected.code(), crate::hbone::frame::ErrorCode::CompressionError, "{block}");
        assert!(!expected.to_string().is_empty());
    }
}

#[test]
fn integers_overflow_at_no_prefix() {
    // Each instruction with its prefix full, then a number that is just too large for any table.
    for (first, bits) in [(0xff_u8, 7), (0x7f, 6), (0x3f, 5), (0x0f, 4), (0x1f, 4)] {
        for tail in [
            &[0xff, 0xff, 0xff, 0x7f][..],
            &[0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
        ] {
            let block = [&[first], tail].concat();
            let found = decode(&mut Decoder::new(), &block);
            assert_eq!(found, Err(DecodeError::Integer), "{bits} bits, {block:x?}");
        }
    }
}

#[test]
fn a_block_may_change_the_size_twice_and_only_first() {
    let mut decoder = Decoder::new();
    let added = hex("400161 0162");
    decode(&mut decoder, &added).unwrap();
    assert_eq!(remembered(&decoder), [field("a", "b")]);
    // To nothing and back: forgotten, and room again.
    assert_eq!(decode(&mut decoder, &hex("20 3fe11f 82")).unwrap(), [field(":method", "GET")]);
    assert_eq!(remembered(&decoder), []);
    decode(&mut decoder, &added).unwrap();
    assert_eq!(remembered(&decoder).len(), 1);
    // To exactly the size of the one field (34), and to one byte less.
    decode(&mut decoder, &hex("3f03")).unwrap();
    assert_eq!(remembered(&decoder).len(), 1);
    decode(&mut decoder, &hex("3f02")).unwrap();
    assert_eq!(remembered(&decoder), []);
    // A field that does not fit is delivered, and not remembered.
    assert_eq!(decode(&mut decoder, &added).unwrap(), [field("a", "b")]);
    assert_eq!(remembered(&decoder), []);
}

#[test]
fn a_field_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new();
    decode(&mut decoder, &hex("3f21 400161 0162")).unwrap();
    assert_eq!(remembered(&decoder).len(), 1);
    let large = [&hex("400163 28")[..], &[b'x'; 40]].concat();
    decode(&mut decoder, &large).unwrap();
    assert_eq!(remembered(&decoder), []);
}

#[test]
fn a_name_may_lie_in_the_field_that_makes_room() {
    let mut decoder = Decoder::new();
    // Room for one field of 34 bytes.
    decode(&mut decoder, &hex("3f03 400161 0162")).unwrap();
    assert_eq!(decode(&mut decoder, &hex("7e 0163")).unwrap(), [field("a", "c")]);
    assert_eq!(remembered(&decoder), [field("a", "c")]);
}

#[test]
fn a_smaller_table_must_be_announced_by_the_next_block() {
    let mut decoder = Decoder::new();
    decode(&mut decoder, &hex("400161 0162")).unwrap();
    decoder.limit_table(0);
    // An empty block announces nothing, and breaks nothing.
    assert_eq!(decode(&mut decoder.clone(), &[]), Ok(vec![]));
    assert_eq!(decode(&mut decoder.clone(), &[0x82]), Err(DecodeError::TableSizeMissing));
    assert_eq!(decode(&mut decoder.clone(), &hex("21 82")), Err(DecodeError::TableSize));
    assert_eq!(decode(&mut decoder, &hex("20 82")).unwrap().len(), 1);
    assert_eq!(decode(&mut decoder, &[0xbe]), Err(DecodeError::Index));
    // The table of a peer that had made it small enough already need not be.
    let mut small = Decoder::new();
    decode(&mut small, &hex("20 82")).unwrap();
    small.limit_table(0);
    assert_eq!(decode(&mut small, &[0x82]).unwrap().len(), 1);
}

#[test]
fn limits_hold_to_the_byte() {
    let block = hex("82 400161 0162 be 82");
    let list_size = (7 + 3 + 32) * 2 + (1 + 1 + 32) * 2;
    let limits = Limits { list_size_max: list_size, fields_max: 4, work_max: 10_000 };
    let check = |limits: Limits, delivered: usize, over_limit: bool| {
        let mut decoder = Decoder::new();
        let (fields, result) = decode_within(&mut decoder, &block, limits);
        let seen = result.unwrap();
        assert_eq!((fields.len(), seen.over_limit), (delivered, over_limit), "{limits:?}");
        // What is not delivered is decoded all the same, so that both ends still agree.
        assert_eq!((seen.fields, seen.list_size), (4, list_size));
        assert_eq!(remembered(&decoder), [field("a", "b")]);
    };
    check(limits, 4, false);
    check(Limits { list_size_max: list_size - 1, ..limits }, 3, true);
    check(Limits { list_size_max: 0, ..limits }, 0, true);
    check(Limits { fields_max: 3, ..limits }, 3, true);
    check(Limits { fields_max: 0, ..limits }, 0, true);

    let (_, result) = decode_within(&mut Decoder::new(), &block, limits);
    let work = result.unwrap().work;
    let with_work =
        |work_max| decode_within(&mut Decoder::new(), &block, Limits { work_max, ..limits }).1;
    assert!(with_work(work).is_ok());
    assert_eq!(with_work(work - 1), Err(DecodeError::Work));
    assert_eq!(DecodeError::Work.code(), crate::hbone::frame::ErrorCode::EnhanceYourCalm);
}

#[test]
fn an_indexed_bomb_costs_no_more_than_the_work_allowed() {
    let mut decoder = Decoder::new();
    let value = [b'x'; 4_000];
    let block = [&hex("400161 7fa11e")[..], &value].concat();
    decode(&mut decoder, &block).unwrap();
    let limits = Limits { list_size_max: 65_536, fields_max: 128, work_max: 100_000 };
    let mut delivered = 0;
    let result = decoder.decode(&[0xbe; 16_384], limits, |_, _| delivered += 1);
    assert_eq!(result, Err(DecodeError::Work));
    assert!(delivered <= 16, "{delivered} fields of 4,033 bytes within 65,536");
}

#[test]
fn a_block_that_is_cut_anywhere_is_a_shorter_block_or_refused() {
    for example in examples::EXAMPLES {
        let mut before = example.decoder();
        for row in example.rows {
            let block = hex(row.block);
            let whole = decode(&mut before.clone(), &block).unwrap();
            for cut in 0..block.len() {
                match decode(&mut before.clone(), &block[..cut]) {
                    Ok(fields) => assert_eq!(fields, whole[..fields.len()], "{cut}"),
                    Err(error) => assert_eq!(error, DecodeError::Truncated, "{cut}"),
                }
            }
            decode(&mut before, &block).unwrap();
        }
    }
}

#[test]
fn our_blocks_remember_nothing() {
    let mut encoder = Encoder::new();
    let fields: [(&[u8], &[u8], Literal); 4] = [
        (b":method", b"CONNECT", Literal::WithoutIndexing),
        (b":status", b"200", Literal::WithoutIndexing),
        (b"baggage", b"k8s.namespace.name=a", Literal::NeverIndexed),
        (b"x", b"\xff\x00", Literal::WithoutIndexing),
    ];
    let mut decoder = Decoder::new();
    for first in [true, false] {
        let mut block = Vec::new();
        encoder.block(fields, &mut block);
        assert_eq!(block[0] == 0x20, first, "the size is announced once");
        let found = decode(&mut decoder, &block).unwrap();
        let expected: Vec<_> = fields.map(|(name, value, _)| (name.into(), value.into())).into();
        assert_eq!(found, expected);
        assert_eq!(remembered(&decoder), []);
    }
}

#[test]
fn what_is_never_indexed_is_written_out_even_if_a_table_has_it() {
    let mut block = Vec::new();
    let mut encoder = Encoder::new();
    encoder.block([(&b":method"[..], &b"GET"[..], Literal::NeverIndexed)], &mut block);
    assert_eq!(block, hex("20 12 03474554"));
}

#[test]
fn saved_state_is_restored_and_damaged_state_refused() {
    let mut decoder = Decoder::new();
    for row in examples::EXAMPLES[1].rows {
        decode(&mut decoder, &hex(row.block)).unwrap();
    }
    let mut shrinking = decoder.clone();
    shrinking.limit_table(100);
    let mut empty = Decoder::new();
    decode(&mut empty, &[0x20]).unwrap();
    for decoder in [decoder, shrinking, Decoder::new(), empty] {
        let mut saved = Vec::new();
        decoder.save(&mut saved);
        let mut input = saved.as_slice();
        assert_eq!(Decoder::restore(&mut input), Ok(decoder));
        assert!(input.is_empty());
        for cut in 0..saved.len() {
            assert_eq!(Decoder::restore(&mut &saved[..cut]), Err(RestoreError), "{cut}");
        }
        for at in 0..saved.len() {
            let mut damaged = saved.clone();
            damaged[at] ^= 0x80;
            // Whatever it is, it is a decoder or an error.
            let _ = Decoder::restore(&mut damaged.as_slice());
        }
    }
    assert_eq!(Encoder::restore(&mut &[2][..]), Err(RestoreError));
    assert_eq!(Encoder::restore(&mut &[][..]), Err(RestoreError));
}
