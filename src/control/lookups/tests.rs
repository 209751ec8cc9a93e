use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use prost::Message;
use prost_types::Any;

use super::*;
use crate::control::ads::Ads;
use crate::model::{NetworkAddr, Publisher, ServiceKey, View};
use crate::wire::xds::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Resource};
use crate::wire::xds::workload::address::Type;
use crate::wire::xds::workload::{self, Address, PortList};

const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";

/// A client that asks, and the mesh it writes.
struct Client {
    ads: Ads,
    publisher: Publisher,
    view: View,
    _questions: crate::model::Lookups,
}

impl Client {
    fn new() -> Self {
        let (publisher, view, questions) = Publisher::on_demand();
        let node = Node { id: "ztunnel~".to_owned(), ..Node::default() };
        Self { ads: Ads::on_demand(node, true), publisher, view, _questions: questions }
    }

    /// With a stream on which policies are answered.
    fn connected() -> Self {
        let mut client = Self::new();
        client.ads.open(true);
        client.policies();
        client
    }

    fn policies(&mut self) {
        self.receive(response(AUTHORIZATION, Vec::new(), &[]));
    }

    fn receive(&mut self, response: DeltaDiscoveryResponse) {
        self.ads.receive(response, &self.publisher.current());
        self.publish();
    }

    fn publish(&mut self) {
        if let Some(delta) = self.ads.take_changes() {
            self.publisher.publish(delta);
        }
    }

    fn turn(&mut self) {
        self.ads.turn();
        self.publish();
    }

    /// What goes to the server now: `+name` and `-name`.
    fn asks(&mut self) -> Vec<String> {
        let requests = std::iter::from_fn(|| self.ads.next_lookup());
        let names = requests.flat_map(|request| {
            let added = request.resource_names_subscribe.into_iter().map(|n| format!("+{n}"));
            let dropped = request.resource_names_unsubscribe.into_iter().map(|n| format!("-{n}"));
            dropped.chain(added).collect::<Vec<_>>()
        });
        names.collect()
    }

    fn must_ask(&self, wanted: &Wanted) -> bool {
        self.view.load().must_ask(wanted)
    }
}

