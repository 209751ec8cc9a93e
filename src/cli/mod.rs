//! The verbs other than proxy.

pub mod lab;
