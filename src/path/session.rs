//! From a permit to an open session, without losing a change in between.

use std::sync::Arc;
use std::time::Duration;

use super::connections::Connection;
use super::refusal;
use super::room::Room;
use crate::decide::{Denial, DryRunFinding, Facts, Permit, Verdict, authorize};
use crate::model::PolicyKey;
use crate::report::{Failure, Reason};

/// How often a permit is asked for again because the generation moved while it was being used.
const REOPEN_MAX: usize = 16;

/// The proof that a connection was permitted and is being watched. A leg towards an application is
/// opened only for a holder of one (`dial::to_application`).
#[derive(Debug)]
pub(super) struct Session {
    _permit: Permit,
}

/// Decides a connection, waiting a little for a policy that has not arrived, and has it watched.
pub(super) async fn open(
    room: &Room,
    connection: &Connection,
    facts: &Facts,
) -> Result<Session, Failure> {
    let view = &room.shared.view;
    for _ in 0..REOPEN_MAX {
        let permit = decide(room, facts).await?;
        // Watched first, then looked at the generation: a publication before this line shows here,
        // one after it finds the connection in the table.
        connection.admit(facts.clone());
        if view.load().generation() == permit.generation() {
            return Ok(Session { _permit: permit });
        }
    }
    Err(Failure::new(Reason::PolicyChanged, "the configuration changed faster than it was read"))
}

async fn decide(room: &Room, facts: &Facts) -> Result<Permit, Failure> {
    let patience = Duration::from_millis(room.shared.limits.policy_wait_ms);
    let mut missing: Option<PolicyKey> = None;
    let known = room.shared.view.wait_for(patience, |snapshot| {
        let verdict = authorize(snapshot, facts);
        if let Err(Denial::PolicyUnknown(key)) = &verdict.outcome {
            missing = Some(key.clone());
            return None;
        }
        Some(verdict)
    });
    let metrics = room.shared.report.metrics();
    let Some(verdict) = known.await else {
        metrics.policy_unknown.inc();
        let denial = missing.map_or(Denial::WorkloadUnknown, Denial::PolicyUnknown);
        return Err(refusal::from_denial(&denial, &room.shared.view.load(), facts));
    };
    say(room, facts, &verdict);
    let explain = |denial| refusal::from_denial(&denial, &room.shared.view.load(), facts);
    verdict.outcome.map_err(explain)
}

fn say(room: &Room, facts: &Facts, verdict: &Verdict) {
    for finding in &verdict.dry_run {
        room.shared.report.metrics().dry_run_findings.inc();
        let (policy, would): (Option<&Arc<PolicyKey>>, _) = match finding {
            DryRunFinding::WouldDeny(key) => (Some(key), "deny"),
            DryRunFinding::WouldAllow(key) => (Some(key), "allow"),
            DryRunFinding::WouldDenyByDefault => (None, "deny: no allow policy matches"),
        };
        let policy = policy.map(ToString::to_string);
        tracing::info!(target: "policy", ?facts, policy, would, "dry run");
    }
    let info = room.shared.policy_decisions_at_info;
    if !info && !tracing::enabled!(target: "policy", tracing::Level::DEBUG) {
        return;
    }
    let outcome = match &verdict.outcome {
        Ok(_) => "allowed".to_owned(),
        Err(denial) => refusal::denied(denial, &room.shared.view.load(), facts),
    };
    if info {
        tracing::info!(target: "policy", ?facts, outcome, "decided");
    } else {
        tracing::debug!(target: "policy", ?facts, outcome, "decided");
    }
}
