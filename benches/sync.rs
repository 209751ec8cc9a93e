//! How fast and how small the client of delta xDS is: the first sync of a large mesh, updates that
//! come one by one, and many at once.
//!
//! `cargo bench --bench sync`, with `-- --publish` for publishing alone, with `-- --connects` for
//! what updates cost connections through real proxies. The server is this program again, in another
//! process.

mod connects;
mod large_mesh;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use adit::config::{TlsPolicy, TrustRoot, Upstream, XdsNode, XdsSnapshot};
use adit::control::stream::{XdsParts, XdsSource};
use adit::creds::{Connector, Settings};
use adit::model::{Delta, Publisher, ServiceKey, View, Workload as MeshWorkload};
use adit::report::metrics::XdsMetrics;
use adit::sys::clock::Clock;
use nix::sys::resource::{UsageWho, getrusage};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use large_mesh::{AT_ONCE, PROBE, SERVICES, UPDATES, WORKLOADS, serve_all};

/// How often many changes are published together.
const ROUNDS: usize = 21;
/// For everything together.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let after = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        at.map_or(&[][..], |at| &arguments[at + 1..])
    };
    let client = arguments.iter().skip_while(|argument| *argument != "--client").nth(1);
    if has("--connects") {
        return ended(connects::measure());
    }
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        let work = async {
            match client {
                _ if has("--publish") => {
                    measure_publishing();
                    Ok(())
                }
                _ if has("--serve") => serve_all(after("--serve")).await,
                Some(address) => measure_client(address, has("--keeps")).await,
                None => measure().await,
            }
        };
        if has("--serve") {
            return work.await;
        }
        tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|late| Err(late.into()))
    });
    ended(outcome)
}

