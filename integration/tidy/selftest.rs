//! Every check is shown a file that breaks its rule, and one that keeps it.

use super::Check;
use super::source::sources;
use super::{constructs, rooms, sizes, words};

/// A check, one file's path and text, and a part of the finding it must give; empty for none.
type Case = (Check, &'static str, &'static str, &'static str);

const BAD: &[Case] = &[
    (rooms::imports, "src/decide/a.rs", "use crate::report::Reason;", "1: decide must not"),
    (rooms::imports, "src/path/a.rs", "\nuse crate::control::x;", "2: path must not import cont"),
    (rooms::imports, "src/cli/a.rs", "use crate::control::x;", "cli must not import control"),
    (rooms::imports, "src/path/a.rs", "fn f() { crate::pods::g() }", "path must not import pods"),
    (rooms::imports, "src/wire/a.rs", "use crate::{sys::x, wire::y};", "wire must not import sys"),
    (rooms::imports, "src/model/a.rs", "use super::super::config::C;", "must not import config"),
    (rooms::imports, "src/model/mod.rs", "use super::config::C;", "must not import config"),
    (rooms::imports, "src/util/mod.rs", "", "util is not one of the rooms"),
    (rooms::dead_files, "src/wire/old.rs", "", "src/wire/old.rs:1: no mod leads"),
    (constructs::unsafe_code, "src/path/a.rs", "unsafe { f() }", "outside src/sys"),
    (constructs::unsafe_code, "src/sys/a.rs", "// SAFETY: s\nunsafe { f() }", "JUSTIFICATION"),
    (constructs::unsafe_code, "src/sys/a.rs", "// JUSTIFICATION: j\nunsafe { f() }", "SAFETY"),
    (constructs::environment, "src/app.rs", "let x = std::env::var(\"A\");", "read here"),
    (constructs::environment, "src/config.rs", "env::set_var(\"A\", \"b\");", "written here"),
    (constructs::clock, "src/path/a.rs", "let t = Instant::now();", "a clock is read"),
    (constructs::clock, "src/sys/a.rs", "map(tokio::time::Instant::now)", "a clock is read"),
    (constructs::proofs, "src/path/a.rs", "VerifiedPeer::assertion(id)", "a peer is asserted"),
    (constructs::proofs, "src/path/a.rs", "let p = Permit { generation: 1 };", "a permit is"),
    (constructs::private_keys, "src/path/a.rs", "fn f(key: PrivateKeyDer<'_>) {}", "private key"),
    (words::stage_talk, "src/a.rs", "// TODO: more", "src/a.rs:1: stage talk"),
    (words::stage_talk, "docs/a.md", "\nThis is enough for now.", "docs/a.md:2: stage talk"),
    (words::stage_talk, "src/a.rs", "// comes in phase 2", "stage talk"),
    (words::stage_talk, "src/a.rs", "#[ignore]\nfn t() {}", "stage talk"),
    (words::sleeps, "integration/a.rs", "thread::sleep(d);", "a test sleeps"),
    (words::sleeps, "src/a.rs", "#[cfg(test)]\nmod t { fn f() { sleep(d) } }", "2: a test sleeps"),
    (words::citations, "src/a.rs", "// As in spec hbone.", "a citation is"),
    (words::citations, "src/a.rs", "// As in spec hbome 3.5.", "a citation is"),
    (words::citations, "src/a.rs", "// As in spec/hbone.md 3.", "a citation is"),
    (words::promises, "SPECIFICATION.md", "| R1 | never | `no_such_test` |", "no test is called"),
    (words::promises, "SPECIFICATION.md", "| R1 | never | soon |", "neither pending nor"),
    (words::promises, "SPECIFICATION.md", "| R1 | a | pending |\n| R1 | b | pending |", "twice"),
    (words::promises, "SPECIFICATION.md", "nothing", "no promise found"),
    (words::promises, "README.md", "nothing", "SPECIFICATION.md:1: missing"),
];

const GOOD: &[Case] = &[
    (rooms::imports, "src/path/a.rs", "use crate::{decide::x, model::{self, y}};", ""),
    (rooms::imports, "src/config.rs", "use crate::model::X;", ""),
    (rooms::imports, "src/wire/a.rs", "//! See [`crate::path`].\nuse super::spiffe::X;", ""),
    (rooms::imports, "src/app.rs", "use crate::control::x; use super::sys::y;", ""),
    (rooms::dead_files, "src/lib.rs", "", ""),
    (
        constructs::unsafe_code,
        "src/sys/a.rs",
        "// SAFETY: s\n// JUSTIFICATION: j\nlet x =\n    unsafe { f() };",
        "",
    ),
    (constructs::unsafe_code, "src/path/a.rs", "// unsafe\nlet s = \"unsafe\";", ""),
    (constructs::environment, "src/config.rs", "std::env::var(\"A\")", ""),
    (constructs::environment, "src/path/a.rs", "std::env::args()", ""),
    (constructs::clock, "src/sys/clock.rs", "Instant::now()", ""),
    (constructs::proofs, "src/creds/verify.rs", "VerifiedPeer::assertion(id)", ""),
    (constructs::proofs, "src/path/a.rs", "fn f(p: P) -> Permit { p.permit }", ""),
    (constructs::private_keys, "src/creds/a.rs", "KeyPair::generate()", ""),
    (words::stage_talk, "src/a.rs", "// for nowhere, method, phases 1", ""),
    (words::sleeps, "src/a.rs", "fn f() { sleep(d) }", ""),
    (
        words::sleeps,
        "src/a.rs",
        "#[cfg(test)]\nmod t {\n #[tokio::test(start_paused = true)]\n fn f() { sleep(d) } }",
        "",
    ),
    (words::citations, "src/a.rs", "//! (spec hbone 3.5, policy 2)\n// a pod's spec is", ""),
    (words::citations, "src/a.rs", "/// As in spec hbone\n/// 3.5.", ""),
    (words::promises, "SPECIFICATION.md", "| R1 | a | pending |\n\n| x | y | z |", ""),
];

pub(super) fn each_check_can_fail() -> Result<(), String> {
    too_large()?;
    BAD.iter().try_for_each(|&(check, path, text, expected)| fails(check, path, text, expected))
}

pub(super) fn each_check_can_pass() -> Result<(), String> {
    for &(check, path, text, _) in GOOD {
        let findings = check(&sources(vec![(path.to_owned(), text.to_owned())]));
        if !findings.is_empty() {
            return Err(format!("{path} {text:?} gave {findings:?}"));
        }
    }
    let limits =
        [("fn f() {\n", 68, "}\n"), ("#[cfg(test)]\nmod t {\n", 147, "}\n"), ("", 400, "")];
    for (head, lines, tail) in limits {
        let text = format!("{head}{}{tail}", "x();\n".repeat(lines));
        let findings = sizes::sizes(&sources(vec![("src/a.rs".to_owned(), text)]));
        if !findings.is_empty() {
            return Err(format!("{lines} lines gave {findings:?}"));
        }
    }
    Ok(())
}

fn too_large() -> Result<(), String> {
    let file = "x();\n".repeat(401);
    fails(sizes::sizes, "src/a.rs", &file, "1: 401 lines without tests")?;
    let function = format!("\nasync fn long<T>(x: [u8; 2])\n{{\n{}}}\n", "y();\n".repeat(68));
    fails(sizes::sizes, "src/a.rs", &function, "2: long has 71 lines")?;
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "y();\n".repeat(148));
    fails(sizes::sizes, "src/a.rs", &tests, "1: inline tests")?;
    fails(sizes::sizes, "src/a.rs", &"y".repeat(101), "1: more than 100 columns")
}

fn fails(check: Check, path: &str, text: &str, expected: &str) -> Result<(), String> {
    let findings = check(&sources(vec![(path.to_owned(), text.to_owned())]));
    if findings.iter().any(|finding| finding.contains(expected)) {
        return Ok(());
    }
    let start: String = text.chars().take(60).collect();
    Err(format!("{path} {start:?} should give {expected:?} and gave {findings:?}"))
}
