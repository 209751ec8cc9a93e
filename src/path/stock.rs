//! Sockets that are ready in a pod before they are needed, so that a connection costs no trip to
//! the opener.

use std::cell::RefCell;
use std::io;

use foldhash::HashMap;
use socket2::Socket;

use super::pod::Pod;
use crate::sys::opener::Opener;
use crate::sys::socket::SocketPlan;

/// Sockets asked for at once for a pod that is busy.
const BATCH_MAX: usize = 16;
/// Unused sockets one worker keeps in all; past it each is asked for when it is needed.
const KEPT_MAX: usize = 512;

/// One worker's ready sockets.
#[derive(Debug, Default)]
pub(super) struct Stock {
    shelves: RefCell<HashMap<(u64, SocketPlan), Shelf>>,
}

#[derive(Debug, Default)]
struct Shelf {
    ready: Vec<Socket>,
    /// Who waits for the opener.
    asking: usize,
    /// How many are asked for at a time.
    batch: usize,
    /// Something was taken since the last clearing.
    used: bool,
}

/// Somebody waits for the opener, as long as this lives.
struct Asking<'a> {
    stock: &'a Stock,
    key: (u64, SocketPlan),
    count: usize,
}

impl Stock {
    /// A socket in a pod. A pod that asks again and again is given more at a time.
    pub(super) async fn take(
        &self,
        opener: &Opener,
        pod: &Pod,
        plan: SocketPlan,
    ) -> io::Result<Socket> {
        let key = (pod.id, plan);
        let asking = match self.shelved(key) {
            Ok(socket) => return Ok(socket),
            Err(asking) => asking,
        };
        let mut sockets = opener.sockets(pod.spec.netns.clone(), plan, asking.count).await?;
        let socket = sockets.pop().ok_or(io::ErrorKind::NotFound)?;
        if !sockets.is_empty()
            && let Some(shelf) = self.shelves.borrow_mut().get_mut(&key)
        {
            shelf.ready.append(&mut sockets);
        }
        Ok(socket)
    }

    /// A ready socket, or how many to ask for: more than one only if nobody else is asking, because
    /// of those who come together each takes one and would leave the rest.
    fn shelved(&self, key: (u64, SocketPlan)) -> Result<Socket, Asking<'_>> {
        let mut shelves = self.shelves.borrow_mut();
        let kept: usize = shelves.values().map(|shelf| shelf.ready.len()).sum();
        let shelf = shelves.entry(key).or_default();
        shelf.used = true;
        if let Some(socket) = shelf.ready.pop() {
            return Ok(socket);
        }
        shelf.asking += 1;
        let count = if shelf.asking > 1 || kept >= KEPT_MAX {
            1
        } else {
            shelf.batch = (shelf.batch * 2).clamp(1, BATCH_MAX);
            shelf.batch
        };
        Err(Asking { stock: self, key, count })
    }

    /// Closes what was not needed since the last time. To be called from time to time.
    pub(super) fn clear_unused(&self) {
        let mut shelves = self.shelves.borrow_mut();
        shelves.retain(|_, shelf| std::mem::take(&mut shelf.used));
    }

    /// Closes the sockets of a pod that leaves.
    pub(super) fn forget(&self, pod: u64) {
        self.shelves.borrow_mut().retain(|(owner, _), _| *owner != pod);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some(shelf) = self.stock.shelves.borrow_mut().get_mut(&self.key) {
            // A shelf that was cleared meanwhile does not know of those who asked before.
            shelf.asking = shelf.asking.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: SocketPlan = SocketPlan { ipv6: false, transparent: false };

    fn put(stock: &Stock, pod: u64, count: usize) {
        let sockets = (0..count).map(|_| PLAN.create(None).unwrap());
        stock.shelves.borrow_mut().entry((pod, PLAN)).or_default().ready.extend(sockets);
    }

    /// How many are asked for by somebody who is given them at once.
    fn asks(stock: &Stock) -> usize {
        stock.shelved((1, PLAN)).map_or_else(|asking| asking.count, |_| 0)
    }

    fn kept(stock: &Stock) -> usize {
        stock.shelves.borrow().values().map(|shelf| shelf.ready.len()).sum()
    }

    #[test]
    fn who_asks_again_gets_more_at_a_time_within_limits() {
        let stock = Stock::default();
        let asked: Vec<_> = (0..7).map(|_| asks(&stock)).collect();
        assert_eq!(asked, [1, 2, 4, 8, 16, 16, 16]);
        put(&stock, 2, KEPT_MAX);
        assert_eq!(asks(&stock), 1);
        assert!(stock.shelved((2, PLAN)).is_ok());
        assert_eq!(kept(&stock), KEPT_MAX - 1);
    }

    /// A thousand that come together are a thousand sockets and few more, not sixteen thousand.
    #[test]
    fn those_who_ask_together_ask_for_one_each() {
        let stock = Stock::default();
        let warm: Vec<_> = (0..5).map(|_| asks(&stock)).collect();
        assert_eq!(warm.last(), Some(&BATCH_MAX));
        let asking: Vec<_> = (0..1_000).filter_map(|_| stock.shelved((1, PLAN)).err()).collect();
        let asked: usize = asking.iter().map(|asking| asking.count).sum();
        assert_eq!((asking.len(), asked), (1_000, 1_000 + BATCH_MAX - 1));
        drop(asking);
        assert_eq!(asks(&stock), BATCH_MAX);
        // One that asked before its shelf was cleared, twice, is not missed on a new one.
        let asking = stock.shelved((1, PLAN)).err();
        stock.clear_unused();
        stock.clear_unused();
        assert_eq!(asks(&stock), 1);
        drop(asking);
        assert_eq!(asks(&stock), 2);
    }

    #[test]
    fn what_is_not_needed_is_closed_and_a_pod_takes_its_own_along() {
        let stock = Stock::default();
        put(&stock, 1, 3);
        put(&stock, 2, 3);
        assert!(stock.shelved((1, PLAN)).is_ok());
        stock.clear_unused();
        assert_eq!(kept(&stock), 2, "pod 2 did not use its own");
        stock.clear_unused();
        assert_eq!(kept(&stock), 0);
        put(&stock, 1, 3);
        put(&stock, 2, 3);
        stock.forget(1);
        assert_eq!(kept(&stock), 3);
    }
}
