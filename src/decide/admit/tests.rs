use super::super::{Client, Facts, authorize};
use super::*;
use crate::model::fixtures::{
    endpoint_of, gateway, id, ip, mesh, mesh_on_demand, net_addr, pod, policy, service,
    service_key, sock,
};
use crate::model::{ApplicationTunnel, Policy, VerifiedPeer, Visibility, WeightedWaypoint};

const CART: &str = "cart.shop.svc.cluster.local";

/// `shop/cart-0`, an endpoint of the service `cart`, whose VIP is 10.96.0.1.
fn cart() -> Workload {
    let ports = [(80, 8080), (81, 0)];
    endpoint_of(pod("shop/cart-0", &["10.1.0.10", "2001:db8::10"]), &key("shop", CART), &ports)
}

fn key(namespace: &str, host: &str) -> String {
    format!("{namespace}/{host}")
}

fn tunnelled(protocol: TunnelProtocol, port: Option<u16>) -> Workload {
    Workload { application_tunnel: Some(ApplicationTunnel { protocol, port }), ..cart() }
}

fn services() -> Vec<Service> {
    let vips = ["other/10.96.9.9", "/2001:db8:96::1", "/10.96.0.1"];
    let cart = service(&key("shop", CART), &vips, &[(80, 0), (81, 0), (82, 8082), (83, 15008)]);
    vec![cart, service("shop/pay.shop", &["/10.96.0.2"], &[(80, 8080)])]
}

fn admit_in(
    snapshot: &Snapshot,
    local: &Workload,
    authority: &str,
) -> Result<Delivery, NotAdmitted> {
    let authority = authority.parse().expect("an authority");
    admit(snapshot, local, PodIp(ip("10.1.0.10")), &Arc::from(""), &authority)
}

/// Where `authority` is delivered by the pod `local` of a mesh with `services` and `others`.
fn check(
    (local, services, others): (&Workload, Vec<Service>, Vec<Workload>),
    authority: &str,
    expected: Result<&str, NotAdmitted>,
) {
    let mut workloads = others;
    workloads.push(local.clone());
    let snapshot = mesh(workloads, services, Vec::new());
    let got = admit_in(&snapshot, local, authority).map(|delivery| delivery.destination);
    assert_eq!(got, expected.map(sock), "{authority}");
}

#[test]
fn an_address_must_be_the_one_the_tunnel_was_accepted_on() {
    let check = |authority: &str, expected| {
        check((&cart(), services(), vec![pod("shop/pay-0", &["10.1.0.11"])]), authority, expected);
    };
    check("10.1.0.10:8080", Ok("10.1.0.10:8080"));
    check("[::ffff:10.1.0.10]:8080", Ok("10.1.0.10:8080"));
    check("10.1.0.11:8080", Err(NotAdmitted::AddressMismatch));
    check("[2001:db8::10]:8080", Err(NotAdmitted::AddressMismatch));
    check("10.96.0.1:80", Err(NotAdmitted::AddressMismatch));
    check("127.0.0.1:8080", Err(NotAdmitted::AddressMismatch));
    check("[::1]:8080", Err(NotAdmitted::AddressMismatch));
    check("169.254.169.254:80", Err(NotAdmitted::AddressMismatch));
    for port in [15001, 15006, 15008] {
        check(&format!("10.1.0.10:{port}"), Err(NotAdmitted::OwnPort));
    }
}

#[test]
fn a_host_name_must_be_a_service_of_this_pod() {
    let check = |authority: &str, expected| {
        check((&cart(), services(), vec![]), authority, expected);
    };
    check("cart.shop.svc.cluster.local:80", Ok("10.1.0.10:8080"));
    // Neither the pod nor the service says what the port is.
    check("cart.shop.svc.cluster.local:81", Err(NotAdmitted::PortUnknown));
    check("cart.shop.svc.cluster.local:84", Err(NotAdmitted::PortUnknown));
    check("cart.shop.svc.cluster.local:82", Ok("10.1.0.10:8082"));
    check("cart.shop.svc.cluster.local:83", Err(NotAdmitted::OwnPort));
    check("pay.shop:80", Err(NotAdmitted::NotAnEndpoint));
    check("nobody.shop:80", Err(NotAdmitted::HostnameUnknown));
    check("CART.shop.svc.cluster.local:80", Err(NotAdmitted::HostnameUnknown));
}

