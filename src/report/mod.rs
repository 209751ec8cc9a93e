//! What we say: access log, metrics, dumps. Receives values, decides nothing.

mod accesslog;
pub mod admin;
mod baggage_labels;
pub mod health;
mod live;
pub mod log;
pub mod metrics;
mod outcome;
mod reason;

pub use live::{Live, Report, SocketGuard};
pub use outcome::{Connection, Direction, Early, Side, Transport};
pub use reason::{Failure, Reason, ResponseFlag};
