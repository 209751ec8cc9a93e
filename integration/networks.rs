//! Two networks joined by a gateway: a tunnel inside a tunnel (spec discovery-and-balancing 7).

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use adit::cli::lab::{App, Service};
use http::Request;

use crate::world::gateway::{Gateway, HBONE};
use crate::world::peer::Pki;
use crate::world::{
    Context, End, Outcome, PORT, VIP, World, accept_one, connect, echo, echo_and_end, ensure,
    listen, read_to_end, refused, reset,
};

pub(crate) const TESTS: crate::Tests = &[
    ("a_gateway_carries_what_it_cannot_read", carried),
    ("ends_and_resets_pass_both_tunnels", ends),
    ("only_the_service_says_who_is_behind_a_gateway", strangers),
    ("a_gateway_that_refuses_is_named", gateway_refuses),
    ("policy_holds_behind_a_gateway", policy),
];

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const GATEWAY: &str = "spiffe://cluster.local/ns/front/sa/legacy";
const NAME: &str = "cart.shop.svc.cluster.local:80";
/// More than the windows of both tunnels together hold.
const MUCH: usize = 24 * 1024 * 1024;

/// Node `b` is in a network of its own, and `legacy` is the gateway to it.
struct Scene {
    world: World,
    gateway: Gateway,
}

impl Scene {
    fn new(names: &[&str]) -> Outcome<Self> {
        let world = World::apart(names)?;
        let pki = Pki::of(world.dir())?;
        let config = pki.server(pki.issue(&[GATEWAY])?)?;
        let to = (world.pod("cart").ipv4, HBONE).into();
        let gateway = Gateway::start(world.pod("legacy"), to, config)?;
        Ok(Self { world, gateway })
    }

    fn connect(&self) -> Outcome<TcpStream> {
        connect(self.world.pod("web"), vip()?)
    }
}

fn vip() -> Outcome<SocketAddr> {
    Ok(SocketAddr::new(VIP.0.parse().during("the VIP")?, VIP.1))
}

fn header<'a>(request: &'a Request<()>, name: &str) -> Option<&'a str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

