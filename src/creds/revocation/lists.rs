//! Revocation lists as they come in a file (spec identity 9).

use std::fmt;

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use webpki::{CertRevocationList, OwnedCertRevocationList};

/// Lists in one file.
const LISTS_MAX: usize = 1_024;
/// What a PEM block begins with; anything else is one list in DER.
const PEM_MARK: &[u8] = b"-----BEGIN";

/// Everything that a file says.
#[derive(Debug, Default)]
pub(super) struct Lists(pub(super) Vec<CertRevocationList<'static>>);

/// Why a file of lists is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListsError {
    /// It cannot be read.
    File(String),
    /// A list in it, the first being 1.
    List(usize, String),
    /// More of them than anybody needs.
    TooMany,
}

impl Lists {
    /// PEM with any number of lists, other blocks skipped, or one list in DER. Nothing revokes
    /// nobody. One bad list makes the file a bad one.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ListsError> {
        let mut lists = Vec::new();
        let mut add = |der: &[u8]| {
            let number = lists.len() + 1;
            if number > LISTS_MAX {
                return Err(ListsError::TooMany);
            }
            let list = OwnedCertRevocationList::from_der(der);
            let list = list.map_err(|error| ListsError::List(number, error.to_string()))?;
            lists.push(CertRevocationList::from(list));
            Ok(number)
        };
        if bytes.windows(PEM_MARK.len()).any(|window| window == PEM_MARK) {
            let mut number = 0;
            for block in CertificateRevocationListDer::pem_slice_iter(bytes) {
                let block =
                    block.map_err(|error| ListsError::List(number + 1, error.to_string()))?;
                number = add(&block)?;
            }
        } else if !bytes.trim_ascii().is_empty() {
            add(bytes)?;
        }
        Ok(Self(lists))
    }
}

impl fmt::Display for ListsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(reason) => f.write_str(reason),
            Self::List(number, reason) => write!(f, "list {number} cannot be read: {reason}"),
            Self::TooMany => write!(f, "more than {LISTS_MAX} lists"),
        }
    }
}

impl std::error::Error for ListsError {}
