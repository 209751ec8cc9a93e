use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::model::*;
use crate::report::fixtures::{client, connection, service};
use crate::report::metrics::Metrics;
use crate::report::{Report, Side};
use crate::sys::clock::Clock;

fn key(namespace: &str, hostname: &str) -> ServiceKey {
    ServiceKey { namespace: namespace.into(), hostname: hostname.into() }
}

fn gateway(destination: GatewayAddress) -> GatewayRef {
    GatewayRef { destination, hbone_mtls_port: 15008 }
}

fn waypoint() -> GatewayRef {
    gateway(GatewayAddress::Hostname(key("shop", "wp.shop.svc")))
}

/// A workload with everything a workload can have.
fn full_workload() -> Workload {
    let ip = "10.1.0.1".parse().unwrap();
    let address = GatewayAddress::Address(NetworkAddr { network: "n2".into(), ip });
    Workload {
        uid: "c1//Pod/shop/zz".into(),
        network: "n1".into(),
        node: "node-a".into(),
        hostname: "h.example".into(),
        ips: vec!["2001:db8::1".parse().unwrap(), "10.0.0.9".parse().unwrap()],
        network_mode: NetworkMode::HostNetwork,
        native_tunnel: true,
        application_tunnel: Some(ApplicationTunnel { protocol: TunnelProtocol::Proxy, port: None }),
        waypoint: Some(waypoint()),
        network_gateway: Some(gateway(address)),
        authorization_policies: vec![PolicyKey::new("shop", "only-web")],
        status: Health::Unhealthy,
        locality: Locality { region: "r".into(), zone: "z".into(), subzone: "".into() },
        services: [(service().key, [(80, 8080), (443, 8443)].into())].into(),
        capacity: 3,
        ..client()
    }
}

fn full_service() -> Service {
    Service {
        cidr_vips: vec![("n1".into(), "10.9.0.0/16".parse().unwrap())],
        ports: [(80, 8080), (443, 0), (9, 9)].into(),
        subject_alt_names: vec![client().identity()],
        waypoint: Some(waypoint()),
        weighted_waypoints: vec![WeightedWaypoint { destination: waypoint(), weight: 7 }],
        load_balancer: Some(LoadBalancer {
            routing_preferences: vec![RoutingScope::Network, RoutingScope::Zone],
            mode: LoadBalancerMode::Failover,
            health_policy: HealthPolicy::AllowAll,
        }),
        ip_families: Some(IpFamilies::Dual),
        canonical: false,
        visibility: Visibility::Namespace,
        ..service()
    }
}

fn full_policy() -> Policy {
    let accounts =
        vec![ServiceAccountRef { namespace: "shop".into(), service_account: "web".into() }];
    let all = Match {
        namespaces: vec![StringMatch::Exact("a".into())],
        not_namespaces: vec![StringMatch::Prefix("b".into())],
        service_accounts: accounts.clone(),
        not_service_accounts: accounts,
        principals: vec![StringMatch::Suffix("c".into()), StringMatch::Presence],
        not_principals: vec![StringMatch::Presence],
        source_ips: vec!["10.0.0.0/8".parse().unwrap()],
        not_source_ips: vec!["2001:db8::/32".parse().unwrap()],
        destination_ips: vec!["10.0.0.1/32".parse().unwrap()],
        not_destination_ips: vec!["10.0.0.2/32".parse().unwrap()],
        destination_ports: vec![80],
        not_destination_ports: vec![443, 1],
    };
    let port = Match { destination_ports: vec![8080], ..Match::default() };
    Policy {
        key: PolicyKey::new("shop", "only-web"),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        groups: vec![vec![vec![all], vec![port, Match::default()]], vec![]],
        dry_run: true,
    }
}

/// The dump of a mesh, read back.
fn dumped(delta: Delta) -> Value {
    dumped_with(delta, &[], None, &BTreeMap::new())
}

