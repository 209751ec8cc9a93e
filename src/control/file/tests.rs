use std::collections::BTreeMap;

use super::*;
use crate::model::*;

fn read(text: &str) -> Contents {
    Contents::read(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// The example of the specification.
const EXAMPLE: &str = r#"
workloads:
- uid: c1//Pod/shop/cart-0
  name: cart-0
  namespace: shop
  serviceAccount: cart
  trustDomain: cluster.local
  workloadIps: ["10.9.0.7"]
  protocol: HBONE
  node: node-a
  network: ""
  waypoint: {destination: "shop/wp.shop.svc.cluster.local", hboneMtlsPort: 15008}
  services: {"shop/cart.shop.svc.cluster.local": {80: 8080}}
services:
- {name: cart, namespace: shop, hostname: cart.shop.svc.cluster.local, vips: ["/10.8.0.1"],
   ports: {80: 8080}}
policies:
- name: only-web
  namespace: shop
  scope: Namespace
  action: Allow
  dryRun: false
  rules: [[[{principals: [{Exact: cluster.local/ns/shop/sa/web}]}]]]
"#;

fn service_key(namespace: &str, hostname: &str) -> ServiceKey {
    ServiceKey { namespace: namespace.into(), hostname: hostname.into() }
}

#[test]
fn the_example_of_the_specification() {
    let delta = read(EXAMPLE).since(&Contents::default());
    let cart = service_key("shop", "cart.shop.svc.cluster.local");
    let ports = BTreeMap::from([(80, 8080)]);
    let workload = Workload {
        uid: "c1//Pod/shop/cart-0".into(),
        name: "cart-0".into(),
        namespace: "shop".into(),
        service_account: "cart".into(),
        trust_domain: "cluster.local".into(),
        node: "node-a".into(),
        ips: vec!["10.9.0.7".parse().unwrap()],
        protocol: WorkloadProtocol::Hbone,
        waypoint: Some(GatewayRef {
            destination: GatewayAddress::Hostname(service_key("shop", "wp.shop.svc.cluster.local")),
            hbone_mtls_port: 15008,
        }),
        services: vec![(cart.clone(), ports.clone())],
        ..Workload::default()
    };
    let service = Service {
        name: "cart".into(),
        key: cart,
        vips: vec![NetworkAddr { network: "".into(), ip: "10.8.0.1".parse().unwrap() }],
        cidr_vips: Vec::new(),
        ports,
        subject_alt_names: Vec::new(),
        waypoint: None,
        weighted_waypoints: Vec::new(),
        load_balancer: None,
        ip_families: None,
        canonical: false,
        visibility: Visibility::Public,
    };
    let web = StringMatch::Exact("cluster.local/ns/shop/sa/web".into());
    let policy = Policy {
        key: PolicyKey::new("shop", "only-web"),
        scope: Scope::Namespace,
        action: Action::Allow,
        groups: vec![vec![vec![Match { principals: vec![web], ..Match::default() }]]],
        dry_run: false,
    };
    assert_eq!(delta.workloads, [workload]);
    assert_eq!(delta.services, [service]);
    assert_eq!(delta.policies, [policy]);
}

#[test]
fn every_field_arrives() {
    let text = r#"
workloads:
- workloadIps: ["::ffff:10.0.0.1", "2001:db8::1"]
  namespace: shop
  name: cart-0
  clusterId: c1
  workloadName: cart
  workloadType: deployment
  canonicalName: cart-c
  canonicalRevision: v1
  hostname: cart.example
  networkMode: HostNetwork
  nativeTunnel: true
  applicationTunnel: {protocol: PROXY, port: 15088}
  networkGateway: {destination: "n2/172.16.0.4", hboneMtlsPort: 15009}
  authorizationPolicies: [shop/p]
  status: Unhealthy
  locality: {region: r, zone: z, subzone: s}
  services: {}
  capacity: 0
services:
- name: cart
  namespace: shop
  hostname: cart.example
  vips: []
  cidrVips: [{network: n1, cidr: 10.0.0.0/8}]
  ports: {"443": 0}
  subjectAltNames: ["spiffe://td/ns/shop/sa/x"]
  weightedWaypoints: [{destination: {destination: /10.0.0.9, hboneMtlsPort: 1}, weight: 3}]
  loadBalancer: {routingPreferences: [Zone, Node], mode: Failover, healthPolicy: AllowAll}
  ipFamilies: Dual
  canonical: true
  visibility: Namespace
"#;
    let delta = read(text).since(&Contents::default());
    let workload = &delta.workloads[0];
    assert_eq!(&*workload.uid, "c1//Pod/shop/cart-0");
    let texts = [
        &workload.cluster_id,
        &workload.workload_name,
        &workload.workload_type,
        &workload.canonical_name,
        &workload.canonical_revision,
        &workload.hostname,
    ];
    let expected = ["c1", "cart", "deployment", "cart-c", "v1", "cart.example"];
    assert_eq!(texts.map(|text| &**text), expected);
    assert_eq!(
        workload.ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["10.0.0.1", "2001:db8::1"]
    );
    assert_eq!(workload.protocol, WorkloadProtocol::Tcp);
    assert_eq!(workload.network_mode, NetworkMode::HostNetwork);
    assert!(workload.native_tunnel);
    let tunnel = ApplicationTunnel { protocol: TunnelProtocol::Proxy, port: Some(15088) };
    assert_eq!(workload.application_tunnel, Some(tunnel));
    let gateway = workload.network_gateway.as_ref().unwrap();
    assert_eq!(
        (gateway.destination.to_string(), gateway.hbone_mtls_port),
        ("n2/172.16.0.4".into(), 15009)
    );
    assert!(matches!(gateway.destination, GatewayAddress::Address(_)));
    assert_eq!(workload.authorization_policies, [PolicyKey::new("shop", "p")]);
    assert_eq!(workload.status, Health::Unhealthy);
    assert_eq!(&*workload.locality.subzone, "s");
    assert_eq!(workload.capacity, 0);
    let service = &delta.services[0];
    assert_eq!(service.cidr_vips, [("n1".into(), "10.0.0.0/8".parse().unwrap())]);
    assert_eq!(service.ports, BTreeMap::from([(443, 0)]));
    assert_eq!(service.subject_alt_names[0].principal(), "td/ns/shop/sa/x");
    assert_eq!(service.weighted_waypoints[0].weight, 3);
    let balancer = service.load_balancer.as_ref().unwrap();
    assert_eq!(balancer.routing_preferences, [RoutingScope::Zone, RoutingScope::Node]);
    assert_eq!(
        (balancer.mode, balancer.health_policy),
        (LoadBalancerMode::Failover, HealthPolicy::AllowAll)
    );
    assert_eq!(service.ip_families, Some(IpFamilies::Dual));
    assert!(service.canonical);
    assert_eq!(service.visibility, Visibility::Namespace);
}

/// A policy with one match.
fn policy(found: &str) -> String {
    format!(
        "policies:\n- {{name: p, namespace: n, scope: Global, action: Deny, dryRun: false,\n   \
         rules: [[[{found}]]]}}"
    )
}

#[test]
fn every_kind_of_match_arrives() {
    let check = |text: &str, expected: Match| {
        let delta = read(&policy(text)).since(&Contents::default());
        assert_eq!(delta.policies[0].groups, [[[expected]]], "{text}");
    };
    let none = Match::default;
    let texts = || {
        let exact = StringMatch::Exact("a".into());
        vec![exact, StringMatch::Prefix("b".into()), StringMatch::Suffix("c".into())]
    };
    let forms = "[{Exact: a}, {Prefix: b}, {Suffix: c}]";
    check("{}", none());
    check(&format!("{{namespaces: {forms}}}"), Match { namespaces: texts(), ..none() });
    check(&format!("{{notNamespaces: {forms}}}"), Match { not_namespaces: texts(), ..none() });
    check(&format!("{{principals: {forms}}}"), Match { principals: texts(), ..none() });
    for form in ["[]", "{}", "null", ""] {
        let not_principals = vec![StringMatch::Presence];
        let text = format!("{{notPrincipals: [{{Presence: {form}}}]}}");
        check(&text, Match { not_principals, ..none() });
    }
    let account = || vec![ServiceAccountRef { namespace: "a".into(), service_account: "b".into() }];
    let form = "[{namespace: a, serviceAccount: b}]";
    check(&format!("{{serviceAccounts: {form}}}"), Match { service_accounts: account(), ..none() });
    let not_service_accounts = account();
    check(&format!("{{notServiceAccounts: {form}}}"), Match { not_service_accounts, ..none() });
    let nets = || vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let form = "[10.0.0.0/8, \"2001:db8::/32\"]";
    check(&format!("{{sourceIps: {form}}}"), Match { source_ips: nets(), ..none() });
    check(&format!("{{notSourceIps: {form}}}"), Match { not_source_ips: nets(), ..none() });
    check(&format!("{{destinationIps: {form}}}"), Match { destination_ips: nets(), ..none() });
    let not_destination_ips = nets();
    check(&format!("{{notDestinationIps: {form}}}"), Match { not_destination_ips, ..none() });
    check("{destinationPorts: [80]}", Match { destination_ports: vec![80], ..none() });
    check("{notDestinationPorts: [80]}", Match { not_destination_ports: vec![80], ..none() });
}

#[test]
fn what_cannot_be_understood_refuses_the_whole_text() {
    let check = |text: &str, place: (u64, u64), reason: &str| {
        let error = Contents::read(text).expect_err(text);
        assert!(error.reason.contains(reason), "{text}: {error}");
        assert_eq!(error.place, Some(place), "{text}: {error}");
    };
    check("other: 1", (1, 1), "unknown field `other`");
    check("workloads: [", (1, 12), "");
    check("workloads: []\nworkloads: []", (2, 1), "duplicate");
    check("workloads: []\n---\n{}", (3, 1), "multiple YAML documents");
    let workload = |more: &str| {
        format!("workloads:\n- uid: a\n  namespace: n\n  services: {{}}\n  workloadIps: []\n{more}")
    };
    check(&workload("  protocl: HBONE"), (6, 3), "unknown field `protocl`");
    check(&workload("  protocol: hbone"), (6, 13), "hbone");
    check(&workload("  protocol: null"), (6, 13), "");
    check(&workload("  authorizationPolicies:\n"), (6, 24), "nothing is given");
    check(&workload("  authorizationPolicies: [p]"), (6, 27), "\"p\" is not <namespace>/<name>");
    check(&workload("  waypoint: {destination: /, hboneMtlsPort: 1}"), (6, 27), "\"/\" is neither");
    check(&workload("  waypoint: {destination: a/b}"), (6, 14), "hboneMtlsPort");
    check(&workload("  nativeTunnel: yes"), (6, 17), "");
    check(
        &workload("- {uid: a, namespace: n, services: {}, workloadIps: []}"),
        (6, 3),
        "workload a is there twice",
    );
    check(&workload("- {namespace: n, services: {}, workloadIps: []}"), (6, 3), "a uid or a name");
    check(&workload("- {uid: b, namespace: n, workloadIps: []}"), (6, 26), "services");
    check(&workload("- {uid: b, namespace: n, services: {}}"), (6, 26), "workloadIps");
    check("workloads: [{workloadIps: [10.0.0.x]}]", (1, 28), "\"10.0.0.x\" is not an IP address");
    let service = "services:\n- {name: a, namespace: n, hostname: h, vips: [], ports: {}}\n";
    check(
        &format!("{service}- {{name: b, namespace: n, hostname: h, vips: [], ports: {{}}}}"),
        (3, 3),
        "service n/h is there twice",
    );
    check(&service.replace("vips: []", "vips: [10.0.0.1]"), (2, 47), "<network>/<ip>");
    check(&service.replace("ports: {}", "ports: {80: 65536}"), (2, 62), "");
    check(&service.replace("ports: {}", "ports: {}, subjectAltNames: [x]"), (2, 79), "SPIFFE");
    let twice = policy("{}")
        + "\n- {name: p, namespace: n, scope: Global, action: Allow, \
        dryRun: false, rules: []}";
    check(&twice, (4, 3), "policy n/p is there twice");
    check(&policy("{}").replace("Global", "global"), (2, 34), "global");
    check(&policy("{}").replace("Deny", "Audit"), (2, 50), "Audit");
    check(&policy("{}").replace("dryRun: false,", ""), (3, 4), "dryRun");
    // Each of these would widen the match if it were skipped.
    check(&policy("{sourceIp: [10.0.0.0/8]}"), (3, 15), "unknown field `sourceIp`");
    check(&policy("{sourceIps: [10.0.0.0/33]}"), (3, 27), "\"10.0.0.0/33\" is not");
    check(&policy("{sourceIps: [10.0.0.1]}"), (3, 27), "is not <address>/<length>");
    check(&policy("{sourceIps: }"), (3, 24), "nothing is given");
    check(&policy("{destinationPorts: [http]}"), (3, 34), "u16");
    check(&policy("{destinationPorts: [65536]}"), (3, 34), "");
    check(&policy("{destinationPorts: [-1]}"), (3, 34), "");
    check(&policy("{principals: [{Regex: a}]}"), (3, 29), "Regex");
    check(&policy("{principals: [{Exact: a, Prefix: b}]}"), (3, 39), "");
    check(&policy("{principals: [{Exact: null}]}"), (3, 36), "");
    check(&policy("{principals: [{Presence: no}]}"), (3, 39), "");
    check(&policy("{principals: [{Presence: [a]}]}"), (3, 39), "");
    check(&policy("{principals: [Presence]}"), (3, 36), "");
    check(&policy("{principals: [null]}"), (3, 28), "");
    check(&policy("{serviceAccounts: [{namespace: a}]}"), (3, 34), "serviceAccount");
    check(&policy("null"), (3, 14), "nothing is given");
    check(&policy("{}").replace("[[[{}]]]", "[[null]]"), (3, 13), "nothing is given");
    check(&policy("{}").replace("[[[{}]]]", "[null]"), (3, 12), "nothing is given");
    check(&policy("{}").replace("[[[{}]]]", ""), (3, 9), "nothing is given");
}

#[test]
fn an_empty_mesh_is_written_out() {
    for text in ["", "\n", "# nothing\n", "---\n", "null"] {
        let error = Contents::read(text).expect_err(text);
        assert_eq!(error.to_string(), "it is empty; an empty mesh is written as {}", "{text:?}");
    }
    for text in ["{}", "workloads: []", "policies:\n"] {
        assert_eq!(read(text), Contents::default(), "{text:?}");
    }
}

#[test]
fn only_what_changed_is_told_in_the_order_of_the_file() {
    let named = |names: &[(&str, &str)]| {
        let items = names.iter().map(|(name, scope)| {
            format!(
                "- {{name: {name}, namespace: n, scope: {scope}, action: Deny, dryRun: false, \
                 rules: []}}\n"
            )
        });
        read(&format!("policies:\n{}", items.collect::<String>()))
    };
    let names = |delta: &Delta| {
        let names = delta.policies.iter().map(|policy| policy.key.name.to_string());
        let gone = delta.policies_removed.iter().map(|key| key.name.to_string());
        (names.collect::<Vec<_>>(), gone.collect::<Vec<_>>())
    };
    let before = named(&[("z", "Global"), ("b", "Global"), ("m", "Global"), ("a", "Global")]);
    let (first, gone) = names(&before.since(&Contents::default()));
    assert_eq!((first, gone.len()), (["z", "b", "m", "a"].map(str::to_owned).to_vec(), 0));
    assert!(before.since(&before).is_empty());
    let after = named(&[("a", "Namespace"), ("n", "Global"), ("b", "Global")]);
    let (changed, gone) = names(&after.since(&before));
    assert_eq!((changed, gone), (vec!["a".into(), "n".into()], vec!["z".into(), "m".into()]));
    let delta = Contents::default().since(&read(EXAMPLE));
    assert_eq!(delta.workloads_removed, [Arc::from("c1//Pod/shop/cart-0")]);
    assert_eq!(delta.services_removed, [service_key("shop", "cart.shop.svc.cluster.local")]);
    assert_eq!(delta.policies_removed, [PolicyKey::new("shop", "only-web")]);
}
