//! This process: resource limits, CPUs, descriptors, memory.

use std::fs;
use std::io;
use std::path::{Component, Path};
use std::thread;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Where the CPU controller of cgroup version 1 is mounted, by the names in use.
const CGROUP_V1_CPU: [&str; 2] = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"];
/// Where cgroup version 2 is mounted.
const CGROUP_V2: &str = "/sys/fs/cgroup";

/// Raises the soft limit of open descriptors to the hard one and returns it
/// (spec node-and-pods 7).
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Keeps this process's memory, which holds private keys, out of core dumps and out of reach of
/// other processes of the same user (`PR_SET_DUMPABLE` 0, `RLIMIT_CORE` 0).
pub fn set_not_dumpable() -> io::Result<()> {
    prctl::set_dumpable(false)?;
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}

/// How many descriptors this process has open.
pub fn open_files() -> io::Result<usize> {
    let entries = fs::read_dir("/proc/self/fd")?.try_fold(0_usize, |sum, entry| {
        entry?;
        Ok::<_, io::Error>(sum + 1)
    })?;
    // One of them is the folder that was read.
    Ok(entries.saturating_sub(1))
}

/// The memory of this process that is resident, in bytes.
pub fn resident_bytes() -> io::Result<u64> {
    let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| u64::try_from(size).ok());
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|field| field.parse::<u64>().ok());
    match (pages, page) {
        (Some(pages), Some(page)) => Ok(pages.saturating_mul(page)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/self/statm")),
    }
}

/// How many CPUs this process may use: those it may run on, but not more than its cgroups pay
/// for, rounded up. At least one.
pub fn available_cpus() -> usize {
    let quota = quota_cpus(|path| fs::read_to_string(path).ok());
    affine_cpus().min(quota.unwrap_or(usize::MAX)).max(1)
}

/// The CPUs that the scheduler may put this thread on.
fn affine_cpus() -> usize {
    match sched_getaffinity(Pid::from_raw(0)) {
        Ok(set) => (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).count(),
        // More CPUs than the set can hold.
        Err(_) => thread::available_parallelism().map_or(1, usize::from),
    }
}

/// The tightest quota among this process's cgroups and their parents; `None` is no quota.
fn quota_cpus(read: impl Fn(&Path) -> Option<String>) -> Option<usize> {
    let groups = read(Path::new("/proc/self/cgroup"))?;
    let mut tightest = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let found = if controllers.is_empty() {
            tightest_quota(CGROUP_V2, group, |folder| parse_v2(&read(&folder.join("cpu.max"))?))
        } else if controllers.split(',').any(|name| name == "cpu") {
            let quota = |folder: &Path| {
                let quota = read(&folder.join("cpu.cfs_quota_us"))?;
                parse_quota(&quota, &read(&folder.join("cpu.cfs_period_us"))?)
            };
            let mounts = CGROUP_V1_CPU.iter();
            mounts.filter_map(|mount| tightest_quota(mount, group, quota)).min()
        } else {
            None
        };
        tightest = tightest.into_iter().chain(found).min();
    }
    tightest
}

/// Asks the folder of `group` under `mount` and all above it, down to the mount itself. In a
/// container the path may be that of the host: then only the mount itself exists.
fn tightest_quota(
    mount: &str,
    group: &str,
    quota: impl Fn(&Path) -> Option<usize>,
) -> Option<usize> {
    let mut folder = Path::new(mount).to_path_buf();
    let mut tightest = quota(&folder);
    for part in Path::new(group).components() {
        if let Component::Normal(name) = part {
            folder.push(name);
            tightest = tightest.into_iter().chain(quota(&folder)).min();
        }
    }
    tightest
}

/// `cpu.max`: "150000 100000" or "max 100000", in microseconds.
fn parse_v2(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    parse_quota(quota, period)
}

/// CPUs, rounded up; `None` for no quota ("max" or -1) and for what cannot be read.
fn parse_quota(quota: &str, period: &str) -> Option<usize> {
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok().filter(|period| *period > 0)?;
    usize::try_from(quota.div_ceil(period)).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;

    use super::*;

    #[test]
    fn quotas_are_read_from_every_cgroup_layout() {
        #[track_caller]
        fn check(files: &[(&str, &str)], expected: Option<usize>) {
            let files: BTreeMap<_, _> = files.iter().copied().collect();
            let read = |path: &Path| files.get(path.to_str()?).map(|text| (*text).to_owned());
            assert_eq!(quota_cpus(read), expected);
        }
        const SELF: &str = "/proc/self/cgroup";
        check(&[], None);
        check(&[(SELF, "0::/\n")], None);
        check(&[(SELF, "0::/"), ("/sys/fs/cgroup/cpu.max", "max 100000\n")], None);
        check(&[(SELF, "0::/"), ("/sys/fs/cgroup/cpu.max", "150000 100000\n")], Some(2));
        check(&[(SELF, "0::/"), ("/sys/fs/cgroup/cpu.max", "50000 100000\n")], Some(1));
        check(&[(SELF, "0::/"), ("/sys/fs/cgroup/cpu.max", "50000 0\n")], None);
        check(&[(SELF, "0::/"), ("/sys/fs/cgroup/cpu.max", "nonsense")], None);
        let leaf_and_parent = [
            (SELF, "0::/kube/pod"),
            ("/sys/fs/cgroup/kube/cpu.max", "300000 100000"),
            ("/sys/fs/cgroup/kube/pod/cpu.max", "max 100000"),
        ];
        check(&leaf_and_parent, Some(3));
        let v1 = "5:memory:/x\n4:cpu,cpuacct:/x\n0::/\n";
        let v1_group = [
            (SELF, v1),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "410000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
        ];
        check(&v1_group, Some(5));
        let v1_container = [
            (SELF, "4:cpu:/host/path"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
        ];
        check(&v1_container, Some(1));
        check(&[(SELF, "0::/../.."), ("/sys/fs/cgroup/cpu.max", "700 100")], Some(7));
    }

    #[test]
    fn this_process_has_cpus_memory_and_descriptors() {
        assert!((1..=affine_cpus()).contains(&available_cpus()));
        assert!(resident_bytes().unwrap() > 64 * 1024);
        // Other tests open and close files meanwhile; many more than they could.
        let many: Vec<_> = (0..200).map(|_| File::open("/dev/null").unwrap()).collect();
        assert!(open_files().unwrap() >= many.len());
    }

    #[test]
    fn limits_are_as_asked() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard - 1, hard).unwrap();
        let raised = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (raised, raised));
        set_not_dumpable().unwrap();
        assert!(!prctl::get_dumpable().unwrap());
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
        // Not being dumpable must not lock us out of our own files.
        assert!(open_files().is_ok());
        assert!(File::open("/proc/thread-self/ns/net").is_ok());
    }
}
