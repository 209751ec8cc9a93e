//! Logs: filtered by target and level, written by a thread that nobody ever waits for.
//!
//! A line is rendered where the event happens and put into a bounded queue. When the output is
//! slow, blocked or full, lines are dropped and counted; the data path does not notice (promise
//! R7).

mod escape;
mod filter;
mod format;
mod writer;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

pub use filter::{Directives, FilterError};

use crate::config::LogConfig;
use crate::sys::clock::Clock;
use format::{Output, Style};
use writer::Queue;

/// The handle on the running log: its filter, its losses, its end.
#[derive(Clone)]
pub struct Log {
    reload: reload::Handle<Targets, Registry>,
    at_start: Directives,
    current: Arc<Mutex<Directives>>,
    queue: Queue,
}

/// Why logging could not be started or changed.
#[derive(Debug)]
pub enum LogError {
    /// The filter cannot be read.
    Filter(FilterError),
    /// The standard output cannot be used, or the writer thread not started.
    Output(io::Error),
    /// Something else in this process logs already, or the log has ended.
    Taken,
}

/// Starts logging to the standard output, for the whole process.
pub fn start(config: &LogConfig, clock: Clock) -> Result<Log, LogError> {
    // Not `Stdout`: it has a lock and a buffer of its own, and others may write through it.
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(LogError::Output)?;
    let (subscriber, log) = pipeline(config, clock, Box::new(File::from(stdout)))?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Taken)?;
    Ok(log)
}

/// A log that writes to `sink`, for the caller to install.
pub fn pipeline(
    config: &LogConfig,
    clock: Clock,
    sink: Box<dyn Write + Send>,
) -> Result<(impl Subscriber + Send + Sync + use<>, Log), LogError> {
    let directives: Directives = config.filter.parse().map_err(LogError::Filter)?;
    let style = if config.json { Style::Json } else { Style::Plain };
    let queue = Queue::start(sink, style, clock.clone()).map_err(LogError::Output)?;
    let (filter, reload) = reload::Layer::new(directives.targets());
    let subscriber =
        Registry::default().with(filter).with(Output::new(style, clock, queue.clone()));
    let current = Arc::new(Mutex::new(directives.clone()));
    Ok((subscriber, Log { reload, at_start: directives, current, queue }))
}

impl Log {
    /// The filter in force.
    pub fn directives(&self) -> Directives {
        self.lock().clone()
    }

    /// Appends clauses to the filter, after going back to the one at start if `reset`.
    ///
    /// On error nothing changes. Empty `clauses` append nothing.
    pub fn change(&self, reset: bool, clauses: &str) -> Result<Directives, LogError> {
        let mut current = self.lock();
        let mut next = if reset { self.at_start.clone() } else { current.clone() };
        if !clauses.trim().is_empty() {
            next.append(clauses).map_err(LogError::Filter)?;
        }
        self.reload.reload(next.targets()).map_err(|_| LogError::Taken)?;
        *current = next.clone();
        Ok(next)
    }

    /// Lines that were not written, because the queue was full or writing failed.
    pub fn lines_dropped(&self) -> u64 {
        self.queue.dropped()
    }

    /// Waits until every line logged before this call was written or dropped, at most `limit`.
    ///
    /// Blocks the calling thread: for the very end of the process. `false` means that time ran
    /// out.
    pub fn flush(&self, limit: Duration) -> bool {
        self.queue.flush(limit)
    }

    fn lock(&self) -> MutexGuard<'_, Directives> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("directives", &self.directives()).finish_non_exhaustive()
    }
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(error) => error.fmt(f),
            Self::Output(error) => write!(f, "cannot write the log: {error}"),
            Self::Taken => f.write_str("the log is not ours to change"),
        }
    }
}

impl std::error::Error for LogError {}

#[cfg(test)]
pub(super) mod tests;
