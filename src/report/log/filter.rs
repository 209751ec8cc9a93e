//! Which events are logged: a comma list of `level` and `target=level` (spec operations 5 and 8).

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Our crate's name, which log lines leave out, so filters may leave it out too.
pub(super) const CRATE_PREFIX: &str = "adit::";
/// Targets a filter may name; `/logging` appends, so that without a bound it could grow for ever.
const TARGETS_MAX: usize = 64;
/// Longest target a filter may name, bytes.
const TARGET_BYTES_MAX: usize = 128;

/// A filter that can be shown, extended and compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    default: Option<LevelFilter>,
    targets: Vec<(String, LevelFilter)>,
}

/// Why a text is not a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterError {
    /// It has no clause.
    Empty,
    /// This clause is neither a level nor `target=level`.
    Clause(String),
    /// It names more targets than a filter may have.
    TooManyTargets,
}

impl Directives {
    /// Adds clauses; a later clause for the same target replaces an earlier one.
    ///
    /// On error nothing is added.
    pub(super) fn append(&mut self, clauses: &str) -> Result<(), FilterError> {
        let mut next = self.clone();
        let mut found = false;
        for clause in clauses.split(',').map(str::trim).filter(|clause| !clause.is_empty()) {
            next.add(clause)?;
            found = true;
        }
        if !found {
            return Err(FilterError::Empty);
        }
        *self = next;
        Ok(())
    }

    /// The filter as tracing wants it. What no clause mentions is off.
    pub(super) fn targets(&self) -> Targets {
        let mut targets = Targets::new().with_default(self.default.unwrap_or(LevelFilter::OFF));
        for (target, level) in &self.targets {
            if !target.starts_with(CRATE_PREFIX) {
                targets = targets.with_target(format!("{CRATE_PREFIX}{target}"), *level);
            }
            targets = targets.with_target(target.clone(), *level);
        }
        targets
    }

    fn add(&mut self, clause: &str) -> Result<(), FilterError> {
        let wrong = || FilterError::Clause(clause.chars().take(TARGET_BYTES_MAX).collect());
        // istioctl's help shows `target:level`; a target may contain `::`: the last colon counts.
        let split = clause.split_once('=').or_else(|| clause.rsplit_once(':'));
        let Some((target, level)) = split else {
            self.default = Some(level_of(clause).ok_or_else(wrong)?);
            return Ok(());
        };
        let level = level_of(level).ok_or_else(wrong)?;
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
        if target.is_empty() || target.len() > TARGET_BYTES_MAX || !target.bytes().all(legal) {
            return Err(wrong());
        }
        self.targets.retain(|(known, _)| known != target);
        if self.targets.len() == TARGETS_MAX {
            return Err(FilterError::TooManyTargets);
        }
        self.targets.push((target.to_owned(), level));
        Ok(())
    }
}

impl FromStr for Directives {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut directives = Self::default();
        directives.append(text)?;
        Ok(directives)
    }
}

impl fmt::Display for Directives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(level) = self.default {
            write!(f, "{level}")?;
            separator = ",";
        }
        for (target, level) in &self.targets {
            write!(f, "{separator}{target}={level}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a log filter has at least one clause"),
            Self::Clause(clause) => write!(
                f,
                "log filter clause {clause:?} is neither off, error, warn, info, debug or trace \
                 nor <target>=<level>"
            ),
            Self::TooManyTargets => {
                write!(f, "a log filter names at most {TARGETS_MAX} targets")
            }
        }
    }
}

impl std::error::Error for FilterError {}

fn level_of(text: &str) -> Option<LevelFilter> {
    let levels = [
        ("off", LevelFilter::OFF),
        ("error", LevelFilter::ERROR),
        ("warn", LevelFilter::WARN),
        ("info", LevelFilter::INFO),
        ("debug", LevelFilter::DEBUG),
        ("trace", LevelFilter::TRACE),
    ];
    levels.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, level)| level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, FilterError>) {
        let got = text.parse::<Directives>().map(|directives| directives.to_string());
        assert_eq!(got, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn clauses_are_levels_and_targets_with_levels() {
        let wrong = |clause: &str| Err(FilterError::Clause(clause.to_owned()));
        check("info", Ok("info"));
        check("INFO", Ok("info"));
        check(" warn , access=debug ,", Ok("warn,access=debug"));
        check("access=debug", Ok("access=debug"));
        check("access:debug", Ok("access=debug"));
        check("adit::path:trace", Ok("adit::path=trace"));
        check("a=info,debug,a=off,trace", Ok("trace,a=off"));
        check("", Err(FilterError::Empty));
        check(" , ", Err(FilterError::Empty));
        check("verbose", wrong("verbose"));
        check("access", wrong("access"));
        check("adit::path", wrong("adit::path"));
        check("=info", wrong("=info"));
        check("access=", wrong("access="));
        check("access=info=debug", wrong("access=info=debug"));
        check("a b=info", wrong("a b=info"));
        check("a\n=info", wrong("a\n=info"));
    }

    #[test]
    fn a_filter_stays_bounded_and_unchanged_by_a_bad_clause() {
        let mut directives: Directives = "info".parse().unwrap();
        for i in 0..TARGETS_MAX {
            directives.append(&format!("t{i}=debug")).unwrap();
        }
        directives.append("t0=trace").unwrap();
        let before = directives.clone();
        assert_eq!(directives.append("one=info"), Err(FilterError::TooManyTargets));
        assert!(directives.append("debug,nonsense").is_err());
        assert_eq!(directives, before);
    }

    #[test]
    fn a_target_counts_with_and_without_the_crate_name() {
        use tracing::Level;
        let targets = "warn,path=debug,h2=off".parse::<Directives>().unwrap().targets();
        let check = |target: &str, level: Level, expected: bool| {
            assert_eq!(targets.would_enable(target, &level), expected, "{target} {level}");
        };
        check("adit::path::tunnel", Level::DEBUG, true);
        check("adit::path::tunnel", Level::TRACE, false);
        check("path", Level::DEBUG, true);
        check("adit::model", Level::WARN, true);
        check("adit::model", Level::INFO, false);
        check("h2::codec", Level::ERROR, false);
        let silent = "access=info".parse::<Directives>().unwrap().targets();
        assert!(silent.would_enable("access", &Level::INFO));
        assert!(!silent.would_enable("adit::path", &Level::ERROR));
    }
}
