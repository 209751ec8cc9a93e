//! Private keys: made here, used here, never shown.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rcgen::{CertificateParams, DistinguishedName, SanType};
use rustls::sign::{Signer, SigningKey, public_key_to_spki};
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::{CertificateSigningRequestDer, SubjectPublicKeyInfoDer, alg_id};
use zeroize::Zeroizing;

use crate::wire::spiffe::Identity;

/// An ECDSA P-256 private key.
///
/// It exists once: no `Clone`, nothing of it in `Debug`. Its scalar lives in memory of AWS-LC,
/// which overwrites what it frees, so dropping the key erases it; no encoded form of a workload's
/// key is ever made.
pub(super) struct PrivateKey {
    pair: EcdsaKeyPair,
}

/// The key as rustls uses it: a share of the one [`PrivateKey`].
pub(super) struct HandshakeKey(Arc<PrivateKey>);

/// Why there is no key, or no request for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyError {
    /// The crypto library could not make one.
    Generate,
    /// The stored key cannot be read, or is of another kind.
    Unreadable,
    /// The identity cannot be written into a certificate: it is not ASCII.
    Identity,
    /// The crypto library could not sign the request.
    Sign,
}

impl PrivateKey {
    /// A fresh key.
    pub(super) fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| KeyError::Generate)?;
        Ok(Self { pair })
    }

    /// A key that was written with [`PrivateKey::to_pkcs8`].
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der)
            .map_err(|_| KeyError::Unreadable)?;
        Ok(Self { pair })
    }

    /// The encoded form. Only the development root is ever written down.
    pub(super) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let document = self.pair.to_pkcs8v1().map_err(|_| KeyError::Generate)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// A request for a certificate of `identity`, in the exact form of spec identity 2.2: empty
    /// subject and one extension, a critical URI SAN.
    pub(super) fn request(
        &self,
        identity: &Identity,
    ) -> Result<CertificateSigningRequestDer<'static>, KeyError> {
        let uri = identity.to_string().try_into().map_err(|_| KeyError::Identity)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(uri)];
        let request = params.serialize_request(self).map_err(|_| KeyError::Sign)?;
        Ok(request.der().clone())
    }

    fn sign_bytes(&self, message: &[u8]) -> Option<Vec<u8>> {
        let signature = self.pair.sign(&SystemRandom::new(), message).ok()?;
        Some(signature.as_ref().to_vec())
    }
}

impl HandshakeKey {
    /// A share of `key` for a TLS configuration.
    pub(super) fn new(key: Arc<PrivateKey>) -> Self {
        Self(key)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey")
    }
}

impl fmt::Debug for HandshakeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandshakeKey")
    }
}

impl rcgen::PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.sign_bytes(message).ok_or(rcgen::Error::RemoteKeyError)
    }
}

impl SigningKey for HandshakeKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| Box::new(Self(Arc::clone(&self.0))) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(public_key_to_spki(&alg_id::ECDSA_P256, self.0.pair.public_key()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for HandshakeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.0
            .sign_bytes(message)
            .ok_or_else(|| rustls::Error::General("the handshake could not be signed".into()))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Generate => "no key could be made",
            Self::Unreadable => "the key is not a P-256 key in PKCS#8 form",
            Self::Identity => "the identity cannot be written into a certificate",
            Self::Sign => "the certificate request could not be signed",
        })
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::extensions::{GeneralName, ParsedExtension};
    use x509_parser::prelude::FromDer;

    use super::*;

    #[test]
    fn nothing_of_a_key_is_shown() {
        let key = PrivateKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey");
        assert_eq!(format!("{:?}", HandshakeKey::new(Arc::new(key))), "HandshakeKey");
    }

    #[test]
    fn a_stored_key_comes_back_as_the_same_key() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pkcs8(&key.to_pkcs8().unwrap()).unwrap();
        assert_eq!(again.pair.public_key().as_ref(), key.pair.public_key().as_ref());
        assert_eq!(PrivateKey::from_pkcs8(b"garbage").err(), Some(KeyError::Unreadable));
    }

    #[test]
    fn the_request_has_an_empty_subject_and_one_critical_uri() {
        let key = PrivateKey::generate().unwrap();
        let der = key.request(&Identity::new("td", "ns1", "sa1")).unwrap();
        let (_, csr) = X509CertificationRequest::from_der(&der).unwrap();
        csr.verify_signature().unwrap();
        assert_eq!(csr.certification_request_info.subject.iter().count(), 0);
        let extensions: Vec<_> = csr.requested_extensions().unwrap().collect();
        let [ParsedExtension::SubjectAlternativeName(san)] = extensions.as_slice() else {
            panic!("{extensions:?}");
        };
        assert_eq!(san.general_names, [GeneralName::URI("spiffe://td/ns/ns1/sa/sa1")]);
        // SubjectAltName, critical: OID 2.5.29.17 followed by BOOLEAN TRUE.
        let critical_san = [0x06, 0x03, 0x55, 0x1d, 0x11, 0x01, 0x01, 0xff];
        assert!(der.windows(critical_san.len()).any(|window| window == critical_san));
    }

    #[test]
    fn an_identity_that_is_not_ascii_is_refused() {
        let key = PrivateKey::generate().unwrap();
        let identity = Identity::new("td", "ns", "sä");
        assert_eq!(key.request(&identity).err(), Some(KeyError::Identity));
    }
}
