//! Decisions about a mesh that is asked for one by one (spec xds 5.5): what is missing is asked
//! for, and decided again when the answer is published.

use std::sync::Arc;
use std::time::Duration;

use super::room::Shared;
use crate::decide::{NotAdmitted, Refusal};
use crate::model::{NetworkAddr, Snapshot, Wanted, Workload};

/// A decision that may need an answer of the control plane.
pub(super) trait Lacking {
    /// What is lacking; nothing if the decision stands.
    fn lacking(&self) -> Option<&Wanted>;
}

impl Lacking for Refusal {
    fn lacking(&self) -> Option<&Wanted> {
        match self {
            Self::Unanswered(wanted) => Some(wanted),
            _ => None,
        }
    }
}

impl Lacking for NotAdmitted {
    fn lacking(&self) -> Option<&Wanted> {
        match self {
            Self::Unanswered(wanted) => Some(wanted),
            _ => None,
        }
    }
}

/// Decides, and decides again with each answer to what was lacking; all of them together may take
/// `Limits::lookup_wait_ms`. A question that nobody takes is not waited for.
pub(super) async fn decided<T, E: Lacking>(
    shared: &Shared,
    mut decide: impl FnMut(&Snapshot) -> Result<T, E>,
) -> Result<T, E> {
    let mut unanswered: Option<E> = None;
    let limit = Duration::from_millis(shared.limits.lookup_wait_ms);
    let decided = shared.view.wait_for(limit, |snapshot| {
        let error = match decide(snapshot) {
            Ok(decided) => return Some(Ok(decided)),
            Err(error) => error,
        };
        let Some(wanted) = error.lacking() else { return Some(Err(error)) };
        let asked = unanswered.as_ref().and_then(Lacking::lacking) == Some(wanted);
        if !asked && !shared.view.ask(wanted.clone()) {
            return Some(Err(error));
        }
        unanswered = Some(error);
        None
    });
    match decided.await {
        Some(decided) => decided,
        // Without an answer the last decision stands, or it is made once more.
        None => unanswered.map_or_else(|| decide(&shared.view.load()), Err),
    }
}

/// Who has an address, for people: what is not known is asked for, and known next time.
pub(super) fn described<'a>(
    shared: &Shared,
    snapshot: &'a Snapshot,
    addr: NetworkAddr,
) -> Option<&'a Arc<Workload>> {
    let found = snapshot.workload_by_addr(&addr);
    let wanted = Wanted::Addr(addr);
    if found.is_none() && snapshot.must_ask(&wanted) {
        // Nothing depends on it: a question that nobody takes is left out.
        let _ = shared.view.ask(wanted);
    }
    found
}
