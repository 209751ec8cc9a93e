//! What we say: access log, metrics, dumps. Receives values, decides nothing.

mod accesslog;
pub mod admin;
pub mod dump;
#[cfg(test)]
mod fixtures;
pub mod health;
mod labels;
mod live;
pub mod log;
pub mod metrics;
mod outcome;
mod reason;
pub mod time;
pub mod version;

pub use live::{Live, Meter, PodConnections, Report, SocketGuard};
pub use outcome::{Connection, Direction, Early, Side, Transport};
pub use reason::{Failure, Reason, ResponseFlag};
