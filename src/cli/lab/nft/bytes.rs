//! Netlink messages and attributes as bytes (linux/netlink.h, nfnetlink.h, nf_tables.h).

/// Flag of attributes that contain attributes (NLA_F_NESTED).
const NESTED: u16 = 0x8000;
/// The subsystem that a transaction is for (NFNL_SUBSYS_NFTABLES).
const NFTABLES: u8 = 10;

/// Flags of messages.
pub(super) mod flags {
    pub(in super::super) const REQUEST: u16 = 0x1;
    pub(in super::super) const ACK: u16 = 0x4;
    pub(in super::super) const CREATE: u16 = 0x400;
    pub(in super::super) const APPEND: u16 = 0x800;
}

/// Types of messages.
pub(super) mod kind {
    const NFTABLES: u16 = (super::NFTABLES as u16) << 8;
    pub(in super::super) const ERROR: u16 = 2;
    pub(in super::super) const BATCH_BEGIN: u16 = 16;
    pub(in super::super) const BATCH_END: u16 = 17;
    pub(in super::super) const NEW_TABLE: u16 = NFTABLES;
    pub(in super::super) const DEL_TABLE: u16 = NFTABLES | 2;
    pub(in super::super) const NEW_CHAIN: u16 = NFTABLES | 3;
    pub(in super::super) const NEW_RULE: u16 = NFTABLES | 6;
}

/// Messages behind one another. What is opened must be closed.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The beginning or end of a transaction.
    pub(super) fn frame(&mut self, kind: u16) {
        let at = self.start(kind, flags::REQUEST, 0, [0, 0, 0, NFTABLES]);
        self.close_message(at);
    }

    /// Opens a message about a table, a chain or a rule.
    pub(super) fn message(&mut self, kind: u16, flags: u16, sequence: u32, family: u8) -> usize {
        self.start(kind, flags, sequence, [family, 0, 0, 0])
    }

    pub(super) fn close_message(&mut self, at: usize) {
        let len = u32::try_from(self.bytes.len() - at).unwrap_or(u32::MAX);
        self.bytes[at..at + 4].copy_from_slice(&len.to_ne_bytes());
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let at = self.head(kind);
        self.bytes.extend_from_slice(value);
        self.close(at);
    }

    /// Opens an attribute that contains attributes.
    pub(super) fn open(&mut self, kind: u16) -> usize {
        self.head(kind | NESTED)
    }

    /// Writes the length of the attribute at `at` and pads behind it.
    pub(super) fn close(&mut self, at: usize) {
        let len = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        self.bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// A constant for an expression (NFTA_DATA_VALUE).
    pub(super) fn value(&mut self, kind: u16, bytes: &[u8]) {
        let data = self.open(kind);
        self.attribute(1, bytes);
        self.close(data);
    }

    /// One expression of a rule (NFTA_LIST_ELEM with NFTA_EXPR_NAME and NFTA_EXPR_DATA).
    pub(super) fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Self)) {
        let element = self.open(1);
        self.attribute(1, &text(name));
        let data = self.open(2);
        fill(self);
        self.close(data);
        self.close(element);
    }

    fn start(&mut self, kind: u16, flags: u16, sequence: u32, family: [u8; 4]) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&family);
        at
    }

    fn head(&mut self, kind: u16) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        at
    }
}

/// A string as attributes carry it.
pub(super) fn text(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Writer, flags, kind};

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut out = Writer::default();
        let at = out.message(kind::NEW_TABLE, flags::REQUEST, 7, 1);
        out.attribute(1, b"abc\0x");
        let list = out.open(4);
        out.attribute(2, &[9]);
        out.close(list);
        out.close_message(at);
        let mut expected = Vec::new();
        expected.extend_from_slice(&44_u32.to_ne_bytes());
        expected.extend_from_slice(&0x0a00_u16.to_ne_bytes());
        expected.extend_from_slice(&1_u16.to_ne_bytes());
        expected.extend_from_slice(&7_u32.to_ne_bytes());
        expected.extend_from_slice(&[0, 0, 0, 0, 1, 0, 0, 0]);
        expected.extend_from_slice(&9_u16.to_ne_bytes());
        expected.extend_from_slice(&1_u16.to_ne_bytes());
        expected.extend_from_slice(b"abc\0x\0\0\0");
        expected.extend_from_slice(&12_u16.to_ne_bytes());
        expected.extend_from_slice(&0x8004_u16.to_ne_bytes());
        expected.extend_from_slice(&5_u16.to_ne_bytes());
        expected.extend_from_slice(&2_u16.to_ne_bytes());
        expected.extend_from_slice(&[9, 0, 0, 0]);
        assert_eq!(out.bytes(), expected);
    }
}
