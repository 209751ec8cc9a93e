//! The named limits of a tunnel, and the small budgets that hold a peer to them.

use std::fmt::Debug;
use std::rc::Rc;

/// What a tunnel is told about HTTP/2 and TLS. Sizes in bytes, times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams that may be open at once: as server, what we announce; as client, what we open
    /// before the peer has said how many it takes.
    pub streams_max: u32,
    /// Largest window that a stream that drains is granted.
    pub stream_window_max: u32,
    /// Longest frame that we take.
    pub frame_max: u32,
    /// Longest field section, encoded or decoded, that we take.
    pub header_list_max: u32,
    /// Records sealed with one generation of keys.
    pub records_max: u64,
    /// Silence after which the peer is asked whether it lives.
    pub ping_interval_ms: u64,
    /// Silence after that question, after which it is taken for dead.
    pub ping_timeout_ms: u64,
}

/// Who keeps the account of what peers may send us beyond the first window of each stream: for a
/// tunnel, and for the process. Bytes are charged when they are granted and released when the
/// application has taken them.
///
/// First windows are not charged: streams have them in any case, and those of many whose readers
/// have stopped would leave nothing to all others.
pub trait Account: Debug {
    /// Charges.
    fn charge(&self, bytes: u32);
    /// What may still be charged.
    fn room(&self) -> u64;
    /// Takes back.
    fn release(&self, bytes: u32);
}

/// The account of one tunnel.
pub type Debts = Rc<dyn Account>;

/// First window of every stream; we announce it, and whoever takes its bytes is never left with
/// less.
pub const FIRST_WINDOW: u32 = 64 * 1024;
/// Bytes that a stream may send in its turn while others wait.
pub(super) const QUANTUM: u32 = 256 * 1024;

/// Things that may happen now and then, but not all the time: `capacity` of them at once, and
/// `per_second` more as time goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) left: u32,
    pub(super) filled_ms: u64,
}

/// The size of a [`Bucket`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    capacity: u32,
    per_second: u32,
}

/// Frames that are legal and move nothing: PING, SETTINGS, PRIORITY, unknown ones, empty DATA, and
/// WINDOW_UPDATE beyond what the DATA that we send explains (promise A6).
pub(super) const NOISE: Allowance = Allowance { capacity: 4_096, per_second: 200 };
/// Streams that the peer opens and resets before they are answered (promise A3).
pub(super) const RESETS: Allowance = Allowance { capacity: 400, per_second: 200 };
/// Streams that the peer makes us reset (promise A4).
pub(super) const FAULTS: Allowance = Allowance { capacity: 100, per_second: 10 };
/// Streams that we open and give up before they are answered.
pub(super) const ABANDONED: Allowance = Allowance { capacity: 50, per_second: 10 };
/// Encoded bytes of field sections: what decoding may cost us (promise A5).
pub(super) const FIELDS: Allowance = Allowance { capacity: 4 << 20, per_second: 2 << 20 };
/// One WINDOW_UPDATE is explained by so many bytes of DATA, beside those that each turn explains.
pub(super) const SENT_PER_UPDATE: u32 = 1024;
/// WINDOW_UPDATEs that every turn of DATA explains: one of the stream and one of the connection.
pub(super) const UPDATES_PER_TURN: u32 = 2;

impl Bucket {
    pub(super) fn full(allowance: Allowance) -> Self {
        Self { left: allowance.capacity, filled_ms: 0 }
    }

    /// Takes `count`; false if there are not so many.
    pub(super) fn take(&mut self, allowance: Allowance, count: u32, now_ms: u64) -> bool {
        let passed = now_ms.saturating_sub(self.filled_ms);
        let more = passed.saturating_mul(u64::from(allowance.per_second)) / 1_000;
        if more > 0 {
            self.add(allowance, u32::try_from(more).unwrap_or(u32::MAX));
            self.filled_ms = now_ms;
        }
        match self.left.checked_sub(count) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Gives back, up to the capacity.
    pub(super) fn add(&mut self, allowance: Allowance, count: u32) {
        self.left = self.left.saturating_add(count).min(allowance.capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills() {
        const SMALL: Allowance = Allowance { capacity: 3, per_second: 2 };
        let mut bucket = Bucket::full(SMALL);
        for (now_ms, expected) in [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (499, false),
            (500, true),
            (999, false),
            (1_000, true),
            (1_000, false),
            (60_000, true),
            (60_000, true),
            (60_000, true),
            (60_000, false),
        ] {
            assert_eq!(bucket.take(SMALL, 1, now_ms), expected, "at {now_ms}");
        }
        bucket.add(SMALL, u32::MAX);
        assert!(!bucket.take(SMALL, 4, 60_000));
        assert!(bucket.take(SMALL, 3, u64::MAX));
    }
}
