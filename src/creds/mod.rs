//! The only place where private keys exist.
//!
//! Everyone else gets finished TLS configurations through [`Credentials`].

pub mod devca;
mod keys;
mod rota;
mod store;
mod verify;

pub use store::{CertificateInfo, CertificateState, Credentials, CredentialsError, Keeper};
pub use verify::{PeerError, verified_peer};
