//! What one authorization decision takes: 10 policies of 10 rules apply to the workload, alone or
//! among 10,000, and the last rule of the last one allows.
//!
//! ```text
//! cargo bench --bench decide
//! ```

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit::decide::{Client, Facts, authorize};
use adit::model::{Action, Delta, Match, Policy, PolicyKey, Scope, Snapshot, Workload};

/// Policies that apply to the workload, and rules of each.
const APPLY: usize = 10;
const RULES: usize = 10;
/// Policies there are in all, at the first look and at the second.
const THERE_ARE: [usize; 2] = [APPLY, 10_000];
/// Decisions of one measurement, and measurements of each kind, in turn.
const DECISIONS: u32 = 100_000;
const ROUNDS: usize = 15;

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn main() -> ExitCode {
    let meshes = THERE_ARE.map(mesh);
    let facts = Facts {
        workload_uid: "pod".into(),
        client: Client::Plaintext,
        source_ip: [10, 0, 0, 1].into(),
        destination: ([10, 0, 0, 2], 8080).into(),
    };
    if meshes.iter().any(|mesh| authorize(mesh, &facts).outcome.is_err()) {
        eprintln!("what is to be measured is not allowed");
        return ExitCode::FAILURE;
    }
    let mut times: [Vec<Duration>; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (mesh, times) in meshes.iter().zip(&mut times) {
            let start = now();
            for _ in 0..DECISIONS {
                let verdict = authorize(black_box(mesh), black_box(&facts));
                assert!(black_box(verdict).outcome.is_ok());
            }
            times.push((now() - start) / DECISIONS);
        }
    }
    for (count, times) in THERE_ARE.iter().zip(&mut times) {
        times.sort_unstable();
        let (least, median, most) = (times[0], times[ROUNDS / 2], times[ROUNDS - 1]);
        println!("{APPLY} of {count} policies apply: {median:?} ({least:?} to {most:?})");
    }
    let [few, many] = times.map(|times| times[ROUNDS / 2].as_secs_f64());
    println!("with the many {:.2} times what it takes with the few", many / few);
    ExitCode::SUCCESS
}

/// A workload in `here`, where the policies that apply are; all others are elsewhere.
fn mesh(count: usize) -> Snapshot {
    let workload = Workload {
        uid: "pod".into(),
        name: "pod".into(),
        namespace: "here".into(),
        ips: vec![[10, 0, 0, 2].into()],
        ..Workload::default()
    };
    let policies = (0..count).map(|number| {
        let namespace: Arc<str> = if number < APPLY {
            "here".into()
        } else {
            format!("elsewhere-{}", number % 100).into()
        };
        policy(PolicyKey::new(namespace, format!("policy-{number}")), number + 1 == APPLY)
    });
    let policies = policies.collect();
    Delta { workloads: vec![workload], policies, ..Delta::default() }.apply(&Snapshot::default())
}

/// Allows from addresses that nobody has; the last rule of the `last` one from everywhere.
fn policy(key: PolicyKey, last: bool) -> Policy {
    let groups = (1..=RULES).map(|number| {
        let everywhere = last && number == RULES;
        let from = if everywhere { "10.0.0.0/8" } else { "192.0.2.0/24" };
        let from = from.parse().into_iter().collect();
        vec![vec![Match { source_ips: from, destination_ports: vec![8080], ..Match::default() }]]
    });
    let (scope, action) = (Scope::Namespace, Action::Allow);
    Policy { key, scope, action, groups: groups.collect(), dry_run: false }
}
