//! A folder that nobody else can read, write or put in our way.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use nix::unistd::geteuid;

/// Group and others: any access.
const OTHERS_ANY: u32 = 0o077;
/// Group and others: may add, remove and rename entries.
const OTHERS_WRITE: u32 = 0o022;
/// Entries may be removed and renamed only by their owners.
const STICKY: u32 = 0o1000;
/// How often a name for the unfinished folder is drawn.
const NAME_ATTEMPTS_MAX: u32 = 8;

/// A folder that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateDir {
    /// Absolute, free of symbolic links.
    pub path: PathBuf,
    /// This call made and filled it.
    pub made: bool,
}

/// Why a folder is not used: which path, what is wrong with it, what to do.
#[derive(Debug)]
pub struct PrivateDirError {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    NotPlain,
    Missing,
    Symlink,
    NotFolder,
    Owner { found: u32, ours: u32 },
    Open(u32),
    Replaceable(u32),
    Io(&'static str, io::Error),
}

impl fmt::Display for PrivateDirError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(f, "{path}: ")?;
        match &self.reason {
            Reason::NotPlain => f.write_str("not a plain path; name the folder without `..`"),
            Reason::Missing => {
                write!(f, "does not exist; make it: mkdir -p -m 0700 {path}")
            }
            Reason::Symlink => match fs::canonicalize(&self.path) {
                Ok(real) => write!(f, "is a symbolic link; name {} instead", real.display()),
                Err(_) => f.write_str("is a symbolic link that leads nowhere; remove it"),
            },
            Reason::NotFolder => f.write_str("is not a folder; remove it or name another"),
            Reason::Owner { found, ours } => write!(
                f,
                "belongs to user {found}, this process is user {ours}; remove it or name another"
            ),
            Reason::Open(mode) => write!(
                f,
                "is open to others (mode {mode:04o}); its content may be known or forged: \
                 remove it, or, if you trust it: chmod 0700 {path}"
            ),
            Reason::Replaceable(mode) => write!(
                f,
                "others may replace what is in it (mode {mode:04o}); \
                 chmod go-w {path}, or name a folder elsewhere"
            ),
            Reason::Io(step, error) => write!(f, "cannot {step}: {error}"),
        }
    }
}

impl Error for PrivateDirError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.reason {
            Reason::Io(_, error) => Some(error),
            _ => None,
        }
    }
}

