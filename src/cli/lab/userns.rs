//! Becoming root of a user namespace of one's own, where network namespaces can be made.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// `CAP_NET_ADMIN`, `CAP_NET_RAW` and `CAP_SYS_ADMIN` of linux/capability.h, as bits.
const CAPABILITIES: u64 = 1 << 12 | 1 << 13 | 1 << 21;

/// Whether this process entered a user namespace of its own.
static INSIDE: AtomicBool = AtomicBool::new(false);

/// Makes sure that this process may make network namespaces and work in them.
///
/// Call it while the process has a single thread. Errors as of [`enter_user_namespace`].
pub fn ensure() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    if held.is_some_and(|mask| mask & CAPABILITIES == CAPABILITIES) {
        return Ok(());
    }
    enter_user_namespace()
}

/// Whether [`enter_user_namespace`] has succeeded in this process.
pub fn is_inside() -> bool {
    INSIDE.load(Ordering::Relaxed)
}

/// Moves this process into new user, network and mount namespaces in which it is root.
///
/// Call it while the process has a single thread. Errors: `PermissionDenied`, `InvalidInput`
/// (more than one thread) or `StorageFull` (no more namespaces allowed) as the kernel gives them,
/// with words on which step failed.
pub fn enter_user_namespace() -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    let all = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    unshare(all).map_err(|error| explain("making a user namespace", error.into()))?;
    // Without this the kernel refuses a map of groups to those who are not root outside.
    write("/proc/self/setgroups", "deny")?;
    write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    INSIDE.store(true, Ordering::Relaxed);
    Ok(())
}

/// What to tell somebody whose machine forbids it: the command that helps.
pub fn remedy() -> String {
    let restricted = |path: &str, value: &str| {
        fs::read_to_string(path).is_ok_and(|content| content.trim() == value)
    };
    if restricted("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return "run it as root, or allow user namespaces: \
                sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
            .into();
    }
    if restricted("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "run it as root, or allow user namespaces: \
                sudo sysctl kernel.unprivileged_userns_clone=1"
            .into();
    }
    if restricted("/proc/sys/user/max_user_namespaces", "0") {
        return "run it as root, or allow user namespaces: \
                sudo sysctl user.max_user_namespaces=15000"
            .into();
    }
    "run it as root (sudo), and in a container with --privileged".into()
}

fn write(path: &str, content: &str) -> io::Result<()> {
    fs::write(path, content).map_err(|error| explain(path, error))
}

fn explain(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
