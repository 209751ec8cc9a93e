//! Hostile and broken peers against the real proxy: each is refused for its own reason, logged,
//! counted, and disturbs nobody else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use adit::cli::lab::{App, Pod, Service};
use adit::sys::clock::Clock;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::peer::{
    self, Pki, Shown, Tunnel, dial, echo, handshake, on_runtime, tls, within,
};
use crate::world::{Context, Outcome, PORT, World, connect, echo_and_end, ensure};

pub(crate) const TESTS: crate::Tests = &[
    ("a_peer_must_show_who_it_is", identities),
    ("a_peer_must_speak_http2_in_tls_1_3", protocols),
    ("connect_targets_are_checked", targets),
    ("a_pod_is_no_door_to_another_ones_services", foreign_services),
    ("what_is_refused_later_has_its_status_too", later_refusals),
    ("unreadable_headers_are_ignored_and_counted", unreadable_headers),
    ("oversized_headers_are_refused", oversized_headers),
    ("floods_of_continuations_end_the_tunnel", continuations),
    ("rapid_resets_end_the_tunnel", rapid_resets),
    ("silence_is_ended_after_ten_seconds", silence),
    ("silent_connections_keep_nobody_out", silent_crowd),
];

const HBONE: u16 = 15008;
const WEB: &str = "spiffe://cluster.local/ns/front/sa/web";
const DESTINATION: &str = "destination";

/// A world, its server, and somebody with a good certificate on the wire.
struct Scene {
    world: World,
    pki: Pki,
    _app: App,
}

impl Scene {
    fn new() -> Outcome<Self> {
        let world = World::new()?;
        let app = App::start(world.pod("cart"), PORT, Service::Echo).during("a server")?;
        let pki = Pki::of(world.dir())?;
        Ok(Self { world, pki, _app: app })
    }

    /// Where nothing of ours is captured.
    fn pod(&self) -> &Pod {
        self.world.pod("legacy")
    }

    fn hbone(&self) -> SocketAddr {
        (self.world.pod("cart").ipv4, HBONE).into()
    }

    /// What a good peer of this identity speaks.
    fn good(&self, identity: &str) -> Outcome<Arc<ClientConfig>> {
        tls(Some(&self.pki.issue(&[identity])?), &["h2"], &TLS13)
    }

    /// What everybody else may expect, whatever has just happened.
    fn ordinary(&self) -> Outcome {
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
            let mut carried = carried.ok_or(format!("{good}: {status}"))?;
            echo(&mut carried, "through").await?;
        }
        Ok(())
    })?;
    unreadable_target(&scene, &config)
}

/// One stream that must be refused with this status and reason.
async fn refused_stream(
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
        bytes.extend(headers(1, "no such\u{7f} target", END_HEADERS));
        stream.write_all(&bytes).await.during("sending")?;
        let reset = until_frame(&mut stream, RST_STREAM).await?;
        ensure!(reset.is_some(), "no reset of the stream");
        let bytes = headers(3, &scene.hbone().to_string(), END_HEADERS);
        stream.write_all(&bytes).await.during("sending")?;
        let answer = until_frame(&mut stream, HEADERS).await?;
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
    const ALLOW_WEB: &str = "- {name: only-web, namespace: shop, scope: Namespace, \
        action: Allow, dryRun: false, \
        rules: [[[{principals: [{Exact: cluster.local/ns/front/sa/web}]}]]]}\n";
    let mut scene = Scene::new()?;
    scene.world.set_policies(ALLOW_WEB, &[])?;
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
            let mut carried = carried.ok_or(format!("{name}: {status}"))?;
            echo(&mut carried, "ignored").await?;
            let after = scene.world.metric("b", &counter)?;
            ensure!((after - before - 1.0).abs() < f64::EPSILON, "{name}: {before}, {after}");
        }
        Ok(())
    })?;
    scene.ordinary()
}

