//! The dynamic table of a decoder (RFC 7541 2.3.2 and 4).

use std::collections::VecDeque;
use std::fmt;

use super::FIELD_OVERHEAD;

/// The size of the table before SETTINGS say otherwise, in bytes; we never allow more.
pub const TABLE_SIZE_DEFAULT: usize = 4_096;

/// The fields that the peer wants remembered. An empty one holds no memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DynamicTable {
    /// Most bytes that the peer chose to use, as the RFC counts them.
    capacity: usize,
    /// Bytes in use, as the RFC counts them.
    size: usize,
    /// Newest first.
    entries: VecDeque<Entry>,
}

/// A field: its name, then its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    bytes: Box<[u8]>,
    name_len: usize,
}

/// The saved state is not one that [`super::Decoder::save`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreError;

impl DynamicTable {
    pub(super) fn new() -> Self {
        Self { capacity: TABLE_SIZE_DEFAULT, size: 0, entries: VecDeque::new() }
    }

    /// Most bytes that the peer chose to use.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The `index`-th newest field, from 0.
    pub(super) fn get(&self, index: usize) -> Option<(&[u8], &[u8])> {
        self.entries.get(index).map(|entry| entry.bytes.split_at(entry.name_len))
    }

    /// Makes the table smaller or larger; what does not fit is forgotten (4.3).
    pub(super) fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.shrink(capacity);
        if capacity == 0 {
            self.entries = VecDeque::new();
        }
    }

    /// Whether a field would be remembered; one that is not empties the table (4.4).
    pub(super) fn fits(&self, name: &[u8], value: &[u8]) -> bool {
        name.len() + value.len() + FIELD_OVERHEAD <= self.capacity
    }

    /// Remembers a field; older ones make room.
    pub(super) fn insert(&mut self, entry: Entry) {
        let size = entry.bytes.len() + FIELD_OVERHEAD;
        let Some(room) = self.capacity.checked_sub(size) else { return self.clear() };
        self.shrink(room);
        self.entries.push_front(entry);
        self.size += size;
    }

    /// Forgets all fields.
    pub(super) fn clear(&mut self) {
        self.shrink(0);
    }

    /// Appends the table, to be read back by [`Self::restore`].
    pub(super) fn save(&self, out: &mut Vec<u8>) {
        save_len(self.capacity, out);
        save_len(self.entries.len(), out);
        for entry in self.entries.iter().rev() {
            save_len(entry.name_len, out);
            save_len(entry.bytes.len() - entry.name_len, out);
            out.extend_from_slice(&entry.bytes);
        }
    }

    /// Reads a saved table and steps over it.
    pub(super) fn restore(input: &mut &[u8]) -> Result<Self, RestoreError> {
        let mut table = Self { capacity: 0, size: 0, entries: VecDeque::new() };
        table.capacity = restore_len(input)?;
        if table.capacity > TABLE_SIZE_DEFAULT {
            return Err(RestoreError);
        }
        let count = restore_len(input)?;
        for at in 0..count {
            let (name_len, value_len) = (restore_len(input)?, restore_len(input)?);
            let name = take(input, name_len)?;
            let value = take(input, value_len)?;
            table.insert(Entry::new(name, value));
            // A field that pushes another one out was not saved by us.
            if table.entries.len() != at + 1 {
                return Err(RestoreError);
            }
        }
        Ok(table)
    }

    fn shrink(&mut self, size_max: usize) {
        while self.size > size_max {
            let Some(oldest) = self.entries.pop_back() else { break };
            self.size -= oldest.bytes.len() + FIELD_OVERHEAD;
        }
    }
}

impl Entry {
    /// A copy: the name may lie in a field that goes to make room for this one.
    pub(super) fn new(name: &[u8], value: &[u8]) -> Self {
        Self { bytes: [name, value].concat().into(), name_len: name.len() }
    }
}

/// Lengths are at most [`TABLE_SIZE_DEFAULT`].
pub(super) fn save_len(len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
}

pub(super) fn restore_len(input: &mut &[u8]) -> Result<usize, RestoreError> {
    let bytes = take(input, 2)?;
    Ok(usize::from(bytes[0]) << 8 | usize::from(bytes[1]))
}

fn take<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8], RestoreError> {
    let (taken, rest) = input.split_at_checked(len).ok_or(RestoreError)?;
    *input = rest;
    Ok(taken)
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the saved state of field compression is damaged")
    }
}

impl std::error::Error for RestoreError {}
