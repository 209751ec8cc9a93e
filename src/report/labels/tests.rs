use super::*;
use crate::model::{Locality, Service, ServiceKey, Workload};
use crate::report::fixtures::{client, connection, server, service, side};
use crate::wire::baggage::Baggage;

fn text(labels: &Labels) -> String {
    let pairs: Vec<_> = labels.pairs().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("\n")
}

fn check(connection: &Connection, flag: ResponseFlag, expected: &str) {
    let (labels, _) = Labels::of(connection, flag, Claims::Used);
    let expected: Vec<_> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    assert_eq!(text(&labels), expected.join("\n"));
}

#[test]
fn labels_of_a_tunnelled_connection_are_those_of_its_records() {
    let mut connection = connection(Direction::Outbound, Transport::Hbone);
    check(
        &connection,
        ResponseFlag::None,
        "reporter=source
        source_workload=web
        source_canonical_service=web
        source_canonical_revision=v1
        source_workload_namespace=shop
        source_principal=spiffe://cluster.local/ns/shop/sa/web
        source_app=web
        source_version=v1
        source_cluster=c1
        destination_service=cart.shop.svc.cluster.local
        destination_service_namespace=shop
        destination_service_name=cart
        destination_workload=cart
        destination_canonical_service=cart
        destination_canonical_revision=latest
        destination_workload_namespace=shop
        destination_principal=spiffe://cluster.local/ns/shop/sa/cart
        destination_app=cart
        destination_version=latest
        destination_cluster=c1
        request_protocol=tcp
        response_flags=-
        connection_security_policy=mutual_tls",
    );
    connection.direction = Direction::Inbound;
    connection.transport = Transport::DoubleHbone;
    let (labels, claimed) = Labels::of(&connection, ResponseFlag::Deny, Claims::Used);
    let text = text(&labels);
    assert!(!claimed);
    assert!(text.starts_with("reporter=destination\n"));
    assert!(text.ends_with("response_flags=DENY\nconnection_security_policy=mutual_tls"));
}

#[test]
fn what_is_not_known_is_unknown_and_plaintext_proves_no_source() {
    let mut connection = connection(Direction::Outbound, Transport::Plaintext);
    connection.service = None;
    connection.source.workload = None;
    check(
        &connection,
        ResponseFlag::Connect,
        "reporter=source
        source_workload=unknown
        source_canonical_service=unknown
        source_canonical_revision=unknown
        source_workload_namespace=unknown
        source_principal=unknown
        source_app=unknown
        source_version=unknown
        source_cluster=unknown
        destination_service=unknown
        destination_service_namespace=unknown
        destination_service_name=unknown
        destination_workload=cart
        destination_canonical_service=cart
        destination_canonical_revision=latest
        destination_workload_namespace=shop
        destination_principal=spiffe://cluster.local/ns/shop/sa/cart
        destination_app=cart
        destination_version=latest
        destination_cluster=c1
        request_protocol=tcp
        response_flags=CONNECT
        connection_security_policy=unknown",
    );
}

#[test]
fn localities_are_there_when_one_of_them_is_known() {
    let mut connection = connection(Direction::Inbound, Transport::Hbone);
    let locality = Locality { zone: "z".into(), ..Locality::default() };
    let workload = Workload { locality, ..server() };
    connection.destination.workload = Some(Arc::new(workload));
    let (labels, _) = Labels::of(&connection, ResponseFlag::None, Claims::Used);
    let expected = "source_region=unknown\nsource_zone=unknown\n\
                    destination_region=unknown\ndestination_zone=z";
    assert!(text(&labels).ends_with(expected));
}

#[test]
fn the_record_overrides_the_claim_field_by_field() {
    let some = |text: &str| Some(Arc::from(text));
    let baggage = Baggage {
        cluster: some("claimed-cluster"),
        namespace: some("claimed-namespace"),
        workload_name: some("claimed-workload"),
        workload_type: some("deployment"),
        service_name: some("claimed-service"),
        service_version: some("claimed-version"),
        region: some("claimed-region"),
        zone: None,
    };
    let record = Workload { workload_name: "".into(), canonical_name: "".into(), ..client() };
    let check = |record: Option<Workload>, claims, expected: [&str; 9], claimed: bool| {
        let mut side = side("10.0.0.1:1000", None);
        side.workload = record.map(Arc::new);
        side.claimed = Some(Arc::new(baggage.clone()));
        let n = Names::of(&side, claims);
        let got = [
            n.pod,
            n.workload,
            n.canonical_service,
            n.canonical_revision,
            n.app,
            n.namespace,
            n.cluster,
            n.region,
            n.zone,
        ];
        assert_eq!(got.map(|text| text.map_or("-", |text| &**text)), expected);
        assert_eq!(n.claimed, claimed);
    };
    let all_claimed = [
        "-",
        "claimed-workload",
        "claimed-service",
        "claimed-version",
        "claimed-workload",
        "claimed-namespace",
        "claimed-cluster",
        "claimed-region",
        "-",
    ];
    let mixed = [
        "web-0",
        "claimed-workload",
        "claimed-service",
        "v1",
        "claimed-workload",
        "shop",
        "c1",
        "claimed-region",
        "-",
    ];
    check(None, Claims::Used, all_claimed, true);
    check(None, Claims::Ignored, ["-"; 9], false);
    check(Some(record), Claims::Used, mixed, true);
    check(
        Some(client()),
        Claims::Ignored,
        ["web-0", "web", "web", "v1", "web", "shop", "c1", "-", "-"],
        false,
    );
}

#[test]
fn an_overlong_claim_counts_as_not_made() {
    let claim = |length: usize| {
        let mut side = side("10.0.0.1:1000", None);
        let name = Some(Arc::from("x".repeat(length)));
        side.claimed = Some(Arc::new(Baggage { namespace: name, ..Baggage::default() }));
        let names = Names::of(&side, Claims::Used);
        (names.namespace.is_some(), names.claimed)
    };
    assert_eq!(claim(253), (true, true));
    assert_eq!(claim(254), (false, false));
    assert_eq!(claim(0), (false, false));
}

#[test]
fn the_rest_has_the_same_labels_without_names() {
    let connection = connection(Direction::Inbound, Transport::Hbone);
    let rest = Labels::of_the_rest(&connection, ResponseFlag::Deny);
    let (named, _) = Labels::of(&connection, ResponseFlag::Deny, Claims::Used);
    let kept = ["reporter", "request_protocol", "response_flags", "connection_security_policy"];
    assert_eq!(rest.pairs().count(), named.pairs().count());
    for ((name, value), (_, own)) in rest.pairs().zip(named.pairs()) {
        let expected = if kept.contains(&name) { own } else { "unknown" };
        assert_eq!(value, expected, "{name}");
    }
}

#[test]
fn services_are_told_apart_by_namespace() {
    let labels = |namespace: &str| {
        let mut connection = connection(Direction::Outbound, Transport::Hbone);
        let key = ServiceKey { namespace: namespace.into(), ..service().key };
        connection.service = Some(Arc::new(Service { key, ..service() }));
        Labels::of(&connection, ResponseFlag::None, Claims::Used).0
    };
    assert_eq!(labels("a"), labels("a"));
    assert_ne!(labels("a"), labels("b"));
}
