//! How long files, functions, lines and inline tests may be.

use super::source::{Source, identifier, item_end, word_offsets};

const FILE_LINES: usize = 400;
const FUNCTION_LINES: usize = 70;
const INLINE_TEST_LINES: usize = 150;
const COLUMNS: usize = 100;

/// Files, functions, lines and inline tests are short.
pub(super) fn sizes(sources: &[Source]) -> Vec<String> {
    let rust = sources.iter().filter(|source| source.is_rust());
    rust.flat_map(|source| {
        let mut findings = columns(source);
        findings.extend(file(source));
        findings.extend(functions(source));
        findings.extend(inline_tests(source));
        findings
    })
    .collect()
}

fn columns(source: &Source) -> Vec<String> {
    let lines = source.text.lines().enumerate();
    let long = lines.filter(|(_, line)| line.chars().count() > COLUMNS);
    let rule = |at: usize| format!("{}:{}: more than {COLUMNS} columns", source.path, at + 1);
    long.map(|(at, _)| rule(at)).collect()
}

fn file(source: &Source) -> Option<String> {
    let all = source.text.lines().count();
    let tests: usize = source.test_ranges.iter().map(|&range| lines(source, range)).sum();
    let count = if source.test_file { 0 } else { all.saturating_sub(tests) };
    let rule = format!("{count} lines without tests, more than {FILE_LINES}");
    (count > FILE_LINES).then(|| source.finding(0, &rule))
}

fn functions(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for offset in word_offsets(&source.code, "fn") {
        let name = identifier(source.code[offset + 2..].trim_start());
        // A table of cases in an inline test may be long: the whole of the tests has its limit.
        if name.is_empty() || source.is_test(offset) {
            continue;
        }
        let count = lines(source, (offset, item_end(&source.code, offset)));
        if count > FUNCTION_LINES {
            let rule = format!("{name} has {count} lines, more than {FUNCTION_LINES}");
            findings.push(source.finding(offset, &rule));
        }
    }
    findings
}

fn inline_tests(source: &Source) -> Vec<String> {
    let long = |&&range: &&(usize, usize)| lines(source, range) > INLINE_TEST_LINES;
    let rule = format!("inline tests of more than {INLINE_TEST_LINES} lines: use a tests.rs");
    let ranges = source.test_ranges.iter().filter(long);
    ranges.map(|&(from, _)| source.finding(from, &rule)).collect()
}

fn lines(source: &Source, (from, to): (usize, usize)) -> usize {
    source.code[from..to].matches('\n').count() + 1
}