fn response(type_url: &str, resources: Vec<Resource>, removed: &[&str]) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: type_url.to_owned(),
        resources,
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn resource(name: &str, address: Type) -> Resource {
    let value = Address { r#type: Some(address) }.encode_to_vec();
    Resource {
        name: name.to_owned(),
        version: format!("{:016x}", value.len()),
        resource: Some(Any { type_url: String::new(), value }),
        ..Resource::default()
    }
}

fn pod(uid: &str, ip: &str) -> Resource {
    resource(uid, Type::Workload(workload_of(uid, ip, None)))
}

fn workload_of(uid: &str, ip: &str, service: Option<&str>) -> workload::Workload {
    let services = service.map(|service| (service.to_owned(), PortList::default()));
    workload::Workload {
        uid: uid.to_owned(),
        addresses: vec![bytes(ip)],
        services: services.into_iter().collect(),
        ..workload::Workload::default()
    }
}

fn service(hostname: &str, vip: &str, length: Option<u32>) -> Resource {
    resource(&format!("ns/{hostname}"), Type::Service(service_of(hostname, vip, length)))
}

fn service_of(hostname: &str, vip: &str, length: Option<u32>) -> workload::Service {
    let address = workload::NetworkAddress { network: String::new(), address: bytes(vip), length };
    workload::Service {
        namespace: "ns".to_owned(),
        hostname: hostname.to_owned(),
        addresses: vec![address],
        ..workload::Service::default()
    }
}

fn bytes(ip: &str) -> Vec<u8> {
    crate::wire::xds::ip_bytes(ip.parse().unwrap())
}

fn addr(ip: &str) -> Wanted {
    let ip: IpAddr = ip.parse().unwrap();
    Wanted::Addr(NetworkAddr { network: "".into(), ip })
}

fn host(hostname: &str) -> Wanted {
    Wanted::Host(ServiceKey { namespace: "ns".into(), hostname: hostname.into() })
}

#[test]
fn a_stream_subscribes_to_no_address_and_only_policies_are_awaited() {
    let mut client = Client::new();
    let requests = client.ads.open(true);
    assert_eq!(requests[0].type_url, ADDRESS);
    assert_eq!(requests[0].resource_names_subscribe, ["*"]);
    assert_eq!(requests[0].resource_names_unsubscribe, ["*"]);
    assert_eq!(requests[1].type_url, AUTHORIZATION);
    assert!(requests[1].resource_names_subscribe.is_empty());
    assert!(!client.ads.is_heard());
    client.policies();
    assert!(client.ads.is_heard());
    assert_eq!(client.view.load().generation(), 1);
}

#[test]
fn an_address_is_answered_under_another_name() {
    let mut client = Client::connected();
    for wanted in [addr("10.0.0.1"), addr("10.0.0.1"), addr("10.9.0.1"), host("web")] {
        assert!(client.must_ask(&wanted));
        client.ads.want(wanted);
    }
    assert_eq!(client.asks(), ["+/10.0.0.1", "+/10.9.0.1", "+ns/web"]);
    client.receive(response(ADDRESS, vec![pod("k//Pod/ns/a", "10.0.0.1")], &[]));
    assert!(!client.must_ask(&addr("10.0.0.1")));
    assert!(client.must_ask(&addr("10.9.0.1")));
    client.receive(response(ADDRESS, vec![service("web", "10.9.0.1", None)], &[]));
    assert!(!client.must_ask(&addr("10.9.0.1")));
    assert!(!client.must_ask(&host("web")));
    // Who is there stays answered.
    (0..20).for_each(|_| client.turn());
    assert!(!client.must_ask(&addr("10.0.0.1")));
    assert_eq!(client.asks(), [""; 0]);
    let (remembered, tally) = client.ads.lookups().unwrap();
    assert_eq!((remembered, tally.found, tally.absent), (3, 3, 0));
}

#[test]
fn nobody_is_an_answer_for_a_while() {
    let mut client = Client::connected();
    client.ads.want(addr("10.0.0.1"));
    client.ads.want(addr("2001:db8::1"));
    client.ads.want(host("web"));
    assert_eq!(client.asks(), ["+/10.0.0.1", "+/2001:db8::1", "+ns/web"]);
    client.receive(response(ADDRESS, Vec::new(), &["/10.0.0.1", "/2001:db8::1", "ns/web", "x"]));
    let all = [addr("10.0.0.1"), addr("2001:db8::1"), host("web")];
    assert!(all.iter().all(|wanted| !client.must_ask(wanted)));
    client.turn();
    assert!(all.iter().all(|wanted| !client.must_ask(wanted)));
    client.turn();
    assert!(all.iter().all(|wanted| client.must_ask(wanted)));
    // The server would not answer a second time as long as it is subscribed.
    client.ads.want(addr("10.0.0.1"));
    let mut asks = client.asks();
    assert_eq!(asks.pop().unwrap(), "+/10.0.0.1");
    asks.sort();
    assert_eq!(asks, ["-/10.0.0.1", "-/2001:db8::1", "-ns/web"]);
    // Somebody comes to be there while nobody counts.
    client.receive(response(ADDRESS, Vec::new(), &["/10.0.0.1"]));
    client.receive(response(ADDRESS, vec![pod("a", "10.0.0.1")], &[]));
    assert!(!client.must_ask(&addr("10.0.0.1")));
    (0..3).for_each(|_| client.turn());
    assert!(!client.must_ask(&addr("10.0.0.1")));
}

#[test]
fn an_address_is_asked_for_again_when_it_may_be_somebody_else() {
    let mut client = Client::connected();
    client.ads.want(addr("10.0.0.1"));
    client.ads.want(host("web"));
    client.asks();
    let both = vec![pod("a", "10.0.0.1"), service("web", "10.9.0.1", None)];
    client.receive(response(ADDRESS, both, &[]));
    // The pod is gone: whether another one has its address has to be asked.
    client.receive(response(ADDRESS, Vec::new(), &["a"]));
    assert!(client.must_ask(&addr("10.0.0.1")));
    client.ads.want(addr("10.0.0.1"));
    assert_eq!(client.asks(), ["-/10.0.0.1", "+/10.0.0.1"]);
    client.receive(response(ADDRESS, vec![pod("b", "10.0.0.1")], &[]));
    assert!(!client.must_ask(&addr("10.0.0.1")));
    // It has another address now.
    client.receive(response(ADDRESS, vec![pod("b", "10.0.0.2")], &[]));
    assert!(client.must_ask(&addr("10.0.0.1")));
    assert!(!client.must_ask(&addr("10.0.0.2")));
    // By its own name it is known to be gone.
    client.receive(response(ADDRESS, Vec::new(), &["ns/web"]));
    assert!(!client.must_ask(&host("web")));
    assert!(client.must_ask(&addr("10.9.0.1")));
}

#[test]
fn what_is_in_a_range_is_answered_by_it_only_when_it_was_asked_for() {
    let mut client = Client::connected();
    client.ads.want(addr("10.9.0.1"));
    client.receive(response(ADDRESS, vec![service("range", "10.9.0.0", Some(16))], &[]));
    assert!(!client.must_ask(&addr("10.9.0.1")));
    // A workload of its own may be there.
    assert!(client.must_ask(&addr("10.9.0.2")));
    client.receive(response(ADDRESS, vec![service("range", "10.8.0.0", Some(16))], &[]));
    assert!(client.must_ask(&addr("10.9.0.1")));
}

#[test]
fn an_answer_that_cannot_be_read_is_none() {
    let mut client = Client::connected();
    client.ads.want(addr("10.0.0.1"));
    let unread = Resource { aliases: vec!["/10.0.0.1".to_owned()], ..Resource::default() };
    let unread = Resource { name: "a".to_owned(), ..unread };
    client.receive(response(ADDRESS, vec![unread.clone()], &[]));
    assert!(client.must_ask(&addr("10.0.0.1")));
    // Neither is one that says it is somewhere else.
    let elsewhere = Resource { aliases: unread.aliases, ..pod("a", "10.0.0.2") };
    client.receive(response(ADDRESS, vec![elsewhere], &[]));
    assert!(client.must_ask(&addr("10.0.0.1")));
    // It is given up at last, so that it can be asked for again.
    (0..WAITING_TURNS).for_each(|_| client.turn());
    assert_eq!(client.ads.lookups().unwrap().0, 1);
    client.turn();
    let (remembered, tally) = client.ads.lookups().unwrap();
    assert_eq!((remembered, tally.given_up), (0, 1));
}

#[test]
fn a_new_stream_is_told_of_everything() {
    let mut client = Client::connected();
    for ip in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        client.ads.want(addr(ip));
    }
    client.asks();
    client.receive(response(ADDRESS, vec![pod("a", "10.0.0.1")], &["/10.0.0.3"]));
    // Without a stream too: nothing is lost.
    client.ads.want(addr("10.0.0.4"));
    let versions = client.ads.open(true).remove(0).initial_resource_versions;
    let version = pod("a", "10.0.0.1").version;
    let told = [("/10.0.0.2", ""), ("/10.0.0.4", ""), ("a", &version)];
    let told = told.map(|(name, version)| (name.to_owned(), version.to_owned()));
    assert_eq!(versions, told.into());
    assert_eq!(client.asks(), [""; 0]);
    // What does not come is not gone: it was not asked for.
    client.policies();
    client.receive(response(ADDRESS, Vec::new(), &["/10.0.0.2"]));
    assert!(!client.must_ask(&addr("10.0.0.1")));
    // This server was never told of it.
    client.turn();
    client.turn();
    assert!(client.must_ask(&addr("10.0.0.3")));
    assert_eq!(client.asks(), ["-/10.0.0.2"]);
    // Nothing may be told at the beginning: then everything is asked for.
    assert!(client.ads.open(false).remove(0).initial_resource_versions.is_empty());
    let mut asks = client.asks();
    asks.sort();
    assert_eq!(asks, ["+/10.0.0.4", "+a"]);
}

