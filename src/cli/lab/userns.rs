//! Becoming root of a user namespace of one's own, where network namespaces can be made.

use std::fs;
use std::io;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

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
    write("/proc/self/gid_map", &format!("0 {gid} 1"))
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
