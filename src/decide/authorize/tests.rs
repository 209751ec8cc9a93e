use super::*;
use crate::model::fixtures::{id, ip, mesh, pod, policy, policy_key, sock};
use crate::model::{Delta, VerifiedPeer};

mod exhaustive;

const WEB: &str = "spiffe://corp.example/ns/front/sa/web";
const BATCH: &str = "spiffe://corp.example/ns/jobs/sa/batch";
const WAYPOINT: &str = "spiffe://corp.example/ns/shop/sa/shop-wp";

/// The connections of spec policy 8, in the order of its columns: web, batch, raw, raw9, wp.
fn connections() -> [Facts; 5] {
    [
        facts(Some(WEB), "10.2.0.5", "10.1.0.10:8080"),
        facts(Some(BATCH), "10.2.0.6", "10.1.0.10:9090"),
        facts(None, "10.9.0.7", "10.1.0.10:8080"),
        facts(None, "10.9.0.7", "10.1.0.10:9090"),
        facts(Some(WAYPOINT), "10.2.0.9", "10.1.0.10:8080"),
    ]
}

fn facts(identity: Option<&str>, source: &str, destination: &str) -> Facts {
    Facts {
        workload_uid: Arc::from("k//Pod/shop/cart-0"),
        client: match identity {
            Some(text) => Client::Verified(VerifiedPeer::assertion(id(text))),
            None => Client::Plaintext,
        },
        source_ip: ip(source),
        destination: sock(destination),
    }
}

/// `shop/cart-0` with these policies in the store and these names attached to it.
fn cart(policies: &[(&str, &str)], listed: &[&str]) -> Snapshot {
    let mut cart = pod("shop/cart-0", &["10.1.0.10"]);
    cart.authorization_policies = listed.iter().map(|name| policy_key(name)).collect();
    let policies = policies.iter().map(|(head, groups)| policy(head, groups)).collect();
    mesh(vec![cart, pod("shop/other-0", &["10.1.0.11"])], Vec::new(), policies)
}

fn ticks(snapshot: &Snapshot, facts: &[Facts]) -> String {
    let tick = |facts| if authorize(snapshot, facts).outcome.is_ok() { '✔' } else { '✘' };
    facts.iter().map(tick).collect()
}

/// One row of spec policy 8: its number, the policies, the names that cart-0 lists, and who gets in
/// (web, batch, raw, raw9 and, where the table has it, wp).
type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str], &'a str);

