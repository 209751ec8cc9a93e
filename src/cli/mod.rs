//! The verbs other than proxy.
