//! Connections as they live: counted when they open, logged once when they end.

use super::{Connection, Direction, Early, Failure};

/// The handle through which rooms report. Cloning one is cheap; it is shared by all threads.
#[derive(Clone, Debug)]
pub struct Report {}

/// One open connection. Finished exactly once; dropped unfinished it is logged as cut by the drain.
#[derive(Debug)]
pub struct Live {}

/// One accepted socket on a proxy port, for the `istio_tcp_sockets_open` gauge.
#[derive(Debug)]
pub struct SocketGuard {}

impl Report {
    /// Records the opening of a connection.
    pub fn opened(&self, pod_uid: &str, connection: Connection) -> Live {
        let _ = (pod_uid, connection);
        Live {}
    }

    /// Records a connection that was refused before it could be described.
    pub fn refused(&self, early: Early, failure: &Failure) {
        let _ = (early, failure);
    }

    /// Counts an accepted socket for as long as the guard lives.
    pub fn socket(&self, direction: Direction) -> SocketGuard {
        let _ = direction;
        SocketGuard {}
    }
}

impl Live {
    /// Bytes that went from the initiator towards the target.
    pub fn request_bytes(&self, count: u64) {
        let _ = count;
    }

    /// Bytes that went back.
    pub fn response_bytes(&self, count: u64) {
        let _ = count;
    }

    /// Records the end.
    pub fn finish(self, result: Result<(), Failure>) {
        let _ = result;
    }
}
