//! Network namespaces: opening, telling apart, entering on a thread of one's own.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
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
    /// Takes a descriptor that somebody passed to us; refused unless it is a namespace.
    ///
    /// That it is a *network* namespace is proven when it is first entered.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        if fstatfs(&fd)?.filesystem_type().0 != NSFS_MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a namespace descriptor"));
        }
        let stat = fstat(&fd)?;
        let id = NetnsId { device: stat.st_dev, inode: stat.st_ino };
        Ok(Self { fd: Arc::new(fd), id })
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

fn run_on_thread<T: Send>(
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the namespace's thread panicked")))
    })
}
