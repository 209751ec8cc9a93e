//! The data path, rooms in visiting order.

mod accept;
mod placement;
mod worker;

mod double;
mod outbound;

mod inbound;

mod passthrough;

mod hello;
mod tunnel;

mod dial;
mod pipe;
mod pipes;
mod same_node;
mod session;

mod budget;
mod buffers;
mod connections;
mod headers;
mod host;
mod lookup;
mod pod;
mod refusal;
mod room;
mod stock;

#[cfg(test)]
mod journeys;

pub use host::{Handles, PodHost, PodSpec, StartError};
