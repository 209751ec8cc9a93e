//! Pods, services, endpoints and waypoints.

use super::{convert_yaml, notes, service, workload};
use crate::standalone::convert::Resources;
use crate::wire::spiffe::Identity;
use crate::wire::xds::{ip, workload as proto};

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  selector: {app: cart}
  ports: [{port: 80, targetPort: http}, {name: m, port: 9090}, {port: 53, protocol: UDP}]
---
apiVersion: v1
kind: Pod
metadata: {name: cart-0, namespace: shop, labels: {app: cart, version: v2}}
spec:
  nodeName: node-a
  serviceAccountName: cart
  containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]
status: {podIP: 10.1.0.10, podIPs: [{ip: 10.1.0.10}, {ip: 'fd00::10'}]}
";

fn ports(list: &proto::PortList) -> Vec<(u32, u32)> {
    list.ports.iter().map(|port| (port.service_port, port.target_port)).collect()
}

fn with(yaml: &str) -> Resources {
    convert_yaml(&format!("{SHOP}---{yaml}"))
}

fn hostname(address: Option<&proto::GatewayAddress>) -> Option<&str> {
    match address?.destination.as_ref()? {
        proto::gateway_address::Destination::Hostname(name) => Some(&name.hostname),
        proto::gateway_address::Destination::Address(_) => None,
    }
}

#[test]
fn a_pod_and_its_service() {
    let resources = convert_yaml(SHOP);
    let pod = workload(&resources, "Kubernetes//Pod/shop/cart-0");
    let ips: Vec<String> = pod.addresses.iter().map(|b| ip(b).unwrap().to_string()).collect();
    assert_eq!(ips, ["10.1.0.10", "fd00::10"]);
    assert_eq!(pod.tunnel_protocol(), proto::TunnelProtocol::Hbone);
    assert_eq!((&*pod.trust_domain, &*pod.service_account), ("corp.example", "cart"));
    assert_eq!(
        (&*pod.node, &*pod.canonical_name, &*pod.canonical_revision),
        ("node-a", "cart", "v2")
    );
    let list = &pod.services["shop/cart.shop.svc.cluster.local"];
    assert_eq!(ports(list), [(80, 8080), (9090, 9090)]);
    let cart = service(&resources, "shop/cart.shop.svc.cluster.local");
    let own: Vec<_> = cart.ports.iter().map(|p| (p.service_port, p.target_port)).collect();
    assert_eq!(own, [(80, 0), (9090, 9090)]);
    assert_eq!(cart.addresses.len(), 1);
    assert!(cart.canonical && cart.load_balancing.is_none());
    let hosted = &resources.hosted["node-a"];
    assert!(hosted.contains(&Identity::new("corp.example", "shop", "cart")) && hosted.len() == 1);
    assert_eq!(
        notes(&resources),
        ["test.yaml:12: Service shop/cart: spec.ports[2].protocol: not served: only TCP is \
          carried; UDP goes its way untouched"]
    );
}

/// One pod in the ambient namespace `shop` or in `plain`: is it spoken to in tunnels?
#[test]
fn who_is_in_the_mesh() {
    let check = |namespace: &str, meta: &str, spec: &str, expected: bool| {
        let resources = with(&format!(
            "\napiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: {namespace}{meta}}}\n\
             spec: {{nodeName: a{spec}}}\nstatus: {{podIP: 10.1.0.11}}\n"
        ));
        let pod = workload(&resources, &format!("Kubernetes//Pod/{namespace}/p"));
        let hbone = pod.tunnel_protocol() == proto::TunnelProtocol::Hbone;
        assert_eq!(hbone, expected, "{namespace} {meta} {spec}");
    };
    check("shop", "", "", true);
    check("plain", "", "", false);
    check("shop", ", labels: {istio.io/dataplane-mode: none}", "", false);
    check("plain", ", labels: {istio.io/dataplane-mode: ambient}", "", true);
    check("shop", "", ", hostNetwork: true", false);
    check("shop", ", annotations: {sidecar.istio.io/status: x}", "", false);
    check("plain", ", annotations: {ambient.istio.io/redirection: enabled}", "", true);
    check("shop", ", annotations: {ambient.istio.io/redirection: pending}", "", false);
    check("plain", ", labels: {networking.istio.io/tunnel: http}", "", true);
}

