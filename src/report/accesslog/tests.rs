use super::*;
use crate::report::Reason;
use crate::report::fixtures::connection;
use crate::report::log::tests::{capture, untimed};

const TOOK: Duration = Duration::from_micros(13_999);

fn finish(connection: &Connection, failure: Option<&Failure>) {
    finished(connection, (100, 2_000), TOOK, None, failure);
}

fn check(expected: &str, body: impl FnOnce()) {
    let expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines = untimed(&capture("access=debug", false, |_| body()));
    let lines: Vec<_> = lines.iter().map(|line| line.replace('\t', " ")).collect();
    assert_eq!(lines, [expected]);
}

#[test]
fn one_line_per_event_with_fields_in_order() {
    let outbound = connection(Direction::Outbound, Transport::Hbone);
    check(
        r#"info access connection complete
        src.addr=10.0.0.1:40000 src.workload="web-0" src.namespace="shop"
        src.identity="spiffe://cluster.local/ns/shop/sa/web" src.cluster="c1"
        dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:8080
        dst.service="cart.shop.svc.cluster.local" dst.workload="cart-0" dst.namespace="shop"
        dst.identity="spiffe://cluster.local/ns/shop/sa/cart" dst.cluster="c1"
        direction="outbound" bytes_sent=100 bytes_recv=2000 duration="13ms""#,
        || finish(&outbound, None),
    );
    let mut inbound = connection(Direction::Inbound, Transport::Hbone);
    inbound.trace_id = Some(0xabc);
    inbound.destination.workload = None;
    inbound.service = None;
    let denied = Failure::new(Reason::PolicyDenied, "shop/only-\"web\"");
    check(
        r#"error access connection complete
        src.addr=10.0.0.1:40000 src.workload="web-0" src.namespace="shop"
        src.identity="spiffe://cluster.local/ns/shop/sa/web" src.cluster="c1"
        dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:8080
        dst.identity="spiffe://cluster.local/ns/shop/sa/cart"
        direction="inbound" bytes_sent=2000 bytes_recv=100 duration="13ms"
        error="policy_denied: shop/only-\"web\""
        trace_id=00000000000000000000000000000abc"#,
        || finish(&inbound, Some(&denied)),
    );
    let mut plain = connection(Direction::Inbound, Transport::Plaintext);
    plain.source.workload = None;
    plain.service = None;
    check(
        r#"debug access connection opened src.addr=10.0.0.1:40000
        dst.addr=10.0.0.2:8080 dst.workload="cart-0" dst.namespace="shop" dst.cluster="c1"
        direction="inbound""#,
        || opened(&plain),
    );
    inbound.trace_id = None;
    check(
        r#"info access connection complete
        src.addr=10.0.0.1:40000 src.workload="web-0" src.namespace="shop"
        src.identity="spiffe://cluster.local/ns/shop/sa/web" src.cluster="c1"
        dst.addr=10.0.0.2:15008 dst.hbone_addr=10.0.0.2:8080
        dst.identity="spiffe://cluster.local/ns/shop/sa/cart"
        direction="inbound" bytes_sent=2000 bytes_recv=100 duration="13ms" path="same_node""#,
        || finished(&inbound, (100, 2_000), TOOK, Some(SAME_NODE), None),
    );
    let early = Early {
        direction: Direction::Outbound,
        source: "[2001:db8::1]:4000".parse().unwrap(),
        destination: "[2001:db8::2]:80".parse().unwrap(),
    };
    check(
        r#"warn access connection failed src.addr=[2001:db8::1]:4000
        dst.addr=[2001:db8::2]:80 direction="outbound" error="waypoint_unknown""#,
        || refused(&early, &Reason::WaypointUnknown.into()),
    );
}

#[test]
fn json_has_the_same_keys_with_numbers_for_counts() {
    let mut connection = connection(Direction::Outbound, Transport::Hbone);
    connection.destination.workload = None;
    connection.destination.identity = None;
    let text = capture("info", true, |_| finish(&connection, None));
    let rest = text.split_once(r#""scope""#).expect("a scope").1;
    assert_eq!(
        rest.trim_end(),
        r#":"access","message":"connection complete","src.addr":"10.0.0.1:40000","#.to_owned()
            + r#""src.workload":"web-0","src.namespace":"shop","#
            + r#""src.identity":"spiffe://cluster.local/ns/shop/sa/web","src.cluster":"c1","#
            + r#""dst.addr":"10.0.0.2:15008","dst.hbone_addr":"10.0.0.2:8080","#
            + r#""dst.service":"cart.shop.svc.cluster.local","direction":"outbound","#
            + r#""bytes_sent":100,"bytes_recv":2000,"duration":"13ms"}"#
    );
}

#[test]
fn levels_decide_what_is_logged() {
    let connection = connection(Direction::Outbound, Transport::Plaintext);
    let early = Early {
        direction: Direction::Inbound,
        source: connection.source.addr,
        destination: connection.destination.addr,
    };
    let failure = Failure::from(Reason::Dial);
    let count = |filter: &str| {
        let text = capture(filter, false, |_| {
            opened(&connection);
            finish(&connection, None);
            refused(&early, &failure);
            finish(&connection, Some(&failure));
        });
        text.lines().count()
    };
    assert_eq!(
        ["debug", "info", "warn", "error", "off", "info,access=off", "off,access=info"].map(count),
        [4, 3, 2, 1, 0, 0, 3]
    );
}

#[test]
fn a_peer_cannot_forge_a_field() {
    let mut connection = connection(Direction::Inbound, Transport::Hbone);
    let claim = "x\" src.identity=\"spiffe://root\n";
    connection.source.workload = None;
    connection.source.claimed = Some(std::sync::Arc::new(crate::wire::baggage::Baggage {
        namespace: Some(claim.into()),
        ..Default::default()
    }));
    let text = capture("info", false, |_| finish(&connection, None));
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains(r#"src.namespace="x\" src.identity=\"spiffe://root\n" "#), "{text}");
}
