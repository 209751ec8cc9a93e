use std::collections::BTreeSet;

use prost::Message;
use prost_types::Any;

use super::known::Held;
use super::*;
use crate::control::ingest::Key;
use crate::model::{Publisher, View};
use crate::wire::xds::discovery::Resource;
use crate::wire::xds::security::Authorization;
use crate::wire::xds::workload::address::Type;
use crate::wire::xds::workload::{self, Address};

const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";

/// A client and the mesh it writes.
struct Client {
    ads: Ads,
    publisher: Publisher,
    view: View,
}

impl Client {
    fn new() -> Self {
        let (publisher, view) = Publisher::new();
        let node = Node { id: "ztunnel~".to_owned(), ..Node::default() };
        Self { ads: Ads::new(node, true), publisher, view }
    }

    /// Applies and publishes; the answer.
    fn receive(&mut self, response: DeltaDiscoveryResponse) -> Answer {
        let answer = self.ads.receive(response, &self.publisher.current());
        if let Some(delta) = self.ads.take_changes() {
            self.publisher.publish(delta);
        }
        answer
    }

    /// Begins with what another has kept; whether it was taken.
    fn restore(&mut self, kept: Vec<DeltaDiscoveryResponse>) -> bool {
        let taken = self.ads.restore(kept, &self.publisher.current());
        if let Some(delta) = self.ads.take_changes() {
            self.publisher.publish(delta);
        }
        taken
    }

    /// Both types answered with nothing.
    fn begin(&mut self) {
        self.ads.open(true);
        self.receive(response(ADDRESS, Vec::new(), &[]));
        self.receive(response(AUTHORIZATION, Vec::new(), &[]));
    }

    /// What is published: the names of everything, with the names of workloads as revisions.
    fn shown(&self) -> BTreeSet<String> {
        let snapshot = self.view.load();
        let workloads = snapshot.workloads().map(|w| format!("{}={}", w.uid, w.name));
        let services = snapshot.services().map(|s| format!("{}={}", s.key, s.name));
        let policies = snapshot.policies().map(|p| format!("{}={}", p.key, p.groups.len()));
        workloads.chain(services).chain(policies).collect()
    }

    fn reported(&mut self, kind: ResourceType, report: bool) -> Vec<String> {
        let requests = self.ads.open(report).into_iter();
        let versions = requests.filter(|request| request.type_url == kind.url());
        let versions = versions.flat_map(|request| request.initial_resource_versions);
        versions.map(|(name, version)| format!("{name}={version}")).collect()
    }
}

fn response(type_url: &str, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        resources,
        nonce: "n".to_owned(),
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn resource(name: &str, version: &str, payload: Vec<u8>) -> Resource {
    Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(Any { type_url: String::new(), value: payload }),
        ..Resource::default()
    }
}

/// A workload whose name is its revision, which is also its version.
fn pod(uid: &str, revision: &str) -> Resource {
    let (uid, name) = (uid.to_owned(), revision.to_owned());
    let pod = workload::Workload { uid, name, ..Default::default() };
    let address = Address { r#type: Some(Type::Workload(pod)) };
    resource(&address_name(&address), revision, address.encode_to_vec())
}

fn address_name(address: &Address) -> String {
    match address.r#type.as_ref() {
        Some(Type::Workload(pod)) => pod.uid.clone(),
        Some(Type::Service(service)) => format!("{}/{}", service.namespace, service.hostname),
        None => String::new(),
    }
}