fn ended(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sync: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The server's process; killed with this one's measurement.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn measure() -> Result<(), Failure> {
    let mut child =
        Command::new(std::env::current_exe()?).arg("--serve").stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let server = Server(child);
    let mut address = String::new();
    BufReader::new(output).read_line(&mut address)?;
    for keeps in [&[][..], &["--keeps"]] {
        // A process each, so that none inherits the memory of another.
        let client = [&["--client", address.trim()], keeps].concat();
        let status = Command::new(std::env::current_exe()?).args(client).status()?;
        if !status.success() {
            return Err("a client failed".into());
        }
    }
    drop(server);
    measure_publishing();
    Ok(())
}

/// Publishing alone: one change to a large mesh, and many in one batch.
fn measure_publishing() {
    let clock = Clock::system();
    let pod = |number: usize, revision: usize| {
        let service = ServiceKey {
            namespace: "ns".into(),
            hostname: format!("app-{}.ns", number % SERVICES).into(),
        };
        let [_, high, middle, low] = u32::try_from(number).unwrap_or_default().to_be_bytes();
        MeshWorkload {
            uid: format!("c1//Pod/ns/app-{number}").into(),
            name: format!("app-{number}").into(),
            namespace: "ns".into(),
            canonical_revision: revision.to_string().into(),
            ips: vec![[10, high, middle, low].into()],
            services: vec![(service, [(80, 8080)].into())],
            ..MeshWorkload::default()
        }
    };
    let (mut publisher, _view) = Publisher::new();
    let all = (0..WORKLOADS).map(|number| pod(number, 0)).collect();
    publisher.publish(Delta { workloads: all, ..Delta::default() });
    let batch = |from: usize, count: usize| Delta {
        workloads: (from..from + count).map(|number| pod(number * 97 % WORKLOADS, from)).collect(),
        ..Delta::default()
    };
    let singles: Vec<Delta> = (0..AT_ONCE).map(|number| batch(number, 1)).collect();
    let begin = clock.monotonic();
    for delta in singles {
        publisher.publish(delta);
    }
    let each = clock.monotonic().duration_since(begin) / u32::try_from(AT_ONCE).unwrap_or(1);
    println!("publishing into {WORKLOADS} workloads");
    println!("  one change: {each:.1?}; goal 20 us");
    let mut rounds: Vec<(Duration, Duration)> = Vec::new();
    for round in 0..ROUNDS {
        let together = batch(round, AT_ONCE);
        let before = publisher.current();
        let begin = clock.monotonic();
        publisher.publish(together);
        let visible = clock.monotonic().duration_since(begin);
        // What it replaces is let go by whoever reads it last.
        drop(before);
        rounds.push((visible, clock.monotonic().duration_since(begin)));
    }
    rounds.sort_unstable();
    let (visible, whole) = rounds[ROUNDS / 2];
    println!(
        "  {AT_ONCE} changes together: visible after {visible:.2?}, over after {whole:.2?} (half \
         of {ROUNDS}); goal 2 ms"
    );
}

async fn measure_client(address: &str, keeps: bool) -> Result<(), Failure> {
    let clock = Clock::system();
    let folder = std::env::temp_dir().join(format!("adit-sync-{}", std::process::id()));
    let keep = keeps.then(|| {
        let (path, age_max) = (folder.clone(), Duration::from_secs(60));
        (XdsSnapshot { path, age_max }, address.to_owned())
    });
    let (publisher, mut view) = Publisher::new();
    let parts = XdsParts {
        node: XdsNode { id: "ztunnel~1.1.1.1~a.b~b.svc".to_owned(), metadata: BTreeMap::new() },
        publisher,
        lookups: None,
        metrics: XdsMetrics::default(),
        clock: clock.clone(),
        rng: fastrand::Rng::new(),
        keep,
    };
    let upstream = Upstream {
        address: address.parse()?,
        root: TrustRoot::System,
        alternative_name: None,
        token: None,
        cluster_id: "c1".into(),
        headers: Vec::new(),
    };
    let settings = Settings { tls: TlsPolicy::Tls13, certificate_ttl: PATIENCE };
    let connector = Connector::new(upstream, &settings, clock.clone());
    let (source, mut status) = XdsSource::new(Arc::new(connector), parts);
    let (begin, cpu, before) = (clock.monotonic(), cpu_time()?, memory("VmRSS")?);
    let mut tasks = JoinSet::new();
    tasks.spawn(source.run());
    status.wait_for(|status| status.loaded).await?;
    let (took, used) = (clock.monotonic().duration_since(begin), cpu_time()? - cpu);
    let (now, peak) = (memory("VmRSS")?, memory("VmHWM")?);
    println!("{} resources kept for the next process", if keeps { "with" } else { "without" });
    println!("  {:?} workloads, services, policies", view.load().counts());
    println!("  first sync: {took:.2?}, {used:.2?} of CPU; goal 5 s");
    println!(
        "  memory: {} MiB more, peak {} MiB in all; goal 256 MiB",
        now.saturating_sub(before) >> 10,
        peak >> 10
    );
    let cpu = cpu_time()?;
    let mut delays = follow(&mut view, &clock, UPDATES).await;
    let each = (cpu_time()? - cpu) / u32::try_from(UPDATES)?;
    delays.sort_unstable();
    let at = |part: usize| delays[(delays.len() - 1) * part / 100];
    println!(
        "  1,000 updates/s: visible after {:.2?} (half), {:.2?} (99 %), {:.2?} (all), \
         {each:.1?} of CPU each, in {} generations; goal 20 ms",
        at(50),
        at(99),
        at(100),
        delays.len()
    );
    let cpu = cpu_time()?;
    let delays = follow(&mut view, &clock, AT_ONCE).await;
    let used = cpu_time()? - cpu;
    let last = delays.last().copied().unwrap_or_default();
    println!("  {AT_ONCE} at once: visible after {last:.2?}, {used:.2?} of CPU in all");
    tasks.shutdown().await;
    let _ = fs::remove_file(folder);
    Ok(())
}

/// Follows the probe until its update number `count`: how late each generation was.
async fn follow(view: &mut View, clock: &Clock, count: usize) -> Vec<Duration> {
    let mut delays = Vec::new();
    loop {
        let snapshot = view.load();
        let said = snapshot.workload(&PROBE.into()).map(|probe| probe.name.to_string());
        drop(snapshot);
        let said = said.as_deref().and_then(|name| name.split_once(' '));
        if let Some((number, sent)) = said {
            let sent = Duration::from_nanos(sent.parse().unwrap_or_default());
            let now = clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
            if number != "0" {
                delays.push(now.saturating_sub(sent));
            }
            if number.parse() == Ok(count) {
                return delays;
            }
        }
        if !view.changed().await {
            return delays;
        }
    }
}

fn cpu_time() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let of = |time: nix::sys::time::TimeVal| -> Result<Duration, Failure> {
        let (seconds, micros) = (time.tv_sec().try_into()?, u32::try_from(time.tv_usec())?);
        Ok(Duration::new(seconds, micros * 1_000))
    };
    Ok(of(usage.user_time())? + of(usage.system_time())?)
}

/// KiB, as the kernel counts them.
fn memory(field: &str) -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(field)).ok_or("no such field")?;
    let number = line.split_whitespace().nth(1).ok_or("no number")?;
    Ok(number.parse()?)
}
