//! Too much and too little: headers, frames, resets and silence, against the real proxy.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use adit::sys::clock::Clock;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use nix::sys::signal::Signal;
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::attack::{DESTINATION, Scene, WEB, refused_stream};
use crate::world::frames::{self, PREFACE};
use crate::world::peer::{self, Tunnel, dial, echo, handshake, on_runtime, within};
use crate::world::{Context, Outcome, PORT, connect, echo_and_end, ensure};

pub(crate) const TESTS: crate::Tests = &[
    ("oversized_headers_are_refused", oversized_headers),
    ("floods_of_continuations_end_the_tunnel", continuations),
    ("rapid_resets_end_the_tunnel", rapid_resets),
    ("silence_is_ended_after_ten_seconds", silence),
    ("silent_connections_keep_nobody_out", silent_crowd),
    ("many_handshakes_at_once_are_served_one_after_the_other", handshakes),
];

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
        let (status, carried) = tunnel.connect(&target).await?;
        echo(&mut carried.ok_or_else(|| format!("status {status}"))?, "as ever").await?;
        // So much is not even decoded, and more than we have said that we take.
        let ended = tunnel.ask(Method::CONNECT, &target, large(300)?).await;
        ensure!(ended.is_err(), "300 KiB: {ended:?}");
        Ok(())
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
            flood.extend(frames::connect_begun(1, "a:1"));
            // A literal field each, "x: y".
            let more = frames::frame(frames::CONTINUATION, 0, 1, b"\x00\x01x\x01y");
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
        let mut carried = carried.ok_or_else(|| format!("status {status}"))?;
        echo(&mut carried, "before").await?;
        let watch = scene.world.expect_refusal(("b", DESTINATION, "http2"))?;
        // One that has carried a stream, as an honest one would.
        let mut stream = handshake(scene.pod(), scene.hbone(), &config).await?;
        let mut first = PREFACE.to_vec();
        first.extend(frames::connect(1, &target));
        stream.write_all(&first).await.during("sending")?;
        let answer = frames::until(&mut stream, frames::HEADERS).await?;
        ensure!(answer.is_some(), "the first stream is not answered");
        let mut flood = Vec::new();
        for number in 1..=STREAMS {
            flood.extend(frames::connect(2 * number + 1, &target));
            flood.extend(frames::cancel(2 * number + 1));
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
        let mut carried = carried.ok_or_else(|| format!("status {status}"))?;
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

/// As when a node comes back, and everybody opens a tunnel to the pods that were missed.
fn handshakes() -> Outcome {
    const CLIENTS: usize = 400;
    let scene = Scene::new()?;
    let config = scene.good(WEB)?;
    let target = format!("{}:{PORT}", scene.world.pod("cart").ipv4);
    // While the proxy cannot run, the kernel connects, and all say hello.
    scene.world.proxy("b").signal(Signal::SIGSTOP).during("SIGSTOP")?;
    on_runtime(async {
        let ask = async |_| {
            let tunnel = Tunnel::open(scene.pod(), scene.hbone(), &config).await?;
            let (status, _) = tunnel.connect(&target).await?;
            ensure!(status == 200, "a tunnel answers {status}");
            Ok(())
        };
        let go_on = async { scene.world.proxy("b").signal(Signal::SIGCONT).during("SIGCONT") };
        let (asked, went_on) = tokio::join!(join_all((0..CLIENTS).map(ask)), go_on);
        went_on?;
        asked.into_iter().collect::<Outcome>()
    })?;
    scene.ordinary()
}
