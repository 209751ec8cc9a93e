//! What peers may still send us: granted, and not yet taken by an application.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hbone::limits::Account;

/// The debts of a whole process.
#[derive(Debug)]
pub(in crate::path) struct Ledger {
    owed: AtomicU64,
    max: u64,
}

/// The debts of one tunnel, which are those of the process as well.
#[derive(Debug)]
pub(super) struct TunnelAccount {
    owed: Cell<u64>,
    max: u64,
    ledger: Arc<Ledger>,
}

impl Ledger {
    pub(in crate::path) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { owed: AtomicU64::new(0), max })
    }
}

impl TunnelAccount {
    pub(super) fn new(max: u32, ledger: Arc<Ledger>) -> Self {
        Self { owed: Cell::new(0), max: u64::from(max), ledger }
    }
}

impl Account for TunnelAccount {
    fn charge(&self, bytes: u32) {
        self.owed.set(self.owed.get() + u64::from(bytes));
        self.ledger.owed.fetch_add(u64::from(bytes), Ordering::Relaxed);
    }

    fn try_charge(&self, bytes: u32) -> bool {
        let more = u64::from(bytes);
        // Charged by other threads meanwhile: above the limit by one grant of each at most.
        let fits = self.owed.get() + more <= self.max
            && self.ledger.owed.load(Ordering::Relaxed) + more <= self.ledger.max;
        if fits {
            self.charge(bytes);
        }
        fits
    }

    fn release(&self, bytes: u32) {
        self.owed.set(self.owed.get().saturating_sub(u64::from(bytes)));
        self.ledger.owed.fetch_sub(u64::from(bytes), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_tunnel_nor_all_together_are_granted_more_than_their_limit() {
        let ledger = Ledger::new(100);
        let first = TunnelAccount::new(70, Arc::clone(&ledger));
        let second = TunnelAccount::new(70, Arc::clone(&ledger));
        assert!(first.try_charge(70));
        assert!(!first.try_charge(1), "the limit of the tunnel");
        assert!(second.try_charge(30));
        assert!(!second.try_charge(1), "the limit of the process");
        second.charge(5);
        assert_eq!(ledger.owed.load(Ordering::Relaxed), 105, "first windows are never refused");
        first.release(70);
        assert!(second.try_charge(35));
        second.release(70);
        assert_eq!(ledger.owed.load(Ordering::Relaxed), 0);
    }
}
