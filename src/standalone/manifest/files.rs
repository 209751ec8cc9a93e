//! A file, or a folder of files, and whether it changed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::object::read_texts;
use super::{At, ManifestError, Manifests, Note, Notes};
use crate::control::file::follow::{self, Stamp};

/// Files in a folder.
const FILES_MAX: usize = 4_096;
/// All files together, bytes.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The state of the files, as far as it can be seen without reading them.
pub(crate) type Stamps = BTreeMap<PathBuf, Stamp>;

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

/// Reads what `path` names; `None` if it changed meanwhile.
pub(crate) fn read(path: &Path) -> Result<Option<Manifests>, ManifestError> {
    let stamps = look(path)?;
    let size: u64 = stamps.values().map(|stamp| stamp.size).fold(0, u64::saturating_add);
    if size > BYTES_MAX {
        return Err(failed(path, format!("more than {BYTES_MAX} bytes")));
    }
    let mut texts = Vec::new();
    for (file, stamp) in &stamps {
        let opened = follow::open(file);
        let text = opened.and_then(|(opened, _)| follow::read_text(&opened, stamp.size));
        let text = text.map_err(|error| failed(file, error.to_string()))?;
        texts.push((file.display().to_string(), text));
    }
    if look(path)? != stamps {
        return Ok(None);
    }
    let texts = texts.iter().map(|(file, text)| (file.as_str(), text.as_str()));
    read_texts(texts).map(Some)
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
