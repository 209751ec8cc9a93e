//! `adit demo`: the main job on one machine, in one command, shown to a person.

mod by_hand;
mod mesh;
mod show;
mod step;
mod talk;

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::lab::userns;
use mesh::{Mesh, PrivateDir};
use show::Style;
use step::{STEPS, Stage};

/// After a signal, how long the step that is running may take to end.
const WIND_DOWN: Duration = Duration::from_millis(1500);
/// What a shell reports for a process that a signal ended is 128 and its number.
const SIGNALLED: u8 = 128;

/// Shows the whole on this machine: two nodes, six pods, real interception, real mutual TLS.
///
/// Nothing outside of network namespaces of its own is touched, and nothing is left behind.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct DemoArgs {
    /// Leave the mesh running afterwards and say what can be tried by hand, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Print one JSON document instead of a story.
    #[arg(long)]
    json: bool,
}

/// Runs the demo. Fails if any step did not show what it should.
///
/// Call it while the process has one thread: without root it enters a user namespace first.
pub fn run(args: DemoArgs) -> ExitCode {
    let style = Style::of(args.json);
    if let Err(error) = userns::ensure() {
        style.failure(&format!("{error}; {}", userns::remedy()));
        return ExitCode::FAILURE;
    }
    // Signals are ours before there is anything to remove.
    let (signals, dir) = match Signals::new().and_then(|own| Ok((own, PrivateDir::create()?))) {
        Ok(ready) => ready,
        Err(error) => {
            style.failure(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    let place = dir.0.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let (done, finished) = oneshot::channel();
    let stopped = Arc::clone(&stop);
    let tell = move || {
        // Nobody listens any more after a signal.
        let _ = done.send(perform(args, style, dir, &stopped));
    };
    let code = match thread::Builder::new().name("demo".into()).spawn(tell) {
        Ok(_) => signals.supervise(finished, &stop, style),
        Err(error) => {
            style.failure(&error.to_string());
            ExitCode::FAILURE
        }
    };
    // A step that was cut short has not removed it. Proxies die with this process.
    let _ = std::fs::remove_dir_all(place);
    code
}

/// The demo itself: whether every step showed what it should.
fn perform(args: DemoArgs, style: Style, dir: PrivateDir, stop: &AtomicBool) -> bool {
    let outcome = show_all(args, style, dir, stop);
    outcome.unwrap_or_else(|error| {
        if !stop.load(Ordering::Relaxed) {
            style.failure(&error.to_string());
        }
        false
    })
}

fn show_all(args: DemoArgs, style: Style, dir: PrivateDir, stop: &AtomicBool) -> io::Result<bool> {
    style.note("adit demo: two nodes and six pods in network namespaces of this machine\n");
    let check = || match stop.load(Ordering::Relaxed) {
        true => Err(io::Error::from(io::ErrorKind::Interrupted)),
        false => Ok(()),
    };
    let mesh = {
        let current = std::cell::RefCell::new(None);
        Mesh::build(dir, &|text| {
            // The old one must have left the line before the new one takes it.
            current.take();
            current.replace(Some(style.progress(text)));
        })?
    };
    style.mesh(&mesh);
    let mut stage = Stage::new(&mesh);
    let mut steps = Vec::new();
    for (index, plan) in STEPS.iter().enumerate() {
        check()?;
        let progress = style.progress(&format!("{}/{}  {}", index + 1, STEPS.len(), plan.0));
        let step = stage.run(plan);
        drop(progress);
        style.step(index + 1, STEPS.len(), &step);
        steps.push(step);
    }
    drop(stage);
    check()?;
    style.summary(&steps);
    if args.keep {
        style.note(&by_hand::text(&mesh));
        while !stop.load(Ordering::Relaxed) {
            thread::park_timeout(Duration::from_millis(100));
        }
    }
    mesh.end()?;
    Ok(steps.iter().all(|step| step.ok))
}

/// What may come from outside while the demo runs.
struct Signals {
    runtime: Runtime,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let interrupt = signal(SignalKind::interrupt())?;
        let terminate = signal(SignalKind::terminate())?;
        let hangup = signal(SignalKind::hangup())?;
        drop(entered);
        Ok(Self { runtime, interrupt, terminate, hangup })
    }

    /// Waits for the demo's end or a signal; after a signal, a bounded time for the demo's end.
    fn supervise(
        mut self,
        mut finished: oneshot::Receiver<bool>,
        stop: &AtomicBool,
        style: Style,
    ) -> ExitCode {
        self.runtime.block_on(async {
            let kind = tokio::select! {
                outcome = &mut finished => {
                    return match outcome {
                        Ok(true) => ExitCode::SUCCESS,
                        _ => ExitCode::FAILURE,
                    };
                }
                _ = self.interrupt.recv() => SignalKind::interrupt(),
                _ = self.terminate.recv() => SignalKind::terminate(),
                _ = self.hangup.recv() => SignalKind::hangup(),
            };
            style.note("\nstopping: proxies, namespaces and files go\n");
            stop.store(true, Ordering::Relaxed);
            // Late or not: the process ends now, and its proxies with it.
            let _ = tokio::time::timeout(WIND_DOWN, finished).await;
            ExitCode::from(SIGNALLED + u8::try_from(kind.as_raw_value()).unwrap_or(0))
        })
    }
}
