//! Every reason for which a connection is refused or ends badly: one word that the log, the metric
//! and the tests share.

use std::fmt;

/// The `response_flags` label (spec operations 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResponseFlag {
    /// Nothing went wrong.
    None,
    /// A policy refused it.
    Deny,
    /// The far side could not be reached, or broke.
    Connect,
    /// TLS failed.
    TlsFailure,
    /// HTTP/2 failed before the CONNECT was answered.
    H2HandshakeFailure,
    /// Opening the tunnel's connection timed out: suspect a NetworkPolicy.
    NetworkPolicy,
    /// There is no certificate to show.
    IdentityError,
    /// The peer's certificate is revoked.
    CertRevoked,
}

impl ResponseFlag {
    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::H2HandshakeFailure => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::IdentityError => "IDENTITY_ERROR",
            Self::CertRevoked => "CERT_REVOKED",
        }
    }
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $flag:ident;)+) => {
        /// Why a connection was refused or ended badly.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The word that log lines and the `reason` label carry.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// What it means for the `response_flags` label.
            pub fn flag(self) -> ResponseFlag {
                match self {
                    $(Self::$variant => ResponseFlag::$flag,)+
                }
            }
        }
    };
}

reasons! {
    /// Addressed to one of the proxy's own ports.
    SelfCall = "self_call", None;
    /// The control plane has not said who the destination is.
    LookupUnanswered = "lookup_unanswered", None;
    /// The pod's own record has not arrived.
    WorkloadUnknown = "workload_unknown", None;
    /// The service has no endpoint that may be picked.
    NoHealthyUpstream = "no_healthy_upstream", None;
    /// The waypoint that must be used cannot be resolved.
    WaypointUnknown = "waypoint_unknown", None;
    /// The gateway of the other network cannot be resolved.
    GatewayUnknown = "gateway_unknown", None;
    /// A workload of another network was addressed without a service.
    OtherNetwork = "other_network", None;
    /// The destination is known by host name only.
    NoAddress = "no_address", None;
    /// The peer's TLS handshake failed, for another reason than who it is.
    TlsHandshake = "tls_handshake", None;
    /// The peer did not negotiate HTTP/2.
    NoAlpn = "no_alpn", None;
    /// The peer showed no certificate, or one that is not valid, or not with exactly one workload
    /// identity that we trust.
    PeerIdentity = "peer_identity", None;
    /// The peer's certificate is revoked, be it when it came or later.
    PeerRevoked = "peer_revoked", CertRevoked;
    /// No revocation list in force says whether the peer's certificate is revoked, and such peers
    /// are not let in.
    RevocationUnknown = "revocation_unknown", TlsFailure;
    /// No whole CONNECT arrived in time.
    FirstConnectTimeout = "first_connect_timeout", None;
    /// The peer broke the rules of HTTP/2.
    Http2 = "http2", None;
    /// The pod or the node has as many connections as it may have.
    TooManyConnections = "too_many_connections", None;
    /// The pod or the node has as many handshakes in flight as it may have.
    TooManyHandshakes = "too_many_handshakes", None;
    /// The headers of a request are more than we take.
    HeadersTooLarge = "headers_too_large", None;
    /// The request was not a plain CONNECT.
    NotConnect = "not_connect", None;
    /// The CONNECT target could not be read.
    BadAuthority = "bad_authority", None;
    /// The CONNECT target is not this pod.
    AddressMismatch = "address_mismatch", None;
    /// The CONNECT target is a host name nobody knows.
    HostnameUnknown = "hostname_unknown", None;
    /// The CONNECT target is a service this pod is not an endpoint of.
    NotAnEndpoint = "not_an_endpoint", None;
    /// The CONNECT target is a service port that leads nowhere.
    PortUnknown = "port_unknown", None;
    /// A DENY policy matched.
    PolicyDenied = "policy_denied", Deny;
    /// There are ALLOW policies and none matched.
    PolicyNoneAllowed = "policy_none_allowed", Deny;
    /// A policy that the workload names has not arrived.
    PolicyUnknown = "policy_unknown", Deny;
    /// The configuration changed and the connection is no longer allowed.
    PolicyChanged = "policy_changed", Deny;
    /// There is no certificate to show.
    NoCertificate = "no_certificate", IdentityError;
    /// The TCP connection could not be opened.
    Dial = "dial", Connect;
    /// The TCP connection took too long to open.
    DialTimeout = "dial_timeout", Connect;
    /// The tunnel's TCP connection took too long to open.
    TunnelDialTimeout = "tunnel_dial_timeout", NetworkPolicy;
    /// The tunnel's TLS handshake failed.
    TunnelTls = "tunnel_tls", TlsFailure;
    /// The tunnel's HTTP/2 failed before the CONNECT was answered.
    TunnelHttp2 = "tunnel_http2", H2HandshakeFailure;
    /// The far side answered the CONNECT with something else than 200.
    ConnectRefused = "connect_refused", Connect;
    /// The far side did not answer the CONNECT in time.
    ConnectTimeout = "connect_timeout", Connect;
    /// The original source address could not be kept.
    OriginalSource = "original_source", Connect;
    /// The application reset its connection.
    ApplicationReset = "application_reset", Connect;
    /// The far side reset the stream.
    PeerReset = "peer_reset", Connect;
    /// The tunnel under the stream was lost.
    TunnelLost = "tunnel_lost", Connect;
    /// The pod was removed.
    PodRemoved = "pod_removed", Connect;
    /// The proxy is stopping and the time to finish is over.
    DrainDeadline = "drain_deadline", Connect;
    /// The task that served it panicked.
    Panic = "panic", Connect;
}

/// A reason and what exactly happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The reason.
    pub reason: Reason,
    /// Details for a person: the policy, the status, the operating system's error.
    pub detail: String,
}

impl Failure {
    /// A reason with details.
    pub fn new(reason: Reason, detail: impl fmt::Display) -> Self {
        Self { reason, detail: detail.to_string() }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: String::new() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.as_str())?;
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}
