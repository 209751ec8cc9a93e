//! Bytes to typed values and back. No tokio, no logging, nothing of ours.
//!
//! The two gRPC protocols also have their client and server here, as the protobuf compiler makes
//! them; connections are made elsewhere.
//!
//! Every parser here takes input from strangers: it returns a small error, never panics, and does
//! work proportional to what it was given.

pub mod authority;
pub mod baggage;
pub mod ca;
pub mod forwarded;
pub mod proxy_header;
pub mod spiffe;
pub mod traceparent;
pub mod xds;
pub mod zds;
