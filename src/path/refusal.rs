//! Decisions in the words of the report: which reason, which status, which detail.

use http::StatusCode;

use crate::creds::CredentialsError;
use crate::decide::{Denial, Facts, NotAdmitted, Refusal, allow_policies};
use crate::model::{Snapshot, Wanted};
use crate::report::{Failure, Reason};

/// ALLOW policies that a denial names; a person who needs more looks into the dump.
const NAMED_MAX: usize = 5;

/// A denial as text: names the policies that it is about (spec policy 3).
pub(super) fn denied(denial: &Denial, snapshot: &Snapshot, facts: &Facts) -> String {
    match denial {
        Denial::WorkloadUnknown => "the workload is not known any more".to_owned(),
        Denial::Denied(key) => format!("explicitly denied by: {key}"),
        Denial::NoneAllowed => {
            let policies = allow_policies(snapshot, &facts.workload_uid);
            let names: Vec<_> = policies.take(NAMED_MAX).map(ToString::to_string).collect();
            format!("allow policies exist, but none allowed: {}", names.join(", "))
        }
        Denial::PolicyUnknown(key) => format!("policy {key} has not arrived"),
    }
}

/// A denial of a new connection.
pub(super) fn from_denial(denial: &Denial, snapshot: &Snapshot, facts: &Facts) -> Failure {
    let reason = match denial {
        Denial::WorkloadUnknown => Reason::WorkloadUnknown,
        Denial::Denied(_) => Reason::PolicyDenied,
        Denial::NoneAllowed => Reason::PolicyNoneAllowed,
        Denial::PolicyUnknown(_) => Reason::PolicyUnknown,
    };
    Failure::new(reason, denied(denial, snapshot, facts))
}

/// A captured connection that goes nowhere.
pub(super) fn from_route(refusal: &Refusal) -> Failure {
    Failure::from(match refusal {
        Refusal::SelfCall => Reason::SelfCall,
        Refusal::NoHealthyUpstream => Reason::NoHealthyUpstream,
        Refusal::WaypointUnknown => Reason::WaypointUnknown,
        Refusal::GatewayUnknown => Reason::GatewayUnknown,
        Refusal::OtherNetworkWithoutService => Reason::OtherNetwork,
        Refusal::NoAddress => Reason::NoAddress,
        Refusal::Unanswered(wanted) => return unanswered(wanted),
    })
}

/// A CONNECT target that is not ours, and its status (spec hbone 3.5).
pub(super) fn from_admission(refusal: &NotAdmitted) -> (StatusCode, Failure) {
    let (status, reason) = match refusal {
        NotAdmitted::AddressMismatch => (StatusCode::BAD_REQUEST, Reason::AddressMismatch),
        NotAdmitted::HostnameUnknown => (StatusCode::SERVICE_UNAVAILABLE, Reason::HostnameUnknown),
        NotAdmitted::NotAnEndpoint => (StatusCode::SERVICE_UNAVAILABLE, Reason::NotAnEndpoint),
        NotAdmitted::PortUnknown | NotAdmitted::NoVirtualAddress => {
            (StatusCode::SERVICE_UNAVAILABLE, Reason::PortUnknown)
        }
        NotAdmitted::OwnPort => (StatusCode::SERVICE_UNAVAILABLE, Reason::SelfCall),
        NotAdmitted::Unanswered(wanted) => {
            return (StatusCode::SERVICE_UNAVAILABLE, unanswered(wanted));
        }
    };
    (status, Failure::from(reason))
}

/// The control plane was asked in vain, or could not be asked.
fn unanswered(wanted: &Wanted) -> Failure {
    let detail = format!("the control plane has not said who {wanted} is");
    Failure::new(Reason::LookupUnanswered, detail)
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