#[test]
fn a_host_name_of_several_services_means_the_one_this_pod_serves() {
    let hidden = Service {
        visibility: Visibility::Namespace,
        ..service("other/ext.example", &[], &[(80, 7000)])
    };
    let own = service("shop/ext.example", &[], &[(80, 7001)]);
    let foreign = service("public/ext.example", &[], &[(80, 7002)]);
    let all = || vec![hidden.clone(), own.clone(), foreign.clone()];
    let of = |namespace: &str| {
        endpoint_of(pod("shop/ext-0", &["10.1.0.10"]), &key(namespace, "ext.example"), &[])
    };
    check((&of("shop"), all(), vec![]), "ext.example:80", Ok("10.1.0.10:7001"));
    check((&of("public"), all(), vec![]), "ext.example:80", Ok("10.1.0.10:7002"));
    let hidden_only = vec![hidden.clone()];
    let unknown = Err(NotAdmitted::HostnameUnknown);
    check((&of("other"), hidden_only, vec![]), "ext.example:80", unknown);
    check((&of("other"), all(), vec![]), "ext.example:80", Err(NotAdmitted::NotAnEndpoint));
}

#[test]
fn a_captured_waypoint_is_asked_for_what_it_is_the_waypoint_of() {
    let waypoint = endpoint_of(pod("shop/wp-0", &["10.1.0.10"]), "shop/wp.shop", &[]);
    let wp_service = || service("shop/wp.shop", &["/10.96.0.9"], &[(15008, 15008)]);
    let by = |reference: &str| {
        let mut pay = service("shop/pay.shop", &["/10.96.0.2"], &[(80, 8080)]);
        pay.waypoint = Some(gateway(reference));
        vec![wp_service(), pay]
    };
    let vip_ok = Ok("10.1.0.10:80");
    let refused = Err(NotAdmitted::AddressMismatch);
    for reference in ["shop/wp.shop:15008", "@/10.1.0.10:15008", "@/10.96.0.9:15008"] {
        check((&waypoint, by(reference), vec![]), "10.96.0.2:80", vip_ok.clone());
        check((&waypoint, by(reference), vec![]), "pay.shop:80", vip_ok.clone());
        check((&waypoint, by(reference), vec![]), "pay.shop:81", Err(NotAdmitted::PortUnknown));
        check((&waypoint, by(reference), vec![]), "10.96.0.2:15008", Err(NotAdmitted::OwnPort));
    }
    for reference in ["other/wp.shop:15008", "@/10.1.0.99:15008", "@other/10.1.0.10:15008"] {
        check((&waypoint, by(reference), vec![]), "10.96.0.2:80", refused.clone());
        check((&waypoint, by(reference), vec![]), "pay.shop:80", Err(NotAdmitted::NotAnEndpoint));
    }
    // A canary is looked at too, and so are services that share the address.
    let mut canary = service("shop/pay.shop", &["/10.96.0.2"], &[(80, 8080)]);
    canary.waypoint = Some(gateway("shop/primary.shop:15008"));
    let destination = gateway("shop/wp.shop:15008");
    canary.weighted_waypoints = vec![WeightedWaypoint { destination, weight: 0 }];
    let sharing = service("aaa/pay.aaa", &["/10.96.0.2"], &[(80, 8080)]);
    check((&waypoint, vec![canary, sharing, wp_service()], vec![]), "10.96.0.2:80", vip_ok.clone());
    // A workload's waypoint, and one known by host name.
    let mut pay = pod("shop/pay-0", &["10.1.0.11"]);
    pay.waypoint = Some(gateway("shop/named.example:15008"));
    let named = Workload { hostname: Arc::from("named.example"), ..waypoint.clone() };
    check((&named, vec![], vec![pay.clone()]), "10.1.0.11:80", vip_ok.clone());
    check((&waypoint, vec![], vec![pay]), "10.1.0.11:80", refused.clone());
}

#[test]
fn a_range_belongs_to_its_services_waypoint() {
    let waypoint = endpoint_of(pod("shop/wp-0", &["10.1.0.10"]), "shop/wp.shop", &[]);
    let mut wide = service("shop/wide.example", &[], &[(443, 443)]);
    wide.cidr_vips = vec![(Arc::from(""), "198.51.100.0/24".parse().expect("a range"))];
    wide.waypoint = Some(gateway("shop/wp.shop:15008"));
    check((&waypoint, vec![wide.clone()], vec![]), "198.51.100.7:443", Ok("10.1.0.10:443"));
    let refused = Err(NotAdmitted::AddressMismatch);
    check((&waypoint, vec![wide], vec![]), "198.51.101.7:443", refused);
}

