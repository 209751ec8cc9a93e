//! Why a resource cannot be used.

use std::fmt;

use crate::config::shown;
use crate::wire::xds::AddressError;

/// Why a resource cannot be used. Fields are named as in the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) enum Flaw {
    /// It has no content.
    NoPayload,
    /// Its content cannot be decoded.
    Malformed(String),
    /// It is neither a workload nor a service.
    NeitherKind,
    /// Its content has another name.
    Name(String),
    /// A field must not be empty.
    Empty(&'static str),
    /// A number that is not known, or not one that we serve.
    Unknown(&'static str, i32),
    /// Bytes that are no address.
    Address(&'static str, AddressError),
    /// A number that is no port.
    Port(&'static str, u32),
    /// A text of the wrong form.
    Form(&'static str, String),
    /// A gateway without a destination.
    Gateway(&'static str),
    /// It says something that this version does not know, and that may be a condition.
    UnknownFields,
    /// More in a field than anybody needs: how many, and the limit.
    Large(&'static str, usize, usize),
    /// There are more resources than the limit.
    TooMany(usize),
}

impl Flaw {
    /// A text of the wrong form.
    pub(super) fn form(field: &'static str, text: &str) -> Self {
        Self::Form(field, shown(text))
    }

    /// A content with another name.
    pub(super) fn name(text: &str) -> Self {
        Self::Name(shown(text))
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPayload => f.write_str("it has no content"),
            Self::Malformed(why) => write!(f, "its content cannot be decoded: {why}"),
            Self::NeitherKind => f.write_str("it is neither a workload nor a service"),
            Self::Name(name) => write!(f, "its content is named {name}"),
            Self::Empty(field) => write!(f, "{field}: it is empty"),
            Self::Unknown(field, value) => write!(f, "{field}: {value} is not served"),
            Self::Address(field, error) => write!(f, "{field}: {error}"),
            Self::Port(field, port) => write!(f, "{field}: {port} is not a port"),
            Self::Form(field, text) => write!(f, "{field}: {text} is not of the right form"),
            Self::Gateway(field) => write!(f, "{field}: it has no destination"),
            Self::UnknownFields => f.write_str("it has fields that are not known here"),
            Self::Large(field, count, limit) => {
                write!(f, "{field}: {count} are more than the limit of {limit}")
            }
            Self::TooMany(limit) => write!(f, "more than {limit} resources of its type"),
        }
    }
}

impl std::error::Error for Flaw {}
