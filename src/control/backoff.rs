//! How long to wait before the control plane is asked again.

use std::time::Duration;

/// The longest that the first pause may take; doubles with each further failure.
const FIRST: Duration = Duration::from_millis(500);
/// The longest that any pause may take (spec xds 5.4).
const LONGEST: Duration = Duration::from_secs(15);

/// Pauses with full jitter, so that the proxies of a mesh do not all come back at once.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    /// No failure yet.
    pub(super) fn new(rng: fastrand::Rng) -> Self {
        Self { failures: 0, rng }
    }

    /// Something went well: the next pause is a short one.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure.
    pub(super) fn pause(&mut self) -> Duration {
        let factor = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        let longest = FIRST.saturating_mul(factor).min(LONGEST);
        longest.mul_f64(self.rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_spread_and_begin_anew() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(fastrand::Rng::with_seed(seed));
            let mut longest = FIRST;
            for _ in 0..100 {
                let pause = backoff.pause();
                assert!(pause <= longest, "seed {seed}: {pause:?} of {longest:?}");
                longest = (longest * 2).min(LONGEST);
            }
            backoff.reset();
            assert!(backoff.pause() <= FIRST, "seed {seed}");
        }
        let mut backoff = Backoff::new(fastrand::Rng::with_seed(7));
        let pauses: Vec<Duration> = (0..200).map(|_| backoff.pause()).collect();
        let late = &pauses[50..];
        assert!(late.iter().any(|pause| *pause > LONGEST.mul_f64(0.9)));
        assert!(late.iter().any(|pause| *pause < LONGEST.mul_f64(0.1)));
    }
}
