//! Where the bytes of an application are read to, so that they are sealed where they lie.

use super::frame::{self, HEADER_LEN};
use super::http2::Room;
use super::record::{Layer, Layout, PAYLOAD_MAX, RecordError};

/// What one turn of a stream may send, laid out in a batch: `record header | frame header |
/// payload | trailer`, again and again. Made by [`super::Engine::plan`], and to be given to
/// [`super::Engine::seal`] whatever comes of it: what stands in front of it is to be sent.
#[derive(Debug)]
#[must_use = "what is sealed in front of it is to be sent"]
pub struct Plan {
    pub(super) stream: u32,
    /// Bytes of the batch that are sealed already.
    pub(super) front: usize,
    pub(super) room: Room,
    pub(super) framing: Framing,
    pub(super) layout: Layout,
}

/// How DATA frames and records go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// One frame over all records.
    One,
    /// One frame in each record, because the peer takes none that is longer.
    Each,
}

/// The places for payload, in their order.
#[derive(Debug)]
pub struct Slots<'a> {
    rest: &'a mut [u8],
    left: usize,
    /// What stands in front of the next slot's payload, and of those after it.
    lead: usize,
    next_lead: usize,
    /// What that and the payload of a full record take.
    whole: usize,
    trailer: usize,
}

impl Plan {
    /// How much may be sent, or why nothing.
    pub fn room(&self) -> Room {
        self.room
    }

    /// Where to read to. They are to be filled in order, each one wholly before the next.
    pub fn slots<'a>(&self, batch: &'a mut [u8]) -> Slots<'a> {
        let rest = batch.get_mut(self.front..).unwrap_or_default();
        let left = if let Room::Bytes(bytes) = self.room { bytes } else { 0 };
        let Layout { header, trailer } = self.layout;
        let [lead, next_lead] = [true, false].map(|first| header + self.framing.lead(first));
        Slots { rest, left, lead, next_lead, whole: header + PAYLOAD_MAX, trailer }
    }

    /// Seals the first `count` bytes of the slots; the length of what is to be sent.
    pub(super) fn seal(
        &self,
        batch: &mut [u8],
        count: usize,
        layer: &mut Layer,
    ) -> Result<usize, RecordError> {
        let (mut at, mut left) = (self.front, count);
        let mut first = true;
        while left > 0 {
            let lead = self.framing.lead(first);
            let piece = left.min(PAYLOAD_MAX - lead);
            if lead > 0 {
                let whole = if self.framing == Framing::One { left } else { piece };
                let len = u32::try_from(whole).map_err(|_| RecordError::Internal)?;
                let begin = at + self.layout.header;
                let place = batch.get_mut(begin..begin + HEADER_LEN);
                let place = place.ok_or(RecordError::Internal)?;
                place.copy_from_slice(&frame::data(self.stream, len, false));
            }
            at += layer.seal(batch.get_mut(at..).unwrap_or_default(), lead + piece)?;
            left -= piece;
            first = false;
        }
        Ok(at)
    }
}

impl Framing {
    /// Bytes of frame header in front of a record's share.
    fn lead(self, first: bool) -> usize {
        if first || self == Self::Each { HEADER_LEN } else { 0 }
    }

    /// How much payload fits into `len` bytes and `records` records.
    pub(super) fn capacity(self, len: usize, records: u64, layout: Layout) -> usize {
        let overhead = layout.overhead();
        let whole = len / (PAYLOAD_MAX + overhead);
        let records = usize::try_from(records).unwrap_or(usize::MAX);
        let mut payload = whole.min(records) * PAYLOAD_MAX;
        let mut used = whole.min(records);
        let rest = len % (PAYLOAD_MAX + overhead);
        if used == whole && used < records && rest > overhead + self.lead(used == 0) {
            payload += rest - overhead;
            used += 1;
        }
        let leads = if self == Self::Each { used } else { used.min(1) };
        payload - leads * HEADER_LEN
    }
}

impl<'a> Iterator for Slots<'a> {
    type Item = &'a mut [u8];

    fn next(&mut self) -> Option<&'a mut [u8]> {
        let lead = self.lead;
        let space = self.rest.len().checked_sub(lead + self.trailer)?;
        let len = self.left.min(self.whole - lead).min(space);
        if len == 0 {
            return None;
        }
        let rest = std::mem::take(&mut self.rest).get_mut(lead..)?;
        let (slot, rest) = rest.split_at_mut(len);
        self.rest = rest.get_mut(self.trailer..)?;
        (self.left, self.lead) = (self.left - len, self.next_lead);
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For every size of batch, what is promised is what there are slots for.
    #[test]
    fn slots_have_the_room_that_is_promised() {
        let [one, each] = [Framing::One, Framing::Each];
        let (new, old) = (Layout::TLS13, Layout::TLS12);
        for (framing, layout) in [(one, new), (each, new), (one, old), (each, old)] {
            let overhead = layout.overhead();
            for len in (0..200).chain(16_350..16_450).chain([100_000, 262_144]) {
                for records in [0, 1, 2, 100] {
                    let room = framing.capacity(len, records, layout);
                    let plan =
                        Plan { stream: 1, front: 0, room: Room::Bytes(room), framing, layout };
                    let mut batch = vec![0; len];
                    let lens: Vec<usize> = plan.slots(&mut batch).map(|slot| slot.len()).collect();
                    assert_eq!(lens.iter().sum::<usize>(), room, "{framing:?} {len} {records}");
                    assert!(lens.len() as u64 <= records, "{framing:?} {len} {records}");
                    assert!(len < 2 * overhead || records == 0 || room > 0, "{framing:?} {len}");
                }
            }
        }
        for layout in [new, old] {
            let record = PAYLOAD_MAX + layout.overhead();
            assert_eq!(each.capacity(record, 9, layout), 16_375);
            assert_eq!(one.capacity(2 * record, 9, layout), 16_375 + 16_384);
        }
    }
}
