//! The house rules, as tests over our own source.
//!
//! Every check is a function from files to findings, so that `selftest` can show each of them a
//! file that breaks its rule. A finding is `path:line: rule`.

mod constructs;
mod rooms;
mod selftest;
mod sizes;
mod source;
mod words;

use std::fs;
use std::path::Path;

use source::{Source, sources};

/// A check: every place where its rule is broken.
type Check = fn(&[Source]) -> Vec<String>;

pub(crate) const TESTS: crate::Tests = &[
    ("rooms_import_only_from_below", || tree(rooms::imports)),
    ("every_file_is_a_module", || tree(rooms::dead_files)),
    ("files_and_functions_are_small", || tree(sizes::sizes)),
    ("unsafe_is_in_sys_and_justified", || tree(constructs::unsafe_code)),
    ("the_environment_is_read_in_one_place", || tree(constructs::environment)),
    ("the_clock_is_read_in_one_place", || tree(constructs::clock)),
    ("proofs_are_made_in_one_place", || tree(constructs::proofs)),
    ("private_keys_stay_in_creds", || tree(constructs::private_keys)),
    ("no_stage_talk", || tree(words::stage_talk)),
    ("tests_do_not_sleep", || tree(words::sleeps)),
    ("citations_have_one_shape", || tree(words::citations)),
    ("promises_name_tests_that_exist", || tree(words::promises)),
    ("each_check_can_fail", selftest::each_check_can_fail),
    ("each_check_can_pass", selftest::each_check_can_pass),
];

/// Runs a check over the whole tree.
fn tree(check: Check) -> Result<(), String> {
    let findings = check(&sources(read_tree()?));
    if findings.is_empty() { Ok(()) } else { Err(findings.join("\n")) }
}

/// All our Rust files and documents, as (path below the root, text), sorted.
fn read_tree() -> Result<Vec<(String, String)>, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "integration", "benches", "docs"] {
        collect(root, &root.join(folder), &mut files)?;
    }
    for entry in fs::read_dir(root).map_err(|error| error.to_string())? {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_file() {
            add(root, &path, &mut files)?;
        }
    }
    files.sort();
    Ok(files)
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) -> Result<(), String> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.is_dir() {
            collect(root, &path, files)?;
        } else {
            add(root, &path, files)?;
        }
    }
    Ok(())
}

fn add(root: &Path, path: &Path, files: &mut Vec<(String, String)>) -> Result<(), String> {
    let wanted = path.extension().is_some_and(|kind| kind == "rs" || kind == "md");
    if wanted {
        let text = fs::read_to_string(path).map_err(|error| format!("{path:?}: {error}"))?;
        let below = path.strip_prefix(root).map_err(|error| error.to_string())?;
        files.push((below.to_string_lossy().into_owned(), text));
    }
    Ok(())
}
