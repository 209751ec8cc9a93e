//! The certificate service (spec identity 2 and 3), with the development root behind it.

use std::sync::Arc;
use std::time::Duration;

use prost_types::value::Kind;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::access::caller;
use super::catalogue::Catalogue;
use crate::creds::devca::DevCa;
use crate::creds::{IssueRequest, Issuer};
use crate::report::dump::pem;
use crate::wire::ca::IMPERSONATED_IDENTITY;
use crate::wire::ca::auth::istio_certificate_service_server::IstioCertificateService;
use crate::wire::ca::auth::{IstioCertificateRequest, IstioCertificateResponse};
use crate::wire::spiffe::Identity;

/// If none is asked for.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// More is refused.
const LIFE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);

/// Issues certificates to the proxies of nodes.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) ca: Arc<DevCa>,
    pub(super) catalogue: watch::Receiver<Arc<Catalogue>>,
}

#[tonic::async_trait]
impl IstioCertificateService for Authority {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let Some(node) = caller(&request, self.ca.tokens())?.node else {
            return Err(Status::unauthenticated("a certificate is issued for a token only"));
        };
        let request = request.into_inner();
        let identity = self.identity(&request, &node)?;
        let ttl = life(request.validity_duration)?;
        let csr = CertificateSigningRequestDer::from_pem_slice(request.csr.as_bytes());
        let csr = csr.map_err(|_| Status::invalid_argument("the request is not PEM"))?;
        let issued = self.ca.issue(IssueRequest { identity, csr, ttl }).await;
        let issued = issued.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut cert_chain: Vec<String> = issued.chain.iter().map(|der| pem(der)).collect();
        cert_chain.push(issued.roots.iter().map(|der| pem(der)).collect());
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

impl Authority {
    /// Whose certificate it is to be: that of some pod on the caller's node.
    fn identity(&self, request: &IstioCertificateRequest, node: &str) -> Result<Identity, Status> {
        let fields = request.metadata.as_ref().map(|metadata| &metadata.fields);
        let value = fields.and_then(|fields| fields.get(IMPERSONATED_IDENTITY)?.kind.as_ref());
        let Some(Kind::StringValue(text)) = value else {
            let text = format!("{IMPERSONATED_IDENTITY} names no identity: a node has none itself");
            return Err(Status::unauthenticated(text));
        };
        let identity: Identity = text.parse().map_err(|error| {
            Status::unauthenticated(format!("{IMPERSONATED_IDENTITY}: {error}"))
        })?;
        if !self.catalogue.borrow().hosts(node, &identity) {
            let text = format!("no pod with the identity {identity} is on node {node}");
            tracing::warn!(node, %identity, "a certificate was refused: no such pod on the node");
            return Err(Status::unauthenticated(text));
        }
        Ok(identity)
    }
}

/// A lifetime asked for in seconds.
fn life(seconds: i64) -> Result<Duration, Status> {
    let life = u64::try_from(seconds).map(Duration::from_secs).unwrap_or_default();
    if life > LIFE_MAX {
        let days = LIFE_MAX.as_secs() / 86_400;
        return Err(Status::invalid_argument(format!("longer than {days} days")));
    }
    Ok(if life.is_zero() { LIFE } else { life })
}