#[test]
fn what_an_earlier_process_kept_is_asked_for_on_the_open_stream() {
    let mut client = Client::connected();
    client.ads.want(addr("10.0.0.1"));
    client.asks();
    client.receive(response(ADDRESS, vec![pod("a", "10.0.0.1")], &[]));
    let kept: Vec<_> = client.ads.kept().iter().map(|kept| kept.response()).collect();
    let mut next = Client::new();
    next.ads.open(true);
    assert!(next.ads.restore(kept, &next.publisher.current()));
    next.publish();
    assert!(!next.must_ask(&addr("10.0.0.1")));
    assert!(next.must_ask(&addr("10.0.0.2")));
    assert_eq!(next.asks(), ["+a"]);
}

#[test]
fn reports_and_questions_are_bounded() {
    let uid = |n: usize| format!("cluster//Pod/namespace-of-some-length/deployment-{n:06}-abcde");
    let ip = |n: usize| format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
    let mut client = Client::connected();
    let pods = |range: std::ops::Range<usize>| range.map(|n| pod(&uid(n), &ip(n))).collect();
    client.receive(response(ADDRESS, pods(0..2_000), &[]));
    let first = client.ads.open(true).remove(0);
    assert_eq!(first.initial_resource_versions.len(), 2_000);
    assert!(first.encoded_len() < 256 * 1024, "{}", first.encoded_len());
    client.receive(response(ADDRESS, pods(2_000..40_000), &[]));
    let first = client.ads.open(true).remove(0);
    assert!(first.encoded_len() < 1_100_000, "{}", first.encoded_len());
    let mut told = first.initial_resource_versions.len();
    while let Some(request) = client.ads.next_lookup() {
        assert!(request.encoded_len() < 1_100_000, "{}", request.encoded_len());
        told += request.resource_names_subscribe.len();
    }
    assert_eq!(told, 40_000);
    for n in 0..=ASKED_MAX {
        client.ads.want(addr(&ip(1_000_000 + n)));
    }
    let (remembered, tally) = client.ads.lookups().unwrap();
    assert_eq!((remembered, tally.too_many), (ASKED_MAX, 1));
}

