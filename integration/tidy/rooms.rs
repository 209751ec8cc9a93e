//! Which room may import from which, and that no file lies about unused.

use super::source::{Source, identifier, reachable, word_offsets};

/// The rooms, lowest first. A room imports only from rows above its own.
const LAYERS: &[&[&str]] = &[
    &["sys", "wire"],
    &["hbone"],
    &["config", "model"],
    &["decide"],
    &["report"],
    &["creds"],
    &["control"],
    &["path"],
    &["pods"],
    &["lifecycle"],
    &["app"],
    &["cli", "standalone"],
];

/// The exceptions to the order: imports within a row, and imports that the order would allow.
const ALSO_ALLOWED: &[(&str, &str)] = &[("config", "model"), ("cli", "standalone")];
/// Who may import `control`, whatever the order says.
const CONTROL_USERS: &[&str] = &["app", "standalone"];

/// Rooms import only from rooms below them.
pub(super) fn imports(sources: &[Source]) -> Vec<String> {
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_product()) {
        let module = module_path(&source.path);
        let Some(&room) = module.first() else { continue };
        if layer(room).is_none() {
            findings.push(source.finding(0, &format!("{room} is not one of the rooms")));
        }
        for (offset, target) in imported(source, module.len()) {
            if layer(target).is_some() && !allowed(room, target) {
                let rule = format!("{room} must not import {target}");
                findings.push(source.finding(offset, &rule));
            }
        }
    }
    findings
}

/// Every Rust file is reached by a `mod`.
pub(super) fn dead_files(sources: &[Source]) -> Vec<String> {
    let reached = reachable(sources);
    let dead = |source: &&Source| source.is_rust() && !reached.contains_key(&source.path);
    let finding = |source: &Source| source.finding(0, "no mod leads to this file");
    sources.iter().filter(dead).map(finding).collect()
}

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&room))
}

fn allowed(room: &str, target: &str) -> bool {
    if room == target || ALSO_ALLOWED.contains(&(room, target)) {
        return true;
    }
    let below = layer(target) < layer(room);
    below && (target != "control" || CONTROL_USERS.contains(&room))
}

/// `src/path/tunnel/pool.rs` is `path`, `tunnel`, `pool`; the crate roots are nothing.
fn module_path(path: &str) -> Vec<&str> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    if path == "lib" || path == "main" { Vec::new() } else { path.split('/').collect() }
}

/// The first names after `crate::`, and after as many `super::` as lead to the crate's root.
fn imported(source: &Source, depth: usize) -> Vec<(usize, &str)> {
    let to_root = "super::".repeat(depth);
    let mut found = Vec::new();
    for start in ["crate::", to_root.as_str()] {
        for offset in word_offsets(&source.code, start) {
            if start != "crate::" && source.code[..offset].ends_with("super::") {
                continue;
            }
            let rest = source.code[offset + start.len()..].trim_start();
            let names = rest.strip_prefix('{').map_or_else(|| vec![identifier(rest)], group);
            found.extend(names.into_iter().map(|name| (offset, name)));
        }
    }
    found
}

/// The first names of the members of `{a, b::c, d::{e, f}}`, given what follows the brace.
fn group(rest: &str) -> Vec<&str> {
    let (mut names, mut depth, mut fresh) = (Vec::new(), 0_usize, true);
    for (at, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && !c.is_whitespace() => {
                names.push(identifier(&rest[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}
