//! A throw-away authority, and one certificate of it for everybody.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde::{Deserialize, Serialize};

/// The name in everybody's certificate.
const NAME: &str = "relay";

/// One root and one certificate, for everybody.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Material {
    root: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Material {
    /// Makes new ones.
    pub(crate) fn generate() -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate()?;
        let root = params.self_signed(&root_key)?;
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new([NAME.to_owned()])?;
        let leaf = leaf.signed_by(&key, &Issuer::new(params, root_key))?;
        Ok(Self {
            root: root.der().to_vec(),
            certificate: leaf.der().to_vec(),
            key: key.serialize_der(),
        })
    }

    /// What its certificates are checked against.
    pub(crate) fn roots(&self) -> Result<RootCertStore, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone().into())?;
        Ok(roots)
    }

    /// What everybody shows.
    pub(crate) fn chain(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivatePkcs8KeyDer::from(self.key.clone());
        (vec![self.certificate.clone().into()], key.into())
    }
}

/// Whom a client expects.
pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("it is a DNS name")
}
