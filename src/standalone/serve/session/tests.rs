use std::collections::HashMap;

use prost_types::{Struct, Value, value::Kind};

use super::*;
use crate::standalone::convert::Resources;
use crate::wire::xds::discovery::Status;
use crate::wire::xds::{ip_bytes, security, workload};

const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";

/// Workloads by uid, with an address, a node, and the service they are an endpoint of; the uid is
/// also the version's cause, so that `revision` changes all of them.
type Pod<'a> = (&'a str, [u8; 4], &'a str, &'a str);

fn catalogue(generation: u64, pods: &[Pod<'_>], revision: &str) -> Catalogue {
    let mut resources = Resources::default();
    let mut address = |name: &str, kind| {
        let address = workload::Address { r#type: Some(kind) };
        resources.addresses.insert(name.to_owned(), address);
    };
    for (uid, ip, node, service) in pods {
        let services = [((*service).to_owned(), workload::PortList::default())];
        let pod = workload::Workload {
            uid: (*uid).to_owned(),
            name: revision.to_owned(),
            addresses: vec![ip_bytes((*ip).into())],
            node: (*node).to_owned(),
            services: services.into(),
            ..workload::Workload::default()
        };
        address(uid, workload::address::Type::Workload(pod));
        let service = workload::Service { name: revision.to_owned(), ..Default::default() };
        let service = workload::Service {
            addresses: vec![workload::NetworkAddress {
                network: String::new(),
                address: ip_bytes([10, 96, 0, 1].into()),
                length: None,
            }],
            ..service
        };
        address("shop/web", workload::address::Type::Service(service));
    }
    let policy = security::Authorization { name: revision.to_owned(), ..Default::default() };
    resources.policies.insert("shop/deny".to_owned(), policy);
    Catalogue::of(&resources, generation)
}

const A: Pod<'_> = ("a", [10, 0, 0, 1], "node-a", "shop/web");
const B: Pod<'_> = ("b", [10, 0, 0, 2], "node-b", "shop/web");

fn node(name: &str) -> Node {
    let name = Value { kind: Some(Kind::StringValue(name.to_owned())) };
    let fields = [("NODE_NAME".to_owned(), name)].into();
    let (id, metadata) = ("ztunnel~10.0.0.9~z.ns~ns.svc".to_owned(), Some(Struct { fields }));
    Node { id, metadata, ..Node::default() }
}

fn request(url: &str) -> DeltaDiscoveryRequest {
    let node = Some(node("node-a"));
    DeltaDiscoveryRequest { type_url: url.to_owned(), node, ..Default::default() }
}

fn named(url: &str, names: &[&str]) -> DeltaDiscoveryRequest {
    let names = names.iter().map(ToString::to_string).collect();
    DeltaDiscoveryRequest { resource_names_subscribe: names, ..request(url) }
}

fn answer(nonce: &str, error: Option<&str>) -> DeltaDiscoveryRequest {
    let error = error.map(|text| Status { message: text.to_owned(), ..Status::default() });
    let type_url = ADDRESS.to_owned();
    let response_nonce = nonce.to_owned();
    DeltaDiscoveryRequest { type_url, response_nonce, error_detail: error, ..Default::default() }
}

/// `names - removed`.
fn show(response: &DeltaDiscoveryResponse) -> String {
    let names: Vec<&str> = response.resources.iter().map(|r| r.name.as_str()).collect();
    format!("{} - {}", names.join(" "), response.removed_resources.join(" "))
}

fn receive(session: &mut Session, request: DeltaDiscoveryRequest, at: &Catalogue) -> String {
    session.receive(request, at).unwrap().as_ref().map_or_else(|| "silence".to_owned(), show)
}

#[test]
fn every_first_request_is_answered_and_later_ones_only_if_they_ask() {
    let mut session = Session::default();
    let full = catalogue(1, &[A, B], "1");
    assert_eq!(receive(&mut session, request(ADDRESS), &full), "a b shop/web - ");
    assert_eq!(receive(&mut session, request(AUTHORIZATION), &full), "shop/deny - ");
    assert_eq!(receive(&mut session, request("type.googleapis.com/other"), &full), "silence");
    assert_eq!(receive(&mut session, answer("1-1", None), &full), "silence");
    let mut empty = Session::default();
    let nothing = Catalogue::default();
    assert_eq!(receive(&mut empty, request(ADDRESS), &nothing), " - ");
    let nobody = DeltaDiscoveryRequest { node: None, ..request(ADDRESS) };
    assert_eq!(Session::default().receive(nobody, &full), Err(Refusal::NoNode));
}

#[test]
fn a_change_is_sent_once_and_alone() {
    let mut session = Session::default();
    let first = catalogue(1, &[A, B], "1");
    receive(&mut session, request(ADDRESS), &first);
    receive(&mut session, request(AUTHORIZATION), &first);
    let shown = |session: &mut Session, at: &Catalogue| -> Vec<String> {
        session.update(at).iter().map(show).collect()
    };
    assert_eq!(shown(&mut session, &first), [""; 0]);
    assert_eq!(shown(&mut session, &catalogue(2, &[A], "1")), [" - b"]);
    assert_eq!(shown(&mut session, &catalogue(3, &[A, B], "1")), ["b - "]);
    assert_eq!(
        shown(&mut session, &catalogue(4, &[A, B], "2")),
        ["a b shop/web - ", "shop/deny - "]
    );
    assert_eq!(shown(&mut session, &catalogue(5, &[A, B], "2")), [""; 0]);
}

#[test]
fn a_reconnect_is_sent_what_it_lacks() {
    let first = catalogue(1, &[A, B], "1");
    let response = Session::default().receive(request(ADDRESS), &first).unwrap().unwrap();
    let mut versions: BTreeMap<String, String> =
        response.resources.into_iter().map(|r| (r.name, r.version)).collect();
    versions.insert("gone".to_owned(), "1".to_owned());
    versions.insert("b".to_owned(), "another".to_owned());
    let again = DeltaDiscoveryRequest { initial_resource_versions: versions, ..request(ADDRESS) };
    assert_eq!(receive(&mut Session::default(), again, &first), "b - gone");
}

#[test]
fn answers_are_counted() {
    let mut session = Session::default();
    let first = catalogue(1, &[A], "1");
    receive(&mut session, request(ADDRESS), &first);
    let standing = |session: &Session| {
        let of = session.standing().remove(0);
        (of.acknowledged, of.unanswered, of.nacks, of.last_nack)
    };
    assert_eq!(standing(&session), (0, Some(1), 0, None));
    receive(&mut session, answer("1-1", None), &first);
    assert_eq!(standing(&session), (1, None, 0, None));
    let nonce = session.update(&catalogue(2, &[A, B], "1"))[0].nonce.clone();
    receive(&mut session, answer("unknown", None), &first);
    assert_eq!(standing(&session), (1, Some(2), 0, None));
    receive(&mut session, answer(&nonce, Some("b: no")), &first);
    assert_eq!(standing(&session), (1, None, 1, Some("b: no".to_owned())));
    let nonce = session.update(&catalogue(3, &[A], "1"))[0].nonce.clone();
    receive(&mut session, answer(&nonce, None), &first);
    assert_eq!(standing(&session), (3, None, 1, None));
    let long = "ä".repeat(NACK_BYTES_MAX);
    let nonce = session.update(&catalogue(4, &[A, B], "1"))[0].nonce.clone();
    receive(&mut session, answer(&nonce, Some(&long)), &first);
    assert_eq!(standing(&session).3.unwrap().len(), NACK_BYTES_MAX);
}

#[test]
fn what_has_nothing_new_is_as_far_as_what_was_acknowledged() {
    let mut session = Session::default();
    let mut at = catalogue(1, &[A], "1");
    let standing = |session: &Session| {
        let of = session.standing().remove(0);
        (of.acknowledged, of.unanswered)
    };
    receive(&mut session, request(ADDRESS), &at);
    for generation in [2, 3] {
        at = catalogue(generation, &[A], "1");
        assert_eq!(session.update(&at), []);
        assert_eq!(standing(&session), (0, Some(generation)));
    }
    receive(&mut session, answer("1-1", None), &at);
    assert_eq!(standing(&session), (3, None));
    at = catalogue(4, &[A], "1");
    assert_eq!(session.update(&at), []);
    assert_eq!(standing(&session), (4, None));
    at = catalogue(5, &[A, B], "1");
    let nonce = session.update(&at)[0].nonce.clone();
    receive(&mut session, answer(&nonce, Some("b: no")), &at);
    // What was refused is not acknowledged by another's change.
    at = catalogue(6, &[A, B], "1");
    assert_eq!(session.update(&at), []);
    assert_eq!(standing(&session), (4, None));
}

#[test]
fn on_demand_only_what_is_asked_for() {
    let mut session = Session::default();
    let first = catalogue(1, &[A, B], "1");
    let nothing = DeltaDiscoveryRequest {
        resource_names_unsubscribe: vec!["*".to_owned()],
        ..named(ADDRESS, &["*"])
    };
    // Its own node's workloads come unasked.
    assert_eq!(receive(&mut session, nothing, &first), "a - ");
    let by_ip = session.receive(named(ADDRESS, &["/10.0.0.2"]), &first).unwrap().unwrap();
    assert_eq!(show(&by_ip), "b - ");
    assert_eq!(by_ip.resources[0].aliases, ["/10.0.0.2"]);
    // With a service come its endpoints; what was asked for is answered again.
    assert_eq!(receive(&mut session, named(ADDRESS, &["shop/web"]), &first), "a b shop/web - ");
    assert_eq!(receive(&mut session, named(ADDRESS, &["/10.9.9.9"]), &first), " - /10.9.9.9");
    // What was not known is sent when it comes.
    let c: Pod<'_> = ("c", [10, 9, 9, 9], "node-c", "other/web");
    let later = catalogue(2, &[A, B, c], "1");
    let updates: Vec<String> = session.update(&later).iter().map(show).collect();
    assert_eq!(updates, ["c - "]);
}

#[test]
fn what_a_client_waited_for_is_answered_on_the_next_stream() {
    let first = catalogue(1, &[A, B], "1");
    let has = first.entries(ResourceType::Address)["a"].version.to_string();
    let versions = [("a", has.as_str()), ("/10.0.0.2", ""), ("/10.9.9.9", ""), ("gone", "1")];
    let versions = versions.map(|(name, version)| (name.to_owned(), version.to_owned()));
    let again = DeltaDiscoveryRequest {
        resource_names_unsubscribe: vec!["*".to_owned()],
        initial_resource_versions: versions.into(),
        ..named(ADDRESS, &["*"])
    };
    let mut session = Session::default();
    assert_eq!(receive(&mut session, again, &first), "b - /10.9.9.9 gone");
    // What the client has not been told of by the name that it asked for comes with the address.
    let moved: Pod<'_> = ("c", [10, 9, 9, 9], "node-c", "other/web");
    let later = catalogue(2, &[A, B, moved], "1");
    let updates: Vec<String> = session.update(&later).iter().map(show).collect();
    assert_eq!(updates, ["c - "]);
}

#[test]
fn names_are_bounded() {
    let names: Vec<String> = (0..=NAMES_MAX).map(|n| n.to_string()).collect();
    let many = DeltaDiscoveryRequest { resource_names_subscribe: names, ..request(ADDRESS) };
    assert_eq!(Session::default().receive(many, &Catalogue::default()), Err(Refusal::TooMany));
}

/// Whatever happens in which order, a client that applies what it is sent ends with the mesh.
#[test]
fn clients_end_with_the_mesh() {
    for seed in 0..300 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut held: HashMap<String, String> = HashMap::new();
        let mut mesh = catalogue(1, &[A], "1");
        let mut session = Session::default();
        let mut connected = false;
        for generation in 2..40 {
            match rng.u8(..4) {
                0 => {
                    (session, connected) = (Session::default(), true);
                    let versions = held.clone().into_iter().collect();
                    let first = DeltaDiscoveryRequest {
                        initial_resource_versions: versions,
                        ..request(ADDRESS)
                    };
                    apply(&mut held, session.receive(first, &mesh).unwrap());
                }
                1 => connected = false,
                _ => {
                    let pods: Vec<Pod<'_>> = [A, B].into_iter().filter(|_| rng.bool()).collect();
                    let revision = rng.u8(..3).to_string();
                    mesh = catalogue(generation, &pods, &revision);
                    if connected {
                        session.update(&mesh).into_iter().for_each(|r| apply(&mut held, Some(r)));
                    }
                }
            }
            if connected {
                let expected = mesh.entries(ResourceType::Address).iter();
                let expected: HashMap<String, String> =
                    expected.map(|(name, e)| (name.to_string(), e.version.to_string())).collect();
                assert_eq!(held, expected, "seed {seed}, generation {generation}");
            }
        }
    }
}

fn apply(held: &mut HashMap<String, String>, response: Option<DeltaDiscoveryResponse>) {
    let Some(response) = response else { return };
    held.extend(response.resources.into_iter().map(|r| (r.name, r.version)));
    response.removed_resources.iter().for_each(|name| drop(held.remove(name)));
}
