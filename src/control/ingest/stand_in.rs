//! What refuses in the place of a resource that was rejected and has no earlier version.

use super::address::{self, Vip};
use super::{Item, Texts, policy as policies};
use crate::model::{
    Action, GatewayAddress, GatewayRef, Health, Policy, PolicyKey, Scope, Service, ServiceKey,
    Visibility, Workload, WorkloadProtocol,
};
use crate::wire::xds::{ResourceType, security, workload as wire};

/// The name of a waypoint and of a policy that do not exist: nobody can create them, for no name
/// in Kubernetes has an underscore.
const REJECTED: &str = "rejected_resource";
/// The port of that waypoint; nothing is ever sent to it.
const PORT: u16 = 15_008;

/// In place of what could not be decoded.
pub(super) fn unread(kind: ResourceType, name: &str) -> Option<Item> {
    match kind {
        // Its addresses are not known.
        ResourceType::Address => None,
        ResourceType::Authorization => {
            let key = key_of(name)?;
            Some(deny(key, Scope::Namespace))
        }
    }
}

/// A workload that nothing is sent to, and that nothing is let into.
pub(super) fn workload(name: &str, message: &wire::Workload) -> Item {
    let text = |text: &String| text.as_str().into();
    Item::Workload(Box::new(Workload {
        uid: name.into(),
        name: text(&message.name),
        namespace: text(&message.namespace),
        service_account: text(&message.service_account),
        trust_domain: text(&message.trust_domain),
        network: text(&message.network),
        node: text(&message.node),
        ips: address::addresses(message).flatten().collect(),
        protocol: WorkloadProtocol::Hbone,
        status: Health::Unhealthy,
        waypoint: Some(missing_waypoint()),
        authorization_policies: vec![PolicyKey::new(text(&message.namespace), REJECTED)],
        ..Workload::default()
    }))
}

/// A service whose every connection would have to go through a waypoint that does not exist.
pub(super) fn service(name: &str, message: &wire::Service) -> Option<Item> {
    let mut texts = Texts::default();
    let key = address::service_key(message, &mut texts).ok()?;
    if key.to_string() != name {
        return None;
    }
    let (mut vips, mut cidr_vips) = (Vec::new(), Vec::new());
    for address in &message.addresses {
        match address::vip(address, &mut texts) {
            Ok(Vip::One(addr)) => vips.push(addr),
            Ok(Vip::Range(network, net)) => cidr_vips.push((network, net)),
            Err(_) => {}
        }
    }
    Some(Item::Service(Box::new(Service {
        name: message.name.as_str().into(),
        key,
        vips,
        cidr_vips,
        ports: Default::default(),
        subject_alt_names: Vec::new(),
        waypoint: Some(missing_waypoint()),
        weighted_waypoints: Vec::new(),
        load_balancer: None,
        ip_families: None,
        canonical: message.canonical,
        visibility: Visibility::Public,
    })))
}

/// An ALLOW that allows nothing; anything else denies all that it could have been about.
pub(super) fn policy(name: &str, message: &security::Authorization) -> Option<Item> {
    if message.dry_run {
        return None;
    }
    let key = key_of(name)?;
    // What applies to the workloads that name it is refused there as long as it is missing.
    let scope = policies::scope(message);
    if scope == Ok(Scope::WorkloadSelector) {
        return None;
    }
    // The scope goes by the name's namespace, so that of a content with another name is no use.
    let own = format!("{}/{}", message.namespace, message.name) == name;
    let scope = scope.ok().filter(|_| own).unwrap_or(Scope::Namespace);
    let groups = Vec::new();
    Some(match policies::action(message) {
        Ok(action @ Action::Allow) => {
            Item::Policy(Box::new(Policy { key, scope, action, groups, dry_run: false }))
        }
        _ => deny(key, scope),
    })
}

/// An empty group holds for everybody (spec policy 4).
fn deny(key: PolicyKey, scope: Scope) -> Item {
    let groups = vec![Vec::new()];
    Item::Policy(Box::new(Policy { key, scope, action: Action::Deny, groups, dry_run: false }))
}

fn missing_waypoint() -> GatewayRef {
    let key = ServiceKey { namespace: "".into(), hostname: REJECTED.into() };
    GatewayRef { destination: GatewayAddress::Hostname(key), hbone_mtls_port: PORT }
}

fn key_of(name: &str) -> Option<PolicyKey> {
    let (namespace, name) = name.split_once('/')?;
    Some(PolicyKey::new(namespace, name))
}
