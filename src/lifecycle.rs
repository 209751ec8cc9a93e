//! When to stop (spec operations 9).

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// What made the proxy stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// SIGTERM: the kubelet.
    Terminated,
    /// SIGINT: a person.
    Interrupted,
    /// POST to `/quitquitquit`.
    Asked,
}

/// How the proxy left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything ended within the time there was.
    Drained,
    /// A second SIGINT: somebody does not want to wait.
    Hurried,
}

/// What can make the proxy stop. Signals are caught from the moment this exists.
#[derive(Debug)]
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
    asked: Arc<Notify>,
}

impl Stop {
    /// Catches SIGTERM and SIGINT. `asked` is notified by the admin server.
    pub fn new(asked: Arc<Notify>) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            asked,
        })
    }

    /// Waits until something makes the proxy stop.
    pub async fn asked(&mut self) -> Cause {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Cause::Terminated,
            _ = self.interrupt.recv() => Cause::Interrupted,
            () = self.asked.notified() => Cause::Asked,
        }
    }

    /// Runs the drain; a second SIGINT ends it at once.
    pub async fn while_draining(&mut self, drain: impl Future<Output = ()>) -> Exit {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => Exit::Hurried,
            () = drain => Exit::Drained,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminated => "SIGTERM",
            Self::Interrupted => "SIGINT",
            Self::Asked => "/quitquitquit",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_by_the_admin_server_stops() {
        let asked = Arc::new(Notify::new());
        let mut stop = Stop::new(Arc::clone(&asked)).unwrap();
        asked.notify_one();
        assert_eq!(stop.asked().await, Cause::Asked);
        assert_eq!(stop.while_draining(std::future::ready(())).await, Exit::Drained);
    }
}
