//! Hostile and broken peers against the real proxy: each is refused for its own reason, logged,
//! counted, and disturbs nobody else.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use adit::cli::lab::{App, Pod, Service};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::control::ALLOW_WEB;
use crate::world::frames::{self, PREFACE};
use crate::world::peer::{self, Pki, Shown, Tunnel, echo, handshake, on_runtime, tls, within};
use crate::world::{Context, Outcome, PORT, World, connect, echo_and_end, ensure};

pub(crate) const TESTS: crate::Tests = &[
    ("a_peer_must_show_who_it_is", identities),
    ("a_peer_must_speak_http2_in_tls_1_3", protocols),
    ("an_older_peer_is_let_in_if_so_told_and_judged_like_any", older),
    ("connect_targets_are_checked", targets),
    ("a_pod_is_no_door_to_another_ones_services", foreign_services),
    ("what_is_refused_later_has_its_status_too", later_refusals),
    ("unreadable_headers_are_ignored_and_counted", unreadable_headers),
];

const HBONE: u16 = 15008;
pub(crate) const WEB: &str = "spiffe://cluster.local/ns/front/sa/web";
pub(crate) const DESTINATION: &str = "destination";

/// A world, its server, and somebody with a good certificate on the wire.
pub(crate) struct Scene {
    pub(crate) world: World,
    pki: Pki,
    _app: App,
}

impl Scene {
    pub(crate) fn new() -> Outcome<Self> {
        Self::with_environment(&[])
    }

    fn with_environment(environment: &[(&str, &str)]) -> Outcome<Self> {
        let world = World::with_environment(environment)?;
        let app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
        let pki = Pki::of(world.dir())?;
        Ok(Self { world, pki, _app: app })
    }

    /// Where nothing of ours is captured.
    pub(crate) fn pod(&self) -> &Pod {
        self.world.pod("legacy")
    }

    pub(crate) fn hbone(&self) -> SocketAddr {
        (self.world.pod("cart").ipv4, HBONE).into()
    }

    /// What a good peer of this identity speaks.
    pub(crate) fn good(&self, identity: &str) -> Outcome<Arc<ClientConfig>> {
        tls(Some(&self.pki.issue(&[identity])?), &["h2"], &TLS13)
    }

    /// What everybody else may expect, whatever has just happened.
    pub(crate) fn ordinary(&self) -> Outcome {
        let stream = connect(self.world.pod("web"), self.world.server(false))?;
        echo_and_end(stream, "as ever\n").during("an ordinary connection")
    }
}

/// Opens TLS, which must come to nothing.
async fn rejected(pod: &Pod, to: SocketAddr, config: &Arc<ClientConfig>) -> Outcome {
    let Ok(mut stream) = handshake(pod, to, config).await else { return Ok(()) };
    let got = within(stream.read(&mut [0; 1])).await?;
    ensure!(!matches!(got, Ok(1..)), "the peer was let in");
    Ok(())
}

fn identities() -> Outcome {
    let scene = Scene::new()?;
    let foreign = Pki::foreign()?;
    let other = "spiffe://other.example/ns/front/sa/web";
    let yesterday = (-48 * 3600, -24 * 3600);
    let pki = &scene.pki;
    let cases: [(Option<Shown>, &str); 8] = [
        (None, "the peer showed no certificate"),
        (Some(foreign.issue(&[WEB])?), "does not lead to a trust anchor"),
        (Some(pki.issue(&[other])?), "trust domain other.example is not cluster.local"),
        (Some(pki.issue(&[WEB, other])?), "more than one SPIFFE id"),
        (Some(pki.issue(&[WEB, "https://example.com"])?), "other URIs beside"),
        (Some(pki.issue(&[])?), "no workload identity"),
        (Some(pki.issue(&["spiffe://cluster.local/web"])?), "no workload identity"),
        (Some(pki.issue_for(&[WEB], yesterday)?), "expired"),
    ];
    for (shown, detail) in cases {
        let config = tls(shown.as_ref(), &["h2"], &TLS13)?;
        let why = ("b", DESTINATION, "peer_identity");
        scene.world.refusal(why, &["connection failed", detail], || {
            on_runtime(rejected(scene.pod(), scene.hbone(), &config))
        })?;
        scene.ordinary()?;
    }
    Ok(())
}