fn dumped_with(
    delta: Delta,
    certificates: &[Certificate],
    pods: Option<&[PodState]>,
    connections: &BTreeMap<Box<str>, PodConnections>,
) -> Value {
    let snapshot = delta.apply(&Snapshot::default());
    let config = json!({"limits": {"backlog": 1}});
    let body = render(&Dump {
        snapshot: &snapshot,
        certificates,
        pods,
        connections,
        control_plane: None,
        revocation: None,
        version: &Version::default(),
        config: &config,
    });
    serde_json::from_slice(&body).expect("the dump is JSON")
}

#[test]
fn workloads_have_the_fields_that_istioctl_reads() {
    let bare = Workload { uid: "a".into(), name: "n".into(), ..Workload::default() };
    let workloads = vec![full_workload(), bare];
    let dump = dumped(Delta { workloads, ..Delta::default() });
    let expected = json!([
        {
            "uid": "a",
            "workloadIps": [],
            "protocol": "TCP",
            "networkMode": "Standard",
            "name": "n",
            "namespace": "",
            "status": "Healthy",
            "clusterId": "",
            "capacity": 1
        },
        {
            "uid": "c1//Pod/shop/zz",
            "workloadIps": ["2001:db8::1", "10.0.0.9"],
            "waypoint": {"destination": "shop/wp.shop.svc", "hboneMtlsPort": 15008},
            "networkGateway": {"destination": "n2/10.1.0.1", "hboneMtlsPort": 15008},
            "protocol": "HBONE",
            "networkMode": "HostNetwork",
            "name": "web-0",
            "namespace": "shop",
            "serviceAccount": "web",
            "trustDomain": "cluster.local",
            "network": "n1",
            "workloadName": "web",
            "workloadType": "deployment",
            "canonicalName": "web",
            "canonicalRevision": "v1",
            "hostname": "h.example",
            "node": "node-a",
            "nativeTunnel": true,
            "applicationTunnel": {"protocol": "PROXY", "port": null},
            "authorizationPolicies": ["shop/only-web"],
            "status": "Unhealthy",
            "clusterId": "c1",
            "locality": {"region": "r", "zone": "z", "subzone": ""},
            "services": ["shop/cart.shop.svc.cluster.local"],
            "capacity": 3
        }
    ]);
    // As text: the order of the fields counts too.
    assert_eq!(dump["workloads"].to_string(), expected.to_string());
}

#[test]
fn services_have_the_fields_that_istioctl_reads() {
    let bare = Service { key: key("a", "b"), vips: vec![], ports: [].into(), ..service() };
    let delta = Delta {
        workloads: vec![full_workload()],
        services: vec![full_service(), bare],
        ..Delta::default()
    };
    let expected = json!([
        {
            "name": "cart",
            "namespace": "a",
            "hostname": "b",
            "vips": [],
            "ports": {},
            "endpoints": {},
            "subjectAltNames": [],
            "canonical": true,
            "visibility": "Public"
        },
        {
            "name": "cart",
            "namespace": "shop",
            "hostname": "cart.shop.svc.cluster.local",
            "vips": ["/10.8.0.1"],
            "cidrVips": [{"network": "n1", "cidr": "10.9.0.0/16"}],
            "ports": {"9": 9, "80": 8080, "443": 0},
            "endpoints": {
                "c1//Pod/shop/zz": {
                    "workloadUid": "c1//Pod/shop/zz",
                    "port": {"80": 8080, "443": 8443},
                    "status": "Unhealthy"
                }
            },
            "subjectAltNames": ["spiffe://cluster.local/ns/shop/sa/web"],
            "waypoint": {"destination": "shop/wp.shop.svc", "hboneMtlsPort": 15008},
            "weightedWaypoints": [
                {
                    "destination": {"destination": "shop/wp.shop.svc", "hboneMtlsPort": 15008},
                    "weight": 7
                }
            ],
            "loadBalancer": {
                "routingPreferences": ["Network", "Zone"],
                "mode": "Failover",
                "healthPolicy": "AllowAll"
            },
            "ipFamilies": "Dual",
            "canonical": false,
            "visibility": "Namespace"
        }
    ]);
    assert_eq!(dumped(delta)["services"].to_string(), expected.to_string());
}