#[test]
fn an_application_tunnel_takes_every_address_and_replaces_the_port() {
    let check = |port, authority: &str, expected| {
        let local = tunnelled(TunnelProtocol::None, port);
        check((&local, services(), vec![]), authority, expected);
    };
    check(Some(15088), "10.96.0.2:80", Ok("10.1.0.10:15088"));
    check(Some(15088), "10.1.0.10:8080", Ok("10.1.0.10:15088"));
    check(Some(15088), "cart.shop.svc.cluster.local:80", Ok("10.1.0.10:15088"));
    check(None, "10.96.0.2:80", Ok("10.1.0.10:80"));
    // Own ports are refused before the port is replaced, and as the replacement.
    check(Some(15088), "10.96.0.2:15006", Err(NotAdmitted::OwnPort));
    check(Some(15001), "10.96.0.2:80", Err(NotAdmitted::OwnPort));
    check(Some(15088), "127.0.0.1:80", Err(NotAdmitted::AddressMismatch));
    check(Some(15088), "0.0.0.0:80", Err(NotAdmitted::AddressMismatch));
    check(Some(15088), "224.0.0.1:80", Err(NotAdmitted::AddressMismatch));
    check(Some(15088), "pay.shop:80", Err(NotAdmitted::NotAnEndpoint));
}

#[test]
fn a_proxy_header_names_the_destination_that_was_asked_for() {
    let check = |vips: &[&str], authority: &str, expected: Result<&str, NotAdmitted>| {
        let local = tunnelled(TunnelProtocol::Proxy, Some(15088));
        let mut services = services();
        services[0].vips = vips.iter().map(|vip| net_addr(vip)).collect();
        let snapshot = mesh(vec![local.clone()], services, Vec::new());
        let got = admit_in(&snapshot, &local, authority).map(|delivery| delivery.proxy_header);
        assert_eq!(got, expected.map(|addr| Some(sock(addr))), "{vips:?} {authority}");
    };
    let host = "cart.shop.svc.cluster.local:80";
    check(&[], "10.96.0.2:80", Ok("10.96.0.2:80"));
    check(&[], "[::ffff:10.96.0.2]:80", Ok("10.96.0.2:80"));
    check(&["x/10.0.0.1", "/2001:db8::1", "/10.0.0.2"], host, Ok("10.0.0.2:80"));
    check(&["x/10.0.0.1", "/2001:db8::1"], host, Ok("[2001:db8::1]:80"));
    check(&["x/2001:db8::1", "x/10.0.0.1"], host, Ok("[2001:db8::1]:80"));
    check(&[], host, Err(NotAdmitted::NoVirtualAddress));
    // Without a header the service needs no address.
    let local = tunnelled(TunnelProtocol::None, None);
    let mut headless = services();
    headless[0].vips.clear();
    let snapshot = mesh(vec![local.clone()], headless, Vec::new());
    let delivery = admit_in(&snapshot, &local, host).expect("an endpoint");
    assert_eq!(delivery.proxy_header, None);
    assert_eq!(delivery.service.map(|service| service.key.to_string()), Some(key("shop", CART)));
}

#[test]
fn loopback_is_dialled_only_with_a_proxy_header() {
    let check = |proxy: Option<&str>, destination: &str, localhost, expected: &str| {
        let proxy_header = proxy.map(sock);
        let delivery = Delivery { destination: sock(destination), proxy_header, service: None };
        assert_eq!(delivery.dial(localhost), sock(expected));
    };
    check(None, "10.1.0.10:8080", true, "10.1.0.10:8080");
    check(Some("10.96.0.1:80"), "10.1.0.10:15088", false, "10.1.0.10:15088");
    check(Some("10.96.0.1:80"), "10.1.0.10:15088", true, "127.0.0.1:15088");
    check(Some("10.96.0.1:80"), "[2001:db8::10]:15088", true, "[::1]:15088");
}

#[test]
fn a_tunnel_over_loopback_leads_nowhere_unless_that_is_the_pods_address() {
    let check = |local_ip: &str, ips: &[&str], expected: Result<&str, NotAdmitted>| {
        let local = pod("shop/cart-0", ips);
        let snapshot = mesh(vec![local.clone()], vec![], Vec::new());
        let authority = Authority::Addr(SocketAddr::new(ip(local_ip), 8080));
        let got = admit(&snapshot, &local, PodIp(ip(local_ip)), &Arc::from(""), &authority);
        assert_eq!(got.map(|delivery| delivery.destination), expected.map(sock), "{local_ip}");
    };
    check("127.0.0.1", &["10.1.0.10"], Err(NotAdmitted::AddressMismatch));
    check("::1", &["10.1.0.10"], Err(NotAdmitted::AddressMismatch));
    check("0.0.0.0", &["10.1.0.10"], Err(NotAdmitted::AddressMismatch));
    check("127.0.0.1", &["127.0.0.1"], Ok("127.0.0.1:8080"));
    check("::ffff:10.1.0.10", &["10.1.0.10"], Ok("10.1.0.10:8080"));
    check("10.1.0.77", &["10.1.0.10"], Ok("10.1.0.77:8080"));
}

