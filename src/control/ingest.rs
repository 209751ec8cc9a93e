//! One resource of delta xDS, from bytes to a value of the model (spec xds 8).
//!
//! A resource that cannot be understood rejects only itself. Where it has no earlier version that
//! could stay in force, something stands in for it that refuses: an address that is not known is
//! passed through in plain text, and a policy that is not known denies nothing.

mod address;
mod flaw;
mod policy;
mod size;
mod stand_in;
#[cfg(test)]
mod tests;
mod texts;

use std::sync::Arc;

use prost::Message;

use crate::model::{Policy, PolicyKey, Service, ServiceKey, Workload};
use crate::wire::xds::ResourceType;
use crate::wire::xds::discovery::Resource;
use crate::wire::xds::{security, workload};

pub(super) use flaw::Flaw;
pub(super) use texts::Texts;

/// What a resource says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A workload.
    Workload(Box<Workload>),
    /// A service.
    Service(Box<Service>),
    /// A policy.
    Policy(Box<Policy>),
}

/// What the mesh knows an item by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A workload: its uid is the resource's name.
    Workload,
    /// A service.
    Service(ServiceKey),
    /// A policy.
    Policy(PolicyKey),
}

/// A resource that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    /// Why.
    pub(super) flaw: Flaw,
    /// What refuses in its place, unless an earlier version stays.
    pub(super) stand_in: Option<Item>,
}

impl Item {
    /// What the mesh knows it by.
    pub(super) fn key(&self) -> Key {
        match self {
            Self::Workload(_) => Key::Workload,
            Self::Service(service) => Key::Service(service.key.clone()),
            Self::Policy(policy) => Key::Policy(policy.key.clone()),
        }
    }
}

/// Reads one resource of a response. The kind is the response's: what the payload calls itself is
/// not looked at (spec xds 5.1).
pub(super) fn read(
    kind: ResourceType,
    name: &Arc<str>,
    resource: &Resource,
    texts: &mut Texts,
) -> Result<Item, Rejection> {
    let Some(payload) = resource.resource.as_ref().map(|any| any.value.as_slice()) else {
        return Err(Rejection { flaw: Flaw::NoPayload, stand_in: stand_in::unread(kind, name) });
    };
    let malformed = |error: prost::DecodeError| Rejection {
        flaw: Flaw::Malformed(error.to_string()),
        stand_in: stand_in::unread(kind, name),
    };
    match kind {
        ResourceType::Address => {
            let address = workload::Address::decode(payload).map_err(malformed)?;
            match address.r#type {
                Some(workload::address::Type::Workload(message)) => {
                    let read = address::workload(name, &message, texts);
                    read.map(|workload| Item::Workload(Box::new(workload))).map_err(|flaw| {
                        let stand_in = Some(stand_in::workload(name, &message));
                        Rejection { flaw, stand_in }
                    })
                }
                Some(workload::address::Type::Service(message)) => {
                    let read = address::service(name, &message, texts);
                    read.map(|service| Item::Service(Box::new(service))).map_err(|flaw| {
                        let stand_in = stand_in::service(name, &message);
                        Rejection { flaw, stand_in }
                    })
                }
                None => Err(Rejection { flaw: Flaw::NeitherKind, stand_in: None }),
            }
        }
        ResourceType::Authorization => {
            let message = security::Authorization::decode(payload).map_err(malformed)?;
            // What this version does not know is left out when it is encoded again.
            let whole = message.encoded_len() >= payload.len();
            let read = policy::policy(name, &message, whole, texts);
            read.map(|policy| Item::Policy(Box::new(policy)))
                .map_err(|flaw| Rejection { flaw, stand_in: stand_in::policy(name, &message) })
        }
    }
}