#[test]
fn policies_have_three_levels_of_rules() {
    let bare = Policy {
        key: PolicyKey::new("a", "all"),
        scope: Scope::Global,
        action: Action::Allow,
        groups: vec![],
        dry_run: false,
    };
    let delta = Delta { policies: vec![full_policy(), bare], ..Delta::default() };
    let account = json!({"namespace": "shop", "serviceAccount": "web"});
    let expected = json!([
        {
            "name": "all",
            "namespace": "a",
            "scope": "Global",
            "action": "Allow",
            "rules": [],
            "dryRun": false
        },
        {
            "name": "only-web",
            "namespace": "shop",
            "scope": "WorkloadSelector",
            "action": "Deny",
            "rules": [
                [
                    [{
                        "namespaces": [{"Exact": "a"}],
                        "notNamespaces": [{"Prefix": "b"}],
                        "serviceAccounts": [account],
                        "notServiceAccounts": [account],
                        "principals": [{"Suffix": "c"}, {"Presence": []}],
                        "notPrincipals": [{"Presence": []}],
                        "sourceIps": ["10.0.0.0/8"],
                        "notSourceIps": ["2001:db8::/32"],
                        "destinationIps": ["10.0.0.1/32"],
                        "notDestinationIps": ["10.0.0.2/32"],
                        "destinationPorts": [80],
                        "notDestinationPorts": [443, 1]
                    }],
                    [{"destinationPorts": [8080]}, {}]
                ],
                []
            ],
            "dryRun": true
        }
    ]);
    assert_eq!(dumped(delta)["policies"].to_string(), expected.to_string());
}

#[test]
fn everything_is_sorted() {
    let delta = || {
        let numbers = (10..60).rev();
        let name = |n: u32| format!("x{n}");
        let workload = |n| Workload { uid: name(n).into(), name: "w".into(), ..client() };
        let service = |n| Service { key: key(&name(n), "h"), ..service() };
        let policy = |n| Policy { key: PolicyKey::new(name(n), "p"), ..full_policy() };
        Delta {
            workloads: numbers.clone().map(workload).collect(),
            services: numbers.clone().map(service).collect(),
            policies: numbers.map(policy).collect(),
            ..Delta::default()
        }
    };
    let dump = dumped(delta());
    for (list, field) in
        [("workloads", "uid"), ("services", "namespace"), ("policies", "namespace")]
    {
        let names = dump[list].as_array().unwrap().iter().map(|one| one[field].as_str().unwrap());
        assert!(names.eq((10..60).map(|n| format!("x{n}"))), "{list}");
    }
}

