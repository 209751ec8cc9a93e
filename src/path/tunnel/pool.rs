//! Tunnels by key: shared by the connections of one pod to one hop under one set of identities.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use foldhash::HashMap;
use http::{HeaderMap, Request};
use tokio::sync::Notify;

use super::client::{self, ConnectError, StreamSlot, Tunnel};
use super::first::First;
use super::stream::Stream;
use super::{Secured, Settings, StreamError};
use crate::config::DataPathConfig;
use crate::model::Hop;
use crate::report::{Failure, Reason};
use crate::wire::spiffe::Identity;

use super::super::room::Tasks;

/// How often one CONNECT is sent: once, and once more if it was provably not processed.
const ATTEMPTS_MAX: usize = 2;

/// What two connections must have in common to share a tunnel. Compared in full.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::path) struct TunnelKey {
    /// The pod it starts in, which fixes the source address.
    pub(in crate::path) pod: u64,
    /// The identity it shows.
    pub(in crate::path) source: Identity,
    /// Where it goes.
    pub(in crate::path) hop: Hop,
    /// The identities that may answer.
    pub(in crate::path) expected: Vec<Identity>,
}

/// One worker's tunnels.
#[derive(Debug)]
pub(in crate::path) struct Pool {
    keys: RefCell<HashMap<TunnelKey, Entry>>,
    settings: Settings,
    unused_release: Duration,
    tasks: Tasks,
}

#[derive(Debug, Default)]
struct Entry {
    tunnels: Vec<Rc<Tunnel>>,
    dials: Vec<Rc<Dial>>,
}

/// A tunnel being opened, and the connections that wait for it.
#[derive(Debug, Default)]
struct Dial {
    waiting: Cell<usize>,
    result: RefCell<Option<Result<Rc<Tunnel>, Failure>>>,
    done: Notify,
}

impl Pool {
    pub(in crate::path) fn new(config: &DataPathConfig, settings: Settings, tasks: Tasks) -> Self {
        Self {
            keys: RefCell::default(),
            settings,
            unused_release: config.pool_unused_release,
            tasks,
        }
    }

    /// Opens a stream: through a tunnel that is there, or through one that `dial` opens.
    ///
    /// `dial` yields a connection after its TLS handshake. A CONNECT that the peer provably did not
    /// process goes once to another tunnel.
    pub(in crate::path) async fn open<D>(
        self: &Rc<Self>,
        key: &TunnelKey,
        request: impl Fn() -> Request<()>,
        first: &mut First<'_>,
        dial: impl Fn() -> D,
    ) -> Result<(HeaderMap, Stream), Failure>
    where
        D: Future<Output = Result<Secured, Failure>> + 'static,
    {
        let limit = Duration::from_millis(self.settings.limits.connect_answer_ms);
        let mut refused: Option<(Rc<Tunnel>, String)> = None;
        for _ in 0..ATTEMPTS_MAX {
            let avoid = refused.as_ref().map(|(tunnel, _)| tunnel);
            let (tunnel, slot) = self.checkout(key, avoid, &dial).await?;
            match tunnel.connect(slot, request(), limit, first).await {
                Ok(answer) => return Ok((answer.headers, answer.stream)),
                Err(ConnectError::NotProcessed(detail)) => refused = Some((tunnel, detail)),
                Err(error) => return Err(failed(error)),
            }
        }
        let detail = refused.map_or_else(String::new, |(_, detail)| detail);
        Err(failed(ConnectError::NotProcessed(detail)))
    }

    /// Opens a stream through a tunnel of its own, which starts on what `secured` carries, is
    /// shared with nobody and ends with the stream.
    pub(in crate::path) async fn open_alone(
        &self,
        secured: Secured,
        request: Request<()>,
        first: &mut First<'_>,
    ) -> Result<(HeaderMap, Stream), Failure> {
        let (tunnel, driver) = self.begin(secured)?;
        let tunnel = LastStream(tunnel);
        self.tasks.spawn(driver);
        let limit = Duration::from_millis(self.settings.limits.connect_answer_ms);
        let answer = tunnel.0.connect(tunnel.0.reserve(), request, limit, first).await;
        let answer = answer.map_err(failed)?;
        Ok((answer.headers, answer.stream))
    }

    /// Takes no more streams on the tunnels of a pod that leaves.
    pub(in crate::path) fn close_pod(&self, pod: u64) {
        self.keys.borrow_mut().retain(|key, entry| {
            if key.pod == pod {
                entry.tunnels.iter().for_each(|tunnel| tunnel.close());
            }
            key.pod != pod
        });
    }

    /// Takes no more streams on any tunnel; those that are open go on.
    pub(in crate::path) fn close(&self) {
        for (_, entry) in self.keys.borrow_mut().drain() {
            entry.tunnels.iter().for_each(|tunnel| tunnel.close());
        }
    }