fn oversized_headers() -> Outcome {
    let scene = Scene::new()?;
    let config = scene.good(WEB)?;
    let target = format!("{}:{PORT}", scene.world.pod("cart").ipv4);
    let large = |kib: usize| {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&"x".repeat(kib * 1024)).during("a header")?;
        headers.insert(HeaderName::from_static("x-large"), value);
        Ok::<_, String>(headers)
    };
    on_runtime(async {
        let tunnel = Tunnel::open(scene.pod(), scene.hbone(), &config).await?;
        let headers = large(60)?;
        let (status, _) = tunnel.ask(Method::CONNECT, &target, headers).await?;
        ensure!(status == 200, "60 KiB: status {status}");
        let headers = large(65)?;
        let ask = async || tunnel.ask(Method::CONNECT, &target, headers).await;
        refused_stream(&scene, ("65 KiB", 431, "headers_too_large"), ask).await?;
        // So much is not even decoded.
        let (status, _) = tunnel.ask(Method::CONNECT, &target, large(300)?).await?;
        ensure!(status == 431, "300 KiB: status {status}");
        let (status, carried) = tunnel.connect(&target).await?;
        echo(&mut carried.ok_or(format!("status {status}"))?, "as ever").await
    })?;
    scene.ordinary()
}

fn continuations() -> Outcome {
    const FRAMES_MAX: usize = 10_000;
    let scene = Scene::new()?;
    let config = scene.good(WEB)?;
    scene.world.refusal(("b", DESTINATION, "http2"), &["connection failed"], || {
        on_runtime(async {
            let stream = handshake(scene.pod(), scene.hbone(), &config).await?;
            let mut flood = PREFACE.to_vec();
            flood.extend(headers(1, "a:1", 0));
            // A literal field each, "x: y".
            let more = frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y");
            flood.extend(more.repeat(FRAMES_MAX));
            overwhelm(stream, &flood).await
        })
    })?;
    scene.ordinary()
}

fn rapid_resets() -> Outcome {
    const STREAMS: u32 = 10_000;
    let scene = Scene::new()?;
    let config = scene.good(WEB)?;
    let target = format!("{}:{PORT}", scene.world.pod("cart").ipv4);
    on_runtime(async {
        // Somebody else's tunnel, from the same pod.
        let bystander = Tunnel::open(scene.pod(), scene.hbone(), &config).await?;
        let (status, carried) = bystander.connect(&target).await?;
        let mut carried = carried.ok_or(format!("status {status}"))?;
        echo(&mut carried, "before").await?;
        let watch = scene.world.expect_refusal(("b", DESTINATION, "http2"))?;
        let stream = handshake(scene.pod(), scene.hbone(), &config).await?;
        let mut flood = PREFACE.to_vec();
        for number in 0..STREAMS {
            flood.extend(headers(2 * number + 1, &target, END_HEADERS));
            flood.extend(frame(RST_STREAM, 0, 2 * number + 1, &CANCEL));
        }
        overwhelm(stream, &flood).await?;
        scene.world.see_refusal(&watch, &["connection failed"])?;
        echo(&mut carried, "after").await
    })?;
    scene.ordinary()
}

/// Sends as much as the other side takes; it must end the connection.
async fn overwhelm(stream: peer::Tls, flood: &[u8]) -> Outcome {
    let (mut receive, mut send) = tokio::io::split(stream);
    let sending = async {
        // The end may come in the middle of it.
        let _ = send.write_all(flood).await;
        std::future::pending::<()>().await;
    };
    let receiving = async {
        let mut part = [0; 4096];
        while matches!(receive.read(&mut part).await, Ok(1..)) {}
    };
    within(async {
        tokio::select! {
            () = sending => {}
            () = receiving => {}
        }
    })
    .await
}

