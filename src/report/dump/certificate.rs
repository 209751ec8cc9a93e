//! Certificates in the config dump.

use serde::{Serialize, Serializer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::report::time;
use crate::wire::spiffe::Identity;

/// Characters in one line of PEM text (RFC 7468).
const PEM_LINE: usize = 64;

/// One identity's certificate, without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub identity: Identity,
    /// `Initializing`, `Available` or `Unavailable: <reason>`.
    pub state: String,
    /// Leaf and intermediates, DER.
    pub chain: Vec<Vec<u8>>,
    /// Trust anchors, DER.
    pub roots: Vec<Vec<u8>>,
    /// Fetches that failed since this one was published.
    pub failures: u32,
    /// Why the last of them failed.
    pub last_error: Option<String>,
}

/// All of them, sorted by identity.
pub(super) struct Certificates<'a>(pub(super) &'a [Certificate]);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateView<'a> {
    identity: String,
    state: &'a str,
    cert_chain: Vec<PartView>,
    root_certs: Vec<PartView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    renewal: Option<RenewalView<'a>>,
}

/// A renewal that does not succeed, told beside a certificate that is served.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RenewalView<'a> {
    failures: u32,
    last_error: &'a str,
}

/// One certificate of a chain. What cannot be read of it is empty.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct PartView {
    pem: String,
    serial_number: String,
    valid_from: String,
    expiration_time: String,
}

impl Serialize for Certificates<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sorted: Vec<_> = self.0.iter().collect();
        sorted.sort_by(|a, b| a.identity.cmp(&b.identity));
        serializer.collect_seq(sorted.into_iter().map(|certificate| {
            CertificateView {
                identity: certificate.identity.to_string(),
                state: &certificate.state,
                cert_chain: certificate.chain.iter().map(|der| PartView::of(der)).collect(),
                root_certs: certificate.roots.iter().map(|der| PartView::of(der)).collect(),
                renewal: certificate
                    .last_error
                    .as_deref()
                    .map(|last_error| RenewalView { failures: certificate.failures, last_error }),
            }
        }))
    }
}

impl PartView {
    fn of(der: &[u8]) -> Self {
        let pem = base64(pem(der).as_bytes());
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            return Self { pem, ..Self::default() };
        };
        let validity = certificate.validity();
        Self {
            pem,
            serial_number: certificate.tbs_certificate.serial.to_string(),
            valid_from: time::seconds(validity.not_before.timestamp()),
            expiration_time: time::seconds(validity.not_after.timestamp()),
        }
    }
}

/// A certificate as PEM text (RFC 7468).
pub fn pem(der: &[u8]) -> String {
    pem_text("CERTIFICATE", der)
}

/// Something else as PEM text, with the label that says what.
pub fn pem_text(label: &str, der: &[u8]) -> String {
    let body = base64(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(PEM_LINE));
        text.push_str(line);
        text.push('\n');
        rest = next;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// The standard alphabet, with padding (RFC 4648 section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| chunk.get(index).copied().unwrap_or(0);
        let (a, b, c) = (byte(0), byte(1), byte(2));
        let sextets = [a >> 2, (a & 3) << 4 | b >> 4, (b & 15) << 2 | c >> 6, c & 63];
        for (index, sextet) in sextets.into_iter().enumerate() {
            let significant = index <= chunk.len();
            let letter = ALPHABET[usize::from(sextet)];
            text.push(if significant { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_rfc_4648_has_it() {
        let check = |text: &str, expected: &str| assert_eq!(base64(text.as_bytes()), expected);
        check("", "");
        check("f", "Zg==");
        check("fo", "Zm8=");
        check("foo", "Zm9v");
        check("foob", "Zm9vYg==");
        check("fooba", "Zm9vYmE=");
        check("foobar", "Zm9vYmFy");
        assert_eq!(base64(&[0xff, 0xfe, 0xfb]), "//77");
    }

    #[test]
    fn pem_has_lines_of_64_characters() {
        let text = pem(&[0; 49]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1], "A".repeat(64));
        assert_eq!(lines[2], "AA==");
        assert!(text.ends_with("-----END CERTIFICATE-----\n"));
    }
}
