//! The data path, rooms in visiting order.

mod host;

pub use host::{PodHost, PodSpec, StartError};
