//! The texts that stand for more than a text.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use crate::model;
use crate::wire::spiffe::Identity;

/// An address; IPv4 in IPv6 is IPv4 (spec hbone 1).
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Ip(pub(super) IpAddr);

/// `<address>/<length>`
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Cidr(pub(super) IpNet);

/// `<namespace>/<hostname>`
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(try_from = "String")]
pub(super) struct ServiceKey(pub(super) model::ServiceKey);

/// `<namespace>/<name>`
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct PolicyKey(pub(super) model::PolicyKey);

/// `<network>/<ip>`; the network may be empty.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct NetworkAddr(pub(super) model::NetworkAddr);

/// `<network>/<ip>` or `<namespace>/<hostname>`
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct GatewayAddress(pub(super) model::GatewayAddress);

/// A SPIFFE id
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Spiffe(pub(super) Identity);

impl TryFrom<String> for Ip {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let ip: IpAddr = text.parse().map_err(|_| format!("{text:?} is not an IP address"))?;
        Ok(Self(ip.to_canonical()))
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|_| format!("{text:?} is not <address>/<length>"))
    }
}

impl TryFrom<String> for ServiceKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (namespace, hostname) = names(&text).ok_or_else(|| not(&text, "hostname"))?;
        let (namespace, hostname) = (namespace.into(), hostname.into());
        Ok(Self(model::ServiceKey { namespace, hostname }))
    }
}

impl TryFrom<String> for PolicyKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (namespace, name) = names(&text).ok_or_else(|| not(&text, "name"))?;
        Ok(Self(model::PolicyKey::new(namespace, name)))
    }
}

impl TryFrom<String> for NetworkAddr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let addr = network_addr(&text).ok_or_else(|| format!("{text:?} is not <network>/<ip>"))?;
        Ok(Self(addr))
    }
}

impl TryFrom<String> for GatewayAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if let Some(addr) = network_addr(&text) {
            return Ok(Self(model::GatewayAddress::Address(addr)));
        }
        let Some((namespace, hostname)) = names(&text) else {
            return Err(format!("{text:?} is neither <network>/<ip> nor <namespace>/<hostname>"));
        };
        let (namespace, hostname) = (namespace.into(), hostname.into());
        Ok(Self(model::GatewayAddress::Hostname(model::ServiceKey { namespace, hostname })))
    }
}

impl TryFrom<String> for Spiffe {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error| format!("{text:?} is not a SPIFFE id: {error}"))
    }
}

/// The two parts around the first slash, neither of them empty.
fn names(text: &str) -> Option<(&str, &str)> {
    text.split_once('/').filter(|(first, second)| !first.is_empty() && !second.is_empty())
}

fn network_addr(text: &str) -> Option<model::NetworkAddr> {
    let (network, ip) = text.split_once('/')?;
    let ip: IpAddr = ip.parse().ok()?;
    Some(model::NetworkAddr { network: network.into(), ip: ip.to_canonical() })
}

fn not(text: &str, second: &str) -> String {
    format!("{text:?} is not <namespace>/<{second}>")
}
