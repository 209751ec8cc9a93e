//! In which state files are, and which states of them have been seen and read.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    /// Bytes.
    pub(crate) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Follows one file, by its [`Stamp`], or several, by all of theirs.
#[derive(Debug)]
pub(crate) struct Follower<S> {
    seen: Option<S>,
    done: Option<S>,
}

impl<S: Clone + PartialEq> Follower<S> {
    /// Whether to read what is in this state now.
    ///
    /// A state is read once it was seen twice in a row: a file that is still being written may be
    /// good YAML already, with its last policies missing. `eager` reads at first sight, and again
    /// once settled.
    pub(crate) fn wants(&mut self, state: S, eager: bool) -> bool {
        if self.done.as_ref() == Some(&state) {
            return false;
        }
        let settled = self.seen.replace(state.clone()).as_ref() == Some(&state);
        if settled {
            self.done = Some(state);
        }
        settled || eager
    }

    /// It is not there, or not as it was seen: whatever comes is new.
    pub(crate) fn gone(&mut self) {
        *self = Self::default();
    }
}

impl<S> Default for Follower<S> {
    fn default() -> Self {
        Self { seen: None, done: None }
    }
}

/// Opens a file that has an end, and says in which state it is.
pub(crate) fn open(path: &Path) -> io::Result<(File, Stamp)> {
    // Opening a pipe would wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    Ok((file, Stamp::from(&metadata)))
}

/// Reads a file that had `size` bytes when it was seen.
pub(crate) fn read_text(file: &File, size: u64) -> io::Result<String> {
    let mut text = String::new();
    // One byte more than it had: what grows meanwhile has another size.
    file.take(size + 1).read_to_string(&mut text)?;
    Ok(text)
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}
