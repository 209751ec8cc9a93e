//! A file, or a folder of files, and whether it changed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::object::read_texts;
use super::{At, ManifestError, Manifests, Note, Notes};

/// Files in a folder.
const FILES_MAX: usize = 4_096;
/// All files together, bytes.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The state of the files, as far as it can be seen without reading them.
pub(crate) type Stamps = BTreeMap<PathBuf, Stamp>;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Which states of the files have been seen and read.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    seen: Option<Stamps>,
    done: Option<Stamps>,
}

impl Follower {
    /// Whether to read the files, which are in this state now.
    ///
    /// A state is read once it was seen twice in a row: a file that is still being written may be
    /// good YAML already, with its last policies missing. `eager` reads at first sight, and again
    /// once settled.
    pub(crate) fn wants(&mut self, stamps: Stamps, eager: bool) -> bool {
        if self.done.as_ref() == Some(&stamps) {
            return false;
        }
        let settled = self.seen.replace(stamps.clone()).as_ref() == Some(&stamps);
        if settled {
            self.done = Some(stamps);
        }
        settled || eager
    }

    /// The files could not be looked at, or changed while they were read: whatever comes is new.
    pub(crate) fn gone(&mut self) {
        *self = Self::default();
    }
}

/// The files that `path` names: itself, or the `*.yaml` and `*.yml` in it.
pub(crate) fn look(path: &Path) -> Result<Stamps, ManifestError> {
    let metadata = fs::metadata(path).map_err(|error| failed(path, error.to_string()))?;
    if !metadata.is_dir() {
        return Ok(BTreeMap::from([(path.to_owned(), Stamp::from(&metadata))]));
    }
    let mut stamps = Stamps::new();
    let entries = fs::read_dir(path).map_err(|error| failed(path, error.to_string()))?;
    for entry in entries {
        let file = entry.map_err(|error| failed(path, error.to_string()))?.path();
        // Hidden files are editors' and volumes'.
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = file.extension().is_some_and(|kind| kind == OsStr::new("yaml") || kind == "yml");
        if hidden || !yaml {
            continue;
        }
        let metadata = fs::metadata(&file).map_err(|error| failed(&file, error.to_string()))?;
        if metadata.is_file() {
            stamps.insert(file, Stamp::from(&metadata));
        }
        if stamps.len() > FILES_MAX {
            return Err(failed(path, format!("more than {FILES_MAX} files")));
        }
    }
    if stamps.is_empty() {
        return Err(failed(path, "no *.yaml in this folder".to_owned()));
    }
    Ok(stamps)
}

/// Reads what `path` names, with the state that was read; `None` if it changed meanwhile.
pub(crate) fn read(path: &Path) -> Result<Option<(Stamps, Manifests)>, ManifestError> {
    let stamps = look(path)?;
    let size: u64 = stamps.values().map(|stamp| stamp.size).fold(0, u64::saturating_add);
    if size > BYTES_MAX {
        return Err(failed(path, format!("more than {BYTES_MAX} bytes")));
    }
    let mut texts = Vec::new();
    for (file, stamp) in &stamps {
        // Opening a pipe would wait for its writer.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file);
        let opened = opened.and_then(|opened| Ok((opened.metadata()?.is_file(), opened)));
        let (plain, opened) = opened.map_err(|error| failed(file, error.to_string()))?;
        if !plain {
            return Err(failed(file, "it is not a file".to_owned()));
        }
        let mut text = String::new();
        // One byte more than it has: what grows meanwhile has another size.
        let reading = opened.take(stamp.size + 1).read_to_string(&mut text);
        reading.map_err(|error| failed(file, error.to_string()))?;
        texts.push((file.display().to_string(), text));
    }
    if look(path)? != stamps {
        return Ok(None);
    }
    let texts = texts.iter().map(|(file, text)| (file.as_str(), text.as_str()));
    read_texts(texts).map(|manifests| Some((stamps, manifests)))
}

fn failed(path: &Path, reason: String) -> ManifestError {
    ManifestError::of(path, reason)
}

impl ManifestError {
    /// One reason for a file or folder as a whole.
    pub(crate) fn of(path: &Path, reason: impl Into<String>) -> Self {
        let at = At { file: path.display().to_string().into(), line: 0 };
        let mut problems = Notes::default();
        let text = reason.into();
        problems.push(Note { at, object: String::new(), field: String::new(), text });
        Self { problems }
    }
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
