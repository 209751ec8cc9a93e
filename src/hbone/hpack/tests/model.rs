//! Random blocks against a second, simpler table.

use super::super::{huffman, integer};
use super::{Decoder, Encoder, Field, Literal, decode, field, remembered};

const BLOCKS: usize = 400;

/// A table as the RFC tells it, newest first.
#[derive(Default)]
struct Model {
    fields: Vec<Field>,
    capacity: usize,
}

impl Model {
    fn size(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
    }

    fn trim(&mut self) {
        while self.size() > self.capacity {
            self.fields.pop();
        }
    }

    fn insert(&mut self, field: Field) {
        self.fields.insert(0, field);
        self.trim();
    }
}

fn random_text(rng: &mut fastrand::Rng, len_max: usize) -> Vec<u8> {
    (0..rng.usize(..=len_max)).map(|_| rng.u8(..)).collect()
}

fn write_text(rng: &mut fastrand::Rng, text: &[u8], out: &mut Vec<u8>) {
    if rng.bool() {
        integer::encode(huffman::encoded_len(text), 7, 0x80, out);
        huffman::encode(text, out);
    } else {
        integer::encode(text.len(), 7, 0, out);
        out.extend_from_slice(text);
    }
}

/// Writes one random instruction, and returns the field it yields.
fn write_field(rng: &mut fastrand::Rng, model: &mut Model, out: &mut Vec<u8>) -> Field {
    let known = model.fields.len();
    let at = (known > 0).then(|| rng.usize(..known));
    if let Some(at) = at
        && rng.bool()
    {
        integer::encode(62 + at, 7, 0x80, out);
        return model.fields[at].clone();
    }
    let (pattern, bits) = [(0x40, 6), (0x00, 4), (0x10, 4)][rng.usize(..3)];
    let name = match at {
        Some(at) if rng.bool() => {
            integer::encode(62 + at, bits, pattern, out);
            model.fields[at].0.clone()
        }
        _ => {
            out.push(pattern);
            let name = random_text(rng, 40);
            write_text(rng, &name, out);
            name
        }
    };
    let value = random_text(rng, 200);
    write_text(rng, &value, out);
    if pattern == 0x40 {
        model.insert((name.clone(), value.clone()));
    }
    (name, value)
}

#[test]
fn random_blocks_are_decoded_as_the_model_says() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut model = Model { fields: Vec::new(), capacity: 4_096 };
    let mut decoder = Decoder::new();
    for _ in 0..BLOCKS {
        let mut block = Vec::new();
        if rng.u8(..8) == 0 {
            model.capacity = rng.usize(..=4_096);
            integer::encode(model.capacity, 5, 0x20, &mut block);
            model.trim();
        }
        let count = rng.usize(..8);
        let expected: Vec<_> =
            (0..count).map(|_| write_field(&mut rng, &mut model, &mut block)).collect();
        assert_eq!(decode(&mut decoder, &block), Ok(expected));
        let table = remembered(&decoder);
        assert_eq!(table, model.fields[..model.fields.len().min(65)]);
        // A decoder that was saved and restored between two blocks is the same.
        let mut saved = Vec::new();
        decoder.save(&mut saved);
        decoder = Decoder::restore(&mut saved.as_slice()).unwrap();
    }
}

#[test]
fn random_fields_survive_our_encoder() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    for _ in 0..BLOCKS {
        let mut fields: Vec<Field> = (0..rng.usize(..6))
            .map(|_| (random_text(&mut rng, 60), random_text(&mut rng, 400)))
            .collect();
        fields.push(field(":status", ["200", "503", "404"][rng.usize(..3)]));
        let literal = [Literal::WithoutIndexing, Literal::NeverIndexed][rng.usize(..2)];
        let mut block = Vec::new();
        encoder.block(
            fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice(), literal)),
            &mut block,
        );
        assert_eq!(decode(&mut decoder, &block), Ok(fields));
        assert_eq!(remembered(&decoder), []);
    }
}

#[test]
fn random_bytes_are_a_block_or_an_error() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..5_000 {
        let mut decoder = Decoder::new();
        for _ in 0..4 {
            let block = random_text(&mut rng, 64);
            let Ok(fields) = decode(&mut decoder, &block) else { break };
            assert!(fields.len() <= block.len());
        }
    }
}
