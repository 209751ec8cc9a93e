//! Follows the file: the last good contents stay, errors are logged once and counted.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::sleep;

use super::{Contents, FileError};
use crate::config::LocalSource;
use crate::model::Publisher;
use crate::report::metrics::Metrics;
use crate::sys::clock::Clock;

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// The largest file that is read, bytes.
const SIZE_MAX: u64 = 256 * 1024 * 1024;

/// Where the configuration stands, for people to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileStatus {
    /// A configuration was published.
    pub loaded: bool,
    /// Why the file as it is now cannot be used, if it cannot.
    pub error: Option<String>,
}

/// The one writer of the mesh when its configuration is a file or a text.
#[derive(Debug)]
pub struct FileSource {
    source: LocalSource,
    publisher: Publisher,
    current: Contents,
    seen: Option<Stamp>,
    status: watch::Sender<FileStatus>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
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

impl FileSource {
    /// A source that publishes through `publisher`. The second value follows where it stands.
    pub fn new(
        source: LocalSource,
        publisher: Publisher,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> (Self, watch::Receiver<FileStatus>) {
        let (status, follow) = watch::channel(FileStatus::default());
        let current = Contents::default();
        (Self { source, publisher, current, seen: None, status, metrics, clock }, follow)
    }

    /// Publishes the configuration, and again whenever it changes, until the future is dropped.
    pub async fn run(mut self) {
        match self.source.clone() {
            LocalSource::Inline(text) => {
                self.take(&text);
                // Nothing will change, but the mesh lives as long as its writer.
                std::future::pending::<()>().await;
            }
            LocalSource::Path(path) => loop {
                self.look(&path);
                sleep(LOOK_INTERVAL).await;
            },
        }
    }

    fn look(&mut self, path: &Path) {
        let stamp = match fs::metadata(path) {
            Ok(metadata) => Stamp::from(&metadata),
            Err(error) => {
                self.seen = None;
                return self.refuse(&FileError { place: None, reason: error.to_string() });
            }
        };
        if self.seen == Some(stamp) {
            return;
        }
        match read(path) {
            // Written to while we read: the next look reads it again.
            Ok((_, after)) if after != stamp => {}
            Ok((text, _)) => {
                self.seen = Some(stamp);
                self.take(&text);
            }
            Err(error) => self.refuse(&FileError { place: None, reason: error.to_string() }),
        }
    }

    fn take(&mut self, text: &str) {
        let contents = match Contents::read(text) {
            Ok(contents) => contents,
            Err(error) => return self.refuse(&error),
        };
        let first = !self.status.borrow().loaded;
        let delta = contents.since(&self.current);
        if first || !delta.is_empty() {
            let counts =
                (contents.workloads.len(), contents.services.len(), contents.policies.len());
            let generation = self.publisher.publish(delta);
            let (workloads, services, policies) = counts;
            tracing::info!(generation, workloads, services, policies, "configuration published");
        }
        self.current = contents;
        let since_epoch = self.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
        self.metrics.config_file.last_success_seconds.set(seconds);
        self.status.send_replace(FileStatus { loaded: true, error: None });
    }

    /// Keeps what there is. The error is counted and logged once, until it is another one.
    fn refuse(&self, error: &FileError) {
        let path = match &self.source {
            LocalSource::Path(path) => path.display().to_string(),
            LocalSource::Inline(_) => "LOCAL_XDS".to_owned(),
        };
        let error = format!("{path}: {error}");
        if self.status.borrow().error.as_ref() == Some(&error) {
            return;
        }
        self.metrics.config_file.errors.inc();
        let kept = if self.status.borrow().loaded { "the last good one" } else { "nothing" };
        tracing::error!(error, kept, "the configuration cannot be used");
        self.status.send_modify(|status| status.error = Some(error));
    }
}

fn read(path: &Path) -> io::Result<(String, Stamp)> {
    let file = File::open(path)?;
    let mut text = String::new();
    (&file).take(SIZE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > SIZE_MAX {
        return Err(io::Error::other(format!("larger than {SIZE_MAX} bytes")));
    }
    let after = Stamp::from(&file.metadata()?);
    Ok((text, after))
}

#[cfg(test)]
mod tests;