#[test]
fn pods_have_their_open_connections() {
    let report = Report::new(Arc::new(Metrics::new("")), Clock::system());
    let pod = |uid: &str, up| PodState {
        uid: uid.into(),
        up,
        name: PodName {
            name: format!("{uid}-name").into(),
            namespace: "shop".into(),
            service_account: "web".into(),
        },
    };
    let pods = [pod("b", true), pod("c", true), pod("a", false)];
    let mut inbound = connection(Direction::Inbound, Transport::Hbone);
    inbound.original_destination = Some("cart.shop".into());
    let mut plain = connection(Direction::Inbound, Transport::Plaintext);
    plain.source = Side { addr: "[2001:db8::1]:9".parse().unwrap(), ..plain.source };
    let mut redirected = connection(Direction::Outbound, Transport::Hbone);
    redirected.original_destination = Some("10.8.0.1:80".into());
    let double = connection(Direction::Outbound, Transport::DoubleHbone);
    let open = [plain, double, redirected, inbound].map(|one| report.opened("b", one));
    let dump = dumped_with(Delta::default(), &[], Some(&pods), &report.connections());
    let info = |uid: &str| {
        let name = format!("{uid}-name");
        json!({"name": name, "namespace": "shop", "serviceAccount": "web"})
    };
    let expected = json!({
        "a": {"state": "Pending", "info": info("a")},
        "b": {
            "state": "Up",
            "connections": {
                "inbound": [
                    {
                        "src": "10.0.0.1:40000",
                        "originalDst": "cart.shop",
                        "actualDst": "10.0.0.2:8080",
                        "protocol": "HBONE"
                    },
                    {
                        "src": "[2001:db8::1]:9",
                        "originalDst": null,
                        "actualDst": "10.0.0.2:8080",
                        "protocol": "TCP"
                    }
                ],
                "outbound": [
                    {
                        "src": "10.0.0.1:40000",
                        "originalDst": "10.0.0.2:8080",
                        "actualDst": "10.0.0.2:8080",
                        "protocol": "DOUBLEHBONE"
                    },
                    {
                        "src": "10.0.0.1:40000",
                        "originalDst": "10.8.0.1:80",
                        "actualDst": "10.0.0.2:15008",
                        "protocol": "HBONE"
                    }
                ]
            },
            "info": info("b")
        },
        "c": {
            "state": "Up",
            "connections": {"inbound": [], "outbound": []},
            "info": info("c")
        }
    });
    assert_eq!(dump["workloadState"].to_string(), expected.to_string());
    drop(open);
}

#[test]
fn certificates_are_readable_and_sorted() {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    let epoch = std::time::SystemTime::UNIX_EPOCH;
    params.not_before = (epoch + Duration::from_secs(1_787_184_000)).into();
    params.not_after = (epoch + Duration::from_secs(1_787_270_399)).into();
    params.serial_number = Some(vec![0x01, 0x00, 0, 0, 0, 0, 0, 0, 0, 0].into());
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    let der = made.der().to_vec();
    let identity = |name: &str| crate::wire::spiffe::Identity::new("td", "ns", name);
    let certificates = [
        Certificate {
            identity: identity("b"),
            state: "Unavailable: no answer".to_owned(),
            chain: vec![],
            roots: vec![],
            failures: 0,
            last_error: None,
        },
        Certificate {
            identity: identity("a"),
            state: "Available".to_owned(),
            chain: vec![der],
            roots: vec![b"junk".to_vec()],
            failures: 3,
            last_error: Some("no answer".to_owned()),
        },
    ];
    let dump = dumped_with(Delta::default(), &certificates, None, &BTreeMap::new());
    let list = &dump["certificates"];
    assert_eq!(list[0]["identity"], "spiffe://td/ns/ns/sa/a");
    assert_eq!(
        list[1].to_string(),
        json!({
            "identity": "spiffe://td/ns/ns/sa/b",
            "state": "Unavailable: no answer",
            "certChain": [],
            "rootCerts": []
        })
        .to_string()
    );
    assert_eq!(list[0]["renewal"], json!({"failures": 3, "lastError": "no answer"}));
    let leaf = &list[0]["certChain"][0];
    // 2^72: larger than any machine integer we would be tempted to use.
    assert_eq!(leaf["serialNumber"], "4722366482869645213696");
    assert_eq!(leaf["validFrom"], "2026-08-20T00:00:00Z");
    assert_eq!(leaf["expirationTime"], "2026-08-20T23:59:59Z");
    assert!(leaf["pem"].as_str().unwrap().starts_with("LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"));
    let junk = &list[0]["rootCerts"][0];
    assert_eq!(junk["serialNumber"], "");
    assert_eq!(dump["config"], json!({"limits": {"backlog": 1}}));
    let keys: Vec<_> = dump.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["workloads", "services", "policies", "certificates", "version", "config"]);
}

#[test]
fn the_version_has_the_names_of_the_spec() {
    let version = serde_json::to_value(Version::default()).unwrap();
    let keys: Vec<_> = version.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "version",
        "gitRevision",
        "rustVersion",
        "buildProfile",
        "buildStatus",
        "istioVersion",
        "cryptoProvider",
    ];
    assert_eq!(keys, expected);
}