/// Opens the private folder at `path`, or makes it and lets `fill` put its content there.
///
/// `fill` works in a folder beside `path` that is renamed into place when it is complete, so of
/// several processes that start at once one makes the folder and all others use it. An empty
/// folder counts as not made yet. A process that is killed while it fills leaves an unfinished
/// folder behind, hidden and just as private.
///
/// Refused are: symbolic links anywhere in the path; a folder that is not ours or not closed to
/// everybody else; above it, folders that belong to anybody but us and root, or in which others
/// may replace entries.
pub fn open_or_create_private_dir(
    path: &Path,
    fill: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<PrivateDir, PrivateDirError> {
    let path = std::path::absolute(path).map_err(|error| io_error(path, "find it", error))?;
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    let (Some(parent), Some(name), true) =
        (path.parent(), path.file_name(), path.components().all(plain))
    else {
        return Err(refused(&path, Reason::NotPlain));
    };
    check_parents(parent)?;
    if holds_content(&path)? {
        return Ok(PrivateDir { path, made: false });
    }
    let unfinished = Unfinished::make(parent, name)?;
    fill(&unfinished.path).map_err(|error| io_error(&path, "fill it", error))?;
    match fs::rename(&unfinished.path, &path) {
        Ok(()) => {
            unfinished.finished();
            Ok(PrivateDir { path, made: true })
        }
        // Another process was faster; its folder is held to the same rules.
        Err(error) if replaces_something(&error) && holds_content(&path)? => {
            Ok(PrivateDir { path, made: false })
        }
        Err(error) => Err(io_error(&path, "put it in place", error)),
    }
}

/// A folder that is still being filled; removed if that does not succeed.
#[derive(Debug)]
struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    fn make(parent: &Path, name: &OsStr) -> Result<Self, PrivateDirError> {
        let mut attempts = 0;
        loop {
            let mut hidden = OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{:016x}", fastrand::u64(..)));
            let path = parent.join(hidden);
            attempts += 1;
            // Fails if the name exists, even as a symbolic link.
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {
                    let unfinished = Self { path };
                    // The umask may have taken away from the owner, too.
                    fs::set_permissions(&unfinished.path, Permissions::from_mode(0o700))
                        .map_err(|error| io_error(&unfinished.path, "close it", error))?;
                    return Ok(unfinished);
                }
                Err(error)
                    if error.kind() == ErrorKind::AlreadyExists && attempts < NAME_ATTEMPTS_MAX => {
                }
                Err(error) => return Err(io_error(parent, "make a folder in it", error)),
            }
        }
    }

    /// It has its final name now, so there is nothing to remove.
    fn finished(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Best effort: there is nobody left to tell, and its name is never used again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Checks every folder from the root down. Once the upper ones are known to be safe nobody else
/// can exchange the lower ones, so checking by name is enough.
fn check_parents(parent: &Path) -> Result<(), PrivateDirError> {
    let ours = geteuid().as_raw();
    // The owner of the root folder is as good as root: in a user namespace it is root, under
    // the number that stands for all users without one.
    let mut trusted = vec![0, ours];
    let mut upper: Vec<&Path> = parent.ancestors().collect();
    upper.reverse();
    for (depth, folder) in upper.into_iter().enumerate() {
        let Some(found) = look(folder)? else { return Err(refused(folder, Reason::Missing)) };
        if depth == 0 {
            trusted.push(found.uid());
        }
        if let Some(fault) = parent_fault(found.uid(), found.mode(), ours, &trusted) {
            return Err(refused(folder, fault));
        }
    }
    Ok(())
}

fn parent_fault(owner: u32, mode: u32, ours: u32, trusted: &[u32]) -> Option<Reason> {
    if !trusted.contains(&owner) {
        Some(Reason::Owner { found: owner, ours })
    } else if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        Some(Reason::Replaceable(mode & 0o7777))
    } else {
        None
    }
}

fn folder_fault(owner: u32, mode: u32, ours: u32) -> Option<Reason> {
    if owner != ours {
        Some(Reason::Owner { found: owner, ours })
    } else if mode & OTHERS_ANY != 0 {
        Some(Reason::Open(mode & 0o7777))
    } else {
        None
    }
}

/// Whether the folder exists and is not empty; an error if it exists and is not private.
fn holds_content(path: &Path) -> Result<bool, PrivateDirError> {
    let Some(found) = look(path)? else { return Ok(false) };
    if let Some(fault) = folder_fault(found.uid(), found.mode(), geteuid().as_raw()) {
        return Err(refused(path, fault));
    }
    let mut entries = fs::read_dir(path).map_err(|error| io_error(path, "read it", error))?;
    Ok(entries.next().is_some())
}

/// What is at `path`, if it is a folder or nothing.
fn look(path: &Path) -> Result<Option<Metadata>, PrivateDirError> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Err(refused(path, Reason::Symlink)),
        Ok(found) if found.is_dir() => Ok(Some(found)),
        Ok(_) => Err(refused(path, Reason::NotFolder)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error(path, "look at it", error)),
    }
}

/// Whether a rename failed because a folder with content has the name already.
fn replaces_something(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists)
}

fn refused(path: &Path, reason: Reason) -> PrivateDirError {
    PrivateDirError { path: path.to_owned(), reason }
}

fn io_error(path: &Path, step: &'static str, error: io::Error) -> PrivateDirError {
    refused(path, Reason::Io(step, error))
}

#[cfg(test)]
mod tests;