fn protocols() -> Outcome {
    let scene = Scene::new()?;
    let shown = scene.pki.issue(&[WEB])?;
    let cases = [
        (tls(Some(&shown), &[], &TLS13)?, "no_alpn"),
        (tls(Some(&shown), &["http/1.1"], &TLS13)?, "no_alpn"),
        (tls(Some(&shown), &["h2"], &TLS12)?, "tls_handshake"),
    ];
    for (config, reason) in cases {
        scene.world.refusal(("b", DESTINATION, reason), &["connection failed"], || {
            on_runtime(rejected(scene.pod(), scene.hbone(), &config))
        })?;
        scene.ordinary()?;
    }
    for text in [&b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n"[..], &PREFACE[..]] {
        scene.world.refusal(("b", DESTINATION, "tls_handshake"), &["connection failed"], || {
            let mut stream = connect(scene.pod(), scene.hbone())?;
            stream.write_all(text).during("sending")?;
            // An alert may come, but nothing of an answer.
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            ensure!(answer.first().is_none_or(|byte| *byte == 0x15), "got {answer:?}");
            Ok(())
        })?;
        scene.ordinary()?;
    }
    // HTTP/1.1 inside of TLS that promised HTTP/2.
    let config = scene.good(WEB)?;
    scene.world.refusal(("b", DESTINATION, "http2"), &["connection failed"], || {
        on_runtime(async {
            let mut stream = handshake(scene.pod(), scene.hbone(), &config).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n").await.during("sending")?;
            let _ = within(stream.read_to_end(&mut Vec::new())).await?;
            Ok(())
        })
    })?;
    scene.ordinary()
}

/// TLS 1.2 shows who the client is to everybody on the wire, and is otherwise as strict.
fn older() -> Outcome {
    let scene = Scene::with_environment(&[("TLS12_ENABLED", "true")])?;
    let good = tls(Some(&scene.pki.issue(&[WEB])?), &["h2"], &TLS12)?;
    on_runtime(async {
        let tunnel = Tunnel::open(scene.pod(), scene.hbone(), &good).await?;
        let target = format!("{}:{PORT}", scene.world.pod("cart").ipv4);
        let (status, carried) = tunnel.connect(&target).await?;
        let mut carried = carried.ok_or_else(|| format!("answered {status}"))?;
        echo(&mut carried, "an old song\n").await?;
        peer::finish(&mut carried).await
    })?;
    scene.world.wait_log("b", &["connection complete", WEB, "bytes_sent=12 bytes_recv=12"])?;
    scene.world.wait_log("b", &["a tunnel of TLS 1.2", "direction=\"inbound\"", WEB])?;
    let metrics = scene.world.proxy("b").metrics().during("metrics")?;
    let counted = "adit_tls12_tunnels_total{reporter=\"destination\"} 1";
    ensure!(metrics.contains(counted), "not counted: {metrics}");
    let other = "spiffe://other.example/ns/front/sa/web";
    for (shown, alpn, reason) in [
        (None, "h2", "peer_identity"),
        (Some(Pki::foreign()?.issue(&[WEB])?), "h2", "peer_identity"),
        (Some(scene.pki.issue(&[other])?), "h2", "peer_identity"),
        (Some(scene.pki.issue(&[WEB])?), "http/1.1", "no_alpn"),
    ] {
        let config = tls(shown.as_ref(), &[alpn], &TLS12)?;
        scene.world.refusal(("b", DESTINATION, reason), &["connection failed"], || {
            on_runtime(rejected(scene.pod(), scene.hbone(), &config))
        })?;
    }
    scene.ordinary()
}

fn targets() -> Outcome {
    let scene = Scene::new()?;
    let config = scene.good(WEB)?;
    let cart = scene.world.pod("cart").ipv4;
    let web = scene.world.pod("web").ipv4;
    let on_cart = |port: u16| format!("{cart}:{port}");
    let cases = [
        (format!("{web}:{PORT}"), 400, "address_mismatch"),
        (format!("127.0.0.1:{PORT}"), 400, "address_mismatch"),
        (format!("[::1]:{PORT}"), 400, "address_mismatch"),
        (format!("0.0.0.0:{PORT}"), 400, "address_mismatch"),
        (on_cart(0), 400, "bad_authority"),
        (format!("{cart}"), 400, "bad_authority"),
        (format!("{cart}:99999"), 400, "bad_authority"),
        (format!("user@{cart}:{PORT}"), 400, "bad_authority"),
        (format!("a!b:{PORT}"), 400, "bad_authority"),
        (on_cart(15001), 503, "self_call"),
        (on_cart(15006), 503, "self_call"),
        (on_cart(15008), 503, "self_call"),
        ("nobody.shop.svc.cluster.local:80".to_owned(), 503, "hostname_unknown"),
        ("cart.shop.svc.cluster.local:81".to_owned(), 503, "port_unknown"),
    ];
    on_runtime(async {
        let tunnel = Tunnel::open(scene.pod(), scene.hbone(), &config).await?;
        for (authority, status, reason) in cases {
            let ask = async || tunnel.connect(&authority).await;
            refused_stream(&scene, (&authority, status, reason), ask).await?;
        }
        let ask = async || {
            let url = format!("http://{}/", on_cart(PORT));
            tunnel.ask(Method::GET, &url, HeaderMap::new()).await
        };
        refused_stream(&scene, ("GET", 400, "not_connect"), ask).await?;
        // All that on one tunnel, which still works.
        for good in [on_cart(PORT), "cart.shop.svc.cluster.local:80".to_owned()] {
            let (status, carried) = tunnel.connect(&good).await?;
            let mut carried = carried.ok_or_else(|| format!("{good}: {status}"))?;
            echo(&mut carried, "through").await?;
        }
        Ok(())
    })?;
    unreadable_target(&scene, &config)
}

