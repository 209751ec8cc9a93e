//! Certificates from istiod, or whoever speaks its protocol (spec identity 2).

mod answer;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use prost_types::{Struct, Value, value::Kind};
use tokio::sync::Mutex;
use tonic::{Code, Status};

use super::channel::{Channel, ChannelError, Connect, explain_status};
use super::issuer::{IssueError, IssueErrorKind, IssueRequest, Issued, Issuer};
use crate::report::dump::pem_text;
use crate::sys::clock::Clock;
use crate::wire::ca::IMPERSONATED_IDENTITY;
use crate::wire::ca::auth::IstioCertificateRequest;
use crate::wire::ca::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use crate::wire::spiffe::Identity;

/// How long one connection is used for new requests: what comes in a burst shares one, and a
/// later renewal finds neither a dead connection nor root certificates of yesterday.
const REUSE_MAX: Duration = Duration::from_secs(10);
/// The largest answer. A chain has a few KiB, and roots of many clusters some hundred.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A certificate authority that is asked over the network.
#[derive(Debug)]
pub struct IstioCa {
    connector: Arc<dyn Connect>,
    /// Whether we ask for others, or for the pod whose token we have.
    impersonate: bool,
    clock: Clock,
    connection: Mutex<Connection>,
}

/// The last connection, or why there is none, and since when.
#[derive(Debug, Default)]
struct Connection {
    made: Option<(Instant, Channel)>,
    failed: Option<(Instant, ChannelError)>,
}

impl IstioCa {
    /// The authority that `connector` connects to. A proxy of many pods impersonates them; that of
    /// one pod asks with the pod's own token.
    pub fn new(connector: Arc<dyn Connect>, impersonate: bool, clock: Clock) -> Self {
        Self { connector, impersonate, clock, connection: Mutex::default() }
    }

    async fn ask(&self, request: IssueRequest) -> Result<Issued, IssueError> {
        let channel = self.channel().await.map_err(unreachable)?;
        let mut client =
            IstioCertificateServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let answer = client.create_certificate(self.message(&request)).await;
        match answer {
            Ok(answer) => answer::read(&answer.into_inner().cert_chain),
            Err(status) => {
                if status.source().is_some() {
                    // The connection's fault, not the answer: nobody else is to suffer from it.
                    self.connection.lock().await.made = None;
                }
                Err(refused(&status))
            }
        }
    }

    fn message(&self, request: &IssueRequest) -> IstioCertificateRequest {
        let seconds = i64::try_from(request.ttl.as_secs()).unwrap_or(i64::MAX);
        IstioCertificateRequest {
            csr: pem_text("CERTIFICATE REQUEST", &request.csr),
            validity_duration: seconds,
            metadata: self.impersonate.then(|| impersonated(&request.identity)),
        }
    }

    /// The current connection, or a new one. Who waits while somebody else fails to connect gets
    /// that failure, so that a dead server costs all of them one wait.
    async fn channel(&self) -> Result<Channel, ChannelError> {
        let asked = self.clock.monotonic();
        let mut connection = self.connection.lock().await;
        if let Some((at, error)) = &connection.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        let now = self.clock.monotonic();
        if let Some((at, channel)) = &connection.made
            && now.saturating_duration_since(*at) < REUSE_MAX
            && !channel.is_closed()
        {
            return Ok(channel.clone());
        }
        connection.made = None;
        let outcome = self.connector.connect().await;
        let now = self.clock.monotonic();
        match &outcome {
            Ok(channel) => connection.made = Some((now, channel.clone())),
            Err(error) => connection.failed = Some((now, error.clone())),
        }
        outcome
    }
}

impl Issuer for IstioCa {
    fn issue(&self, request: IssueRequest) -> BoxFuture<'_, Result<Issued, IssueError>> {
        Box::pin(self.ask(request))
    }
}

fn impersonated(identity: &Identity) -> Struct {
    let value = Value { kind: Some(Kind::StringValue(identity.to_string())) };
    Struct { fields: [(IMPERSONATED_IDENTITY.to_owned(), value)].into() }
}

fn unreachable(error: ChannelError) -> IssueError {
    IssueError { kind: IssueErrorKind::Unreachable, reason: error.to_string() }
}

/// What a status other than OK says of the next try (spec identity 3).
fn refused(status: &Status) -> IssueError {
    let kind = match status.code() {
        _ if status.source().is_some() => IssueErrorKind::Unreachable,
        // Also what istiod says of a pod that it does not know yet: that passes.
        Code::Unauthenticated | Code::PermissionDenied => IssueErrorKind::Denied,
        Code::InvalidArgument | Code::Unimplemented => IssueErrorKind::Refused,
        // What our own side says of an answer that is too large.
        Code::OutOfRange => IssueErrorKind::Unfit,
        _ => IssueErrorKind::Unreachable,
    };
    let reason = explain_status(status);
    let reason = match kind {
        IssueErrorKind::Denied | IssueErrorKind::Refused => {
            format!("the certificate authority refused: {reason}")
        }
        _ => reason,
    };
    IssueError { kind, reason }
}

#[cfg(test)]
mod tests;
