//! Field blocks of the peer (RFC 7541 section 6).

use std::fmt;

use super::FIELD_OVERHEAD;
use super::dynamic_table::{DynamicTable, Entry, RestoreError, TABLE_SIZE_DEFAULT};
use super::dynamic_table::{restore_len, save_len};
use super::huffman::{self, HuffmanError};
use super::integer::{self, IntegerError};
use super::static_table::STATIC_TABLE;
use crate::hbone::frame::ErrorCode;

/// Changes of the table's size that one block may begin with: the least and the last of those that
/// happened since the block before (RFC 7541 4.2).
const SIZE_UPDATES_MAX: u32 = 2;

/// What the peer's fields are decoded with. Lives as long as the connection, and sees every block
/// in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoder {
    table: DynamicTable,
    /// Largest table that the peer may choose, in bytes.
    table_max: usize,
    /// The table must become smaller at the beginning of the next block.
    must_shrink: bool,
}

/// How much one block may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of names and values, [`FIELD_OVERHEAD`] per field included (RFC 9113 6.5.2).
    pub list_size_max: usize,
    /// Most fields.
    pub fields_max: usize,
    /// Most work: a unit for each instruction, and for each byte that it yields or has remembered.
    pub work_max: usize,
}

/// What was in a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Fields, also those that were not delivered.
    pub fields: usize,
    /// Bytes as [`Limits::list_size_max`] counts them, also those that were not delivered.
    pub list_size: usize,
    /// Units of work as [`Limits::work_max`] counts them; for the budget of a connection.
    pub work: usize,
    /// There were more fields or bytes than allowed, and those above the limit were not delivered.
    /// The decoder has seen them, so the connection can go on.
    pub over_limit: bool,
}

/// Why a block cannot be decoded. The connection must end: the two ends disagree from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// It ends within a field.
    Truncated,
    /// An integer is too large, or written too long.
    Integer,
    /// It names a field that no table has.
    Index,
    /// A text has a symbol that is never sent.
    HuffmanEnd,
    /// The last bits of a text are neither a symbol nor its padding.
    HuffmanPadding,
    /// The table is made larger than we allow.
    TableSize,
    /// The table's size changes after a field, or more than twice.
    TableSizePlace,
    /// The table does not become smaller although the peer acknowledged that it must.
    TableSizeMissing,
    /// More work than allowed.
    Work,
}

impl Decoder {
    /// The decoder of a new connection, with the table that peers may use before they have
    /// acknowledged SETTINGS.
    pub fn new() -> Self {
        Self { table: DynamicTable::new(), table_max: TABLE_SIZE_DEFAULT, must_shrink: false }
    }

    /// The peer has acknowledged that its table may have so many bytes (RFC 9113 4.3.1). Never more
    /// than [`TABLE_SIZE_DEFAULT`].
    pub fn limit_table(&mut self, size_max: usize) {
        self.table_max = size_max.min(TABLE_SIZE_DEFAULT);
        self.must_shrink = self.table.capacity() > self.table_max;
    }

    /// Decodes a whole block and gives each field's name and value to `visit`, in order, whether
    /// they are legal or not. Allocates for compressed texts once per block, and for what the
    /// peer's table remembers.
    pub fn decode(
        &mut self,
        block: &[u8],
        limits: Limits,
        mut visit: impl FnMut(&[u8], &[u8]),
    ) -> Result<Block, DecodeError> {
        let mut input = block;
        let mut seen = Block::default();
        self.size_updates(&mut input, limits, &mut seen)?;
        let mut texts = Texts::default();
        while let Some(&first) = input.first() {
            texts.clear();
            let (name, value) = match first {
                0x80.. => self.field(integer::decode(&mut input, 7)?)?,
                0x20..0x40 => return Err(DecodeError::TableSizePlace),
                // With, and without indexing; the latter in two kinds that differ for proxies.
                _ => {
                    let bits = if first & 0x40 != 0 { 6 } else { 4 };
                    self.literal(&mut input, bits, &mut texts)?
                }
            };
            let size = name.len() + value.len() + FIELD_OVERHEAD;
            seen.fields += 1;
            seen.list_size += size;
            seen.charge(1 + name.len() + value.len(), limits)?;
            seen.over_limit |= seen.fields > limits.fields_max;
            seen.over_limit |= seen.list_size > limits.list_size_max;
            if !seen.over_limit {
                visit(name, value);
            }
            if (0x40..0x80).contains(&first) {
                if self.table.fits(name, value) {
                    let entry = Entry::new(name, value);
                    self.table.insert(entry);
                    seen.charge(size, limits)?;
                } else {
                    self.table.clear();
                }
            }
        }
        Ok(seen)
    }

    /// Appends the state, to be read back by [`Self::restore`]. At most about 4 KiB; seven bytes
    /// when the table is empty.
    pub fn save(&self, out: &mut Vec<u8>) {
        save_len(self.table_max, out);
        out.push(u8::from(self.must_shrink));
        self.table.save(out);
    }

