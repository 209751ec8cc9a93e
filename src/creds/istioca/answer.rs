//! The answer's texts to certificates (spec identity 2.3). Whether they are of any use is judged
//! by whoever publishes them.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{PemObject, SectionKind};

use super::super::issuer::{IssueError, IssueErrorKind, Issued};

/// Trust anchors that are read: each costs work in every handshake that finds none.
const ROOTS_MAX: usize = 256;

/// The last element holds the roots; those before it the chain, leaf first.
pub(super) fn read(elements: &[String]) -> Result<Issued, IssueError> {
    let Some((roots, chain)) = elements.split_last() else {
        return Err(unfit("the certificate authority sent no certificate".to_owned()));
    };
    if chain.is_empty() {
        let reason = "the certificate authority sent a certificate without a root certificate";
        return Err(unfit(reason.to_owned()));
    }
    let mut certificates = Vec::new();
    for (at, element) in chain.iter().enumerate() {
        // Some authorities put leaf and intermediates into one element.
        certificates.extend(element_of(at, element)?);
    }
    let roots = element_of(chain.len(), roots)?;
    if roots.len() > ROOTS_MAX {
        let reason = format!("the certificate authority sent more than {ROOTS_MAX} roots");
        return Err(unfit(reason));
    }
    Ok(Issued { chain: certificates, roots })
}

fn element_of(at: usize, text: &str) -> Result<Vec<CertificateDer<'static>>, IssueError> {
    let unreadable = |what: &str| {
        unfit(format!("element {} of the certificate authority's answer {what}", at + 1))
    };
    let mut certificates = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        match section {
            Ok((SectionKind::Certificate, der)) => certificates.push(der.into()),
            Ok(_) => return Err(unreadable("holds something that is no certificate")),
            Err(_) => return Err(unreadable("is not PEM")),
        }
    }
    if certificates.is_empty() {
        return Err(unreadable("holds no certificate"));
    }
    Ok(certificates)
}

fn unfit(reason: String) -> IssueError {
    IssueError { kind: IssueErrorKind::Unfit, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::dump::{pem, pem_text};

    #[test]
    fn the_last_element_is_the_roots() {
        let texts = |parts: &[&[u8]]| parts.iter().map(|der| pem(der)).collect::<String>();
        let check = |elements: &[String], chain: &[u8], roots: &[u8]| {
            let issued = read(elements).unwrap();
            let firsts =
                |ders: &[CertificateDer<'_>]| ders.iter().map(|d| d[0]).collect::<Vec<_>>();
            assert_eq!(
                (firsts(&issued.chain), firsts(&issued.roots)),
                (chain.into(), roots.into())
            );
        };
        check(&[texts(&[b"a"]), texts(&[b"r"])], b"a", b"r");
        check(&[texts(&[b"a"]), texts(&[b"i"]), texts(&[b"r", b"s"])], b"ai", b"rs");
        check(&[texts(&[b"a", b"i"]), texts(&[b"r"])], b"ai", b"r");
        check(&[format!("Subject: x\n{}", texts(&[b"a"])), texts(&[b"r"])], b"a", b"r");
    }

    #[test]
    fn what_is_not_that_is_refused_with_its_place() {
        let check = |elements: &[String], why: &str| {
            let error = read(elements).unwrap_err();
            assert_eq!(error.kind, IssueErrorKind::Unfit);
            assert!(error.reason.contains(why), "{elements:?}: {error}");
        };
        let good = || pem(b"a");
        check(&[], "no certificate");
        check(&[good()], "without a root");
        check(&[good(), String::new()], "element 2 of the certificate authority's answer holds no");
        check(&["garbage".into(), good()], "element 1");
        check(&[pem_text("PRIVATE KEY", b"k"), good()], "no certificate");
        check(&[good().replace("YQ==", "!"), good()], "is not PEM");
        check(&[good(), pem(b"r").repeat(ROOTS_MAX + 1)], "more than 256 roots");
    }
}