fn silence() -> Outcome {
    let scene = Scene::new()?;
    let (pod, to) = (scene.pod(), scene.hbone());
    let config = scene.good(WEB)?;
    let target = format!("{}:{PORT}", scene.world.pod("cart").ipv4);
    let counter = "adit_refusals_total{reason=\"first_connect_timeout\",reporter=\"destination\"}";
    let hello = client_hello(&config)?;
    on_runtime(async {
        let idle = Tunnel::open(pod, to, &config).await?;
        let (status, carried) = idle.connect(&target).await?;
        let mut carried = carried.ok_or(format!("status {status}"))?;
        echo(&mut carried, "before").await?;
        let nothing = timed("nothing", async {
            let mut stream = dial(pod, to)?;
            within(stream.read(&mut [0; 1])).await.map(drop)
        });
        let half = timed("half a hello", async {
            let mut stream = dial(pod, to)?;
            stream.write_all(&hello[..hello.len() / 2]).await.during("sending")?;
            within(stream.read(&mut [0; 1])).await.map(drop)
        });
        let mute = timed("TLS and nothing", async {
            let mut stream = handshake(pod, to, &config).await?;
            within(stream.read_to_end(&mut Vec::new())).await.map(drop)
        });
        let polite = timed("pings answered", async {
            let tunnel = Tunnel::open(pod, to, &config).await?;
            tunnel.ended().await.map(drop)
        });
        let (nothing, half, mute, polite) = tokio::join!(nothing, half, mute, polite);
        nothing.and(half).and(mute).and(polite)?;
        // What has carried a stream is never ended for being idle.
        echo(&mut carried, "after").await?;
        let (status, _) = idle.connect(&target).await?;
        ensure!(status == 200, "the idle tunnel answers {status}");
        Ok(())
    })?;
    scene.world.wait_log("b", &["connection failed", "first_connect_timeout"])?;
    let counted = scene.world.metric("b", counter)?;
    ensure!((counted - 4.0).abs() < f64::EPSILON, "{counted} silent peers were counted");
    scene.ordinary()
}

/// Runs what must take ten seconds.
async fn timed(what: &str, work: impl Future<Output = Outcome>) -> Outcome {
    let clock = Clock::system();
    let begin = clock.monotonic();
    work.await.during(what)?;
    let took = clock.monotonic().duration_since(begin);
    let right = Duration::from_secs(9)..Duration::from_secs(13);
    ensure!(right.contains(&took), "{what}: ended after {took:?}");
    Ok(())
}

fn client_hello(config: &Arc<ClientConfig>) -> Outcome<Vec<u8>> {
    let name = ServerName::try_from("cart.invalid").during("a name")?;
    let mut client = ClientConnection::new(Arc::clone(config), name).during("TLS")?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello).during("writing a hello")?;
    Ok(hello)
}

fn silent_crowd() -> Outcome {
    const CROWD: usize = 300;
    let scene = Scene::new()?;
    let crowd = (0..CROWD).map(|_| connect(scene.pod(), scene.hbone()));
    let crowd: Vec<TcpStream> = crowd.collect::<Outcome<_>>()?;
    scene.world.wait_metric("b", "istio_tcp_sockets_open{reporter=\"destination\"}", |open| {
        open >= 300.0
    })?;
    // Neither of these has a tunnel yet.
    for pod in ["web", "intruder"] {
        let stream = connect(scene.world.pod(pod), scene.world.server(false))?;
        echo_and_end(stream, "in spite of them\n").during(pod)?;
    }
    let refused = "adit_refusals_total{reason=\"too_many_handshakes\",reporter=\"destination\"}";
    let refused = scene.world.metric("b", refused)?;
    ensure!(refused.abs() < f64::EPSILON, "{refused} were refused");
    drop(crowd);
    Ok(())
}

/// The connection preface and empty SETTINGS (RFC 9113 3.4).
const PREFACE: [u8; 33] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// An HTTP/2 frame (RFC 9113 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("frames are small").to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HEADERS of a CONNECT, in HPACK without any table: literals with indexed names.
fn headers(stream: u32, authority: &str, flags: u8) -> Vec<u8> {
    let mut block = b"\x02\x07CONNECT\x01".to_vec();
    block.push(u8::try_from(authority.len()).expect("targets are short"));
    block.extend(authority.bytes());
    frame(HEADERS, flags, stream, &block)
}

/// Reads frames until one of a kind; `None` if the connection ends before.
async fn until_frame(stream: &mut peer::Tls, kind: u8) -> Outcome<Option<Vec<u8>>> {
    within(async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return None;
            }
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; len];
            stream.read_exact(&mut payload).await.ok()?;
            if head[3] == kind {
                return Some(payload);
            }
        }
    })
    .await
}
