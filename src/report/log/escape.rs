//! Text from strangers on its way into a line: nothing in it can end the line, move the cursor or
//! look like a field.

use std::fmt::{self, Write};

/// Longest value that is written, bytes; what is longer is cut and ends in `…`.
const VALUE_BYTES_MAX: usize = 2_048;

/// Appends text as it is, but for what cannot be seen.
pub(super) fn bare(out: &mut String, text: &str) {
    for c in text.chars() {
        if hidden(c) { hidden_plain(out, c) } else { out.push(c) }
    }
}

/// Appends text in quotes, with escapes.
pub(super) fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if hidden(c) => hidden_plain(out, c),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends text as a JSON string.
pub(super) fn json(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Every hidden character has at most four hexadecimal digits.
            c if hidden(c) => push(out, format_args!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Whether a rendered value can stand without quotes: one word that is not a quoted text itself.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '"' || hidden(c))
}

/// A buffer for one value that takes no more than its bound.
#[derive(Debug, Default)]
pub(super) struct Clipped(String);

impl Clipped {
    /// The text of `value`, cut at the bound.
    pub(super) fn render(&mut self, value: fmt::Arguments<'_>) -> &str {
        self.0.clear();
        // An error means that it was cut, or that the value cannot be shown: what is there counts.
        let _ = self.write_fmt(value);
        &self.0
    }

    /// The text itself, cut at the bound.
    pub(super) fn text<'a>(&'a mut self, text: &'a str) -> &'a str {
        if text.len() <= VALUE_BYTES_MAX { text } else { self.render(format_args!("{text}")) }
    }
}

impl Write for Clipped {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = VALUE_BYTES_MAX.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        self.0.push('…');
        Err(fmt::Error)
    }
}

/// Appends to a string, which cannot fail.
pub(super) fn push(out: &mut String, text: fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

/// Control characters, line and paragraph separators, and marks that reorder or hide text.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{2069}'
                | '\u{feff}'
        )
}

fn hidden_plain(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c => push(out, format_args!("\\u{{{:x}}}", u32::from(c))),
    }
}
