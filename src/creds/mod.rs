//! The only place where private keys exist.
//!
//! Everyone else gets finished TLS configurations through [`Credentials`].

mod channel;
pub mod devca;
mod issuer;
mod istioca;
mod keeper;
mod keys;
mod material;
mod rota;
mod store;
#[cfg(test)]
mod testing;
mod tls;
mod verify;

pub use channel::{Channel, ChannelError, Connect, Connector, explain_status};
pub use issuer::{IssueError, IssueErrorKind, IssueRequest, Issued, Issuer};
pub use istioca::IstioCa;
pub use keeper::{Keeper, Settings};
pub use store::{CertificateInfo, CertificateState, Credentials, CredentialsError};
pub use tls::{
    explain, is_about_identity, negotiated_h2, peer_refusal, tls_error, unsent_server_name,
};
pub use verify::{
    CHAIN_BYTES_MAX, CHAIN_CERTIFICATES_MAX, NAMES_MAX, PeerError, PeerRefusal,
    SPIFFE_ID_BYTES_MAX, verified_peer,
};
