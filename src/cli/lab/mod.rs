//! A mesh laboratory on one machine: nodes, pods, the wire between them, real proxies.
//!
//! `adit demo` and the integration tests stand on it. It uses no external tool: links and routes
//! are made over rtnetlink, redirection rules over nfnetlink.

mod agent;
mod apps;
pub mod capture;
mod error;
mod fault;
mod link;
pub mod manifests;
mod mesh;
mod nft;
mod proxy;
mod redirect;
pub mod userns;

pub use agent::Agent;
pub use apps::{App, Service, ask, measure_upload};
pub use capture::Capture;
pub use error::LabError;
pub use mesh::{Lab, Node, Pod, PodPlan};
pub use proxy::{Proxy, ProxyPlan};
pub use redirect::{HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT, PROXY_MARK, Redirection};
