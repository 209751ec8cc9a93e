//! SPIFFE identities of workloads: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const SCHEME: &str = "spiffe://";

/// A workload identity (spec identity 1). Compared byte by byte on all three components.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    trust_domain: Arc<str>,
    namespace: Arc<str>,
    service_account: Arc<str>,
}

/// Why a text is not a workload identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpiffeError {
    /// It does not begin with `spiffe://`.
    Scheme,
    /// It does not have the five parts `<td>/ns/<ns>/sa/<sa>`.
    Shape,
    /// A component is empty.
    Empty,
}

impl Identity {
    /// An identity from its components, which the caller got from a typed record.
    pub fn new(
        trust_domain: impl Into<Arc<str>>,
        namespace: impl Into<Arc<str>>,
        service_account: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }

    /// The trust domain, for instance `cluster.local`.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes service account.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// The URI: what [`fmt::Display`] writes, for who writes it often.
    pub fn uri(&self) -> String {
        self.joined(SCHEME)
    }

    /// The form policies compare: without the scheme (spec policy 4).
    pub fn principal(&self) -> String {
        self.joined("")
    }

    /// In one allocation, for it happens for every connection.
    fn joined(&self, scheme: &str) -> String {
        self.parts(scheme).concat()
    }

    fn parts<'a>(&'a self, scheme: &'a str) -> [&'a str; 6] {
        let Self { trust_domain, namespace, service_account } = self;
        [scheme, trust_domain, "/ns/", namespace, "/sa/", service_account]
    }
}

impl FromStr for Identity {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let mut parts = rest.split('/');
        let mut next = || parts.next().ok_or(SpiffeError::Shape);
        let (trust_domain, ns, namespace, sa, service_account) =
            (next()?, next()?, next()?, next()?, next()?);
        if ns != "ns" || sa != "sa" || parts.next().is_some() {
            return Err(SpiffeError::Shape);
        }
        if trust_domain.is_empty() || namespace.is_empty() || service_account.is_empty() {
            return Err(SpiffeError::Empty);
        }
        Ok(Self::new(trust_domain, namespace, service_account))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts(SCHEME).into_iter().try_for_each(|part| f.write_str(part))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpiffeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "a SPIFFE id begins with spiffe://",
            Self::Shape => "a workload's SPIFFE id is spiffe://<trust domain>/ns/<ns>/sa/<sa>",
            Self::Empty => "a component of the SPIFFE id is empty",
        })
    }
}

impl std::error::Error for SpiffeError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(&str, &str, &str), SpiffeError>) {
        let got = text.parse::<Identity>();
        let expected = expected.map(|(td, ns, sa)| Identity::new(td, ns, sa));
        assert_eq!(got, expected, "{text}");
        if let Ok(identity) = got {
            assert_eq!((identity.to_string(), identity.uri()), (text.to_owned(), text.to_owned()));
        }
    }

    #[test]
    fn parses_exactly_the_workload_form() {
        check("spiffe://cluster.local/ns/shop/sa/web", Ok(("cluster.local", "shop", "web")));
        check("spiffe://td/ns/ns/sa/sa", Ok(("td", "ns", "sa")));
        check("SPIFFE://td/ns/a/sa/b", Err(SpiffeError::Scheme));
        check("https://td/ns/a/sa/b", Err(SpiffeError::Scheme));
        check("spiffe://td/ns/a/sa", Err(SpiffeError::Shape));
        check("spiffe://td/ns/a/sa/b/", Err(SpiffeError::Shape));
        check("spiffe://td/sa/a/ns/b", Err(SpiffeError::Shape));
        check("spiffe://td", Err(SpiffeError::Shape));
        check("spiffe:///ns/a/sa/b", Err(SpiffeError::Empty));
        check("spiffe://td/ns//sa/b", Err(SpiffeError::Empty));
        check("spiffe://td/ns/a/sa/", Err(SpiffeError::Empty));
    }
}
