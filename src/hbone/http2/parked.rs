//! Bytes of a stream that the application has not taken yet.

/// Below this size storage grows by doubling, above it by steps of this size.
const STEP: usize = 16 * 1024;

/// Bytes in the order of their arrival, without any mark of the frames they came in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parked {
    bytes: Vec<u8>,
    start: usize,
}

impl Parked {
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn push(&mut self, more: &[u8]) {
        let len = self.bytes.len() - self.start;
        if self.bytes.len() + more.len() > self.bytes.capacity() {
            let needed = len + more.len();
            let capacity = if needed <= STEP {
                needed.next_power_of_two()
            } else {
                // An eighth more each time: few copies, little waste.
                (needed + len / 8).next_multiple_of(STEP)
            };
            let mut bytes = Vec::with_capacity(capacity);
            bytes.extend_from_slice(self.as_slice());
            (self.bytes, self.start) = (bytes, 0);
        }
        self.bytes.extend_from_slice(more);
    }

    /// Forgets the first `count` bytes.
    pub(super) fn advance(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_and_waste_little() {
        let (mut parked, mut pushed, mut taken) = (Parked::default(), 0_usize, 0_usize);
        let byte = |n: usize| u8::try_from(n % 251).unwrap();
        for round in 0..3_000 {
            let more: Vec<u8> = (pushed..pushed + round % 97).map(byte).collect();
            parked.push(&more);
            pushed += more.len();
            let held = pushed - taken;
            assert_eq!(parked.as_slice().len(), held);
            assert!(parked.bytes.capacity() <= 2 * STEP + held + held / 4 || round % 5 == 0);
            let count = if round % 2 == 0 { held.min(round % 83) } else { 0 };
            assert!(
                parked.as_slice()[..count].iter().enumerate().all(|(at, &b)| b == byte(taken + at))
            );
            parked.advance(count);
            taken += count;
        }
    }

    #[test]
    fn a_window_of_single_bytes_fits_into_little_more_than_itself() {
        let mut parked = Parked::default();
        for _ in 0..64 * 1024 {
            parked.push(&[7]);
        }
        assert!(parked.bytes.capacity() <= 80 * 1024, "{}", parked.bytes.capacity());
    }
}
