//! What can go wrong while a laboratory is built, and what to do about it.

use std::fmt;
use std::io;

/// The laboratory could not be built or changed.
#[derive(Debug)]
pub enum LabError {
    /// The kernel lacks something.
    Missing {
        /// The feature, as precisely as it is known: table, expression, kind of link.
        feature: String,
        /// The kernel's own words.
        answer: io::Error,
        /// What helps.
        remedy: String,
    },
    /// The kernel did not do what it was asked.
    Refused {
        /// What it was asked.
        what: String,
        /// Its answer.
        answer: io::Error,
    },
    /// The laboratory's plan makes no sense.
    Plan(String),
}

impl LabError {
    /// For `map_err`: `answer` was the answer to `what`.
    pub(super) fn refused(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |answer| Self::Refused { what: what.into(), answer }
    }
}

impl fmt::Display for LabError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { feature, answer, remedy } => {
                write!(out, "this kernel has no {feature} ({answer}); {remedy}")
            }
            Self::Refused { what, answer } => {
                write!(out, "{what}: {answer}")?;
                match answer.kind() {
                    io::ErrorKind::PermissionDenied => out.write_str(
                        "; this needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN: \
                         run it as root",
                    )?,
                    // The limit of namespaces answers like a full disk.
                    io::ErrorKind::StorageFull => {
                        out.write_str("; this helps: sudo sysctl user.max_net_namespaces=15000")?;
                    }
                    _ => {}
                }
                Ok(())
            }
            Self::Plan(reason) => out.write_str(reason),
        }
    }
}

impl std::error::Error for LabError {}

impl From<LabError> for io::Error {
    fn from(error: LabError) -> Self {
        Self::other(error.to_string())
    }
}

impl From<LabError> for String {
    fn from(error: LabError) -> Self {
        error.to_string()
    }
}
