//! What the control plane says, as deltas for the publisher. Never sees a connection.
//!
//! It comes from a file (`file`) or from a server (`stream`): [`stream`] drives `ads`, which
//! decides without I/O what a response means, with the values that `ingest` reads.

mod ads;
mod backoff;
mod changes;
pub mod file;
mod ingest;
mod lookups;
mod node;
mod stored;
pub mod stream;
