//! Who is connected, and what each of them has acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::session::{NodeInfo, Session, Standing};

/// All streams that are open.
#[derive(Clone, Debug, Default)]
pub(super) struct Proxies {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    next: u64,
    open: BTreeMap<u64, Proxy>,
}

/// One stream.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    /// Whose token it showed; `None` for plain text, where none is asked for.
    pub(super) token_of: Option<String>,
    #[serde(flatten)]
    pub(super) node: Option<NodeInfo>,
    pub(super) resources: Vec<Standing>,
}

/// A place in the list, for as long as a stream is open.
#[derive(Debug)]
pub(super) struct Seat {
    id: u64,
    proxies: Proxies,
}

impl Proxies {
    /// Enters a stream.
    pub(super) fn enter(&self, address: SocketAddr, token_of: Option<String>) -> Seat {
        let mut shared = self.lock();
        shared.next += 1;
        let id = shared.next;
        let proxy = Proxy { address, token_of, node: None, resources: Vec::new() };
        shared.open.insert(id, proxy);
        Seat { id, proxies: self.clone() }
    }

    /// All of them, the oldest first.
    pub(super) fn list(&self) -> Vec<Proxy> {
        self.lock().open.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Notes where the stream stands.
    pub(super) fn note(&self, session: &Session) {
        if let Some(proxy) = self.proxies.lock().open.get_mut(&self.id) {
            proxy.node = session.node().cloned();
            proxy.resources = session.standing();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.proxies.lock().open.remove(&self.id);
    }
}
