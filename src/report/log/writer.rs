//! The thread that writes log lines, and the bounded queue before it.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tracing::Level;

use super::format::{Fields, Head, Style};
use crate::report::time;
use crate::sys::clock::Clock;

/// Lines that may wait to be written (spec operations 8).
const QUEUE_LINES_MAX: usize = 10_000;
/// Bytes that may wait to be written.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Lines written with one call (spec operations 8).
const BATCH_LINES_MAX: usize = 64;
/// How long the first line of a batch waits for others. Waking this thread for every line would
/// cost a short connection more than all else that is reported about it.
const GATHER: Duration = Duration::from_millis(5);
/// Pause before an output that would block is tried again.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(10);

/// The way into the queue.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    sender: SyncSender<String>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Lines that were put into the queue.
    queued: AtomicU64,
    /// Of those, lines that were written or given up; for a moment it may be ahead.
    done: AtomicU64,
    /// Lines lost before the queue or after it.
    dropped: AtomicU64,
    /// Bytes in the queue and in the batch being written.
    bytes: AtomicUsize,
    turn: Mutex<()>,
    turned: Condvar,
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
        let (sender, receiver) = sync_channel(QUEUE_LINES_MAX);
        let shared = Arc::new(Shared::default());
        let writer =
            Writer { sink, style, clock, shared: Arc::clone(&shared), told: 0, torn: false };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Self { sender, shared })
    }

    /// Takes a line, or drops it if too much is waiting. Never blocks.
    pub(super) fn push(&self, line: String) {
        let shared = &*self.shared;
        let length = line.len();
        let waiting = shared.bytes.fetch_add(length, Ordering::Relaxed);
        if waiting + length > QUEUE_BYTES_MAX || self.sender.try_send(line).is_err() {
            shared.bytes.fetch_sub(length, Ordering::Relaxed);
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            shared.queued.fetch_add(1, Ordering::Release);
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all that was pushed before is done with; `false` if `limit` was too short.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let shared = &*self.shared;
        let goal = shared.queued.load(Ordering::Acquire);
        let turn = shared.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = |(): &mut ()| shared.done.load(Ordering::Acquire) < goal;
        let (_turn, timeout) = shared
            .turned
            .wait_timeout_while(turn, limit, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }
}

/// The first line of a batch: one that is waiting, or the next one and a moment for others.
fn next(lines: &Receiver<String>) -> Option<String> {
    if let Ok(line) = lines.try_recv() {
        return Some(line);
    }
    let line = lines.recv().ok()?;
    std::thread::sleep(GATHER);
    Some(line)
}

impl Writer {
    fn run(mut self, lines: &Receiver<String>) {
        let mut batch = String::new();
        while let Some(first) = next(lines) {
            batch.clear();
            self.mend(&mut batch);
            batch.push_str(&first);
            let (mut count, mut bytes) = (1, first.len());
            while count < BATCH_LINES_MAX as u64 {
                let Ok(line) = lines.try_recv() else { break };
                batch.push_str(&line);
                bytes += line.len();
                count += 1;
            }
            let lost = self.write(batch.as_bytes()).min(count);
            // Only now: what is being written is held in memory too.
            self.shared.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.dropped.fetch_add(lost, Ordering::Relaxed);
            self.shared.done.fetch_add(count, Ordering::Release);
            // Locked, so that a flush is either before its check or already waiting.
            drop(self.shared.turn.lock().unwrap_or_else(PoisonError::into_inner));
            self.shared.turned.notify_all();
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
        let line =
            Fields::of_loss(self.style, lost).line(&time::micros(self.clock.wall()), head, "");
        batch.push_str(&line);
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
