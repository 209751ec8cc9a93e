//! Every example of spec policy 8 that a control plane has a part in: YAML in, L4 form out, and
//! what our own evaluator makes of it.

use std::sync::Arc;

use crate::decide::{self, Client, Facts};
use crate::model::{VerifiedPeer, fixtures};
use crate::wire::xds::{range, security};

use super::{Resources, convert_yaml, notes, workload};
use security::string_match::MatchType;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: cart-0, namespace: shop, labels: {app: cart}}
spec: {nodeName: a}
status: {podIP: 10.1.0.10}
";

/// An `AuthorizationPolicy` in `shop`, by name and spec.
fn ap(name: &str, spec: &str) -> String {
    object("AuthorizationPolicy", "shop", name, spec)
}

fn pa(namespace: &str, name: &str, spec: &str) -> String {
    object("PeerAuthentication", namespace, name, spec)
}

fn object(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// Converts `policies` and asks for web, batch, raw, raw9 and wp: `+` is allowed, `-` refused.
/// `l4` is what the policies came to, without the static one.
fn check(policies: &[String], l4: &str, expected: &str) {
    let yaml = format!("{POD}{}", policies.concat());
    let resources = convert_yaml(&yaml);
    let shown: Vec<String> = resources
        .policies
        .values()
        .filter(|policy| policy.name != "istio_converted_static_strict")
        .map(show)
        .collect();
    assert_eq!(shown.join("; "), l4, "{yaml}");
    assert_eq!(decisions(&resources), expected, "{yaml}");
}

/// What the destination names.
fn listed(policies: &[String]) -> String {
    let resources = convert_yaml(&format!("{POD}{}", policies.concat()));
    workload(&resources, "Kubernetes//Pod/shop/cart-0").authorization_policies.join(" ")
}

/// Who gets in: web, batch, raw, raw9 and wp of spec policy 8.
fn decisions(resources: &Resources) -> String {
    let peers = [
        (Some("corp.example/ns/front/sa/web"), "10.2.0.5", 8080),
        (Some("corp.example/ns/jobs/sa/batch"), "10.2.0.6", 9090),
        (None, "10.9.0.7", 8080),
        (None, "10.9.0.7", 9090),
        (Some("corp.example/ns/shop/sa/shop-wp"), "10.2.0.9", 8080),
    ];
    let allowed = |peer| if allowed(resources, "shop/cart-0", peer) { '+' } else { '-' };
    peers.into_iter().map(allowed).collect()
}

/// Whether a peer, by principal (none in plain text), address and port, gets into a pod.
pub(super) fn allowed(
    resources: &Resources,
    pod: &str,
    (principal, source, port): (Option<&str>, &str, u16),
) -> bool {
    let mut destination = fixtures::pod(pod, &["10.1.0.10"]);
    let listed = &workload(resources, &format!("Kubernetes//Pod/{pod}")).authorization_policies;
    destination.authorization_policies =
        listed.iter().map(|name| fixtures::policy_key(name)).collect();
    let policies = resources.policies.values().map(|policy| {
        let shown = show(policy);
        let (head, groups) = shown.split_once(": ").unwrap();
        fixtures::policy(head, groups)
    });
    let facts = Facts {
        workload_uid: Arc::clone(&destination.uid),
        client: principal.map_or(Client::Plaintext, |name| {
            let identity = fixtures::id(&format!("spiffe://{name}"));
            Client::Verified(VerifiedPeer::assertion(identity))
        }),
        source_ip: fixtures::ip(source),
        destination: (fixtures::ip("10.1.0.10"), port).into(),
    };
    let snapshot = fixtures::mesh(vec![destination], Vec::new(), policies.collect());
    decide::authorize(&snapshot, &facts).outcome.is_ok()
}

/// A policy in the notation of `fixtures::policy`.
fn show(policy: &security::Authorization) -> String {
    let scope = match policy.scope() {
        security::Scope::Global => "GLOBAL",
        security::Scope::Namespace => "NAMESPACE",
        security::Scope::WorkloadSelector => "SELECTOR",
    };
    let groups: Vec<String> = policy.groups.iter().map(show_group).collect();
    let groups = if groups.is_empty() { "none".to_owned() } else { groups.join(" ; ") };
    let dry = if policy.dry_run { "dry " } else { "" };
    let action = policy.action().as_str_name();
    format!("{dry}{action} {scope} {}/{}: {groups}", policy.namespace, policy.name)
}

fn show_group(group: &security::Group) -> String {
    let rule = |rules: &security::Rules| {
        rules.matches.iter().map(show_match).collect::<Vec<_>>().join(" | ")
    };
    let rules: Vec<String> = group.rules.iter().map(rule).collect();
    if rules.is_empty() { "always".to_owned() } else { rules.join(" & ") }
}

fn show_match(entry: &security::Match) -> String {
    let text = |m: &security::StringMatch| match m.match_type.as_ref().unwrap() {
        MatchType::Exact(text) => text.clone(),
        MatchType::Prefix(text) => format!("prefix {text}"),
        MatchType::Suffix(text) => format!("suffix {text}"),
        MatchType::Presence(()) => "presence".to_owned(),
    };
    let account =
        |a: &security::ServiceAccountMatch| format!("{}/{}", a.namespace, a.service_account);
    let net = |a: &security::Address| range(&a.address, a.length).unwrap().to_string();
    let fields: [(&str, Vec<String>); 12] = [
        ("namespaces", entry.namespaces.iter().map(text).collect()),
        ("notNamespaces", entry.not_namespaces.iter().map(text).collect()),
        ("serviceAccounts", entry.service_accounts.iter().map(account).collect()),
        ("notServiceAccounts", entry.not_service_accounts.iter().map(account).collect()),
        ("principals", entry.principals.iter().map(text).collect()),
        ("notPrincipals", entry.not_principals.iter().map(text).collect()),
        ("sourceIps", entry.source_ips.iter().map(net).collect()),
        ("notSourceIps", entry.not_source_ips.iter().map(net).collect()),
        ("destinationIps", entry.destination_ips.iter().map(net).collect()),
        ("notDestinationIps", entry.not_destination_ips.iter().map(net).collect()),
        ("destinationPorts", entry.destination_ports.iter().map(u32::to_string).collect()),
        ("notDestinationPorts", entry.not_destination_ports.iter().map(u32::to_string).collect()),
    ];
    let given = fields.iter().filter(|(_, values)| !values.is_empty());
    let given: Vec<_> =
        given.map(|(name, values)| format!("{name}: {}", values.join(" + "))).collect();
    format!("{{{}}}", given.join(", "))
}

/// One policy in `shop`: its spec, the groups it becomes, and who gets in.
fn one(spec: &str, l4: &str, expected: &str) {
    check(&[ap("p", spec)], l4, expected);
}

fn from(source: &str) -> String {
    format!("{{rules: [{{from: [{{source: {{{source}}}}}]}}]}}")
}

fn deny(rule: &str) -> String {
    format!("{{action: DENY, rules: [{{{rule}}}]}}")
}

#[test]
fn sources_2_to_8_32_to_34() {
    let allow = |source: &str, l4: &str, expected: &str| {
        one(&from(source), &format!("ALLOW NAMESPACE shop/p: {{{l4}}}"), expected);
    };
    check(&[], "", "+++++");
    let web = "corp.example/ns/front/sa/web";
    allow(&format!("principals: [{web}]"), &format!("principals: {web}"), "+----");
    let scheme = format!("spiffe://{web}");
    allow(&format!("principals: ['{scheme}']"), &format!("principals: {scheme}"), "-----");
    allow("namespaces: ['fr*']", "namespaces: prefix fr", "+----");
    let accounts = "serviceAccounts: front/web + shop/shop-wp";
    allow("serviceAccounts: [front/web, shop-wp]", accounts, "+---+");
    allow("ipBlocks: [10.2.0.0/24]", "sourceIps: 10.2.0.0/24", "++--+");
    allow("ipBlocks: [10.2.0.5]", "sourceIps: 10.2.0.5/32", "+----");
    allow(&format!("notPrincipals: [{web}]"), &format!("notPrincipals: {web}"), "-++++");
    allow("principals: ['*']", "principals: presence", "++--+");
    let two = "namespaces: front, sourceIps: 10.3.0.0/16";
    allow("namespaces: [front], ipBlocks: [10.3.0.0/16]", two, "-----");
    let other = "principals: cluster.local/ns/front/sa/web";
    allow("principals: [cluster.local/ns/front/sa/web]", other, "-----");
    let not_front = deny("from: [{source: {notNamespaces: [front]}}]");
    one(&not_front, "DENY NAMESPACE shop/p: {notNamespaces: front}", "+----");
    let suffix = deny("from: [{source: {principals: ['*/sa/batch']}}]");
    one(&suffix, "DENY NAMESPACE shop/p: {principals: suffix /sa/batch}", "+-+++");
}

#[test]
fn rules_9_to_18() {
    one(
        "{rules: [{from: [{source: {namespaces: [front]}}, {source: {namespaces: [jobs]}}], \
         to: [{operation: {ports: ['8080']}}]}]}",
        "ALLOW NAMESPACE shop/p: {destinationPorts: 8080} & \
         {namespaces: front} | {namespaces: jobs}",
        "+----",
    );
    one(
        "{rules: [{from: [{source: {namespaces: [front]}}]}, \
         {to: [{operation: {ports: ['9090']}}]}]}",
        "ALLOW NAMESPACE shop/p: {namespaces: front} ; {destinationPorts: 9090}",
        "++-+-",
    );
    one("{}", "ALLOW NAMESPACE shop/p: none", "-----");
    one("{rules: [{}]}", "ALLOW NAMESPACE shop/p: always", "+++++");
    one("{action: DENY, rules: [{}]}", "DENY NAMESPACE shop/p: always", "-----");
    one("{action: DENY}", "DENY NAMESPACE shop/p: none", "+++++");
    let jobs = from("namespaces: [jobs]");
    check(
        &[ap("a", &deny("to: [{operation: {ports: ['9090']}}]")), ap("b", &jobs)],
        "DENY NAMESPACE shop/a: {destinationPorts: 9090}; \
         ALLOW NAMESPACE shop/b: {namespaces: jobs}",
        "-----",
    );
    check(
        &[
            object("AuthorizationPolicy", "istio-system", "g", &jobs),
            ap("p", &from("namespaces: [front]")),
        ],
        "ALLOW GLOBAL istio-system/g: {namespaces: jobs}; \
         ALLOW NAMESPACE shop/p: {namespaces: front}",
        "++---",
    );
}

#[test]
fn selectors_and_targets_19_to_23() {
    let front = "rules: [{from: [{source: {namespaces: [front]}}]}]";
    let cart = format!("{{selector: {{matchLabels: {{app: cart}}}}, {front}}}");
    one(&cart, "ALLOW SELECTOR shop/p: {namespaces: front}", "+----");
    assert_eq!(listed(&[ap("p", &cart)]), "shop/p");
    let root = object("AuthorizationPolicy", "istio-system", "p", &cart);
    check(&[root], "ALLOW SELECTOR istio-system/p: {namespaces: front}", "+----");
    let other = cart.replace("app: cart", "app: other");
    one(&other, "ALLOW SELECTOR shop/p: {namespaces: front}", "+++++");
    assert_eq!(listed(&[ap("p", &other)]), "");
    let elsewhere = object("AuthorizationPolicy", "front", "p", &cart);
    assert_eq!(listed(&[elsewhere]), "");
    let nothing = format!("{{selector: {{}}, {front}}}");
    one(&nothing, "ALLOW SELECTOR shop/p: {namespaces: front}", "+++++");
    one("{targetRefs: [{kind: Gateway, name: shop-wp}], action: DENY, rules: [{}]}", "", "+++++");
    one("{action: CUSTOM, provider: {name: x}, rules: [{}]}", "", "+++++");
    one("{action: AUDIT, rules: [{}]}", "", "+++++");
}

#[test]
fn what_only_http_has_24_to_31() {
    one(
        "{rules: [{to: [{operation: {methods: [GET]}}]}]}",
        "ALLOW NAMESPACE shop/p: none",
        "-----",
    );
    one(
        "{rules: [{from: [{source: {namespaces: [front]}}], to: [{operation: {paths: [/x]}}]}, \
         {from: [{source: {namespaces: [jobs]}}]}]}",
        "ALLOW NAMESPACE shop/p: {namespaces: jobs}",
        "-+---",
    );
    let front = "from: [{source: {namespaces: [front]}}]";
    let both = deny(&format!("{front}, to: [{{operation: {{ports: ['8080'], methods: [POST]}}}}]"));
    one(&both, "DENY NAMESPACE shop/p: {destinationPorts: 8080} & {namespaces: front}", "-++++");
    let method = deny(&format!("{front}, to: [{{operation: {{methods: [POST]}}}}]"));
    one(&method, "DENY NAMESPACE shop/p: {} & {namespaces: front}", "+++++");
    let sni = deny(&format!("{front}, when: [{{key: connection.sni, values: [x]}}]"));
    one(&sni, "DENY NAMESPACE shop/p: {namespaces: front} & {}", "+++++");
    let mixed = deny("from: [{source: {requestPrincipals: [x]}}, {source: {namespaces: [front]}}]");
    one(&mixed, "DENY NAMESPACE shop/p: {} | {namespaces: front}", "-++++");
    one(
        "{rules: [{when: [{key: source.ip, values: [10.0.0.0/8], notValues: [10.9.0.0/16]}, \
         {key: destination.port, values: ['8080']}]}]}",
        "ALLOW NAMESPACE shop/p: {sourceIps: 10.0.0.0/8, notSourceIps: 10.9.0.0/16} & \
         {destinationPorts: 8080}",
        "+---+",
    );
    one("{rules: [{to: [{operation: {ports: [http]}}]}]}", "ALLOW NAMESPACE shop/p: {}", "-----");
}

/// A value that cannot be understood never makes a policy allow more than was written.
#[test]
fn values_that_cannot_be_understood() {
    let allow = |source: &str, l4: &str| {
        let policy = ap("p", &from(source));
        let resources = convert_yaml(&format!("{POD}{policy}"));
        let shown = show(&resources.policies["shop/p"]);
        assert_eq!(shown, format!("ALLOW NAMESPACE shop/p: {{{l4}}}"), "{source}");
    };
    allow("namespaces: [front], ipBlocks: [here]", "");
    allow(
        "namespaces: [front], ipBlocks: [here, 10.0.0.0/8]",
        "namespaces: front, sourceIps: 10.0.0.0/8",
    );
    allow("namespaces: [front], notIpBlocks: [here, 10.0.0.0/8]", "");
    let port = deny("to: [{operation: {ports: [http, '80']}}]");
    one(&port, "DENY NAMESPACE shop/p: {destinationPorts: 80}", "+++++");
}

#[test]
fn dry_runs_35_to_37() {
    let dry = |spec: &str| {
        ap("p", spec).replace(
            "namespace: shop}",
            "namespace: shop, annotations: {istio.io/dry-run: 'true'}}",
        )
    };
    check(&[dry("{action: DENY, rules: [{}]}")], "dry DENY NAMESPACE shop/p: always", "+++++");
    let front = from("namespaces: [front]");
    check(&[dry(&front)], "dry ALLOW NAMESPACE shop/p: {namespaces: front}", "+++++");
    check(
        &[ap("a", &from("namespaces: [jobs]")), dry(&front)],
        "ALLOW NAMESPACE shop/a: {namespaces: jobs}; \
         dry ALLOW NAMESPACE shop/p: {namespaces: front}",
        "-+---",
    );
}

const STATIC: &str = "istio-system/istio_converted_static_strict";
const OWN: &str = "shop/converted_peer_authentication_p";

/// Objects of peer authentication, what the destination names, the L4 form of the one called `p`,
/// and who gets in.
fn auth(objects: &[String], names: &str, l4: &str, expected: &str) {
    assert_eq!(listed(objects), names, "{objects:?}");
    let l4 = if l4.is_empty() { String::new() } else { format!("DENY SELECTOR {OWN}: {l4}") };
    check(objects, &l4, expected);
}

fn strict_mesh() -> String {
    pa("istio-system", "default", "{mtls: {mode: STRICT}}")
}

/// `p`, for carts, with a mode and ports.
fn cart(mode: &str, ports: &str) -> String {
    let mode = if mode.is_empty() { String::new() } else { format!(", mtls: {{mode: {mode}}}") };
    let ports =
        if ports.is_empty() { String::new() } else { format!(", portLevelMtls: {{{ports}}}") };
    pa("shop", "p", &format!("{{selector: {{matchLabels: {{app: cart}}}}{mode}{ports}}}"))
}

#[test]
fn peer_authentication_38_to_50() {
    let permissive = || pa("shop", "ns", "{mtls: {mode: PERMISSIVE}}");
    let not_9090 = "{notPrincipals: presence} & {notDestinationPorts: 9090}";
    auth(&[strict_mesh()], STATIC, "", "++--+");
    auth(&[strict_mesh(), permissive()], "", "", "+++++");
    auth(&[strict_mesh(), cart("DISABLE", "")], "", "", "+++++");
    auth(&[cart("STRICT", "9090: {mode: PERMISSIVE}")], OWN, not_9090, "++-++");
    auth(&[cart("STRICT", "9090: {mode: DISABLE}")], OWN, not_9090, "++-++");
    let only_9090 = "{notPrincipals: presence, destinationPorts: 9090}";
    auth(&[cart("PERMISSIVE", "9090: {mode: STRICT}")], OWN, only_9090, "+++-+");
    let both = format!("{{notPrincipals: presence, destinationPorts: 8080}} ; {only_9090}");
    let ports = "8080: {mode: STRICT}, 9090: {mode: STRICT}";
    auth(&[cart("PERMISSIVE", ports)], OWN, &both, "++--+");
    let last = "{notDestinationPorts: 9090} & {notPrincipals: presence}";
    auth(&[strict_mesh(), cart("", "9090: {mode: PERMISSIVE}")], OWN, last, "++-++");
    let ports = "8080: {mode: PERMISSIVE}, 9090: {mode: PERMISSIVE}";
    let two =
        "{notPrincipals: presence} & {notDestinationPorts: 8080} & {notDestinationPorts: 9090}";
    auth(&[cart("STRICT", ports)], OWN, two, "+++++");
    auth(&[cart("STRICT", "9090: {mode: STRICT}")], STATIC, "", "++--+");
    auth(&[permissive(), cart("", "9090: {mode: PERMISSIVE}")], "", "", "+++++");
    let ips = ap("i", &from("ipBlocks: [10.9.0.0/16]"));
    check(&[strict_mesh(), ips], "ALLOW NAMESPACE shop/i: {sourceIps: 10.9.0.0/16}", "-----");
}

/// The oddities (a) to (c) of spec policy 6, the first of which is row 49: what was written is
/// served, and a line says that istiod does not.
#[test]
fn what_istiod_does_otherwise_is_told() {
    let differs = |objects: &[String], l4: &str, expected: &str, line: &str| {
        auth(objects, OWN, l4, expected);
        let told = notes(&convert_yaml(&format!("{POD}{}", objects.concat())));
        assert!(told.iter().any(|note| note.contains(line)), "{told:?}");
    };
    let last = "{notDestinationPorts: 9090} & {notPrincipals: presence}";
    let disable = [strict_mesh(), cart("", "9090: {mode: DISABLE}")];
    differs(&disable, last, "++-++", "it looks for PERMISSIVE only");
    let unset = pa("shop", "ns", "{}");
    let dangling = "names a policy here that it does not send";
    let objects = [strict_mesh(), unset.clone(), cart("", "9090: {mode: PERMISSIVE}")];
    differs(&objects, last, "++-++", dangling);
    let only_9090 = "{notPrincipals: presence, destinationPorts: 9090}";
    for mode in ["PERMISSIVE", "DISABLE"] {
        let own = cart(mode, "9090: {mode: STRICT}");
        differs(&[strict_mesh(), own.clone()], only_9090, "+++-+", dangling);
        differs(&[strict_mesh(), unset.clone(), own], only_9090, "+++-+", dangling);
    }
}

#[test]
fn of_several_the_oldest_counts() {
    let at = |year: u32, name: &str, mode: &str| {
        let object = pa("shop", name, &format!("{{mtls: {{mode: {mode}}}}}"));
        let created = format!("namespace: shop, creationTimestamp: '{year}-01-01T00:00:00Z'}}");
        object.replace("namespace: shop}", &created)
    };
    auth(&[at(2025, "a", "PERMISSIVE"), at(2024, "b", "STRICT")], STATIC, "", "++--+");
    auth(&[at(2024, "a", "PERMISSIVE"), at(2025, "b", "STRICT")], "", "", "+++++");
    // In the root namespace a selector has no effect.
    let root = cart("STRICT", "").replace("namespace: shop}", "namespace: istio-system}");
    auth(&[root], "", "", "+++++");
    // Without a selector the ports have none.
    auth(
        &[pa("shop", "n", "{mtls: {mode: STRICT}, portLevelMtls: {9090: {mode: DISABLE}}}")],
        STATIC,
        "",
        "++--+",
    );
}

/// Whatever is combined: a name that a workload lists is there, and the ports mean what they say.
#[test]
fn no_combination_of_modes_dangles() {
    let modes = ["", "UNSET", "DISABLE", "PERMISSIVE", "STRICT"];
    let effective = |chain: &[&str]| {
        let set = chain.iter().find(|mode| !matches!(**mode, "" | "UNSET"));
        set == Some(&"STRICT")
    };
    for mesh in modes {
        for namespace in modes {
            for own in modes {
                for port in modes {
                    let whole = |home: &str, mode: &str| match mode {
                        "" => String::new(),
                        mode => pa(home, "whole", &format!("{{mtls: {{mode: {mode}}}}}")),
                    };
                    let ports = match port {
                        "" => String::new(),
                        mode => format!("9090: {{mode: {mode}}}"),
                    };
                    let objects =
                        [whole("istio-system", mesh), whole("shop", namespace), cart(own, &ports)];
                    let resources = convert_yaml(&format!("{POD}{}", objects.concat()));
                    for name in listed(&objects).split_whitespace() {
                        assert!(resources.policies.contains_key(name), "{objects:?}: {name}");
                    }
                    let raw = if effective(&[own, namespace, mesh]) { '-' } else { '+' };
                    let raw9 = if effective(&[port, own, namespace, mesh]) { '-' } else { '+' };
                    let expected = format!("++{raw}{raw9}+");
                    assert_eq!(decisions(&resources), expected, "{objects:?}");
                }
            }
        }
    }
}
