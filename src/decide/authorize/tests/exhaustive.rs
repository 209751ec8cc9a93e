//! Every combination of small domains against a second evaluator, written from the text of spec
//! policy 2 to 4 without looking at the first (promise S3 in small).

use super::*;
use crate::model::Group;

/// What the reference answers.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Allowed,
    Denied,
    NoneAllowed,
    Unknown,
}

/// Spec policy 3, over all policies there are.
fn reference(workload: &Workload, policies: &[Policy], facts: &Facts) -> Answer {
    let listed = |key: &PolicyKey| workload.authorization_policies.contains(key);
    let set: Vec<&Policy> = policies
        .iter()
        .filter(|policy| match policy.scope {
            Scope::Global => true,
            Scope::Namespace => policy.key.namespace == workload.namespace || listed(&policy.key),
            Scope::WorkloadSelector => listed(&policy.key),
        })
        .filter(|policy| !policy.dry_run)
        .collect();
    let of = |action: Action| set.iter().filter(move |policy| policy.action == action);
    if of(Action::Deny).any(|policy| policy_matches(policy, facts)) {
        return Answer::Denied;
    }
    let missing: Vec<&PolicyKey> = workload
        .authorization_policies
        .iter()
        .filter(|key| policies.iter().all(|policy| policy.key != **key))
        .collect();
    let strict = |key: &PolicyKey| {
        key.to_string() == format!("{}/istio_converted_static_strict", key.namespace)
            || key.to_string().starts_with("shop/converted_peer_authentication_")
    };
    if missing.iter().any(|key| strict(key)) && facts.client == Client::Plaintext {
        return Answer::Denied;
    }
    if missing.iter().any(|key| !strict(key)) {
        return Answer::Unknown;
    }
    if of(Action::Allow).count() == 0 || of(Action::Allow).any(|p| policy_matches(p, facts)) {
        return Answer::Allowed;
    }
    Answer::NoneAllowed
}

/// Spec policy 4, level by level.
fn policy_matches(policy: &Policy, facts: &Facts) -> bool {
    let mut any_group = false;
    for group in &policy.groups {
        let mut all_rules = true;
        for rule in group {
            let entries: Vec<Option<bool>> = rule.iter().map(|m| entry(m, facts)).collect();
            let holds = entries.is_empty() || entries.contains(&Some(true));
            all_rules &= holds;
        }
        any_group |= all_rules;
    }
    any_group
}

/// `None` if all fields are empty: the entry is skipped.
fn entry(m: &Match, facts: &Facts) -> Option<bool> {
    let identity = match &facts.client {
        Client::Verified(peer) => Some(peer.identity().clone()),
        Client::Plaintext => None,
    };
    let text = |pattern: &StringMatch, text: &str| match pattern {
        StringMatch::Exact(exact) => **exact == *text,
        StringMatch::Prefix(prefix) => text.get(..prefix.len()) == Some(&**prefix),
        StringMatch::Suffix(suffix) => {
            text.len() >= suffix.len() && text[text.len() - suffix.len()..] == **suffix
        }
        StringMatch::Presence => !text.is_empty(),
    };
    let namespace = identity.as_ref().map_or(String::new(), |i| i.namespace().to_owned());
    let principal = |p: &StringMatch| {
        let uri = identity.as_ref().map(ToString::to_string);
        uri.is_some_and(|uri| text(p, &uri["spiffe://".len()..]))
    };
    let account = |a: &ServiceAccountRef| {
        let wanted = format!("/ns/{}/sa/{}", a.namespace, a.service_account);
        identity.as_ref().is_some_and(|i| i.to_string().ends_with(&wanted))
    };
    let (source, destination) = (facts.source_ip, facts.destination);
    let conditions = [
        some(&m.namespaces, |p| text(p, &namespace)),
        some(&m.not_namespaces, |p| text(p, &namespace)).map(|any| !any),
        some(&m.service_accounts, account),
        some(&m.not_service_accounts, account).map(|any| !any),
        some(&m.principals, principal),
        some(&m.not_principals, principal).map(|any| !any),
        some(&m.source_ips, |net| net.contains(&source)),
        some(&m.not_source_ips, |net| net.contains(&source)).map(|any| !any),
        some(&m.destination_ips, |net| net.contains(&destination.ip())),
        some(&m.not_destination_ips, |net| net.contains(&destination.ip())).map(|any| !any),
        some(&m.destination_ports, |port| *port == destination.port()),
        some(&m.not_destination_ports, |port| *port == destination.port()).map(|any| !any),
    ];
    let given: Vec<bool> = conditions.into_iter().flatten().collect();
    (!given.is_empty()).then(|| given.iter().all(|holds| *holds))
}

/// Whether any element holds; `None` for an empty list.
fn some<T>(list: &[T], holds: impl Fn(&T) -> bool) -> Option<bool> {
    (!list.is_empty()).then(|| list.iter().any(holds))
}

fn everybody() -> Vec<Facts> {
    let mut all = Vec::new();
    for identity in [
        None,
        Some("spiffe://a.td/ns/a/sa/x"),
        Some("spiffe://a.td/ns/a/sa/y"),
        Some("spiffe://b.td/ns/b/sa/x"),
    ] {
        for source in ["10.0.0.1", "2001:db8::1"] {
            for destination in ["10.1.0.10:1", "10.1.0.10:2"] {
                all.push(facts(identity, source, destination));
            }
        }
    }
    all
}