/// Rows 54 and 55 of spec policy 8: policies see the port of the delivery.
#[test]
fn policies_see_the_final_port() {
    let check = |local: Workload, policies: Vec<Policy>, authority: &str| {
        let snapshot = mesh(vec![local.clone()], services(), policies);
        let delivery = admit_in(&snapshot, &local, authority).expect("ours");
        let web = VerifiedPeer::assertion(id("spiffe://corp.example/ns/front/sa/web"));
        let facts = Facts {
            workload_uid: Arc::clone(&local.uid),
            client: Client::Verified(web),
            source_ip: ip("10.2.0.5"),
            destination: delivery.destination,
        };
        authorize(&snapshot, &facts).outcome.is_ok()
    };
    let deny =
        |port: u16| vec![policy("DENY NAMESPACE shop/p", &format!("{{destinationPorts: {port}}}"))];
    let tunnel = || tunnelled(TunnelProtocol::Proxy, Some(15088));
    assert!(check(tunnel(), deny(8080), "10.1.0.10:8080"), "row 54");
    assert!(!check(tunnel(), deny(15088), "10.1.0.10:8080"), "row 54, the other way round");
    assert!(check(cart(), deny(80), "cart.shop.svc.cluster.local:80"), "row 55");
    assert!(!check(cart(), deny(8080), "cart.shop.svc.cluster.local:80"), "row 55, other way");
}

/// Promise S6 in small: whatever is asked for, what comes out is the accepted address and not one
/// of our own ports; loopback needs a PROXY tunnel.
#[test]
fn nothing_leads_to_another_address_or_to_our_own_ports() {
    let wp = endpoint_of(tunnelled(TunnelProtocol::Proxy, None), "shop/wp.shop", &[]);
    let mut pay = service("shop/pay.shop", &["/10.96.0.2"], &[(80, 15001), (15006, 80)]);
    pay.waypoint = Some(gateway("shop/wp.shop:15008"));
    let hosts = [
        "10.1.0.10",
        "10.1.0.11",
        "10.96.0.1",
        "10.96.0.2",
        "127.0.0.1",
        "127.1.2.3",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[fe80::1]",
        "cart.shop.svc.cluster.local",
        "pay.shop",
        "localhost",
    ];
    let mut admitted = 0;
    for local in [cart(), tunnelled(TunnelProtocol::None, Some(15008)), wp] {
        let mut services = services();
        services.push(pay.clone());
        let snapshot = mesh(vec![local.clone()], services, Vec::new());
        for host in hosts {
            for port in [1, 80, 81, 82, 83, 8080, 15001, 15006, 15008, 65535] {
                if let Ok(delivery) = admit_in(&snapshot, &local, &format!("{host}:{port}")) {
                    admitted += 1;
                    assert_eq!(delivery.destination.ip(), ip("10.1.0.10"), "{host}:{port}");
                    assert!(!is_own_port(delivery.destination.port()), "{host}:{port}");
                }
            }
        }
    }
    // The plain pod: 7 ports of its address and 2 of its service. The waypoint: 7 ports of 6
    // addresses, and 2 and 1 of its services.
    assert_eq!(admitted, 7 + 2 + 7 * 6 + 2 + 1);
}

#[test]
fn on_demand_what_may_be_ours_is_asked_for() {
    let check = |services, answered, authority: &str, expected: Result<&str, NotAdmitted>| {
        let snapshot = mesh_on_demand(vec![cart()], services, answered);
        let got = admit_in(&snapshot, &cart(), authority).map(|delivery| delivery.destination);
        assert_eq!(got, expected.map(sock), "{authority}");
    };
    let addr = || Wanted::Addr(net_addr("/10.96.0.2"));
    let host = |text: &str| Wanted::Host(service_key(text));
    let unanswered = |wanted| Err(NotAdmitted::Unanswered(wanted));
    // Its own address needs no answer.
    check(vec![], vec![], "10.1.0.10:8080", Ok("10.1.0.10:8080"));
    check(vec![], vec![], "10.96.0.2:80", unanswered(addr()));
    check(vec![], vec![addr()], "10.96.0.2:80", Err(NotAdmitted::AddressMismatch));
    let mut pay = service("shop/pay.shop", &["/10.96.0.2"], &[(80, 8080)]);
    pay.waypoint = Some(gateway("@/10.1.0.10:15008"));
    check(vec![pay], vec![], "10.96.0.2:80", Ok("10.1.0.10:80"));
    // A host name is asked for in the namespaces that it can be of.
    let own = format!("{CART}:80");
    check(vec![], vec![], &own, unanswered(host(&key("shop", CART))));
    check(services(), vec![], &own, Ok("10.1.0.10:8080"));
    let other = "pay.other.svc.cluster.local";
    let wanted = || host(&key("other", other));
    check(vec![], vec![], &format!("{other}:80"), unanswered(wanted()));
    check(vec![], vec![wanted()], &format!("{other}:80"), Err(NotAdmitted::HostnameUnknown));
    check(vec![], vec![], "pay.example:80", Err(NotAdmitted::HostnameUnknown));
}
