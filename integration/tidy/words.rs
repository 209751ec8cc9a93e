//! Words: none about stages of work, one shape of citation, no sleep in tests, promises with tests.

use super::source::{Source, is_word, word_offsets};

/// The pages of the specification of the protocols.
const PAGES: &[&str] = &[
    "discovery-and-balancing",
    "dns",
    "hbone",
    "identity",
    "node-and-pods",
    "operations",
    "policy",
    "redirection",
    "xds",
];

/// Words that say that something is not finished, in lower case.
const STAGE_WORDS: &[&str] =
    &["todo", "fixme", "mvp", "for now", "#[ignore", "unimplemented!", "not yet implemented"];

/// What is there is finished; what is not finished is not there.
pub(super) fn stage_talk(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| !source.path.starts_with("integration/tidy/")) {
        for (at, line) in source.text.lines().enumerate() {
            let line = line.to_ascii_lowercase();
            let word = STAGE_WORDS.iter().find(|word| !word_offsets(&line, word).is_empty());
            let phase = word_offsets(&line, "phase ").into_iter().any(|offset| {
                line[offset + "phase ".len()..].starts_with(|c: char| c.is_ascii_digit())
            });
            if let Some(word) = word.copied().or_else(|| phase.then_some("phase")) {
                findings.push(format!("{}:{}: stage talk: {word}", source.path, at + 1));
            }
        }
    }
    findings
}

/// Tests wait for what they wait for. Only with paused time may an inline test sleep.
pub(super) fn sleeps(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        let code = &source.code;
        let paused = code.contains("start_paused") && !code.contains("#[tokio::test]");
        for name in ["sleep", "sleep_until", "sleep_ms", "usleep", "nanosleep"] {
            for offset in word_offsets(code, &format!("{name}(")) {
                let everywhere = source.path.starts_with("integration/");
                let blocks = code[..offset].ends_with("thread::");
                if everywhere || (source.is_test(offset) && (blocks || !paused)) {
                    findings.push(source.finding(offset, "a test sleeps"));
                }
            }
        }
    }
    findings
}

/// A citation is `spec <page> <number>`.
pub(super) fn citations(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        let words = comment_words(&source.comments);
        for (at, &(offset, word)) in words.iter().enumerate() {
            let follows = |n: usize| words.get(at + n).map_or("", |&(_, word)| word);
            let number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
            let page = PAGES.contains(&follows(1));
            let wrong = word == "spec" && page != number(follows(2));
            if wrong || word.starts_with("spec/") {
                findings.push(source.finding(offset, "a citation is `spec <page> <number>`"));
            }
        }
    }
    findings
}

/// The words of comments, without the marks of comments and punctuation around words.
fn comment_words(comments: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    for piece in comments.split_whitespace() {
        let start = piece.as_ptr() as usize - comments.as_ptr() as usize;
        let word = piece.trim_matches(|c: char| !is_word(c));
        if !word.is_empty() {
            words.push((start, word));
        }
    }
    words
}

/// Each promise is pending or names tests that exist.
pub(super) fn promises(sources: &[Source]) -> Vec<String> {
    let Some(document) = sources.iter().find(|source| source.path == "SPECIFICATION.md") else {
        return vec!["SPECIFICATION.md:1: missing".to_owned()];
    };
    let mut findings = Vec::new();
    let mut seen = Vec::new();
    for (at, line) in document.text.lines().enumerate() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let (Some(&id), Some(&proof)) = (cells.first(), cells.last()) else { continue };
        if !line.starts_with('|') || !is_promise_id(id) {
            continue;
        }
        let mut report =
            |rule: String| findings.push(format!("SPECIFICATION.md:{}: {id}: {rule}", at + 1));
        if seen.contains(&id) {
            report("twice".to_owned());
        }
        seen.push(id);
        let names: Vec<&str> = proof.split('`').skip(1).step_by(2).collect();
        if names.is_empty() && proof != "pending" {
            report("is neither pending nor names a test".to_owned());
        }
        for name in names.into_iter().filter(|name| !is_test_name(sources, name)) {
            report(format!("no test is called {name}"));
        }
    }
    if seen.is_empty() {
        findings.push("SPECIFICATION.md:1: no promise found".to_owned());
    }
    findings
}

/// A letter and a number: `R1`, `S12`.
fn is_promise_id(text: &str) -> bool {
    let rest = text.strip_prefix(|c: char| c.is_ascii_uppercase()).unwrap_or_default();
    !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit())
}

/// Whether a test function, or an entry of a table of tests, has this name.
fn is_test_name(sources: &[Source], path: &str) -> bool {
    let name = path.rsplit("::").next().unwrap_or(path);
    let mut rust = sources.iter().filter(|source| source.is_rust());
    rust.any(|source| {
        let function = source.code.contains(&format!("fn {name}("));
        let entry = source.text.contains(&format!("(\"{name}\","));
        function || (source.path.starts_with("integration/") && entry)
    })
}
