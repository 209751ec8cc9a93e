//! The demo on a terminal, in a log, or for a machine.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;

use super::mesh::{CONTROL, Mesh};
use super::step::Step;
use crate::cli::lab::Redirection;

/// Between two pictures of the spinner.
const FRAME: Duration = Duration::from_millis(80);
const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// How the demo speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// To a person at a terminal: colour and motion.
    Terminal,
    /// Plain lines.
    Plain,
    /// One JSON document at the end.
    Json,
}

/// Says what is going on for as long as it lives; on a terminal it moves.
#[derive(Debug)]
pub(super) struct Progress {
    thread: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Style {
    pub(super) fn of(json: bool) -> Self {
        match (json, io::stdout().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Terminal,
            (false, false) => Self::Plain,
        }
    }

    /// Announces what is being done.
    pub(super) fn progress(self, text: &str) -> Progress {
        match self {
            Self::Json => Progress { thread: None },
            Self::Plain => {
                put(&format!("... {text}\n"));
                Progress { thread: None }
            }
            Self::Terminal => Progress::spin(text.to_owned()),
        }
    }

    /// The mesh as it stands.
    pub(super) fn mesh(self, mesh: &Mesh) {
        if self == Self::Json {
            return;
        }
        let mut text = String::from("\n");
        for node in mesh.lab.nodes() {
            if node.name == CONTROL {
                let (head, id) = (self.bold(CONTROL), mesh.control.id());
                text += &format!("  {head} {}, adit control {id}\n", node.ipv4);
                continue;
            }
            let proxy = mesh.proxies.get(&node.name).map_or(0, |proxy| proxy.id());
            let head = self.bold(&node.name);
            text += &format!("  {head}  {}, adit proxy {proxy}\n", node.ipv4);
            for pod in mesh.lab.pods().filter(|pod| pod.plan.node == node.name) {
                let kind = match pod.plan.redirection {
                    Redirection::Off => "outside the mesh",
                    _ => "in the mesh",
                };
                text += &format!("    {:<10} {:<14} {kind}\n", pod.plan.name, pod.ipv4);
            }
        }
        put(&text);
    }

    /// A finished step.
    pub(super) fn step(self, number: usize, count: usize, step: &Step) {
        if self == Self::Json {
            return;
        }
        let mut text = format!(
            "\n{} {}\n    expected  {}\n",
            self.mark(step.ok),
            self.bold(&format!("{number}/{count}  {}", step.title)),
            step.expected
        );
        for (index, line) in step.seen.iter().enumerate() {
            let label = if index == 0 { "seen" } else { "" };
            text += &format!("    {label:<9} {line}\n");
        }
        put(&text);
    }

    /// All steps and what they amount to.
    pub(super) fn summary(self, steps: &[Step]) {
        let good = steps.iter().filter(|step| step.ok).count();
        if self == Self::Json {
            let whole = json!({
                "ok": good == steps.len(),
                "version": env!("CARGO_PKG_VERSION"),
                "steps": steps,
            });
            put(&format!("{whole:#}\n"));
            return;
        }
        let width = steps.iter().map(|step| step.title.chars().count()).max().unwrap_or(0);
        let line = "─".repeat(width + 22);
        let mut text = format!("\n{line}\n");
        for (index, step) in steps.iter().enumerate() {
            text += &format!(
                " {}  {:<width$} {:>8} ms  {}\n",
                index + 1,
                step.title,
                step.milliseconds,
                self.mark(step.ok)
            );
        }
        let verdict = match good == steps.len() {
            true => format!("all {good} steps showed what they should"),
            false => format!(
                "{} of {} steps did NOT show what they should",
                steps.len() - good,
                steps.len()
            ),
        };
        text += &format!("{line}\n {}\n", self.bold(&verdict));
        put(&text);
    }

    /// Why there is nothing to show.
    pub(super) fn failure(self, error: &str) {
        match self {
            Self::Json => put(&format!("{:#}\n", json!({"ok": false, "error": error}))),
            _ => eprintln!("adit demo cannot run: {error}"),
        }
    }

    /// A line outside of any step.
    pub(super) fn note(self, text: &str) {
        if self != Self::Json {
            put(text);
        }
    }

    fn mark(self, ok: bool) -> &'static str {
        match (self, ok) {
            (Self::Terminal, true) => "\x1b[32m✔\x1b[0m",
            (Self::Terminal, false) => "\x1b[31m✘\x1b[0m",
            (_, true) => "✔",
            (_, false) => "✘",
        }
    }

    fn bold(self, text: &str) -> String {
        if self == Self::Terminal { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Progress {
    fn spin(text: String) -> Self {
        let (stop, stopped) = mpsc::channel();
        let run = move || {
            for picture in FRAMES.iter().cycle() {
                put(&format!("\r\x1b[2K{picture} {text}"));
                // Anything but the time running out is the end.
                if stopped.recv_timeout(FRAME) != Err(mpsc::RecvTimeoutError::Timeout) {
                    break;
                }
            }
            put("\r\x1b[2K");
        };
        // Without a thread there is no motion, and that is all.
        let thread = thread::Builder::new().name("spinner".into()).spawn(run);
        Self { thread: thread.ok().map(|thread| (stop, thread)) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

/// Writes at once. Nobody is there to be told if it cannot be written.
fn put(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
