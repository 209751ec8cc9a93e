//! Constructs that belong to one place: unsafe code, the environment, the clock, proofs, keys.

use super::source::{Source, identifier, word_offsets};

/// Promise H5.
const UNSAFE_BLOCKS_MAX: usize = 25;

/// `unsafe` is only in `sys`, little, and says why it is sound and why it is needed.
pub(super) fn unsafe_code(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut blocks = 0;
    for source in sources.iter().filter(|source| source.is_rust()) {
        for offset in word_offsets(&source.code, "unsafe") {
            blocks += 1;
            if !source.path.starts_with("src/sys/") {
                findings.push(source.finding(offset, "unsafe outside src/sys"));
                continue;
            }
            let comment = comment_above(source, source.line(offset));
            for mark in ["SAFETY:", "JUSTIFICATION:"] {
                if !comment.contains(mark) {
                    findings.push(source.finding(offset, &format!("unsafe without {mark}")));
                }
            }
        }
    }
    if blocks > UNSAFE_BLOCKS_MAX {
        findings.push(format!("src/sys: {blocks} times unsafe, more than {UNSAFE_BLOCKS_MAX}"));
    }
    findings
}

/// The comment directly above the statement that goes on at `line`.
fn comment_above(source: &Source, line: usize) -> String {
    const STATEMENT_LINES_MAX: usize = 4;
    let comments: Vec<&str> = source.comments.lines().collect();
    let is_comment = |at: &usize| comments.get(*at).is_some_and(|text| !text.trim().is_empty());
    let statement = (0..line.saturating_sub(1)).rev().take(STATEMENT_LINES_MAX);
    let Some(last) = statement.into_iter().find(is_comment) else { return String::new() };
    let block = (0..=last).rev().take_while(is_comment);
    block.map(|at| comments[at]).collect::<Vec<_>>().join("\n")
}

/// The environment is read in `config` and `main`, and written nowhere.
pub(super) fn environment(sources: &[Source]) -> Vec<String> {
    let home = |path: &str| {
        path == "src/main.rs" || path == "src/config.rs" || path.starts_with("src/config/")
    };
    let elsewhere = |source: &&Source| source.is_rust() && !home(&source.path);
    let names = ["env::var", "env::vars", "env::var_os", "env::vars_os"];
    let mut findings =
        occurrences(sources.iter().filter(elsewhere), &names, "the environment is read here");
    let rust = sources.iter().filter(|source| source.is_rust());
    let names = ["env::set_var", "env::remove_var"];
    findings.extend(occurrences(rust, &names, "the environment is written here"));
    findings.retain(|finding| !finding.starts_with("build.rs:"));
    findings
}

/// Time is read in `sys/clock.rs`; everybody else is given it.
pub(super) fn clock(sources: &[Source]) -> Vec<String> {
    let elsewhere =
        sources.iter().filter(|source| source.is_product() && source.path != "src/sys/clock.rs");
    let names = ["Instant::now", "SystemTime::now", "UtcDateTime::now", "OffsetDateTime::now_utc"];
    occurrences(elsewhere, &names, "a clock is read here")
}

/// A verified peer is asserted by `creds/verify.rs`, a permit made by `decide/authorize.rs`.
pub(super) fn proofs(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_product()) {
        for offset in word_offsets(&source.code, "VerifiedPeer::assertion") {
            // A test cannot reach the product, and needs peers.
            if source.path != "src/creds/verify.rs" && !source.is_test(offset) {
                findings.push(source.finding(offset, "a peer is asserted outside creds/verify"));
            }
        }
        for offset in word_offsets(&source.code, "Permit {") {
            let before = source.code[..offset].trim_end();
            let names = ["struct", "impl", "for", "->"].iter().any(|word| before.ends_with(word));
            if source.path != "src/decide/authorize.rs" && !names {
                findings.push(source.finding(offset, "a permit is made outside decide/authorize"));
            }
        }
    }
    findings
}

/// Only `creds` names a type that can hold a private key.
pub(super) fn private_keys(sources: &[Source]) -> Vec<String> {
    let product = sources.iter().filter(|source| source.is_product());
    let elsewhere = product.filter(|source| !source.path.starts_with("src/creds/"));
    let names = ["PrivateKeyDer", "PrivatePkcs8KeyDer", "PrivateSec1KeyDer", "KeyPair"];
    let mut findings = Vec::new();
    for source in elsewhere {
        for name in names {
            for offset in word_offsets(&source.code, name) {
                if !source.is_test(offset) {
                    findings.push(source.finding(offset, "a private key outside creds"));
                }
            }
        }
    }
    findings
}

/// A finding wherever one of the `names` is called, or named in full.
fn occurrences<'a>(
    sources: impl Iterator<Item = &'a Source>,
    names: &[&str],
    rule: &str,
) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources {
        for name in names {
            let last = name.rsplit("::").next().unwrap_or(name);
            let whole = |&offset: &usize| {
                let end = offset + name.len();
                identifier(&source.code[end - last.len()..]) == last
            };
            let offsets = word_offsets(&source.code, name);
            findings.extend(
                offsets.into_iter().filter(whole).map(|offset| source.finding(offset, rule)),
            );
        }
    }
    findings
}
