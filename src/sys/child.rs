//! Processes that we start.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// Makes the process that `command` starts be killed when the *thread* that starts it ends,
/// however it ends (`PR_SET_PDEATHSIG`).
#[expect(unsafe_code, reason = "work between fork and exec")]
pub fn kill_with_parent(command: &mut Command) {
    let parent = Pid::this();
    // SAFETY: the closure makes two system calls and allocates nothing, so it may run between
    // fork and exec of a process with many threads.
    // JUSTIFICATION: only the child itself can ask for the signal, and before it is anything.
    unsafe {
        command.pre_exec(move || {
            set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have gone before we asked.
            if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
}
