//! Our field blocks: nothing in them is to be remembered.

use super::dynamic_table::RestoreError;
use super::huffman;
use super::integer;
use super::static_table::{Found, find};

/// A field of the static table (RFC 7541 6.1).
const INDEXED: u8 = 0x80;
/// The table gets another size (6.3).
const SIZE_UPDATE: u8 = 0x20;
/// A compressed text (5.2).
const HUFFMAN: u8 = 0x80;

/// What our fields are encoded with. Lives as long as the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoder {
    /// The peer knows that our table is empty.
    announced: bool,
}

/// What may be done with a field that is not in the static table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Literal {
    /// The next proxy may compress it as it likes (6.2.2).
    WithoutIndexing,
    /// Nobody on its way may remember it (6.2.3).
    NeverIndexed,
}

impl Encoder {
    /// The encoder of a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the block of these fields, each a name in lower case, a value and what may be done
    /// with it. The blocks of a connection are sent in the order in which they are encoded.
    ///
    /// The first block says that our table has no room, and so none of the peer's SETTINGS can make
    /// us say more (RFC 9113 4.3.1).
    pub fn block<'a>(
        &mut self,
        fields: impl IntoIterator<Item = (&'a [u8], &'a [u8], Literal)>,
        out: &mut Vec<u8>,
    ) {
        if !self.announced {
            self.announced = true;
            out.push(SIZE_UPDATE);
        }
        for (name, value, literal) in fields {
            field(name, value, literal, out);
        }
    }

    /// Appends the state, to be read back by [`Self::restore`].
    pub fn save(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.announced));
    }

    /// Reads a saved state and steps over it.
    pub fn restore(input: &mut &[u8]) -> Result<Self, RestoreError> {
        let (&announced, rest) = input.split_first().ok_or(RestoreError)?;
        *input = rest;
        if announced > 1 { Err(RestoreError) } else { Ok(Self { announced: announced == 1 }) }
    }
}

fn field(name: &[u8], value: &[u8], literal: Literal, out: &mut Vec<u8>) {
    let pattern = match literal {
        Literal::WithoutIndexing => 0x00,
        Literal::NeverIndexed => 0x10,
    };
    match find(name, value) {
        Found::Field(index) if literal == Literal::WithoutIndexing => {
            return integer::encode(index, 7, INDEXED, out);
        }
        Found::Field(index) | Found::Name(index) => integer::encode(index, 4, pattern, out),
        Found::Nothing => {
            out.push(pattern);
            text(name, out);
        }
    }
    text(value, out);
}

/// A text, compressed if that makes it shorter.
fn text(text: &[u8], out: &mut Vec<u8>) {
    let compressed = huffman::encoded_len(text);
    if compressed < text.len() {
        integer::encode(compressed, 7, HUFFMAN, out);
        huffman::encode(text, out);
    } else {
        integer::encode(text.len(), 7, 0, out);
        out.extend_from_slice(text);
    }
}