/// A server as spec xds 5.5 describes it, at its least helpful: it answers a name once for as long
/// as it is subscribed to, and does not say when somebody new comes to have an address.
#[derive(Default)]
struct Server {
    /// Address and service by uid.
    pods: BTreeMap<String, (String, Option<String>)>,
    /// Address by host name.
    services: BTreeMap<String, String>,
    subscribed: BTreeSet<String>,
    outbox: VecDeque<DeltaDiscoveryResponse>,
}

impl Server {
    fn resource(&self, name: &str) -> Option<Resource> {
        if let Some((ip, service)) = self.pods.get(name) {
            return Some(resource(name, Type::Workload(workload_of(name, ip, service.as_deref()))));
        }
        let hostname = name.strip_prefix("ns/")?;
        self.services.get(hostname).map(|vip| service(hostname, vip, None))
    }

    fn lookup(&self, key: &str) -> Vec<String> {
        let ip = key.strip_prefix('/');
        let pod = self.pods.iter().find(|(uid, (at, _))| *uid == key || Some(at.as_str()) == ip);
        if let Some((uid, _)) = pod {
            return vec![uid.clone()];
        }
        let mut services = self.services.iter();
        let service = services
            .find(|(hostname, vip)| format!("ns/{hostname}") == key || Some(vip.as_str()) == ip);
        let Some((hostname, _)) = service else { return Vec::new() };
        let name = format!("ns/{hostname}");
        let endpoints = self.pods.iter().filter(|(_, (_, of))| of.as_ref() == Some(&name));
        endpoints.map(|(uid, _)| uid.clone()).chain([name.clone()]).collect()
    }

    fn open(&mut self, request: &DeltaDiscoveryRequest) {
        (self.subscribed, self.outbox) = Default::default();
        self.outbox.push_back(response(AUTHORIZATION, Vec::new(), &[]));
        self.answer(request.initial_resource_versions.keys());
    }

    fn take(&mut self, request: &DeltaDiscoveryRequest) {
        for name in &request.resource_names_unsubscribe {
            self.subscribed.remove(name);
        }
        self.answer(request.resource_names_subscribe.iter());
    }

    fn answer<'a>(&mut self, names: impl Iterator<Item = &'a String>) {
        let new: Vec<&String> = names.filter(|name| !self.subscribed.contains(*name)).collect();
        let (mut found, mut removed) = (BTreeSet::new(), Vec::new());
        for name in new {
            self.subscribed.insert(name.clone());
            let names = self.lookup(name);
            if names.is_empty() {
                removed.push(name.as_str());
            }
            found.extend(names);
        }
        self.subscribed.extend(found.iter().cloned());
        let resources = found.iter().filter_map(|name| self.resource(name)).collect();
        self.outbox.push_back(response(ADDRESS, resources, &removed));
    }

    /// Something has changed under these names.
    fn changed(&mut self, names: &[String]) {
        let services = self.services.keys().map(|hostname| format!("ns/{hostname}"));
        let of_services = services.filter(|name| self.subscribed.contains(name));
        let additional: BTreeSet<String> =
            of_services.flat_map(|name| self.lookup(&name)).collect();
        let told = names.iter().filter(|name| self.subscribed.contains(*name)).cloned();
        let told: BTreeSet<String> =
            told.chain(additional.into_iter().filter(|name| names.contains(name))).collect();
        let removed = told.iter().filter(|name| self.resource(name).is_none());
        let removed: Vec<&str> = removed.map(String::as_str).collect();
        let resources = told.iter().filter_map(|name| self.resource(name)).collect();
        self.subscribed.extend(told.iter().cloned());
        self.outbox.push_back(response(ADDRESS, resources, &removed));
    }
}

