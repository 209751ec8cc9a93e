//! A file as the checks see it: code without comments and texts, comments without code.

use std::collections::HashMap;

/// One file. `code` and `comments` have the same length and lines as `text`.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
    /// Comments and the contents of literals are blanks.
    pub(super) code: String,
    /// Everything but comments is blanks.
    pub(super) comments: String,
    /// The whole file is only compiled for tests.
    pub(super) test_file: bool,
    /// The byte ranges that are only compiled for tests.
    pub(super) test_ranges: Vec<(usize, usize)>,
}

impl Source {
    fn new(path: String, text: String) -> Self {
        let (code, comments) = split(&text);
        let test_ranges = test_ranges(&code);
        Self { path, text, code, comments, test_file: false, test_ranges }
    }

    /// Number of the line at a byte offset, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.code[..offset].matches('\n').count() + 1
    }

    /// A finding at a byte offset.
    pub(super) fn finding(&self, offset: usize, rule: &str) -> String {
        format!("{}:{}: {rule}", self.path, self.line(offset))
    }

    /// Whether the code at a byte offset is only compiled for tests.
    pub(super) fn is_test(&self, offset: usize) -> bool {
        self.test_file || self.test_ranges.iter().any(|&(from, to)| (from..to).contains(&offset))
    }

    /// Whether this is Rust of the product: under `src`.
    pub(super) fn is_product(&self) -> bool {
        self.is_rust() && self.path.starts_with("src/")
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }
}

/// Reads all files and finds out which of them are only compiled for tests.
pub(super) fn sources(files: Vec<(String, String)>) -> Vec<Source> {
    let mut sources: Vec<Source> =
        files.into_iter().map(|(path, text)| Source::new(path, text)).collect();
    let tests: Vec<String> = reachable(&sources)
        .into_iter()
        .filter_map(|(path, only_tests)| only_tests.then_some(path))
        .collect();
    for source in &mut sources {
        source.test_file = tests.contains(&source.path);
    }
    sources
}

/// Every file that some crate root reaches by `mod`, and whether only through `#[cfg(test)]`.
pub(super) fn reachable(sources: &[Source]) -> HashMap<String, bool> {
    let roots = [
        "src/lib.rs",
        "src/main.rs",
        "integration/main.rs",
        "integration/peers/main.rs",
        "benches/decide.rs",
        "benches/e2e.rs",
        "benches/instructions.rs",
        "benches/sync.rs",
        "build.rs",
    ];
    let mut queue: Vec<(String, bool)> = roots.iter().map(|&r| (r.to_owned(), false)).collect();
    let mut found = HashMap::new();
    while let Some((path, only_tests)) = queue.pop() {
        let Some(source) = sources.iter().find(|source| source.path == path) else { continue };
        found.insert(path, only_tests);
        let folder = child_folder(source, &roots);
        for (name, offset) in modules(&source.code) {
            let only_tests = only_tests || source.is_test(offset);
            queue.push((format!("{folder}/{name}.rs"), only_tests));
            queue.push((format!("{folder}/{name}/mod.rs"), only_tests));
        }
    }
    found
}

fn child_folder<'a>(source: &'a Source, roots: &[&str]) -> &'a str {
    let path = source.path.as_str();
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let own_name = path.ends_with("/mod.rs") || roots.contains(&path);
    if own_name { folder } else { path.trim_end_matches(".rs") }
}

/// The names in `mod name;`, with their offsets.
fn modules(code: &str) -> Vec<(&str, usize)> {
    let after = |offset: usize| {
        let rest = code[offset + 3..].trim_start();
        let name = identifier(rest);
        rest[name.len()..].trim_start().starts_with(';').then_some((name, offset))
    };
    word_offsets(code, "mod").into_iter().filter_map(after).collect()
}

/// The identifier at the beginning of `text`; empty if there is none.
pub(super) fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
    &text[..end]
}

pub(super) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `word` occurs and is not part of a longer identifier.
pub(super) fn word_offsets(text: &str, word: &str) -> Vec<usize> {
    let alone = |&(offset, _): &(usize, &str)| {
        let before = text[..offset].chars().next_back();
        let after = text[offset + word.len()..].chars().next();
        let starts = !word.starts_with(is_word) || !before.is_some_and(is_word);
        starts && (!word.ends_with(is_word) || !after.is_some_and(is_word))
    };
    text.match_indices(word).filter(alone).map(|(offset, _)| offset).collect()
}

/// From `offset` to the end of the item there: its closing brace, or its semicolon.
pub(super) fn item_end(code: &str, offset: usize) -> usize {
    let (mut round, mut curly) = (0_usize, 0_usize);
    for (at, c) in code[offset..].char_indices() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round = round.saturating_sub(1),
            '{' => curly += 1,
            '}' if curly <= 1 => return offset + at + 1,
            '}' => curly -= 1,
            ';' if round == 0 && curly == 0 => return offset + at + 1,
            _ => {}
        }
    }
    code.len()
}

fn test_ranges(code: &str) -> Vec<(usize, usize)> {
    let marks = code.match_indices("#[cfg(test)]");
    marks.map(|(from, mark)| (from, item_end(code, from + mark.len()))).collect()
}

/// Splits a text into its code and its comments, each with blanks where the other is.
fn split(text: &str) -> (String, String) {
    let (mut code, mut comments) = (String::new(), String::new());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = token(rest, code.chars().next_back());
        let length = length.max(first.len_utf8());
        let (piece, after) = rest.split_at(length);
        let blank: String = piece.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect();
        code.push_str(if kind == Kind::Code { piece } else { &blank });
        comments.push_str(if kind == Kind::Comment { piece } else { &blank });
        rest = after;
    }
    (code, comments)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// What `rest` begins with, and how many bytes of it belong together.
fn token(rest: &str, before: Option<char>) -> (Kind, usize) {
    if rest.starts_with("//") {
        return (Kind::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Kind::Comment, block_comment(rest));
    }
    if rest.starts_with('"') {
        return (Kind::Literal, quoted(rest, '"'));
    }
    let prefix = rest.trim_start_matches('b');
    let raw = prefix.strip_prefix('r').map(|tail| tail.trim_start_matches('#'));
    if !before.is_some_and(is_word)
        && let Some(tail) = raw.filter(|tail| tail.starts_with('"'))
    {
        let start = rest.len() - tail.len();
        let hashes = rest[..start].matches('#').count();
        let close = format!("\"{}", "#".repeat(hashes));
        let end = tail[1..].find(&close).map_or(rest.len(), |at| start + 1 + at + close.len());
        return (Kind::Literal, end);
    }
    // 'x' and '\n' are literals; 'x without a second quote is a lifetime.
    if let Some(tail) = rest.strip_prefix('\'') {
        let mut chars = tail.chars();
        let (one, two) = (chars.next(), chars.next());
        if one == Some('\\') || two == Some('\'') {
            return (Kind::Literal, quoted(rest, '\''));
        }
    }
    (Kind::Code, rest.chars().next().map_or(0, char::len_utf8))
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if tail.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}