/// One stream that must be refused with this status and reason.
pub(crate) async fn refused_stream(
    scene: &Scene,
    (what, status, reason): (&str, u16, &str),
    ask: impl AsyncFnOnce() -> Outcome<(u16, Option<peer::Carried>)>,
) -> Outcome {
    let watch = scene.world.expect_refusal(("b", DESTINATION, reason))?;
    let (got, _) = ask().await.during(what)?;
    ensure!(got == status, "{what}: status {got} instead of {status}");
    scene.world.see_refusal(&watch, &[]).during(what)?;
    scene.ordinary().during(what)
}

/// A target that HTTP/2 itself does not allow resets the stream and nothing else.
fn unreadable_target(scene: &Scene, config: &Arc<ClientConfig>) -> Outcome {
    on_runtime(async {
        let mut stream = handshake(scene.pod(), scene.hbone(), config).await?;
        let mut bytes = PREFACE.to_vec();
        bytes.extend(frames::connect(1, "no such\u{7f} target"));
        stream.write_all(&bytes).await.during("sending")?;
        let reset = frames::until(&mut stream, frames::RST_STREAM).await?;
        ensure!(reset.is_some(), "no reset of the stream");
        let bytes = frames::connect(3, &scene.hbone().to_string());
        stream.write_all(&bytes).await.during("sending")?;
        let answer = frames::until(&mut stream, frames::HEADERS).await?;
        ensure!(answer.is_some(), "no answer to the next stream");
        Ok(())
    })?;
    scene.ordinary()
}

fn foreign_services() -> Outcome {
    let scene = Scene::new()?;
    let config = scene.good(WEB)?;
    let door: SocketAddr = (scene.world.pod("intruder").ipv4, HBONE).into();
    scene.world.refusal(("a", DESTINATION, "not_an_endpoint"), &["connection failed"], || {
        on_runtime(async {
            let tunnel = Tunnel::open(scene.pod(), door, &config).await?;
            let (status, _) = tunnel.connect("cart.shop.svc.cluster.local:80").await?;
            ensure!(status == 503, "status {status}");
            Ok(())
        })
    })?;
    scene.ordinary()
}

fn later_refusals() -> Outcome {
    let mut scene = Scene::new()?;
    scene.world.set_policies(ALLOW_WEB)?;
    let (web, other) = (scene.good(WEB)?, scene.good("spiffe://cluster.local/ns/x/sa/y")?);
    let cart = scene.world.pod("cart").ipv4;
    on_runtime(async {
        let tunnel = Tunnel::open(scene.pod(), scene.hbone(), &web).await?;
        let ask = async || tunnel.connect(&format!("{cart}:9")).await;
        refused_stream(&scene, ("nobody listens", 503, "dial"), ask).await?;
        let tunnel = Tunnel::open(scene.pod(), scene.hbone(), &other).await?;
        let ask = async || tunnel.connect(&format!("{cart}:{PORT}")).await;
        refused_stream(&scene, ("policy", 401, "policy_none_allowed"), ask).await
    })
}

fn unreadable_headers() -> Outcome {
    let scene = Scene::new()?;
    let config = scene.good(WEB)?;
    let target = format!("{}:{PORT}", scene.world.pod("cart").ipv4);
    // 55 characters in too few parts made another proxy panic.
    let cases: [(&str, &[u8]); 6] = [
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319cb7ad6b716920333101aa"),
        ("traceparent", b"\xff\xfe"),
        ("baggage", b"k8s.namespace.name=\xff\xfe"),
        ("forwarded", b"host=a.b,host=c.d"),
        ("forwarded", b"host=\"a b\""),
        ("forwarded", b"host=\xff"),
    ];
    on_runtime(async {
        let tunnel = Tunnel::open(scene.pod(), scene.hbone(), &config).await?;
        for (name, value) in cases {
            let counter = format!("adit_malformed_headers_total{{header=\"{name}\"}}");
            let before = scene.world.metric("b", &counter)?;
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_bytes(value).during("a header")?;
            headers.insert(HeaderName::from_static(name), value);
            let (status, carried) = tunnel.ask(Method::CONNECT, &target, headers).await?;
            let mut carried = carried.ok_or_else(|| format!("{name}: {status}"))?;
            echo(&mut carried, "ignored").await?;
            let after = scene.world.metric("b", &counter)?;
            ensure!((after - before - 1.0).abs() < f64::EPSILON, "{name}: {before}, {after}");
        }
        Ok(())
    })?;
    scene.ordinary()
}
