//! Reads variables one at a time and remembers everything that is wrong.

use super::ConfigError;

/// How much of a wrong value is shown, bytes.
const SHOWN_BYTES_MAX: usize = 64;

/// The environment while it is being read.
pub(super) struct Env<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    names: &'a dyn Fn() -> Vec<String>,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl<'a> Env<'a> {
    /// `names` lists the variables that are there.
    pub(super) fn new(
        lookup: &'a dyn Fn(&str) -> Option<String>,
        names: &'a dyn Fn() -> Vec<String>,
    ) -> Self {
        Self { lookup, names, errors: Vec::new(), warnings: Vec::new() }
    }

    /// The warnings, or everything that is wrong.
    pub(super) fn finish(self) -> Result<Vec<String>, Vec<ConfigError>> {
        if self.errors.is_empty() { Ok(self.warnings) } else { Err(self.errors) }
    }

    /// Whether a variable is there, even empty.
    pub(super) fn is_set(&self, name: &str) -> bool {
        (self.lookup)(name).is_some()
    }

    /// A text; empty counts as unset.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|text| !text.is_empty())
    }

    /// The variables that begin with `prefix`, without it, in the order of their names.
    pub(super) fn prefixed(&self, prefix: &str) -> Vec<(String, String)> {
        let mut names = (self.names)();
        names.sort_unstable();
        names.dedup();
        let rest = |name: String| {
            let rest = name.strip_prefix(prefix).filter(|rest| !rest.is_empty())?.to_owned();
            Some((rest, (self.lookup)(&name)?))
        };
        names.into_iter().filter_map(rest).collect()
    }

    /// A value in the form that `parse` understands; an empty text is a value like any other.
    pub(super) fn value<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = (self.lookup)(name)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.wrong(name, format!("{} {reason}", shown(&text)));
                None
            }
        }
    }

    /// A switch: exactly `true` or `false`.
    pub(super) fn switch(&mut self, name: &str, default: bool) -> bool {
        self.value(name, super::values::switch).unwrap_or(default)
    }

    /// Notes that something is wrong.
    pub(super) fn wrong(&mut self, name: &str, reason: impl Into<String>) {
        self.errors.push(ConfigError { name: name.to_owned(), reason: reason.into() });
    }

    /// Notes something that is not wrong but should be known.
    pub(super) fn warn(&mut self, name: &str, text: &str) {
        self.warnings.push(format!("{name}: {text}"));
    }
}

/// A value as errors show it: quoted, and cut if it is long.
pub(crate) fn shown(text: &str) -> String {
    let cut = text.floor_char_boundary(SHOWN_BYTES_MAX);
    let more = if cut < text.len() { "…" } else { "" };
    format!("{:?}{more}", &text[..cut])
}
