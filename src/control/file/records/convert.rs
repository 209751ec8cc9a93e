//! Records become the model's values.

use std::sync::Arc;

use ipnet::IpNet;

use super::texts::Cidr;
use super::{
    Action, ApplicationTunnel, CidrVip, Gateway, Given, Health, HealthPolicy, IpFamilies, List,
    LoadBalancer, LoadBalancerMode, Match, NetworkMode, Policy, Protocol, RoutingScope, Scope,
    Service, ServiceAccount, StringMatch, TunnelProtocol, Visibility, Workload,
};
use crate::model;

impl Workload {
    /// The error is a reason.
    pub(super) fn into_model(self) -> Result<model::Workload, String> {
        let uid = match (self.uid.is_empty(), self.name.is_empty()) {
            (false, _) => self.uid,
            (true, false) => {
                format!("{}//Pod/{}/{}", self.cluster_id, self.namespace, self.name).into()
            }
            (true, true) => return Err("a workload needs a uid or a name".to_owned()),
        };
        Ok(model::Workload {
            uid,
            name: self.name,
            namespace: self.namespace,
            service_account: self.service_account,
            trust_domain: self.trust_domain,
            network: self.network,
            node: self.node,
            cluster_id: self.cluster_id,
            workload_name: self.workload_name,
            workload_type: self.workload_type,
            canonical_name: self.canonical_name,
            canonical_revision: self.canonical_revision,
            hostname: self.hostname,
            ips: self.workload_ips.into_iter().map(|ip| ip.0).collect(),
            protocol: match self.protocol {
                Protocol::Tcp => model::WorkloadProtocol::Tcp,
                Protocol::Hbone => model::WorkloadProtocol::Hbone,
            },
            network_mode: match self.network_mode {
                NetworkMode::Standard => model::NetworkMode::Standard,
                NetworkMode::HostNetwork => model::NetworkMode::HostNetwork,
            },
            native_tunnel: self.native_tunnel,
            application_tunnel: self.application_tunnel.map(ApplicationTunnel::into_model),
            waypoint: self.waypoint.map(Gateway::into_model),
            network_gateway: self.network_gateway.map(Gateway::into_model),
            authorization_policies: self
                .authorization_policies
                .0
                .into_iter()
                .map(|k| k.0)
                .collect(),
            status: match self.status {
                Health::Healthy => model::Health::Healthy,
                Health::Unhealthy => model::Health::Unhealthy,
            },
            locality: model::Locality {
                region: self.locality.region,
                zone: self.locality.zone,
                subzone: self.locality.subzone,
            },
            services: self.services.into_iter().map(|(key, ports)| (key.0, ports)).collect(),
            capacity: self.capacity,
        })
    }
}

impl Service {
    pub(super) fn into_model(self) -> model::Service {
        model::Service {
            name: self.name,
            key: model::ServiceKey { namespace: self.namespace, hostname: self.hostname },
            vips: self.vips.into_iter().map(|vip| vip.0).collect(),
            cidr_vips: self.cidr_vips.into_iter().map(CidrVip::into_model).collect(),
            ports: self.ports,
            subject_alt_names: self.subject_alt_names.into_iter().map(|name| name.0).collect(),
            waypoint: self.waypoint.map(Gateway::into_model),
            weighted_waypoints: self
                .weighted_waypoints
                .into_iter()
                .map(|weighted| model::WeightedWaypoint {
                    destination: weighted.destination.into_model(),
                    weight: weighted.weight,
                })
                .collect(),
            load_balancer: self.load_balancer.map(LoadBalancer::into_model),
            ip_families: self.ip_families.map(|families| match families {
                IpFamilies::IPv4 => model::IpFamilies::IPv4,
                IpFamilies::IPv6 => model::IpFamilies::IPv6,
                IpFamilies::Dual => model::IpFamilies::Dual,
            }),
            canonical: self.canonical,
            visibility: match self.visibility {
                Visibility::Public => model::Visibility::Public,
                Visibility::Namespace => model::Visibility::Namespace,
            },
        }
    }
}