#[test]
fn readiness_and_phases() {
    let check = |status: &str, expected: Option<bool>| {
        let resources = with(&format!(
            "\napiVersion: v1\nkind: Pod\nmetadata: {{name: p, namespace: shop}}\n\
             spec: {{nodeName: a}}\nstatus: {{{status}}}\n"
        ));
        let got = resources.addresses.contains_key("Kubernetes//Pod/shop/p").then(|| {
            let pod = workload(&resources, "Kubernetes//Pod/shop/p");
            pod.status() == proto::WorkloadStatus::Healthy
        });
        assert_eq!(got, expected, "{status}");
    };
    check("podIP: 10.1.0.11", Some(true));
    check("podIP: 10.1.0.11, conditions: [{type: Ready, status: 'True'}]", Some(true));
    check("podIP: 10.1.0.11, conditions: [{type: Ready, status: 'False'}]", Some(false));
    check("podIP: 10.1.0.11, phase: Succeeded", None);
    check("phase: Pending", None);
}

const WAYPOINT: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: wp, namespace: shop, labels: {istio.io/waypoint-for: all}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Pod
metadata: {name: wp-0, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: wp}}
spec: {nodeName: node-b}
status: {podIP: 10.1.0.20}
";

#[test]
fn a_waypoint_takes_what_names_it() {
    let using = SHOP
        .replace(
            "name: cart, namespace: shop",
            "name: cart, namespace: shop, labels: {istio.io/use-waypoint: wp}",
        )
        .replace("app: cart, version", "istio.io/use-waypoint: wp, app: cart, version");
    let resources = convert_yaml(&format!("{using}---{WAYPOINT}"));
    let expected = Some("wp.shop.svc.cluster.local");
    let cart = service(&resources, "shop/cart.shop.svc.cluster.local");
    assert_eq!(hostname(cart.waypoint.as_ref()), expected);
    assert_eq!(cart.waypoint.as_ref().unwrap().hbone_mtls_port, 15008);
    let pod = workload(&resources, "Kubernetes//Pod/shop/cart-0");
    assert_eq!(hostname(pod.waypoint.as_ref()), expected);
    // The service that istiod would have made, its endpoint, and no waypoint for a waypoint.
    let of_waypoint = service(&resources, "shop/wp.shop.svc.cluster.local");
    assert_eq!((of_waypoint.ports[0].service_port, &of_waypoint.waypoint), (15008, &None));
    let pod = workload(&resources, "Kubernetes//Pod/shop/wp-0");
    assert_eq!(ports(&pod.services["shop/wp.shop.svc.cluster.local"]), [(15008, 15008)]);
    assert!(pod.waypoint.is_none() && pod.native_tunnel);
}

/// Labels of namespace and service, and changes to the gateway: is there a waypoint, and why not?
#[test]
fn who_gets_a_waypoint() {
    let check =
        |of_namespace: &str, of_service: &str, change: (&str, &str), expected: Result<(), &str>| {
            let shop = SHOP.replace("istio.io/dataplane-mode: ambient", of_namespace).replace(
                "name: cart, namespace: shop}",
                &format!("name: cart, namespace: shop, labels: {{{of_service}}}}}"),
            );
            let resources =
                convert_yaml(&format!("{shop}---{}", WAYPOINT.replace(change.0, change.1)));
            let cart = service(&resources, "shop/cart.shop.svc.cluster.local");
            assert_eq!(
                cart.waypoint.is_some(),
                expected.is_ok(),
                "{of_namespace} {of_service} {change:?}"
            );
            let told = notes(&resources);
            if let Err(reason) = expected {
                let found =
                    told.iter().any(|note| note.contains("use-waypoint") && note.contains(reason));
                assert_eq!(found, !reason.is_empty(), "{told:?}");
            }
        };
    let (same, wp) = (("x", "x"), "istio.io/use-waypoint: wp");
    check(wp, "", same, Ok(()));
    check("a: b", wp, same, Ok(()));
    check(wp, "istio.io/use-waypoint: none", same, Err(""));
    check("a: b", "a: b", same, Err(""));
    check("a: b", "istio.io/use-waypoint: other", same, Err("shop/other is not there"));
    check("a: b", wp, ("waypoint-for: all", "waypoint-for: workload"), Err("not for this kind"));
    check("a: b", wp, ("waypoint-for: all", "x: y"), Ok(()));
    let moved = ("name: wp, namespace: shop", "name: wp, namespace: infra");
    let far = format!("{wp}, istio.io/use-waypoint-namespace: infra");
    check("a: b", &far, moved, Err("does not admit this namespace"));
    let open = WAYPOINT
        .replace("namespace: shop, labels: {istio.io", "namespace: infra, labels: {istio.io")
        .replace("protocol: HBONE", "protocol: HBONE, allowedRoutes: {namespaces: {from: All}}");
    check("a: b", &far, (WAYPOINT, &open), Ok(()));
}