fn carried() -> Outcome {
    let scene = Scene::new(&[CART])?;
    let world = &scene.world;
    let _app = App::start(world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    echo_and_end(scene.connect()?, "behind the gateway\n")?;
    let asked = scene.gateway.asked()?;
    ensure!(asked.uri().authority().is_some_and(|a| a == NAME), "asked for {}", asked.uri());
    ensure!(header(&asked, "x-forwarded-network").is_none(), "the gateway was told our network");
    let trace = header(&asked, "traceparent").ok_or("no traceparent")?;
    let trace = trace.split('-').nth(1).ok_or("a bad traceparent")?.to_owned();
    // The far side knows the client by its certificate and the connection by its trace.
    world.wait_log(
        "b",
        &[
            "connection complete",
            "src.identity=\"spiffe://cluster.local/ns/front/sa/web\"",
            "direction=\"inbound\" bytes_sent=19 bytes_recv=19",
            &trace,
        ],
    )?;
    let hop = format!("dst.addr={}:{HBONE}", world.pod("legacy").ipv4);
    let behind = format!("dst.identity=\"{CART}\"");
    let authority = format!("dst.hbone_addr={NAME}");
    let own = [
        "connection complete",
        "dst.service=\"cart.shop.svc.cluster.local\"",
        "dst.namespace=\"shop\"",
        "direction=\"outbound\" bytes_sent=19 bytes_recv=19",
    ];
    let own = [&own[..], &[&*hop, &*behind, &*authority, &*trace]].concat();
    world.wait_log("a", &own)?;
    let of_cart = "destination_principal=\"spiffe://cluster.local/ns/shop/sa/cart\"";
    for metric in ["opened", "closed"] {
        let text = world.proxy("a").metrics().during("reading metrics")?;
        let begins = format!("istio_tcp_connections_{metric}_total{{reporter=\"source\"");
        let line = text.lines().find(|line| line.starts_with(&begins) && line.contains(of_cart));
        let line = line.ok_or_else(|| format!("no {metric} with {of_cart}"))?;
        ensure!(line.ends_with(" 1") && line.contains("mutual_tls"), "{line}");
    }
    // The inner tunnel says goodbye and takes its stream along.
    ensure!(scene.gateway.ended_cleanly()?, "the outer stream was reset");
    echo_and_end(scene.connect()?, "once more\n")?;
    let again = scene.gateway.asked()?;
    ensure!(header(&again, "traceparent") != header(&asked, "traceparent"), "one trace for two");
    Ok(())
}

fn ends() -> Outcome {
    let scene = Scene::new(&[CART])?;
    let listener = listen(scene.world.pod("cart"), PORT)?;
    let open = || -> Outcome<(TcpStream, TcpStream)> {
        let accepted = accept_one(&listener)?;
        let near = scene.connect()?;
        let far = accepted.join().map_err(|_| "accepting panicked")?.during("accepting")?;
        Ok((near, far))
    };
    let sent: Vec<u8> = (0..MUCH).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect();
    for client_first in [true, false] {
        let (near, far) = open()?;
        let (mut first, mut second) = if client_first { (near, far) } else { (far, near) };
        let (mut writer, bytes) = (first.try_clone().during("sharing")?, sent.clone());
        let writer = thread::spawn(move || {
            writer.write_all(&bytes)?;
            writer.shutdown(Shutdown::Write)
        });
        let got = read_to_end(&mut second)?;
        writer.join().map_err(|_| "writing panicked")?.during("writing")?;
        ensure!(got == (sent.clone(), End::Finished), "{} bytes, {:?}", got.0.len(), got.1);
        second.write_all(b"the other way").during("answering")?;
        drop(second);
        let got = read_to_end(&mut first)?;
        ensure!(got == (b"the other way".to_vec(), End::Finished), "the answer is {got:?}");
    }
    for client_resets in [true, false] {
        let (mut near, mut far) = open()?;
        near.write_all(b"ping").during("sending")?;
        far.read_exact(&mut [0; 4]).during("reading")?;
        far.write_all(b"pong").during("sending")?;
        near.read_exact(&mut [0; 4]).during("reading")?;
        let (first, mut second) = if client_resets { (near, far) } else { (far, near) };
        reset(first)?;
        let seen = read_to_end(&mut second)?;
        ensure!(seen == (Vec::new(), End::Reset), "client resets: {client_resets}: {seen:?}");
    }
    scene.world.wait_log("a", &["application_reset"])?;
    scene.world.wait_log("a", &["peer_reset"])?;
    Ok(())
}

fn strangers() -> Outcome {
    let source = ("a", "source", "tunnel_tls");
    let other = Scene::new(&["spiffe://cluster.local/ns/shop/sa/other"])?;
    let _app =
        App::start(other.world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    let detail = ["connection complete", "behind the gateway", CART];
    other.world.refusal(source, &detail, || refused(other.world.pod("web"), vip()?))?;
    // Nobody is named: then nobody is asked, the gateway neither.
    let nobody = Scene::new(&[])?;
    let detail = ["connection complete", "the service names no identity"];
    nobody.world.refusal(source, &detail, || refused(nobody.world.pod("web"), vip()?))?;
    ensure!(!nobody.gateway.was_asked(), "the gateway was asked for nothing");
    Ok(())
}

fn gateway_refuses() -> Outcome {
    let scene = Scene::new(&[CART])?;
    let _app =
        App::start(scene.world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    scene.gateway.answer(503);
    let why = ("a", "source", "connect_refused");
    let detail = ["connection complete", "the far side answered 503"];
    scene.world.refusal(why, &detail, || refused(scene.world.pod("web"), vip()?))?;
    scene.gateway.answer(200);
    let mut stream = scene.connect()?;
    echo(&mut stream, "and again\n")?;
    let Scene { world, gateway } = scene;
    drop(gateway);
    let seen = read_to_end(&mut stream)?;
    ensure!(seen == (Vec::new(), End::Reset), "after the gateway's end: {seen:?}");
    world.wait_log("a", &["connection complete", "tunnel_lost", NAME])?;
    Ok(())
}

fn policy() -> Outcome {
    const DENY: &str = "- {name: no-web, namespace: shop, scope: Namespace, action: Deny, \
        dryRun: false, rules: [[[{principals: [{Exact: cluster.local/ns/front/sa/web}]}]]]}\n";
    let mut scene = Scene::new(&[CART])?;
    let _app =
        App::start(scene.world.pod("cart"), PORT, Service::Echo).during("starting a server")?;
    let mut live = scene.connect()?;
    echo(&mut live, "allowed\n")?;
    scene.world.set_file(DENY, &[])?;
    let seen = read_to_end(&mut live)?;
    ensure!(seen == (Vec::new(), End::Reset), "a connection that is cut saw {seen:?}");
    scene.world.wait_log("b", &["policy_changed", "shop/no-web"])?;
    let why = ("a", "source", "connect_refused");
    let detail = ["behind the gateway: the far side answered 401"];
    scene.world.refusal(why, &detail, || refused(scene.world.pod("web"), vip()?))
}
