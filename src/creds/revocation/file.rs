//! The file of revocation lists: read at the start and whenever it changes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Lists, ListsError, Revocations};
use crate::creds::files::small_file;
use crate::report::time;
use crate::sys::clock::Clock;

/// Between two looks at whether the file is another one.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A file larger than this is not read, bytes.
const BYTES_MAX: u64 = 64 << 20;

/// The one writer of the lists.
#[derive(Debug)]
pub struct RevocationFile {
    path: PathBuf,
    revocations: Arc<Revocations>,
    status: watch::Sender<RevocationStatus>,
    /// What the file was when it was last read; nothing if it was not there.
    read: Option<Stamp>,
    clock: Clock,
}

/// Where the file of revocation lists stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationStatus {
    /// How many lists are in force.
    pub lists: usize,
    /// When they were read, by the wall clock.
    pub loaded: Option<SystemTime>,
    /// Why what is in the file now is not in force.
    pub error: Option<String>,
}

/// What changes when a file is written or another one takes its place; links are followed, as those
/// of Kubernetes' volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
}

impl RevocationStatus {
    /// For the config dump.
    pub fn dump(&self) -> serde_json::Value {
        serde_json::json!({
            "lists": self.lists,
            "loaded": self.loaded.map(time::micros),
            "error": self.error,
        })
    }
}

impl RevocationFile {
    /// Reads the file a first time. What is wrong with it is told, and read again when it changes;
    /// until then nothing is known of anybody.
    pub(super) fn new(path: PathBuf, revocations: Arc<Revocations>, clock: Clock) -> Self {
        let status = watch::Sender::default();
        let mut file = Self { path, revocations, status, read: None, clock };
        let stamp = Stamp::of(&file.path);
        let lists = read(&file.path);
        file.take(stamp.ok(), lists);
        file
    }

    /// Where it stands.
    pub fn status(&self) -> watch::Receiver<RevocationStatus> {
        self.status.subscribe()
    }

    /// Follows the file until the future is dropped.
    pub async fn run(mut self) {
        loop {
            sleep(LOOK_INTERVAL).await;
            let (path, before) = (self.path.clone(), self.read);
            let look = move || {
                // Before it is read: what is written meanwhile is another change.
                let stamp = Stamp::of(&path).ok();
                (stamp != before).then(|| (stamp, read(&path)))
            };
            if let Ok(Some((stamp, lists))) = spawn_blocking(look).await {
                self.take(stamp, lists);
            }
        }
    }

    fn take(&mut self, stamp: Option<Stamp>, lists: Result<Lists, ListsError>) {
        let path = self.path.display();
        let metrics = &self.revocations.metrics;
        self.read = stamp;
        match lists {
            Ok(lists) => {
                let (count, now) = (lists.0.len(), self.clock.wall());
                tracing::info!(%path, lists = count, "revocation lists are in force");
                metrics.lists.set(i64::try_from(count).unwrap_or(i64::MAX));
                metrics.loaded_seconds.set(time::epoch_seconds(now));
                self.revocations.replace(lists);
                let status = RevocationStatus { lists: count, loaded: Some(now), error: None };
                self.status.send_replace(status);
            }
            Err(error) => {
                let kept = self.status.borrow().lists;
                tracing::warn!(%path, %error, kept, "the revocation lists are not used");
                metrics.errors.inc();
                self.status.send_modify(|status| status.error = Some(error.to_string()));
            }
        }
    }
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        Ok(Self {
            file: (found.dev(), found.ino()),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

fn read(path: &Path) -> Result<Lists, ListsError> {
    let bytes = small_file(path, BYTES_MAX);
    Lists::read(&bytes.map_err(|error| ListsError::File(error.to_string()))?)
}