fn check_rows(rows: &[Row<'_>]) {
    for (number, policies, listed, expected) in rows {
        let snapshot = cart(policies, listed);
        let got = ticks(&snapshot, &connections()[..expected.chars().count()]);
        assert_eq!(got, *expected, "row {number}: {policies:?} listed {listed:?}");
    }
}

#[test]
fn worked_examples_of_authorization_policies() {
    const FRONT: (&str, &str) = ("ALLOW NAMESPACE shop/front", "{namespaces: front}");
    const JOBS: (&str, &str) = ("ALLOW NAMESPACE shop/jobs", "{namespaces: jobs}");
    const EMPTY: (&str, &str) = ("ALLOW NAMESPACE shop/empty", "none");
    const ONLY_WEB: (&str, &str) =
        ("ALLOW NAMESPACE shop/web", "{principals: exact corp.example/ns/front/sa/web}");
    let allow = "ALLOW NAMESPACE shop/p";
    let deny = "DENY NAMESPACE shop/p";
    check_rows(&[
        ("1, 22, 23", &[], &[], "✔✔✔✔✔"),
        ("2", &[ONLY_WEB], &[], "✔✘✘✘✘"),
        ("3", &[(allow, "{principals: spiffe://corp.example/ns/front/sa/web}")], &[], "✘✘✘✘✘"),
        ("4", &[(allow, "{namespaces: prefix fr}")], &[], "✔✘✘✘✘"),
        ("5", &[(allow, "{serviceAccounts: front/web + shop/shop-wp}")], &[], "✔✘✘✘✔"),
        ("6", &[(allow, "{sourceIps: 10.2.0.0/24}")], &[], "✔✔✘✘✔"),
        ("7", &[(allow, "{notPrincipals: corp.example/ns/front/sa/web}")], &[], "✘✔✔✔✔"),
        ("8", &[(allow, "{principals: presence}")], &[], "✔✔✘✘✔"),
        (
            "9",
            &[(allow, "{destinationPorts: 8080} & {namespaces: front} | {namespaces: jobs}")],
            &[],
            "✔✘✘✘✘",
        ),
        ("10", &[(allow, "{namespaces: front} ; {destinationPorts: 9090}")], &[], "✔✔✘✔✘"),
        ("11", &[(allow, "{namespaces: front, sourceIps: 10.3.0.0/16}")], &[], "✘✘✘✘✘"),
        ("12, 24", &[EMPTY], &[], "✘✘✘✘✘"),
        ("13", &[(allow, "always")], &[], "✔✔✔✔✔"),
        ("14", &[EMPTY, ONLY_WEB], &[], "✔✘✘✘✘"),
        ("15", &[(deny, "always")], &[], "✘✘✘✘✘"),
        ("16", &[(deny, "none")], &[], "✔✔✔✔✔"),
        ("17", &[(deny, "{destinationPorts: 9090}"), JOBS], &[], "✘✘✘✘✘"),
        ("18", &[("ALLOW GLOBAL istio-system/g", "{namespaces: jobs}"), FRONT], &[], "✔✔✘✘✘"),
        ("19", &[("ALLOW SELECTOR shop/s", "{namespaces: front}")], &["shop/s"], "✔✘✘✘✘"),
        ("19, not selected", &[("ALLOW SELECTOR shop/s", "{namespaces: front}")], &[], "✔✔✔✔✔"),
        (
            "20",
            &[("ALLOW SELECTOR istio-system/s", "{namespaces: front}")],
            &["istio-system/s"],
            "✔✘✘✘✘",
        ),
        // The spec's row lets everybody in. A policy that has not arrived refuses here (promise
        // S2).
        ("21", &[], &["shop/s"], "✘✘✘✘✘"),
        ("25", &[JOBS], &[], "✘✔✘✘✘"),
        ("26", &[(deny, "{destinationPorts: 8080} & {namespaces: front}")], &[], "✘✔✔✔✔"),
        ("27", &[(deny, "{} & {namespaces: front}")], &[], "✔✔✔✔✔"),
        ("28", &[(deny, "{namespaces: front} & {}")], &[], "✔✔✔✔✔"),
        ("29", &[(deny, "{} | {namespaces: front}")], &[], "✘✔✔✔✔"),
        (
            "30",
            &[(
                allow,
                "{sourceIps: 10.0.0.0/8, notSourceIps: 10.9.0.0/16} & {destinationPorts: 8080}",
            )],
            &[],
            "✔✘✘✘✔",
        ),
        ("31", &[(allow, "{}")], &[], "✘✘✘✘✘"),
        ("32", &[(deny, "{notNamespaces: front}")], &[], "✔✘✘✘✘"),
        ("33", &[(deny, "{principals: suffix /sa/batch}")], &[], "✔✘✔✔✔"),
        ("34", &[(allow, "{principals: cluster.local/ns/front/sa/web}")], &[], "✘✘✘✘✘"),
        ("35", &[("dry DENY NAMESPACE shop/d", "always")], &[], "✔✔✔✔✔"),
        ("36", &[("dry ALLOW NAMESPACE shop/d", "{namespaces: front}")], &[], "✔✔✔✔✔"),
        ("37", &[("dry ALLOW NAMESPACE shop/d", "{namespaces: front}"), JOBS], &[], "✘✔✘✘✘"),
    ]);
}

#[test]
fn worked_examples_of_peer_authentication() {
    const STATIC: (&str, &str) =
        ("DENY SELECTOR istio-system/istio_converted_static_strict", "{notPrincipals: presence}");
    let strict = "istio-system/istio_converted_static_strict";
    let head = "DENY SELECTOR shop/converted_peer_authentication_p";
    let p = "shop/converted_peer_authentication_p";
    check_rows(&[
        ("38, 47, 49", &[STATIC], &[strict], "✔✔✘✘"),
        ("39, 40, 48", &[STATIC], &[], "✔✔✔✔"),
        (
            "41, 42",
            &[STATIC, (head, "{notPrincipals: presence} & {notDestinationPorts: 9090}")],
            &[p],
            "✔✔✘✔",
        ),
        ("43", &[(head, "{notPrincipals: presence, destinationPorts: 9090}")], &[p], "✔✔✔✘"),
        (
            "44",
            &[(
                head,
                "{notPrincipals: presence, destinationPorts: 8080} ; \
                 {notPrincipals: presence, destinationPorts: 9090}",
            )],
            &[p],
            "✔✔✘✘",
        ),
        (
            "45",
            &[STATIC, (head, "{notDestinationPorts: 9090} & {notPrincipals: presence}")],
            &[p],
            "✔✔✘✔",
        ),
        (
            "46",
            &[(
                head,
                "{notPrincipals: presence} & {notDestinationPorts: 8080} & \
                 {notDestinationPorts: 9090}",
            )],
            &[p],
            "✔✔✔✔",
        ),
        (
            "50",
            &[STATIC, ("ALLOW NAMESPACE shop/ips", "{sourceIps: 10.9.0.0/16}")],
            &[strict],
            "✘✘✘✘",
        ),
    ]);
}

#[test]
fn worked_examples_of_implicit_waypoint_policies() {
    const AUTO: (&str, &str) = (
        "ALLOW SELECTOR shop/istio_allow_waypoint_shop_shop-wp",
        "{principals: exact corp.example/ns/shop/sa/shop-wp}",
    );
    let listed = &["shop/istio_allow_waypoint_shop_shop-wp"];
    check_rows(&[
        ("51", &[AUTO], listed, "✘✘✘✘✔"),
        ("52", &[AUTO, ("ALLOW NAMESPACE shop/f", "{namespaces: front}")], listed, "✔✘✘✘✔"),
        ("53", &[], &[], "✔✔✔✔✔"),
    ]);
}

#[test]
fn row_56_behind_a_gateway_the_source_address_is_the_gateways() {
    let ips = &[("ALLOW NAMESPACE shop/p", "{sourceIps: 10.2.0.0/16}")];
    let behind = facts(Some(WEB), "172.16.0.4", "10.1.0.10:8080");
    assert_eq!(ticks(&cart(ips, &[]), &[behind]), "✘");
}

#[test]
fn rows_57_and_58_a_new_decision_uses_fresh_policies_and_fresh_records() {
    let web = &connections()[0];
    let before = cart(&[("DENY SELECTOR shop/s", "always")], &[]);
    assert!(authorize(&before, web).outcome.is_ok());
    let policies = vec![policy("ALLOW NAMESPACE shop/empty", "none")];
    let after = Delta { policies, ..Delta::default() }.apply(&before);
    assert_eq!(authorize(&after, web).outcome.err(), Some(Denial::NoneAllowed));
    // In the spec's row 58 the connection stays open, because the record of the moment it was
    // opened is used for ever. Promise S1 wants the policy that selects the pod now.
    let mut relabelled = pod("shop/cart-0", &["10.1.0.10"]);
    relabelled.authorization_policies = vec![policy_key("shop/s")];
    let after = Delta { workloads: vec![relabelled], ..Delta::default() }.apply(&before);
    let denied = Denial::Denied(policy_key("shop/s"));
    assert_eq!(authorize(&after, web).outcome.err(), Some(denied));
    let removed = vec![Arc::clone(&web.workload_uid)];
    let gone = Delta { workloads_removed: removed, ..Delta::default() }.apply(&before);
    assert_eq!(authorize(&gone, web).outcome.err(), Some(Denial::WorkloadUnknown));
}

/// Row 59 needs no case of its own: a certificate without a SPIFFE id never becomes a
/// `VerifiedPeer`, and `Client` has no third form.
#[test]
fn without_an_identity_only_negatives_and_empty_namespaces_hold() {
    let [web, _, raw, ..] = connections();
    let check = |groups: &str, expected: &str| {
        let snapshot = cart(&[("ALLOW NAMESPACE shop/p", groups)], &[]);
        assert_eq!(ticks(&snapshot, &[web.clone(), raw.clone()]), expected, "{groups}");
    };
    check("{principals: prefix }", "✔✘");
    check("{principals: suffix }", "✔✘");
    check("{principals: exact }", "✘✘");
    check("{notPrincipals: prefix }", "✘✔");
    check("{serviceAccounts: front/web}", "✔✘");
    check("{serviceAccounts: front/batch}", "✘✘");
    check("{serviceAccounts: jobs/web}", "✘✘");
    check("{notServiceAccounts: front/web}", "✘✔");
    check("{namespaces: presence}", "✔✘");
    check("{namespaces: exact }", "✘✔");
    check("{namespaces: prefix }", "✔✔");
    check("{notNamespaces: suffix }", "✘✘");
    check("{namespaces: Front}", "✘✘");
    check("{namespaces: front, notNamespaces: prefix fr}", "✘✘");
    check("{destinationIps: 10.1.0.10/32}", "✔✔");
    check("{notDestinationIps: 10.1.0.10/32}", "✘✘");
    check("{destinationIps: 10.1.0.11/32}", "✘✘");
    check("{sourceIps: 10.2.0.5/32}", "✔✘");
    check("{sourceIps: 0.0.0.0/0}", "✔✔");
    check("{sourceIps: ::/0}", "✘✘");
}

#[test]
fn mapped_addresses_are_compared_as_ipv4() {
    let groups = "{sourceIps: 10.2.0.5/32, destinationIps: 10.1.0.10/32}";
    let snapshot = cart(&[("ALLOW NAMESPACE shop/p", groups)], &[]);
    let mapped = facts(None, "::ffff:10.2.0.5", "[::ffff:10.1.0.10]:80");
    assert_eq!(ticks(&snapshot, &[mapped]), "✔");
}

#[test]
fn names_that_have_not_arrived() {
    let strict = "istio-system/istio_converted_static_strict";
    let converted = "shop/converted_peer_authentication_x";
    let check = |listed: &[&str], web: Option<Denial>, raw: Option<Denial>| {
        let deny_9090 = &[("DENY NAMESPACE shop/nine", "{destinationPorts: 9090}")];
        let snapshot = cart(deny_9090, listed);
        let [on_web, on_batch, on_raw, ..] = connections();
        assert_eq!(authorize(&snapshot, &on_web).outcome.err(), web, "web {listed:?}");
        assert_eq!(authorize(&snapshot, &on_raw).outcome.err(), raw, "raw {listed:?}");
        // A known DENY that matches is final, whatever has not arrived.
        let nine = Some(Denial::Denied(policy_key("shop/nine")));
        assert_eq!(authorize(&snapshot, &on_batch).outcome.err(), nine, "{listed:?}");
    };
    let unknown = |key| Some(Denial::PolicyUnknown(policy_key(key)));
    let denied = |key| Some(Denial::Denied(policy_key(key)));
    check(&["shop/x"], unknown("shop/x"), unknown("shop/x"));
    check(&["shop/nine", "shop/x", "shop/y"], unknown("shop/x"), unknown("shop/x"));
    check(&[strict], None, denied(strict));
    check(
        &["other/istio_converted_static_strict"],
        None,
        denied("other/istio_converted_static_strict"),
    );
    check(&[converted], None, denied(converted));
    check(&[converted, "shop/x"], unknown("shop/x"), denied(converted));
    check(&["shop/x", converted], unknown("shop/x"), denied(converted));
    for foreign in [
        "other/converted_peer_authentication_x",
        "shop/converted_peer_authentication",
        "istio-system/istio_converted_static_strict2",
    ] {
        check(&[foreign], unknown(foreign), unknown(foreign));
    }
}

#[test]
fn a_missing_strict_policy_does_not_lift_what_else_applies() {
    let strict = "istio-system/istio_converted_static_strict";
    let snapshot = cart(&[("ALLOW NAMESPACE shop/j", "{namespaces: jobs}")], &[strict]);
    assert_eq!(ticks(&snapshot, &connections()), "✘✔✘✘✘");
}

#[test]
fn dry_run_is_reported_and_decides_nothing() {
    use DryRunFinding::{WouldAllow, WouldDeny, WouldDenyByDefault};
    let key = || Arc::new(policy_key("shop/d"));
    let check = |policies: &[(&str, &str)], facts: &Facts, expected: &[DryRunFinding]| {
        assert_eq!(authorize(&cart(policies, &[]), facts).dry_run, expected, "{policies:?}");
    };
    let [web, batch, ..] = connections();
    let deny = ("dry DENY NAMESPACE shop/d", "{namespaces: front}");
    let allow = ("dry ALLOW NAMESPACE shop/d", "{namespaces: front}");
    let enforced = ("ALLOW NAMESPACE shop/j", "{namespaces: jobs}");
    let deny_all = ("DENY NAMESPACE shop/all", "always");
    check(&[deny], &web, &[WouldDeny(key())]);
    check(&[deny], &batch, &[]);
    check(&[deny, deny_all], &web, &[WouldDeny(key())]);
    check(&[allow], &web, &[WouldAllow(key())]);
    check(&[allow], &batch, &[WouldDenyByDefault]);
    check(&[allow, enforced], &web, &[WouldAllow(key())]);
    check(&[allow, enforced], &batch, &[]);
    check(&[allow, deny_all], &web, &[]);
    check(&[], &web, &[]);
}

#[test]
fn a_policy_that_applies_twice_is_looked_at_once() {
    let listed = &["shop/d", "istio-system/g"];
    let snapshot = cart(
        &[("dry DENY NAMESPACE shop/d", "always"), ("dry DENY GLOBAL istio-system/g", "always")],
        listed,
    );
    assert_eq!(authorize(&snapshot, &connections()[0]).dry_run.len(), 2);
    // A name may also point at a policy of another namespace that has no selector.
    let other = cart(&[("DENY NAMESPACE other/d", "always")], &["other/d"]);
    assert_eq!(ticks(&other, &connections()), "✘✘✘✘✘");
    let unlisted = cart(&[("DENY NAMESPACE other/d", "always")], &[]);
    assert_eq!(ticks(&unlisted, &connections()), "✔✔✔✔✔");
}

#[test]
fn a_permit_carries_the_generation_it_was_decided_on() {
    let first = cart(&[], &[]);
    let second = Delta::default().apply(&first);
    for snapshot in [first, second] {
        let permit = authorize(&snapshot, &connections()[0]).outcome.expect("no policy");
        assert_eq!(permit.generation(), snapshot.generation());
    }
}

/// Ten thousand policies that do not apply: none of them is among those that are looked at.
#[test]
fn only_policies_that_apply_are_looked_at() {
    let mut policies = vec![
        policy("ALLOW SELECTOR shop/named", "always"),
        policy("ALLOW NAMESPACE shop/own", "always"),
        policy("ALLOW GLOBAL istio-system/global", "always"),
    ];
    for number in 0..10_000 {
        let scope = if number % 2 == 0 { "NAMESPACE" } else { "SELECTOR" };
        let head = format!("DENY {scope} ns{number}/p");
        policies.push(policy(&head, "always"));
    }
    let mut cart = pod("shop/cart-0", &["10.1.0.10"]);
    cart.authorization_policies = vec![policy_key("shop/named")];
    let snapshot = mesh(vec![cart.clone()], Vec::new(), policies);
    let names: Vec<_> = applicable(&snapshot, &cart).map(|p| p.key.to_string()).collect();
    assert_eq!(names, ["istio-system/global", "shop/own", "shop/named"]);
}