fn service(hostname: &str, revision: &str) -> Resource {
    let (namespace, hostname, name) = ("ns".to_owned(), hostname.to_owned(), revision.to_owned());
    let service = workload::Service { namespace, hostname, name, ..Default::default() };
    let address = Address { r#type: Some(Type::Service(service)) };
    resource(&address_name(&address), revision, address.encode_to_vec())
}

/// A policy of as many groups. istiod gives policies no version.
fn allow(name: &str, groups: usize) -> Resource {
    let (namespace, own) = ("ns".to_owned(), name.to_owned());
    let groups = vec![Default::default(); groups];
    let policy = Authorization { namespace, name: own, groups, scope: 1, ..Default::default() };
    resource(&format!("ns/{name}"), "", policy.encode_to_vec())
}

/// A workload with a protocol that is not served.
fn bad_pod(uid: &str, version: &str) -> Resource {
    let pod = workload::Workload { uid: uid.to_owned(), tunnel_protocol: 9, ..Default::default() };
    let address = Address { r#type: Some(Type::Workload(pod)) };
    resource(uid, version, address.encode_to_vec())
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn a_stream_begins_with_one_request_of_each_type() {
    let mut client = Client::new();
    let first = client.ads.open(true);
    let urls: Vec<&str> = first.iter().map(|request| request.type_url.as_str()).collect();
    assert_eq!(urls, [ADDRESS, AUTHORIZATION]);
    for request in first {
        assert_eq!(request.node.unwrap().id, "ztunnel~");
        assert!(request.initial_resource_versions.is_empty());
        assert!(request.resource_names_subscribe.is_empty());
        assert!(request.resource_names_unsubscribe.is_empty());
    }
}

#[test]
fn nothing_is_published_before_every_type_was_answered() {
    let mut client = Client::new();
    client.ads.open(true);
    client.receive(response(ADDRESS, vec![pod("a", "1")], &[]));
    client.receive(response(ADDRESS, vec![pod("b", "1"), service("s", "1")], &["a"]));
    assert_eq!(client.view.load().generation(), 0);
    assert!(!client.ads.is_heard());
    // A type that is wholly rejected is answered nevertheless.
    let answer = client.receive(response(AUTHORIZATION, vec![resource("x", "", vec![0xff])], &[]));
    assert!(answer.request.error_detail.is_some());
    assert_eq!(client.view.load().generation(), 1);
    assert_eq!(client.shown(), set(&["b=1", "ns/s=1"]));
    assert!(client.ads.is_heard());
    // Even nothing is published once.
    let mut client = Client::new();
    client.begin();
    assert_eq!(client.view.load().generation(), 1);
    client.receive(response(ADDRESS, Vec::new(), &["unknown"]));
    assert_eq!(client.view.load().generation(), 1);
}

#[test]
fn an_answer_has_type_and_nonce_and_nothing_else() {
    let mut client = Client::new();
    client.begin();
    let answer = client.receive(response(ADDRESS, vec![pod("a", "1")], &[]));
    let expected = DeltaDiscoveryRequest {
        type_url: ADDRESS.to_owned(),
        response_nonce: "n".to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    assert_eq!(answer.request, expected);
    // Of a type that was never asked for too.
    let answer = client.receive(response("type.googleapis.com/other", vec![pod("b", "1")], &[]));
    assert_eq!(answer.request.type_url, "type.googleapis.com/other");
    assert_eq!(answer.request.error_detail, None);
    assert_eq!(client.shown(), set(&["a=1"]));
}

#[test]
fn one_bad_resource_rejects_only_itself() {
    let mut client = Client::new();
    client.begin();
    client.receive(response(ADDRESS, vec![pod("a", "1"), pod("b", "1")], &[]));
    let both = response(ADDRESS, vec![pod("a", "2"), bad_pod("b", "2"), pod("c", "2")], &[]);
    let answer = client.receive(both.clone());
    let text = answer.request.error_detail.unwrap().message;
    assert_eq!(text, "b: tunnel_protocol: 9 is not served");
    assert_eq!(answer.rejected.len(), 1);
    // The last good version stays, and is what the server is told of.
    assert_eq!(client.shown(), set(&["a=2", "b=1", "c=2"]));
    let standing = client.ads.standing().remove(&ResourceType::Address).unwrap();
    assert_eq!((standing.resources, standing.nacks, standing.rejected.len()), (3, 1, 1));
    // The same again is refused again, but is no news.
    let answer = client.receive(both);
    assert!(answer.request.error_detail.is_some());
    assert!(answer.rejected.is_empty());
    assert_eq!(client.reported(ResourceType::Address, true), ["a=2", "b=1", "c=2"]);
    // What replaces it ends that.
    let answer = client.receive(response(ADDRESS, vec![pod("b", "3")], &[]));
    assert_eq!(answer.request.error_detail, None);
    assert!(client.ads.standing()[&ResourceType::Address].rejected.is_empty());
}

#[test]
fn a_policy_without_version_stays_when_its_next_version_is_bad() {
    let mut client = Client::new();
    client.begin();
    client.receive(response(AUTHORIZATION, vec![allow("p", 2)], &[]));
    client.receive(response(AUTHORIZATION, vec![resource("ns/p", "", vec![0xff])], &[]));
    assert_eq!(client.shown(), set(&["ns/p=2"]));
}

#[test]
fn what_never_was_good_is_stood_in_for_until_it_is_or_is_gone() {
    let mut client = Client::new();
    client.begin();
    client.receive(response(ADDRESS, vec![bad_pod("a", "1"), bad_pod("b", "1")], &[]));
    client.receive(response(AUTHORIZATION, vec![resource("ns/p", "", vec![0xff])], &[]));
    assert_eq!(client.shown(), set(&["a=", "b=", "ns/p=1"]));
    assert_eq!(client.reported(ResourceType::Address, true), [""; 0]);
    client.receive(response(ADDRESS, vec![pod("a", "2"), bad_pod("b", "2")], &[]));
    assert_eq!(client.shown(), set(&["a=2", "b=", "ns/p=1"]));
    client.receive(response(ADDRESS, Vec::new(), &["b"]));
    client.receive(response(AUTHORIZATION, Vec::new(), &["ns/p"]));
    assert_eq!(client.shown(), set(&["a=2"]));
    assert!(client.ads.standing().values().all(|standing| standing.rejected.is_empty()));
}

#[test]
fn a_nack_is_bounded() {
    let mut client = Client::new();
    client.begin();
    let many: Vec<Resource> = (0..1_000).map(|n| bad_pod(&format!("uid-{n}"), "1")).collect();
    let answer = client.receive(response(ADDRESS, many, &[]));
    let text = answer.request.error_detail.unwrap().message;
    assert!(text.len() <= NACK_BYTES_MAX + 32, "{}", text.len());
    assert!(text.ends_with(" more"), "{text}");
    assert_eq!(answer.rejected.len(), 1_000);
}

#[test]
fn a_name_may_change_its_kind_and_be_removed_in_the_same_response() {
    let mut client = Client::new();
    client.begin();
    client.receive(response(ADDRESS, vec![service("s", "1")], &[]));
    let pod = pod("ns/s", "2");
    client.receive(response(ADDRESS, vec![pod.clone()], &[]));
    assert_eq!(client.shown(), set(&["ns/s=2"]));
    assert_eq!(client.view.load().counts(), (1, 0, 0));
    client.receive(response(ADDRESS, vec![service("s", "3")], &[]));
    assert_eq!(client.view.load().counts(), (0, 1, 0));
    client.receive(response(ADDRESS, vec![pod], &["ns/s"]));
    assert_eq!(client.view.load().counts(), (0, 0, 0));
}

#[test]
fn what_has_not_changed_is_not_published_again() {
    let mut client = Client::new();
    client.begin();
    client.receive(response(AUTHORIZATION, vec![allow("p", 1), allow("q", 1)], &[]));
    let generation = client.view.load().generation();
    client.ads.open(true);
    client.receive(response(AUTHORIZATION, vec![allow("p", 1), allow("q", 1)], &[]));
    assert_eq!(client.view.load().generation(), generation);
    client.receive(response(AUTHORIZATION, vec![allow("p", 1), allow("q", 2)], &[]));
    assert_eq!(client.view.load().generation(), generation + 1);
}

#[test]
fn what_was_not_reported_and_does_not_come_again_is_gone() {
    let mut client = Client::new();
    client.begin();
    client.receive(response(ADDRESS, vec![pod("a", "1"), pod("b", "1")], &[]));
    client.receive(response(AUTHORIZATION, vec![allow("p", 1), allow("q", 1)], &[]));
    // Addresses are reported; policies have no versions, and cannot be.
    assert_eq!(client.reported(ResourceType::Address, true), ["a=1", "b=1"]);
    assert_eq!(client.reported(ResourceType::Authorization, true), [""; 0]);
    // A lost stream takes nothing away.
    assert_eq!(client.shown(), set(&["a=1", "b=1", "ns/p=1", "ns/q=1"]));
    client.receive(response(ADDRESS, Vec::new(), &["b"]));
    client.receive(response(AUTHORIZATION, vec![allow("q", 1)], &[]));
    assert_eq!(client.shown(), set(&["a=1", "ns/q=1"]));
    // Later responses say only what has changed.
    client.receive(response(AUTHORIZATION, vec![allow("r", 1)], &[]));
    assert_eq!(client.shown(), set(&["a=1", "ns/q=1", "ns/r=1"]));
    // Nothing reported: the first response is everything.
    assert_eq!(client.reported(ResourceType::Address, false), [""; 0]);
    client.receive(response(ADDRESS, vec![pod("c", "1")], &[]));
    assert_eq!(client.shown(), set(&["c=1", "ns/q=1", "ns/r=1"]));
}

#[test]
fn a_report_of_a_large_mesh_stays_below_what_a_server_takes() {
    let mut client = Client::new();
    client.begin();
    let name = |n: usize| format!("c1//Pod/namespace-of-some-length/deployment-name-{n:06}");
    let version = "0123456789abcdef";
    let known = client.ads.types.get_mut(&ResourceType::Address).unwrap();
    for n in 0..200_000 {
        let (version, key) = (version.into(), Some(Key::Workload));
        let payload = Arc::default();
        let held = Held { version, key, stands_in: false, reported: false, payload };
        known.held.insert(name(n).into(), held);
    }
    let requests = client.ads.open(true);
    assert!(requests[0].encoded_len() < 4 << 20, "{}", requests[0].encoded_len());
    let reported = &requests[0].initial_resource_versions;
    assert!(reported.len() > 30_000, "{}", reported.len());
    // What was left out is gone unless the server sends it.
    let left_out = (0..200_000).map(name).filter(|name| !reported.contains_key(name));
    let again: Vec<String> = left_out.take(1_000).collect();
    let resources = again.iter().map(|name| pod(name, version)).collect();
    let reported: Vec<&String> = reported.keys().collect();
    client.receive(response(ADDRESS, resources, &[]));
    let known = &client.ads.types[&ResourceType::Address];
    assert_eq!(known.held.len(), reported.len() + again.len());
    assert!(reported.into_iter().chain(&again).all(|name| known.held.contains_key(name.as_str())));
}

/// A server of the protocol from scratch: it knows every resource by name and revision, and what
/// this client was sent or has reported.
#[derive(Default)]
struct Server {
    resources: BTreeMap<String, (u32, bool)>,
    /// What the client of the open stream has, by its report and by what was sent since.
    sent: Option<BTreeMap<String, String>>,
    versions: bool,
}

impl Server {
    fn resource(&self, name: &str, (revision, good): (u32, bool)) -> Resource {
        let version = if self.versions { revision.to_string() } else { String::new() };
        let mut resource = match (name.strip_prefix("ns/"), good) {
            (Some(host), true) => service(host, &revision.to_string()),
            (None, true) => pod(name, &revision.to_string()),
            (_, false) => bad_pod(name, ""),
        };
        resource.version = version;
        resource.name = name.to_owned();
        resource
    }

    fn accept(&mut self, request: DeltaDiscoveryRequest) -> DeltaDiscoveryResponse {
        self.sent = Some(request.initial_resource_versions);
        self.difference(true)
    }

    /// What the client lacks, and what it has too much; without versions it is always sent
    /// everything at first.
    fn difference(&mut self, first: bool) -> DeltaDiscoveryResponse {
        let sent = self.sent.clone().unwrap_or_default();
        let lacks = |name: &String, revision: u32| match sent.get(name) {
            _ if first && !self.versions => true,
            has => has != Some(&revision.to_string()),
        };
        let changed: Vec<(String, (u32, bool))> = self
            .resources
            .iter()
            .filter(|(name, (revision, _))| lacks(name, *revision))
            .map(|(name, state)| (name.clone(), *state))
            .collect();
        let gone: Vec<String> =
            sent.keys().filter(|name| !self.resources.contains_key(*name)).cloned().collect();
        let resources = changed.iter().map(|(name, state)| self.resource(name, *state)).collect();
        let now = self.sent.get_or_insert_default();
        now.extend(changed.into_iter().map(|(name, (revision, _))| (name, revision.to_string())));
        now.retain(|name, _| !gone.contains(name));
        let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
        response(ADDRESS, resources, &gone)
    }
}

/// Whatever happens in which order, the mesh ends as the server has it; what is bad keeps its last
/// good revision, or refuses.
#[test]
fn the_mesh_is_what_the_server_has() {
    for seed in 0..400 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut server = Server { versions: rng.bool(), ..Server::default() };
        let mut client = Client::new();
        client.begin();
        // What should be in force: the last good revision of which the client was told.
        let mut expected: BTreeMap<String, Option<u32>> = BTreeMap::new();
        let names = ["a", "b", "c", "ns/d", "ns/e"];
        for revision in 1..60 {
            let name = names[rng.usize(..names.len())].to_owned();
            match rng.u8(..6) {
                0 => drop(server.resources.remove(&name)),
                1 => drop(server.resources.insert(name, (revision, false))),
                _ => drop(server.resources.insert(name, (revision, true))),
            }
            let told = match rng.u8(..5) {
                0 => {
                    server.sent = None;
                    None
                }
                1 => {
                    let request = client.ads.open(rng.u8(..4) != 0).remove(0);
                    Some(server.accept(request))
                }
                _ if server.sent.is_some() => Some(server.difference(false)),
                _ => None,
            };
            let Some(told) = told else { continue };
            let bad = told.resources.iter().any(|r| !server.resources[&r.name].1);
            let answer = client.receive(told);
            assert_eq!(answer.request.error_detail.is_some(), bad, "seed {seed}");
            expected.retain(|name, _| server.resources.contains_key(name));
            for (name, (revision, good)) in &server.resources {
                let now = expected.entry(name.clone()).or_insert(None);
                if *good {
                    *now = Some(*revision);
                }
            }
            let expected: BTreeSet<String> = expected
                .iter()
                .map(|(name, good)| match good {
                    Some(revision) => format!("{name}={revision}"),
                    // What never was good is stood in for, by something without a name.
                    None => format!("{name}="),
                })
                .collect();
            assert_eq!(client.shown(), expected, "seed {seed}, revision {revision}");
        }
    }
}

/// What a response leads to does not depend on how many it is split into.
#[test]
fn split_responses_lead_to_the_same() {
    for seed in 0..100 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut resources =
            vec![pod("a", "1"), bad_pod("b", "1"), service("s", "1"), pod("a", "2")];
        rng.shuffle(&mut resources);
        let mut whole = Client::new();
        whole.begin();
        whole.receive(response(ADDRESS, resources.clone(), &[]));
        let mut split = Client::new();
        split.begin();
        let at = rng.usize(..=resources.len());
        let rest = resources.split_off(at);
        split.receive(response(ADDRESS, resources, &[]));
        split.receive(response(ADDRESS, rest, &[]));
        assert_eq!(whole.shown(), split.shown(), "seed {seed}");
    }
}

/// What is kept is what is in force, and leads to the same mesh in another process.
#[test]
fn what_is_kept_begins_another_process() {
    let mut client = Client::new();
    client.begin();
    client.receive(response(
        ADDRESS,
        vec![pod("a", "1"), service("s", "1"), bad_pod("b", "1")],
        &[],
    ));
    client.receive(response(ADDRESS, vec![bad_pod("a", "2"), pod("c", "1")], &["c"]));
    client.receive(response(AUTHORIZATION, vec![allow("p", 1), allow("q", 1)], &[]));
    let kept: Vec<_> = client.ads.kept().iter().map(Kept::response).collect();
    let mut next = Client::new();
    // A stream is open that has been told of nothing.
    next.ads.open(true);
    assert!(next.restore(kept.clone()));
    // A stand-in is not kept: the server says again what is bad, and that it is.
    assert_eq!(next.shown(), set(&["a=1", "ns/s=1", "ns/p=1", "ns/q=1"]));
    assert!(!next.ads.is_heard());
    // The first responses of that stream are everything there is.
    next.receive(response(ADDRESS, vec![pod("a", "3")], &[]));
    next.receive(response(AUTHORIZATION, vec![allow("q", 1)], &[]));
    assert_eq!(next.shown(), set(&["a=3", "ns/q=1"]));
    assert!(next.ads.is_heard());
    // Who has been told by a server does not go back.
    assert!(!next.restore(kept.clone()));
    assert_eq!(next.shown(), set(&["a=3", "ns/q=1"]));
    // A later stream is told of what was restored.
    let mut late = Client::new();
    assert!(late.restore(kept));
    assert_eq!(late.reported(ResourceType::Address, true), ["a=1", "ns/s=1"]);
    late.receive(response(ADDRESS, Vec::new(), &[]));
    assert_eq!(late.shown(), set(&["a=1", "ns/s=1", "ns/p=1", "ns/q=1"]));
}
