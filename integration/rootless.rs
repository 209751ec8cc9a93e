//! Getting to where network namespaces can be made, without being root.

use adit::cli::lab::userns;
use adit::sys::netns::Netns;

pub(crate) const TESTS: crate::Tests = &[("a_namespace_can_be_made", a_namespace_can_be_made)];

/// Makes sure that this process may make network namespaces, in a user namespace if need be.
///
/// Must be called while the process has one thread. The error ends with what would help.
pub(crate) fn enter() -> Result<(), String> {
    userns::ensure().map_err(|error| {
        format!("this test makes network namespaces, and {error}; {}", userns::remedy())
    })
}

fn a_namespace_can_be_made() -> Result<(), String> {
    let ours = Netns::current().map_err(|error| error.to_string())?;
    let new = Netns::create().map_err(|error| error.to_string())?;
    let inside = new.run(Netns::current).map_err(|error| error.to_string())?;
    let moved = inside.id() == new.id() && inside.id() != ours.id();
    if moved { Ok(()) } else { Err(format!("{ours:?}, {new:?} and then {inside:?}")) }
}