fn entries() -> Vec<Match> {
    let fields = [
        "",
        "namespaces: a",
        "namespaces: prefix  + b",
        "namespaces: presence",
        "notNamespaces: a",
        "notNamespaces: presence",
        "serviceAccounts: a/x",
        "notServiceAccounts: a/x + b/x",
        "principals: presence",
        "principals: suffix /sa/x",
        "notPrincipals: presence",
        "notPrincipals: prefix a.td/",
        "sourceIps: 10.0.0.0/8",
        "notSourceIps: 2001:db8::/32",
        "destinationIps: 10.1.0.10/32",
        "notDestinationIps: 10.1.0.0/24",
        "destinationPorts: 1",
        "notDestinationPorts: 1",
        "destinationPorts: 1 + 2, notDestinationPorts: 2",
        "namespaces: a, notPrincipals: suffix y, destinationPorts: 2",
        "notPrincipals: presence, sourceIps: 10.0.0.1/32",
    ];
    let parse =
        |field: &str| policy("DENY GLOBAL x/y", &format!("{{{field}}}")).groups[0][0][0].clone();
    fields.into_iter().map(parse).collect()
}

/// Every shape of at most two entries.
fn shapes(entries: &[Match]) -> Vec<Vec<Group>> {
    let mut shapes = vec![vec![], vec![vec![]], vec![vec![], vec![]], vec![vec![vec![]]]];
    for a in entries {
        shapes.push(vec![vec![vec![a.clone()]]]);
        shapes.push(vec![vec![vec![], vec![a.clone()]]]);
        shapes.push(vec![vec![], vec![vec![a.clone()]]]);
        for b in entries {
            let (a, b) = (a.clone(), b.clone());
            shapes.push(vec![vec![vec![a.clone(), b.clone()]]]);
            shapes.push(vec![vec![vec![a.clone()], vec![b.clone()]]]);
            shapes.push(vec![vec![vec![a]], vec![vec![b]]]);
        }
    }
    shapes
}

fn compare(snapshot: &Snapshot, policies: &[Policy], facts: &Facts) {
    let answer = match authorize(snapshot, facts).outcome {
        Ok(_) => Answer::Allowed,
        Err(Denial::Denied(_)) => Answer::Denied,
        Err(Denial::NoneAllowed) => Answer::NoneAllowed,
        Err(Denial::PolicyUnknown(_)) => Answer::Unknown,
        Err(Denial::WorkloadUnknown) => panic!("the pod is there"),
    };
    let workload = snapshot.workload(&facts.workload_uid).expect("the pod is there");
    let expected = reference(workload, policies, facts);
    assert_eq!(answer, expected, "{facts:?} {policies:?}");
}

#[test]
fn every_shape_of_one_policy() {
    let (everybody, mut compared) = (everybody(), 0);
    let base = cart(&[], &[]);
    for groups in shapes(&entries()) {
        for head in ["ALLOW NAMESPACE shop/p", "DENY NAMESPACE shop/p"] {
            let policies = vec![Policy { groups: groups.clone(), ..policy(head, "none") }];
            let delta = Delta { policies: policies.clone(), ..Delta::default() };
            let snapshot = delta.apply(&base);
            for facts in &everybody {
                compare(&snapshot, &policies, facts);
                compared += 1;
            }
        }
    }
    assert_eq!(compared, (4 + 21 * 3 + 21 * 21 * 3) * 2 * 16);
}

#[test]
fn every_set_of_two_policies_and_a_name_that_has_not_arrived() {
    let mut heads = Vec::new();
    for action in ["ALLOW", "DENY", "dry ALLOW", "dry DENY"] {
        for place in [
            "GLOBAL root/",
            "NAMESPACE shop/",
            "NAMESPACE other/",
            "NAMESPACE other/listed-",
            "SELECTOR shop/",
            "SELECTOR shop/listed-",
            "SELECTOR root/listed-",
        ] {
            for groups in ["none", "always", "{namespaces: a}", "{notPrincipals: presence}"] {
                heads.push((format!("{action} {place}"), groups));
            }
        }
    }
    let missing = [
        "",
        "shop/absent",
        "shop/converted_peer_authentication_absent",
        "other/converted_peer_authentication_absent",
        "root/istio_converted_static_strict",
    ];
    let callers = [
        facts(None, "10.0.0.1", "10.1.0.10:1"),
        facts(Some("spiffe://a.td/ns/a/sa/x"), "10.0.0.1", "10.1.0.10:1"),
        facts(Some("spiffe://b.td/ns/b/sa/x"), "10.0.0.1", "10.1.0.10:1"),
    ];
    let listable = ["shop/listed-", "root/listed-", "other/listed-"];
    let mut compared = 0;
    for (number, (first, first_groups)) in heads.iter().enumerate() {
        // Each unordered pair once.
        for (second, second_groups) in &heads[number..] {
            let policies = vec![
                policy(&format!("{first}1"), first_groups),
                policy(&format!("{second}2"), second_groups),
            ];
            let listed = |key: &&PolicyKey| {
                listable.iter().any(|prefix| key.to_string().starts_with(prefix))
            };
            let names: Vec<PolicyKey> =
                policies.iter().map(|p| &p.key).filter(listed).cloned().collect();
            // One pod for each name that has not arrived.
            let pods = missing.map(|absent| {
                let mut pod = pod("shop/cart-0", &["10.1.0.10"]);
                pod.uid = Arc::from(absent);
                pod.authorization_policies = names.clone();
                if !absent.is_empty() {
                    pod.authorization_policies.insert(0, policy_key(absent));
                }
                pod
            });
            let snapshot = mesh(pods.to_vec(), Vec::new(), policies.clone());
            for absent in missing {
                for caller in &callers {
                    let facts = Facts { workload_uid: Arc::from(absent), ..caller.clone() };
                    compare(&snapshot, &policies, &facts);
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 112 * 113 / 2 * 5 * 3);
}
