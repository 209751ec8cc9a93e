//! Follows the file: the last good contents stay, errors are logged once and counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::follow::{self, Follower, Stamp};
use super::{BYTES_MAX, Contents, FileError};
use crate::config::LocalSource;
use crate::model::Publisher;
use crate::report::metrics::Metrics;
use crate::report::time;
use crate::sys::clock::Clock;

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Where the configuration stands, for people to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileStatus {
    /// A configuration was published.
    pub loaded: bool,
    /// When a configuration was last read and found good, by the wall clock.
    pub last_success: Option<SystemTime>,
    /// Why the file as it is now cannot be used, if it cannot.
    pub error: Option<String>,
    /// How many states of the file could not be used.
    pub errors: u64,
}

/// The one writer of the mesh when its configuration is a file or a text.
#[derive(Debug)]
pub struct FileSource {
    source: LocalSource,
    publisher: Publisher,
    current: Contents,
    follower: Follower<Stamp>,
    /// The last state that could not be used: it is told once.
    refused: Option<(Option<Stamp>, String)>,
    status: watch::Sender<FileStatus>,
    metrics: Arc<Metrics>,
    clock: Clock,
}

/// What reading the file came to.
enum Outcome {
    Read(Box<Contents>),
    Refused(FileError),
    /// It was written to meanwhile, and is looked at again.
    Changed,
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
        let source = Self {
            source,
            publisher,
            current: Contents::default(),
            follower: Follower::default(),
            refused: None,
            status,
            metrics,
            clock,
        };
        (source, follow)
    }

    /// Publishes the configuration, and again whenever it changes, until the future is dropped.
    pub async fn run(mut self) {
        match self.source.clone() {
            LocalSource::Inline(text) => {
                match Contents::read(&text) {
                    Ok(contents) => self.take(contents),
                    Err(error) => self.refuse(None, &error),
                }
                // Nothing will change, but the mesh lives as long as its writer.
                std::future::pending::<()>().await;
            }
            LocalSource::Path(path) => loop {
                self.look(&path).await;
                sleep(LOOK_INTERVAL).await;
            },
        }
    }

    async fn look(&mut self, path: &Path) {
        let stamp = match fs::metadata(path) {
            Ok(metadata) => Stamp::from(&metadata),
            Err(error) => {
                self.follower.gone();
                return self.refuse(None, &FileError::new(error.to_string()));
            }
        };
        let eager = !self.status.borrow().loaded;
        if !self.follower.wants(stamp, eager) {
            return;
        }
        // A large file takes its time, which certificates and pods do not have.
        let owned: PathBuf = path.to_owned();
        let outcome = spawn_blocking(move || read(&owned, stamp)).await;
        let failed = |error| Outcome::Refused(FileError::new(format!("reading failed: {error}")));
        match outcome.unwrap_or_else(failed) {
            Outcome::Changed => self.follower.gone(),
            Outcome::Read(contents) => self.take(*contents),
            Outcome::Refused(error) => self.refuse(Some(stamp), &error),
        }
    }

    fn take(&mut self, contents: Contents) {
        let first = !self.status.borrow().loaded;
        let delta = contents.since(&self.current);
        // Even an empty mesh is published once: readers wait for a first generation.
        if first || !delta.is_empty() {
            let generation = self.publisher.publish(delta);
            let (workloads, services, policies) = contents.counts();
            tracing::info!(generation, workloads, services, policies, "configuration published");
        }
        self.current = contents;
        self.refused = None;
        let now = self.clock.wall();
        self.metrics.config_file.last_success_seconds.set(time::epoch_seconds(now));
        self.status.send_modify(|status| {
            status.loaded = true;
            status.last_success = Some(now);
            status.error = None;
        });
    }

    /// Keeps what there is. Each state of the file is counted once, each error logged once until
    /// there is another one.
    fn refuse(&mut self, stamp: Option<Stamp>, error: &FileError) {
        let name = match &self.source {
            LocalSource::Path(path) => path.display().to_string(),
            LocalSource::Inline(_) => "LOCAL_XDS".to_owned(),
        };
        let refused = Some((stamp, format!("{name}: {error}")));
        if self.refused == refused {
            return;
        }
        self.refused = refused;
        let error = format!("{name}: {error}");
        self.metrics.config_file.errors.inc();
        let known = self.status.borrow().error.as_ref() == Some(&error);
        if !known {
            let loaded = self.status.borrow().loaded;
            let kept = if loaded { "the last good one" } else { "nothing" };
            tracing::error!(error, kept, "the configuration cannot be used");
        }
        self.status.send_modify(|status| {
            status.error = Some(error);
            status.errors += 1;
        });
    }
}

/// Reads the file if it is in the state that was seen, before and after.
fn read(path: &Path, seen: Stamp) -> Outcome {
    let refused = |reason: String| Outcome::Refused(FileError::new(reason));
    let (file, state) = match follow::open(path) {
        Ok(opened) => opened,
        Err(error) => return refused(error.to_string()),
    };
    if state.size > BYTES_MAX as u64 {
        return refused(format!("it is larger than {BYTES_MAX} bytes"));
    }
    let text = follow::read_text(&file, state.size);
    match file.metadata() {
        Ok(after) if Stamp::from(&after) == seen => {}
        _ => return Outcome::Changed,
    }
    let contents = match text {
        Ok(text) => Contents::read(&text),
        Err(error) => return refused(error.to_string()),
    };
    contents.map_or_else(Outcome::Refused, |contents| Outcome::Read(Box::new(contents)))
}

#[cfg(test)]
mod tests;
