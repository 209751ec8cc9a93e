//! Getting to where network namespaces can be made, without being root.

use std::fs;

use adit::sys::netns::Netns;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` of linux/capability.h, as bits.
const CAPABILITIES: u64 = 1 << 12 | 1 << 21;

pub(crate) const TESTS: crate::Tests = &[("a_namespace_can_be_made", a_namespace_can_be_made)];

/// Makes sure that this process may make network namespaces, in a user namespace if need be.
///
/// Must be called while the process has one thread. The error ends with the one command that
/// would help.
pub(crate) fn enter() -> Result<(), String> {
    if may_make_namespaces() {
        return Ok(());
    }
    let (uid, gid) = (geteuid(), getegid());
    let wanted = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    unshare(wanted).map_err(|error| refused(&format!("unshare: {error}")))?;
    let write = |file: &str, text: String| {
        fs::write(file, text).map_err(|error| refused(&format!("{file}: {error}")))
    };
    // Without this the kernel accepts no map of groups from somebody unprivileged.
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))
}

fn may_make_namespaces() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    held.is_some_and(|mask| mask & CAPABILITIES == CAPABILITIES)
}

fn refused(error: &str) -> String {
    let is = |file: &str, value: &str| {
        fs::read_to_string(format!("/proc/sys/{file}")).is_ok_and(|text| text.trim() == value)
    };
    let command = if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
    } else if is("kernel/unprivileged_userns_clone", "0") {
        "sudo sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is("user/max_user_namespaces", "0") {
        "sudo sysctl -w user.max_user_namespaces=10000"
    } else {
        "sudo env \"PATH=$PATH\" cargo test"
    };
    format!("this test makes network namespaces and may not ({error}); this helps: {command}")
}

fn a_namespace_can_be_made() -> Result<(), String> {
    let ours = Netns::current().map_err(|error| error.to_string())?;
    let new = Netns::create().map_err(|error| error.to_string())?;
    let inside = new.run(Netns::current).map_err(|error| error.to_string())?;
    let moved = inside.id() == new.id() && inside.id() != ours.id();
    if moved { Ok(()) } else { Err(format!("{ours:?}, {new:?} and then {inside:?}")) }
}
