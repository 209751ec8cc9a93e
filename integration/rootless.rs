//! Getting to where network namespaces can be made, without being root.

use std::fs;

use adit::cli::lab::userns;
use adit::sys::netns::Netns;

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` of linux/capability.h, as bits.
const CAPABILITIES: u64 = 1 << 12 | 1 << 21;

pub(crate) const TESTS: crate::Tests = &[("a_namespace_can_be_made", a_namespace_can_be_made)];

/// Makes sure that this process may make network namespaces, in a user namespace if need be.
///
/// Must be called while the process has one thread. The error ends with what would help.
pub(crate) fn enter() -> Result<(), String> {
    if may_make_namespaces() {
        return Ok(());
    }
    userns::enter_user_namespace().map_err(|error| {
        format!("this test makes network namespaces, and {error}; {}", userns::remedy())
    })
}

fn may_make_namespaces() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    held.is_some_and(|mask| mask & CAPABILITIES == CAPABILITIES)
}

fn a_namespace_can_be_made() -> Result<(), String> {
    let ours = Netns::current().map_err(|error| error.to_string())?;
    let new = Netns::create().map_err(|error| error.to_string())?;
    let inside = new.run(Netns::current).map_err(|error| error.to_string())?;
    let moved = inside.id() == new.id() && inside.id() != ours.id();
    if moved { Ok(()) } else { Err(format!("{ours:?}, {new:?} and then {inside:?}")) }
}
