//! What more workers bring: each in a control group of its own that gives it a part of a core, so
//! that a machine with few cores can tell.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::load;
use crate::scenario::Settings;
use crate::world::{Side, Variant, World, address};

/// How many workers each proxy has, in turn.
const WORKERS: [usize; 3] = [1, 2, 4];
/// Flows between one pair of pods.
const FLOWS: usize = 16;
/// What a worker may use of a period, microseconds: 15 % of a core.
const QUOTA_US: u32 = 1_500;
const PERIOD_US: u32 = 10_000;
/// The `cpu` controller of control groups, version 1.
const CONTROLLER: &str = "/sys/fs/cgroup/cpu";

/// A control group for each of some threads.
struct Throttle {
    groups: Vec<PathBuf>,
}

/// Measures and prints; at most 2 minutes.
pub(crate) fn measure(settings: &Settings, variants: &[Variant]) -> Result<(), Box<dyn Error>> {
    let variants: Vec<Variant> = variants.iter().copied().filter(|it| it.encrypts()).collect();
    let mut samples = Vec::new();
    for _ in 0..settings.rounds {
        for workers in WORKERS {
            let world = World::build(&variants, "tunnel", Some(workers))?;
            for side in &world.sides {
                samples.push((side.variant, workers, throttled(side, workers, settings)?));
            }
        }
    }
    println!("{FLOWS} flows, Gb/s; each worker has {} % of a core", QUOTA_US * 100 / PERIOD_US);
    for variant in variants {
        let mut one = None;
        for workers in WORKERS {
            let of_these = samples.iter().filter(|it| (it.0, it.1) == (variant, workers));
            let mut rates: Vec<f64> = of_these.map(|it| it.2).collect();
            rates.sort_unstable_by(f64::total_cmp);
            let [least, median, most] = [0, rates.len() / 2, rates.len() - 1].map(|i| rates[i]);
            let times = median / *one.get_or_insert(median);
            let spread = format!("({least:.2} to {most:.2})");
            let name = variant.name();
            println!("  {name:<6}{workers} workers {median:>6.2}  {spread}  {times:.2} times");
        }
    }
    Ok(())
}

/// Gigabits per second of one kind of proxy whose workers are held back.
fn throttled(side: &Side, workers: usize, settings: &Settings) -> io::Result<f64> {
    let begin = if side.variant == Variant::Adit { "adit-worker" } else { "tokio-rt-worker" };
    let threads = side.proxies.worker_threads(begin, workers)?;
    let _throttle = Throttle::new(&threads)?;
    let to = address(&side.server, load::SINK);
    let (bytes, time) = load::bulk(&side.client.netns, to, FLOWS, settings.duration)?;
    Ok(bytes as f64 * 8.0 / 1e9 / time.as_secs_f64())
}

impl Throttle {
    fn new(threads: &[u32]) -> io::Result<Self> {
        let mut throttle = Self { groups: Vec::new() };
        for thread in threads {
            let group = Path::new(CONTROLLER).join(format!("adit-bench-{thread}"));
            fs::create_dir(&group).map_err(|error| {
                let what = "it needs root and control groups of version 1";
                let words = format!("{}: {error}; {what}", group.display());
                io::Error::new(error.kind(), words)
            })?;
            throttle.groups.push(group.clone());
            fs::write(group.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
            fs::write(group.join("cpu.cfs_quota_us"), QUOTA_US.to_string())?;
            fs::write(group.join("tasks"), thread.to_string())?;
        }
        Ok(throttle)
    }
}

impl Drop for Throttle {
    /// Gives the threads back, and removes what is empty then.
    fn drop(&mut self) {
        let outside = Path::new(CONTROLLER).join("tasks");
        for group in &self.groups {
            let threads = fs::read_to_string(group.join("tasks")).unwrap_or_default();
            for thread in threads.lines() {
                // It may have ended meanwhile, and then the group is as empty.
                let _ = fs::write(&outside, thread);
            }
            if let Err(error) = fs::remove_dir(group) {
                eprintln!("{}: {error}", group.display());
            }
        }
    }
}
