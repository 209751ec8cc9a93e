//! What the control plane says, as deltas for the publisher. Never sees a connection.

pub mod file;
