//! A mesh laboratory on one machine: nodes, pods, the wire between them, real proxies.
//!
//! `adit demo` and the integration tests stand on it. It uses no external tool: links and routes
//! are made over rtnetlink, redirection rules over nfnetlink.

mod error;
mod fault;
mod link;
mod mesh;
mod nft;
mod redirect;
pub mod userns;

pub use error::LabError;
pub use mesh::{Lab, Node, Pod, PodPlan};
pub use redirect::{HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT, PROXY_MARK, Redirection};
