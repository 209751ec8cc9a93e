//! Every connection of a worker, so that each can be told to end.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use tokio::sync::Notify;

use crate::decide::{Denial, Facts, authorize};
use crate::model::Snapshot;
use crate::report::{Failure, Reason};

/// One worker's connections.
#[derive(Debug, Default)]
pub(super) struct Connections {
    table: RefCell<HashMap<u64, Slot>>,
    next: Cell<u64>,
    draining: Cell<bool>,
    emptied: Notify,
}

#[derive(Debug)]
struct Slot {
    pod: u64,
    cut: Rc<Cut>,
    /// Apart, because a table keeps places free and most sides of a connection need no permit.
    admitted: Option<Box<Admitted>>,
}

/// A connection that holds a permit, and what it was granted for.
#[derive(Debug)]
struct Admitted {
    facts: Facts,
    /// Since when a policy that it depends on is missing.
    unknown_since: Option<Instant>,
}

/// A connection's entry; dropping it takes it out.
#[derive(Debug)]
pub(super) struct Connection {
    table: Rc<Connections>,
    id: u64,
    cut: Rc<Cut>,
}

/// How a connection is told to end.
#[derive(Debug, Default)]
pub(super) struct Cut {
    reason: RefCell<Option<Failure>>,
    draining: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Connections {
    /// Enters a connection of a pod.
    pub(super) fn enter(self: &Rc<Self>, pod: u64) -> Connection {
        let id = self.next.get();
        self.next.set(id + 1);
        let cut = Rc::new(Cut::default());
        cut.draining.set(self.draining.get());
        let slot = Slot { pod, cut: Rc::clone(&cut), admitted: None };
        self.table.borrow_mut().insert(id, slot);
        Connection { table: Rc::clone(self), id, cut }
    }

    /// Whether nothing new is to be taken.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Ends the connections of one pod.
    pub(super) fn cut_pod(&self, pod: u64, failure: &Failure) {
        for slot in self.table.borrow().values().filter(|slot| slot.pod == pod) {
            slot.cut.now(failure.clone());
        }
    }

    /// Ends every connection.
    pub(super) fn cut_all(&self, failure: &Failure) {
        self.table.borrow().values().for_each(|slot| slot.cut.now(failure.clone()));
    }

    /// Tells every connection, and those to come, to take nothing new.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.table.borrow().values().for_each(|slot| slot.cut.drain());
    }

    /// Waits until there is no connection.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.table.borrow().is_empty() {
                return;
            }
            emptied.await;
        }
    }

    /// Decides every admitted connection again, with fresh records, and ends those that are no
    /// longer allowed. A missing policy is given `patience` to arrive. Returns when to look again.
    pub(super) fn sweep(
        &self,
        snapshot: &Snapshot,
        now: Instant,
        patience: Duration,
    ) -> Option<Instant> {
        let mut again: Option<Instant> = None;
        for slot in self.table.borrow_mut().values_mut() {
            let Some(admitted) = &mut slot.admitted else { continue };
            let Err(denial) = authorize(snapshot, &admitted.facts).outcome else {
                admitted.unknown_since = None;
                continue;
            };
            if let Denial::PolicyUnknown(_) = denial {
                let due = *admitted.unknown_since.get_or_insert(now) + patience;
                if now < due {
                    again = Some(again.map_or(due, |again| again.min(due)));
                    continue;
                }
            }
            let why = super::refusal::denied(&denial, snapshot, &admitted.facts);
            slot.cut.now(Failure::new(Reason::PolicyChanged, why));
        }
        again
    }
}

impl Connection {
    /// Ends when the connection must end; the reason is for the log.
    pub(super) async fn cut(&self) -> Failure {
        self.cut.wait(|cut| cut.reason.borrow().clone()).await
    }

    /// Ends when nothing new may begin.
    pub(super) async fn draining(&self) {
        self.cut.wait(|cut| cut.draining.get().then_some(())).await;
    }

    /// Notes what the connection was admitted for, so that every change decides it again.
    pub(super) fn admit(&self, facts: Facts) {
        if let Some(slot) = self.table.table.borrow_mut().get_mut(&self.id) {
            slot.admitted = Some(Box::new(Admitted { facts, unknown_since: None }));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut table = self.table.table.borrow_mut();
        table.remove(&self.id);
        if table.is_empty() {
            self.table.emptied.notify_waiters();
        }
    }
}

impl Cut {
    fn now(&self, failure: Failure) {
        self.reason.borrow_mut().get_or_insert(failure);
        self.wake();
    }

    fn drain(&self) {
        self.draining.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// One task waits at a time, for either: both are polled by the connection's own task.
    async fn wait<T>(&self, ready: impl Fn(&Self) -> Option<T>) -> T {
        poll_fn(|cx| match ready(self) {
            Some(value) => Poll::Ready(value),
            None => {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}
