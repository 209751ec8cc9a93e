//! The thread that writes log lines, and the bounded queue before it.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::Level;

use super::format::{Fields, Head, Style};
use crate::report::time;
use crate::sys::clock::Clock;

/// Lines that may wait to be written (spec operations 8).
const QUEUE_LINES_MAX: u64 = 10_000;
/// Bytes that may wait to be written.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Lines written with one call (spec operations 8).
const BATCH_LINES_MAX: usize = 64;
/// How long the first line waits for others. Waking this thread for every line would cost a short
/// connection more than all else that is reported about it.
const GATHER: Duration = Duration::from_millis(5);
/// Pause before an output that would block is tried again.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(10);
/// An emptied text keeps so much of its memory, bytes.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// The way into the queue.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Entrance>);

/// Closes the queue with its last clone.
#[derive(Debug)]
struct Entrance(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Something waits, or nothing will come any more.
    filled: Condvar,
    /// A batch is done with.
    turned: Condvar,
    /// Lines lost before the queue or after it.
    dropped: AtomicU64,
}

/// Lines stand one after the other in one text, which the thread takes as a whole: a string for
/// each would be made on one thread and freed on another, which is what allocators are slowest at.
#[derive(Debug, Default)]
struct Waiting {
    text: String,
    /// Lines that were put into the queue.
    queued: u64,
    /// Of those, lines that were written or given up.
    done: u64,
    /// Bytes that were taken and are being written.
    taken: usize,
    closed: bool,
}

/// The thread's own state.
struct Writer {
    sink: Box<dyn Write + Send>,
    style: Style,
    clock: Clock,
    shared: Arc<Shared>,
    /// Losses that the log itself has told of.
    told: u64,
    /// Whether the last write stopped within a line.
    torn: bool,
}

impl Queue {
    /// Starts the thread that writes to `sink`. It ends with the last clone of the queue.
    pub(super) fn start(
        sink: Box<dyn Write + Send>,
        style: Style,
        clock: Clock,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer =
            Writer { sink, style, clock, shared: Arc::clone(&shared), told: 0, torn: false };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(Self(Arc::new(Entrance(shared))))
    }

    /// Takes a line, or drops it if too much is waiting. Never waits for the output.
    pub(super) fn push(&self, line: &str) {
        let Entrance(shared) = &*self.0;
        let mut waiting = shared.lock();
        let lines = waiting.queued - waiting.done;
        let bytes = waiting.text.len() + waiting.taken;
        if lines >= QUEUE_LINES_MAX || bytes + line.len() > QUEUE_BYTES_MAX {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let first = waiting.text.is_empty();
        waiting.text.push_str(line);
        waiting.queued += 1;
        drop(waiting);
        if first {
            shared.filled.notify_one();
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.0.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all that was pushed before is done with; `false` if `limit` was too short.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let Entrance(shared) = &*self.0;
        let waiting = shared.lock();
        let goal = waiting.queued;
        let (_waiting, timeout) = shared
            .turned
            .wait_timeout_while(waiting, limit, |waiting| waiting.done < goal)
            .unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }
}

impl Drop for Entrance {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.filled.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Swaps what waits into the empty `text`, or waits for it and a moment for more; `false` at
    /// the end.
    fn take(&self, text: &mut String) -> bool {
        let mut waiting = self.lock();
        if waiting.text.is_empty() {
            let nothing = |waiting: &mut Waiting| waiting.text.is_empty() && !waiting.closed;
            let filled = self.filled.wait_while(waiting, nothing);
            let gathering = !filled.unwrap_or_else(PoisonError::into_inner).closed;
            if gathering {
                std::thread::sleep(GATHER);
            }
            waiting = self.lock();
        }
        std::mem::swap(&mut waiting.text, text);
        waiting.taken = text.len();
        !text.is_empty()
    }

    /// Some of the taken lines are written or given up.
    fn done(&self, lines: u64, bytes: usize, lost: u64) {
        self.dropped.fetch_add(lost, Ordering::Relaxed);
        let mut waiting = self.lock();
        waiting.taken = waiting.taken.saturating_sub(bytes);
        waiting.done += lines;
        drop(waiting);
        self.turned.notify_all();
    }
}

/// The length of the first lines of a text, and how many they are.
fn batch(text: &str) -> (usize, u64) {
    let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
    let (mut len, mut lines) = (text.len(), 0);
    for (at, _) in ends.take(BATCH_LINES_MAX) {
        (len, lines) = (at + 1, lines + 1);
    }
    (len, lines)
}

impl Writer {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let (mut text, mut notice) = (String::new(), String::new());
        while shared.take(&mut text) {
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let (len, lines) = batch(rest);
                notice.clear();
                self.mend(&mut notice);
                let lost = if notice.is_empty() {
                    self.write(&rest.as_bytes()[..len])
                } else {
                    notice.push_str(&rest[..len]);
                    self.write(notice.as_bytes())
                };
                // Only now: what is being written is held in memory too.
                shared.done(lines, len, lost.min(lines));
                rest = &rest[len..];
            }
            text.clear();
            text.shrink_to(KEPT_BYTES_MAX);
        }
    }

    /// Begins a batch: ends a line that was cut short, and says how many lines are missing.
    fn mend(&mut self, batch: &mut String) {
        if self.torn {
            batch.push('\n');
        }
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        let lost = dropped.saturating_sub(self.told);
        if lost == 0 {
            return;
        }
        self.told = dropped;
        let head = Head { level: Level::WARN, target: module_path!() };
        let fields = Fields::of_loss(self.style, lost);
        fields.line(batch, &time::micros(self.clock.wall()), head, "");
    }

    /// Writes all of it, as far as the output lets us; the number of lines that were not written.
    fn write(&mut self, mut bytes: &[u8]) -> u64 {
        while !bytes.is_empty() {
            match self.sink.write(bytes) {
                Ok(written) if written > 0 => {
                    bytes = &bytes[written..];
                    self.torn = !bytes.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::sleep(WOULD_BLOCK_PAUSE);
                }
                // The disk is full or the reader is gone: later lines may fare better.
                Ok(_) | Err(_) => break,
            }
        }
        bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
    }
}
