//! Refusals: each is logged and counted under one word.

use super::{Context, Outcome, PATIENCE, World, ensure};

/// A refusal that is to come.
pub(crate) struct Expected {
    proxy: String,
    reason: String,
    counter: String,
    skip: usize,
    before: f64,
}

impl World {
    /// Does something that a proxy must refuse (`(proxy, reporter, reason)`), and waits for the
    /// line of its log, with `parts` on it, and for its counter.
    pub(crate) fn refusal<T>(
        &self,
        what: (&str, &str, &str),
        parts: &[&str],
        act: impl FnOnce() -> Outcome<T>,
    ) -> Outcome<T> {
        let expected = self.expect_refusal(what)?;
        let done = act().during(what.2)?;
        self.see_refusal(&expected, parts)?;
        Ok(done)
    }

    /// How things stand before something that must be refused.
    pub(crate) fn expect_refusal(
        &self,
        (proxy, reporter, reason): (&str, &str, &str),
    ) -> Outcome<Expected> {
        let labels = format!("{{reason=\"{reason}\",reporter=\"{reporter}\"}}");
        let counter = format!("adit_refusals_total{labels}");
        let skip = self.proxy(proxy).log().during("reading a log")?.len();
        let before = self.metric(proxy, &counter)?;
        Ok(Expected { proxy: proxy.into(), reason: reason.into(), counter, skip, before })
    }

    /// Waits until one refusal more is logged, with `parts` on its line, and counted.
    pub(crate) fn see_refusal(&self, expected: &Expected, parts: &[&str]) -> Outcome {
        let Expected { proxy, reason, counter, skip, before } = expected;
        let words = [format!("error=\"{reason}\""), format!("error=\"{reason}: ")];
        let wanted = |line: &str| {
            words.iter().any(|word| line.contains(word))
                && parts.iter().all(|part| line.contains(part))
        };
        self.proxy(proxy).wait_log(*skip, PATIENCE, wanted).map_err(|error| {
            let log = self.proxy(proxy).log().unwrap_or_default();
            let since = log.get(*skip..).unwrap_or_default();
            format!("no refusal {reason} with {parts:?}: {error}; the log since:\n{since}")
        })?;
        let after = self.metric(proxy, counter)?;
        ensure!((after - before - 1.0).abs() < f64::EPSILON, "{counter}: {before}, then {after}");
        Ok(())
    }
}