#[test]
fn listed_endpoints() {
    let resources = with(
        "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None, ports: [{name: sql, port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 6000}]
endpoints:
- {addresses: [192.0.2.1], conditions: {ready: false}}
- {addresses: [192.0.2.2]}
- {addresses: [10.1.0.10], targetRef: {kind: Pod, name: cart-0}}
",
    );
    for (address, healthy) in [("192.0.2.1", false), ("192.0.2.2", true)] {
        let uid = format!("Kubernetes/discovery.k8s.io/EndpointSlice/shop/db-1/{address}");
        let endpoint = workload(&resources, &uid);
        assert_eq!(endpoint.status() == proto::WorkloadStatus::Healthy, healthy);
        assert_eq!(endpoint.network_mode(), proto::NetworkMode::HostNetwork);
        assert_eq!(ports(&endpoint.services["shop/db.shop.svc.cluster.local"]), [(5432, 6000)]);
    }
    let pod = workload(&resources, "Kubernetes//Pod/shop/cart-0");
    assert_eq!(ports(&pod.services["shop/db.shop.svc.cluster.local"]), [(5432, 6000)]);
}

#[test]
fn entries_outside_of_kubernetes() {
    let resources = with(
        "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ext, namespace: shop}
spec:
  hosts: [db.example]
  addresses: [192.0.2.0/24]
  ports: [{name: tcp, number: 5432, protocol: TCP}]
  resolution: STATIC
  subjectAltNames: ['spiffe://corp.example/ns/x/sa/y']
  endpoints: [{address: 198.51.100.1, ports: {tcp: 6000}, locality: r/z/s, weight: 3}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: dns, namespace: shop}
spec: {hosts: [a.example], ports: [{name: tcp, number: 443}], resolution: DNS}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: sel, namespace: shop}
spec:
  hosts: [vm.example]
  addresses: [192.0.3.1]
  ports: [{name: tcp, number: 80, targetPort: 8080}]
  resolution: STATIC
  workloadSelector: {labels: {app: vm}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm-0, namespace: shop, annotations: {ambient.istio.io/redirection: enabled}}
spec: {address: 198.51.100.2, labels: {app: vm}, serviceAccount: vm}
",
    );
    let entry = service(&resources, "shop/db.example");
    assert_eq!(entry.addresses[0].length, Some(24));
    assert_eq!(entry.subject_alt_names, ["spiffe://corp.example/ns/x/sa/y"]);
    let prefix = "Kubernetes/networking.istio.io/ServiceEntry/shop";
    let endpoint = workload(&resources, &format!("{prefix}/ext/198.51.100.1"));
    assert_eq!(ports(&endpoint.services["shop/db.example"]), [(5432, 6000)]);
    assert_eq!((endpoint.capacity, &*endpoint.locality.as_ref().unwrap().zone), (Some(3), "z"));
    let dns = workload(&resources, &format!("{prefix}/dns/a.example"));
    assert_eq!((&*dns.hostname, dns.addresses.len()), ("a.example", 0));
    let vm = workload(&resources, "Kubernetes/networking.istio.io/WorkloadEntry/shop/vm-0");
    assert_eq!(ports(&vm.services["shop/vm.example"]), [(80, 8080)]);
    assert_eq!(vm.tunnel_protocol(), proto::TunnelProtocol::Hbone);
    assert_eq!(&*vm.service_account, "vm");
}

/// Fields of a service's spec, and what becomes of the choice among its endpoints.
#[test]
fn load_balancing() {
    use proto::load_balancing::{HealthPolicy, Mode};
    let check = |spec: &str, expected: Option<(Mode, usize, HealthPolicy)>| {
        let resources = convert_yaml(&SHOP.replace("clusterIP: 10.96.0.1", spec));
        let of = service(&resources, "shop/cart.shop.svc.cluster.local").load_balancing.clone();
        let got = of.map(|of| (of.mode(), of.routing_preference.len(), of.health_policy()));
        assert_eq!(got, expected, "{spec}");
    };
    check("clusterIP: None", None);
    check("internalTrafficPolicy: Local", Some((Mode::Strict, 1, HealthPolicy::OnlyHealthy)));
    check("trafficDistribution: PreferClose", Some((Mode::Failover, 3, HealthPolicy::OnlyHealthy)));
    check(
        "trafficDistribution: PreferSameNode",
        Some((Mode::Failover, 5, HealthPolicy::OnlyHealthy)),
    );
    check(
        "publishNotReadyAddresses: true",
        Some((Mode::UnspecifiedMode, 0, HealthPolicy::AllowAll)),
    );
}