impl Policy {
    pub(super) fn into_model(self) -> model::Policy {
        let rule = |rule: List<Given<Match>>| {
            rule.0.into_iter().map(|found| found.0.into_model()).collect()
        };
        let group = |group: List<List<Given<Match>>>| group.0.into_iter().map(rule).collect();
        model::Policy {
            key: model::PolicyKey { namespace: self.namespace, name: self.name },
            scope: match self.scope {
                Scope::Global => model::Scope::Global,
                Scope::Namespace => model::Scope::Namespace,
                Scope::WorkloadSelector => model::Scope::WorkloadSelector,
            },
            action: match self.action {
                Action::Allow => model::Action::Allow,
                Action::Deny => model::Action::Deny,
            },
            groups: self.rules.0.into_iter().map(group).collect(),
            dry_run: self.dry_run,
        }
    }
}

impl Match {
    fn into_model(self) -> model::Match {
        let texts =
            |texts: List<StringMatch>| texts.0.into_iter().map(StringMatch::into_model).collect();
        let accounts = |accounts: List<ServiceAccount>| {
            accounts.0.into_iter().map(ServiceAccount::into_model).collect()
        };
        let nets = |nets: List<Cidr>| nets.0.into_iter().map(|net| net.0).collect();
        model::Match {
            namespaces: texts(self.namespaces),
            not_namespaces: texts(self.not_namespaces),
            service_accounts: accounts(self.service_accounts),
            not_service_accounts: accounts(self.not_service_accounts),
            principals: texts(self.principals),
            not_principals: texts(self.not_principals),
            source_ips: nets(self.source_ips),
            not_source_ips: nets(self.not_source_ips),
            destination_ips: nets(self.destination_ips),
            not_destination_ips: nets(self.not_destination_ips),
            destination_ports: self.destination_ports.0,
            not_destination_ports: self.not_destination_ports.0,
        }
    }
}

impl StringMatch {
    fn into_model(self) -> model::StringMatch {
        match self {
            Self::Exact(text) => model::StringMatch::Exact(text),
            Self::Prefix(text) => model::StringMatch::Prefix(text),
            Self::Suffix(text) => model::StringMatch::Suffix(text),
            Self::Presence(()) => model::StringMatch::Presence,
        }
    }
}

impl ServiceAccount {
    fn into_model(self) -> model::ServiceAccountRef {
        let Self { namespace, service_account } = self;
        model::ServiceAccountRef { namespace, service_account }
    }
}

impl ApplicationTunnel {
    fn into_model(self) -> model::ApplicationTunnel {
        let protocol = match self.protocol {
            TunnelProtocol::None => model::TunnelProtocol::None,
            TunnelProtocol::Proxy => model::TunnelProtocol::Proxy,
        };
        model::ApplicationTunnel { protocol, port: self.port }
    }
}

impl Gateway {
    fn into_model(self) -> model::GatewayRef {
        let Self { destination, hbone_mtls_port } = self;
        model::GatewayRef { destination: destination.0, hbone_mtls_port }
    }
}

impl CidrVip {
    fn into_model(self) -> (Arc<str>, IpNet) {
        (self.network, self.cidr.0)
    }
}

impl LoadBalancer {
    fn into_model(self) -> model::LoadBalancer {
        let scope = |scope| match scope {
            RoutingScope::Region => model::RoutingScope::Region,
            RoutingScope::Zone => model::RoutingScope::Zone,
            RoutingScope::Subzone => model::RoutingScope::Subzone,
            RoutingScope::Node => model::RoutingScope::Node,
            RoutingScope::Cluster => model::RoutingScope::Cluster,
            RoutingScope::Network => model::RoutingScope::Network,
        };
        model::LoadBalancer {
            routing_preferences: self.routing_preferences.into_iter().map(scope).collect(),
            mode: match self.mode {
                LoadBalancerMode::Standard => model::LoadBalancerMode::Standard,
                LoadBalancerMode::Strict => model::LoadBalancerMode::Strict,
                LoadBalancerMode::Failover => model::LoadBalancerMode::Failover,
                LoadBalancerMode::Passthrough => model::LoadBalancerMode::Passthrough,
            },
            health_policy: match self.health_policy {
                HealthPolicy::OnlyHealthy => model::HealthPolicy::OnlyHealthy,
                HealthPolicy::AllowAll => model::HealthPolicy::AllowAll,
            },
        }
    }
}