    /// Reads a saved state and steps over it.
    pub fn restore(input: &mut &[u8]) -> Result<Self, RestoreError> {
        let table_max = restore_len(input)?;
        let (&must_shrink, rest) = input.split_first().ok_or(RestoreError)?;
        *input = rest;
        let table = DynamicTable::restore(input)?;
        let shrinks = table.capacity() > table_max;
        if table_max > TABLE_SIZE_DEFAULT || must_shrink != u8::from(shrinks) {
            return Err(RestoreError);
        }
        Ok(Self { table, table_max, must_shrink: shrinks })
    }

    /// The changes of the table's size at the beginning of a block.
    fn size_updates(
        &mut self,
        input: &mut &[u8],
        limits: Limits,
        seen: &mut Block,
    ) -> Result<(), DecodeError> {
        let mut count = 0;
        while let Some(0x20..0x40) = input.first() {
            count += 1;
            if count > SIZE_UPDATES_MAX {
                return Err(DecodeError::TableSizePlace);
            }
            let size = integer::decode(input, 5)?;
            if size > self.table_max {
                return Err(DecodeError::TableSize);
            }
            self.table.resize(size);
            self.must_shrink = false;
            seen.charge(1, limits)?;
        }
        let missing = self.must_shrink && !input.is_empty();
        if missing { Err(DecodeError::TableSizeMissing) } else { Ok(()) }
    }

    /// A field that is written out, at least its value.
    fn literal<'a, 'block: 'a>(
        &'a self,
        input: &mut &'block [u8],
        bits: u32,
        texts: &'a mut Texts,
    ) -> Result<(&'a [u8], &'a [u8]), DecodeError> {
        let index = integer::decode(input, bits)?;
        let name = if index == 0 { Some(texts.read(input)?) } else { None };
        let value = texts.read(input)?;
        let name = match name {
            Some(name) => texts.get(name),
            None => self.field(index)?.0,
        };
        Ok((name, texts.get(value)))
    }

    /// The field at an index of both tables (2.3.3).
    fn field(&self, index: usize) -> Result<(&[u8], &[u8]), DecodeError> {
        let at = index.checked_sub(1).ok_or(DecodeError::Index)?;
        match STATIC_TABLE.get(at) {
            Some(&field) => Ok(field),
            None => self.table.get(at - STATIC_TABLE.len()).ok_or(DecodeError::Index),
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// The texts of one field that are compressed, decoded.
#[derive(Default)]
struct Texts {
    bytes: Vec<u8>,
}

/// A text: where it was sent, or where it was decoded to.
enum Text<'a> {
    Plain(&'a [u8]),
    Decoded { from: usize, to: usize },
}

impl Texts {
    fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Reads a text (5.2) and steps over it.
    fn read<'a>(&mut self, input: &mut &'a [u8]) -> Result<Text<'a>, DecodeError> {
        let huffman = input.first().is_some_and(|first| first & 0x80 != 0);
        let len = integer::decode(input, 7)?;
        let (text, rest) = input.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        *input = rest;
        if !huffman {
            return Ok(Text::Plain(text));
        }
        let from = self.bytes.len();
        huffman::decode(text, &mut self.bytes)?;
        Ok(Text::Decoded { from, to: self.bytes.len() })
    }

    fn get<'a>(&'a self, text: Text<'a>) -> &'a [u8] {
        match text {
            Text::Plain(text) => text,
            Text::Decoded { from, to } => self.bytes.get(from..to).unwrap_or_default(),
        }
    }
}

impl Block {
    fn charge(&mut self, work: usize, limits: Limits) -> Result<(), DecodeError> {
        self.work += work;
        if self.work > limits.work_max { Err(DecodeError::Work) } else { Ok(()) }
    }
}

impl DecodeError {
    /// The code to end the connection with.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Work => ErrorCode::EnhanceYourCalm,
            _ => ErrorCode::CompressionError,
        }
    }
}

impl From<IntegerError> for DecodeError {
    fn from(error: IntegerError) -> Self {
        match error {
            IntegerError::Truncated => Self::Truncated,
            IntegerError::TooLarge => Self::Integer,
        }
    }
}

impl From<HuffmanError> for DecodeError {
    fn from(error: HuffmanError) -> Self {
        match error {
            HuffmanError::End => Self::HuffmanEnd,
            HuffmanError::Padding => Self::HuffmanPadding,
        }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "a field block ends within a field",
            Self::Integer => "a field block has an integer that is too large",
            Self::Index => "a field block names a field that no table has",
            Self::HuffmanEnd => "a text has the symbol that is never sent",
            Self::HuffmanPadding => "a text has the wrong padding",
            Self::TableSize => "the table of fields is made too large",
            Self::TableSizePlace => "the size of the table of fields changes in the wrong place",
            Self::TableSizeMissing => "the table of fields does not become smaller",
            Self::Work => "a field block costs too much to decode",
        })
    }
}

impl std::error::Error for DecodeError {}
