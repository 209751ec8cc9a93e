//! Network namespaces: opening, telling apart, entering on a thread of one's own.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::fstat;
use nix::sys::statfs::fstatfs;

/// The file system that namespace descriptors live on (`NSFS_MAGIC` of linux/magic.h).
const NSFS_MAGIC: libc::c_long = 0x6e73_6673;
/// A thread other than the main one must not use `/proc/self` (spec node-and-pods 10).
const OWN_NETNS: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept alive by the descriptor.
#[derive(Clone, Debug)]
pub struct Netns {
    fd: Arc<OwnedFd>,
    id: NetnsId,
}

/// What makes a namespace itself: device and inode of its descriptor (spec node-and-pods 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsId {
    device: u64,
    inode: u64,
}

impl Netns {
    /// Takes a descriptor that somebody passed to us; refused with `InvalidInput` unless it is
    /// a network namespace.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let refused = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        // The file system first: elsewhere the same ioctl number may mean something else.
        if fstatfs(&fd)?.filesystem_type().0 != NSFS_MAGIC {
            return refused("not a namespace descriptor");
        }
        if namespace_type(&fd)? != libc::CLONE_NEWNET {
            return refused("a namespace, but not a network namespace");
        }
        let stat = fstat(&fd)?;
        let id = NetnsId { device: stat.st_dev, inode: stat.st_ino };
        Ok(Self { fd: Arc::new(fd), id })
    }

    /// Opens a namespace by its path, such as `/proc/1/ns/net` or `/run/netns/name`.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Not to wait for a writer should the path be a pipe.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Self::from_fd(file.into())
    }

    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        Self::from_fd(File::open(OWN_NETNS)?.into())
    }

    /// A new, empty namespace, in which only loopback exists, and that is down.
    pub fn create() -> io::Result<Self> {
        // A thread of its own, so that no other ever finds itself somewhere else.
        run_on_thread("netns-create", || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Self::current()
        })
    }

    /// What makes it itself.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// The descriptor.
    pub fn fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }

    /// Moves the calling thread into this namespace for good.
    ///
    /// Only for threads that exist for this namespace; everything else asks the opener.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs `work` on a new thread inside this namespace and waits for it.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        run_on_thread("netns-run", || {
            self.enter()?;
            work()
        })
    }
}

/// The `CLONE_NEW*` flag of a namespace descriptor.
#[expect(unsafe_code, reason = "an ioctl without a safe wrapper")]
fn namespace_type(fd: &OwnedFd) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open for the whole call, and NS_GET_NSTYPE takes no argument.
    // JUSTIFICATION: nothing else tells the kind of a namespace without entering it.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}

fn run_on_thread<T: Send>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the namespace's thread panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_namespaces_are_taken() {
        #[track_caller]
        fn check(path: &str, refusal: Option<&str>) {
            let error = Netns::open(Path::new(path)).err();
            assert_eq!(error.as_ref().map(ToString::to_string).as_deref(), refusal, "{path}");
            let kind = error.map(|error| error.kind());
            assert!(kind.is_none_or(|kind| kind == io::ErrorKind::InvalidInput), "{path}");
        }
        check("/proc/thread-self/ns/net", None);
        check("/proc/thread-self/ns/mnt", Some("a namespace, but not a network namespace"));
        check("/proc/thread-self/ns/user", Some("a namespace, but not a network namespace"));
        check("/dev/null", Some("not a namespace descriptor"));
        check("/proc/self/status", Some("not a namespace descriptor"));
    }

    #[test]
    fn a_namespace_is_itself_however_it_was_opened() {
        let current = Netns::current().unwrap();
        let opened = Netns::open(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!(current.id(), opened.id());
        assert_eq!(current.clone().id(), current.id());
    }
}