/// Whatever changes, breaks and is asked for, in the end every question has the right answer.
#[test]
fn questions_end_with_the_answers_of_the_server() {
    for seed in 0..400 {
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut server, mut client, mut connected) = (Server::default(), Client::new(), false);
        let ips = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
        let hosts = ["web", "db"];
        let all: Vec<Wanted> = ips.map(addr).into_iter().chain(hosts.map(host)).collect();
        for _ in 0..rng.usize(50..150) {
            match rng.u8(..8) {
                0 => {
                    // Everybody else's address stays theirs.
                    let uid = format!("pod-{}", rng.u8(..5));
                    let ip = *rng.choice(&ips).unwrap();
                    let taken =
                        server.pods.iter().any(|(other, (at, _))| *other != uid && at == ip)
                            || server.services.values().any(|vip| vip == ip);
                    if !taken && rng.bool() {
                        let of = rng.choice(&hosts).map(|host| format!("ns/{host}"));
                        server.pods.insert(uid.clone(), (ip.to_owned(), of));
                    } else {
                        server.pods.remove(&uid);
                    }
                    server.changed(&[uid]);
                }
                1 => {
                    let hostname = *rng.choice(&hosts).unwrap();
                    let vip = *rng.choice(&ips).unwrap();
                    let taken = server.pods.values().any(|(at, _)| at == vip)
                        || server.services.iter().any(|(h, at)| h != hostname && at == vip);
                    if !taken && rng.bool() {
                        server.services.insert(hostname.to_owned(), vip.to_owned());
                    } else {
                        server.services.remove(hostname);
                    }
                    server.changed(&[format!("ns/{hostname}")]);
                }
                2 if rng.u8(..4) == 0 => connected = false,
                3 if !connected => {
                    connected = true;
                    server.open(&client.ads.open(rng.bool()).remove(0));
                }
                4 if connected && rng.bool() => client.turn(),
                5 | 6 => client.ads.want(rng.choice(&all).unwrap().clone()),
                _ if connected => exchange(&mut client, &mut server, rng.usize(..3)),
                _ => {}
            }
        }
        if !connected {
            server.open(&client.ads.open(true).remove(0));
        }
        // What was believed to be absent is asked for again after two turns.
        for _ in 0..3 {
            exchange(&mut client, &mut server, usize::MAX);
            client.turn();
        }
        let missing: Vec<&Wanted> = all.iter().filter(|wanted| client.must_ask(wanted)).collect();
        missing.into_iter().for_each(|wanted| client.ads.want(wanted.clone()));
        exchange(&mut client, &mut server, usize::MAX);
        let snapshot = client.view.load();
        for wanted in all {
            assert!(!snapshot.must_ask(&wanted), "seed {seed}: {wanted} is not answered");
            let found = match &wanted {
                Wanted::Addr(addr) => {
                    let pod = snapshot.workload_by_addr(addr).map(|pod| pod.uid.to_string());
                    pod.or_else(|| {
                        snapshot.service_by_vip(addr, None).map(|service| service.key.to_string())
                    })
                }
                Wanted::Host(key) => snapshot.service(key).map(|service| service.key.to_string()),
            };
            let expected = server.lookup(&wanted.to_string()).pop();
            assert_eq!(found, expected, "seed {seed}: {wanted}");
        }
    }
}

/// Requests and responses, at most so many of the latter.
fn exchange(client: &mut Client, server: &mut Server, responses: usize) {
    let mut left = responses;
    loop {
        while let Some(request) = client.ads.next_lookup() {
            server.take(&request);
        }
        if left == 0 {
            return;
        }
        let Some(response) = server.outbox.pop_front() else { return };
        client.receive(response);
        left -= 1;
    }
}

#[test]
fn names_are_read_as_what_they_can_mean() {
    let read = |name: &str| Wanted::of_name(name).collect::<Vec<_>>();
    assert_eq!(read("/10.0.0.1").last(), Some(&addr("10.0.0.1")));
    assert_eq!(read("ns/web"), [host("web")]);
    assert_eq!(read("uid"), []);
}
