//! How many worker threads there are (spec operations 2).

use super::env::Env;
use super::mesh_file::ProxyConfig;
use super::values::{cpu_quantity, number};

/// No machine needs more; a larger number is a mistake.
const WORKERS_MAX: usize = 1024;
/// The least that is chosen when nobody says how many.
const WORKERS_MIN: usize = 2;
/// One worker for so many cores, when nobody says how many.
const CORES_PER_WORKER: usize = 4;

/// What `ZTUNNEL_WORKER_THREADS` may say.
#[derive(Clone, Copy)]
enum Asked {
    Count(usize),
    Percent(usize),
}

/// The number of workers, from 1 to [`WORKERS_MAX`].
pub(super) fn count(env: &mut Env<'_>, proxy: &ProxyConfig, cpus: usize) -> usize {
    let limit = cores(env, "ZTUNNEL_RESOURCE_CPU_LIMIT");
    let request = cores(env, "ZTUNNEL_RESOURCE_CPU_REQUEST");
    let told = env.value("ZTUNNEL_CPU_LIMIT", number(1..=usize::MAX));
    let asked = env.value("ZTUNNEL_WORKER_THREADS", asked);
    let cores = limit.or(told).unwrap_or(cpus).clamp(1, WORKERS_MAX);
    let concurrency = proxy.concurrency.map(|count| Asked::Count(count.into()));
    let workers = match asked.or(concurrency) {
        Some(Asked::Count(0)) => cores,
        Some(Asked::Count(count)) => count,
        Some(Asked::Percent(percent)) => (cores * percent).div_ceil(100),
        None => match limit {
            Some(limit) => limit.max(request.unwrap_or(0)),
            None => cores.div_ceil(CORES_PER_WORKER).max(request.unwrap_or(0)).max(WORKERS_MIN),
        },
    };
    workers.clamp(1, WORKERS_MAX)
}

/// Whole cores, rounded up; 0 says nothing.
fn cores(env: &mut Env<'_>, name: &str) -> Option<usize> {
    let milli = env.value(name, cpu_quantity)?;
    usize::try_from(milli.div_ceil(1000)).ok().filter(|&cores| cores > 0)
}

fn asked(text: &str) -> Result<Asked, String> {
    match text.strip_suffix('%') {
        Some(percent) => number(1..=1000)(percent.trim_end()).map(Asked::Percent),
        None => number(0..=WORKERS_MAX)(text).map(Asked::Count),
    }
}