    async fn checkout<D>(
        self: &Rc<Self>,
        key: &TunnelKey,
        avoid: Option<&Rc<Tunnel>>,
        dial: &impl Fn() -> D,
    ) -> Result<(Rc<Tunnel>, StreamSlot), Failure>
    where
        D: Future<Output = Result<Secured, Failure>> + 'static,
    {
        loop {
            if let Some(tunnel) = self.with_room(key, avoid) {
                let slot = tunnel.reserve();
                return Ok((tunnel, slot));
            }
            let waiting = self.join_or_dial(key, dial);
            let tunnel = waiting.finished().await?;
            // Another connection may have taken the last place in the meantime.
            if tunnel.has_room() {
                let slot = tunnel.reserve();
                return Ok((tunnel, slot));
            }
        }
    }

    fn with_room(&self, key: &TunnelKey, avoid: Option<&Rc<Tunnel>>) -> Option<Rc<Tunnel>> {
        let mut keys = self.keys.borrow_mut();
        let entry = keys.get_mut(key)?;
        entry.tunnels.retain(|tunnel| !tunnel.is_closed());
        let avoided = |tunnel| avoid.is_some_and(|avoid| Rc::ptr_eq(avoid, tunnel));
        entry.tunnels.iter().find(|tunnel| tunnel.has_room() && !avoided(tunnel)).cloned()
    }

    /// Waits for a dial that will have room, or starts one that no waiter's end can interrupt.
    fn join_or_dial<D>(self: &Rc<Self>, key: &TunnelKey, dial: &impl Fn() -> D) -> Rc<Dial>
    where
        D: Future<Output = Result<Secured, Failure>> + 'static,
    {
        let mut keys = self.keys.borrow_mut();
        let entry = keys.entry(key.clone()).or_default();
        let most = self.settings.client_streams as usize;
        if let Some(waiting) = entry.dials.iter().find(|dial| dial.waiting.get() < most) {
            waiting.waiting.set(waiting.waiting.get() + 1);
            return Rc::clone(waiting);
        }
        let started = Rc::new(Dial::default());
        started.waiting.set(1);
        entry.dials.push(Rc::clone(&started));
        let (pool, key, dial, mine) = (Rc::clone(self), key.clone(), dial(), Rc::clone(&started));
        self.tasks.spawn(async move {
            let guard = DialGuard { pool: &pool, key: &key, dial: &mine };
            match dial.await.and_then(|secured| pool.begin(secured)) {
                Ok((tunnel, driver)) => {
                    guard.finish(Ok(tunnel));
                    // Runs after those who wait: the first CONNECT leaves with its first words.
                    pool.tasks.spawn(driver);
                }
                Err(failure) => guard.finish(Err(failure)),
            }
        });
        started
    }

    /// A tunnel that has said nothing, and what is to be run for it to live.
    fn begin(
        &self,
        secured: Secured,
    ) -> Result<(Rc<Tunnel>, impl Future<Output = ()> + use<>), Failure> {
        let started = client::start(secured, &self.settings, self.unused_release);
        started.map_err(|error| Failure::new(Reason::TunnelTls, error))
    }
}

impl Dial {
    async fn finished(&self) -> Result<Rc<Tunnel>, Failure> {
        loop {
            let notified = self.done.notified();
            if let Some(result) = &*self.result.borrow() {
                return result.clone();
            }
            notified.await;
        }
    }
}

/// Takes no more streams when dropped, whatever becomes of the last one.
struct LastStream(Rc<Tunnel>);

impl Drop for LastStream {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn failed(error: ConnectError) -> Failure {
    match error {
        ConnectError::NotProcessed(detail) => {
            let detail = format!("not processed by the far side: {detail}");
            Failure::new(Reason::TunnelHttp2, detail)
        }
        ConnectError::Refused(status) => {
            let detail = format!("the far side answered {}", status.as_u16());
            Failure::new(Reason::ConnectRefused, detail)
        }
        ConnectError::Application(detail) => Failure::new(Reason::ApplicationReset, detail),
        ConnectError::Broken(StreamError::Lost(detail)) => Failure::new(Reason::TunnelLost, detail),
        ConnectError::Broken(error @ StreamError::Revoked) => {
            Failure::new(Reason::PeerRevoked, error)
        }
        ConnectError::Broken(error) => Failure::new(Reason::TunnelHttp2, error),
        ConnectError::Timeout => Failure::from(Reason::ConnectTimeout),
    }
}

/// Wakes the waiters whatever becomes of the dial.
struct DialGuard<'a> {
    pool: &'a Pool,
    key: &'a TunnelKey,
    dial: &'a Rc<Dial>,
}

impl DialGuard<'_> {
    fn finish(self, result: Result<Rc<Tunnel>, Failure>) {
        *self.dial.result.borrow_mut() = Some(result);
    }
}

impl Drop for DialGuard<'_> {
    fn drop(&mut self) {
        let mut result = self.dial.result.borrow_mut();
        let result = result.get_or_insert_with(|| Err(Failure::from(Reason::TunnelLost)));
        let mut keys = self.pool.keys.borrow_mut();
        if let Some(entry) = keys.get_mut(self.key) {
            entry.dials.retain(|other| !Rc::ptr_eq(other, self.dial));
            if let Ok(tunnel) = result {
                entry.tunnels.push(Rc::clone(tunnel));
            }
            if entry.tunnels.is_empty() && entry.dials.is_empty() {
                keys.remove(self.key);
            }
        } else if let Ok(tunnel) = result {
            // The pod left while we dialled.
            tunnel.close();
        }
        self.dial.done.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
