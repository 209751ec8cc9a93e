//! The only place where private keys exist.
//!
//! Everyone else gets finished TLS configurations through [`Credentials`].

mod channel;
pub mod devca;
mod files;
mod issuer;
mod istioca;
mod keeper;
mod keys;
mod material;
mod revocation;
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
pub use revocation::{
    ListsError, Peers, RevocationFile, RevocationStatus, Revocations, revocations,
};
pub use store::{
    CertificateInfo, CertificateState, ClientTls, Credentials, CredentialsError, ServerTls,
};
pub use tls::{
    Revocation, explain, is_about_identity, is_about_revocation, negotiated_h2, peer_refusal,
    tls_error, unsent_server_name,
};
pub use verify::{
    CHAIN_BYTES_MAX, CHAIN_CERTIFICATES_MAX, NAMES_MAX, PeerError, PeerRefusal,
    SPIFFE_ID_BYTES_MAX, verified_peer,
};
