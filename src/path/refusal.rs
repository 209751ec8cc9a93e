//! Decisions in the words of the report: which reason, which status, which detail.

use http::StatusCode;

use crate::creds::CredentialsError;
use crate::decide::{Denial, NotAdmitted, Refusal};
use crate::report::{Failure, Reason};

/// A denial as text: names the policy (spec policy 3).
pub(super) fn denied(denial: &Denial) -> String {
    match denial {
        Denial::WorkloadUnknown => "the workload is not known any more".to_owned(),
        Denial::Denied(key) => format!("explicitly denied by: {key}"),
        Denial::NoneAllowed => "allow policies exist, but none allowed".to_owned(),
        Denial::PolicyUnknown(key) => format!("policy {key} has not arrived"),
    }
}

/// A denial of a new connection.
pub(super) fn from_denial(denial: &Denial) -> Failure {
    let reason = match denial {
        Denial::WorkloadUnknown => Reason::WorkloadUnknown,
        Denial::Denied(_) => Reason::PolicyDenied,
        Denial::NoneAllowed => Reason::PolicyNoneAllowed,
        Denial::PolicyUnknown(_) => Reason::PolicyUnknown,
    };
    Failure::new(reason, denied(denial))
}

/// A captured connection that goes nowhere.
pub(super) fn from_route(refusal: Refusal) -> Failure {
    Failure::from(match refusal {
        Refusal::SelfCall => Reason::SelfCall,
        Refusal::NoHealthyUpstream => Reason::NoHealthyUpstream,
        Refusal::WaypointUnknown => Reason::WaypointUnknown,
        Refusal::GatewayUnknown => Reason::GatewayUnknown,
        Refusal::OtherNetworkWithoutService => Reason::OtherNetwork,
        Refusal::NoAddress => Reason::NoAddress,
    })
}

/// A CONNECT target that is not ours, and its status (spec hbone 3.5).
pub(super) fn from_admission(refusal: NotAdmitted) -> (StatusCode, Failure) {
    let (status, reason) = match refusal {
        NotAdmitted::AddressMismatch => (StatusCode::BAD_REQUEST, Reason::AddressMismatch),
        NotAdmitted::HostnameUnknown => (StatusCode::SERVICE_UNAVAILABLE, Reason::HostnameUnknown),
        NotAdmitted::NotAnEndpoint => (StatusCode::SERVICE_UNAVAILABLE, Reason::NotAnEndpoint),
        NotAdmitted::PortUnknown | NotAdmitted::NoVirtualAddress => {
            (StatusCode::SERVICE_UNAVAILABLE, Reason::PortUnknown)
        }
        NotAdmitted::OwnPort => (StatusCode::SERVICE_UNAVAILABLE, Reason::SelfCall),
    };
    (status, Failure::from(reason))
}

/// No certificate to show.
pub(super) fn from_credentials(error: &CredentialsError) -> Failure {
    let detail = match error {
        CredentialsError::Unavailable(why) => why.to_string(),
        CredentialsError::Expired => "the certificate has expired and was not renewed".to_owned(),
        CredentialsError::Stopped => "the proxy is stopping".to_owned(),
    };
    Failure::new(Reason::NoCertificate, detail)
}
