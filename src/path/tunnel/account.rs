//! What peers may still send us beyond first windows: granted, and not yet taken by an application.

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

    fn room(&self) -> u64 {
        // Other threads charge meanwhile: it may be above the limit by one grant of each.
        let of_all = self.ledger.max.saturating_sub(self.ledger.owed.load(Ordering::Relaxed));
        self.max.saturating_sub(self.owed.get()).min(of_all)
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
    fn there_is_room_for_what_neither_the_tunnel_nor_all_together_owe() {
        let ledger = Ledger::new(100);
        let first = TunnelAccount::new(70, Arc::clone(&ledger));
        let second = TunnelAccount::new(70, Arc::clone(&ledger));
        first.charge(20);
        assert_eq!((first.room(), second.room()), (50, 70));
        first.charge(50);
        assert_eq!((first.room(), second.room()), (0, 30), "the limits of tunnel and process");
        second.charge(35);
        assert_eq!((first.room(), second.room()), (0, 0), "what is granted is charged");
        first.release(70);
        assert_eq!((first.room(), second.room()), (65, 35));
        second.release(35);
        assert_eq!(ledger.owed.load(Ordering::Relaxed), 0);
    }
}
