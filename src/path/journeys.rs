//! The three journeys as wholes (spec hbone 6 to 8): from a captured connection to the application
//! behind the far proxy, with every room between them.

mod world;

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use self::world::{HBONE, PORT, World, run, run_on_demand};
use super::worker::{Message, Worker};
use crate::config::Limits;
use crate::model::fixtures::{ip, pod, policy, policy_key};
use crate::model::{Delta, NetworkAddr, Policy, Wanted};
use crate::sys::socket;

const WEB: &str = "corp.example/ns/front/sa/web";

fn deny_web() -> Policy {
    policy("DENY NAMESPACE shop/no-web", &format!("{{principals: {WEB}}}"))
}

fn allow(principal: &str) -> Policy {
    policy("ALLOW NAMESPACE shop/only", &format!("{{principals: {principal}}}"))
}

fn strict() -> Policy {
    policy("DENY SELECTOR istio-system/strict", "{notPrincipals: presence}")
}

async fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().await.unwrap().0
}

/// What still comes, and how it ends.
async fn rest(socket: &mut TcpStream) -> (Vec<u8>, Result<(), ErrorKind>) {
    let mut bytes = Vec::new();
    let ended = socket.read_to_end(&mut bytes).await;
    (bytes, ended.map(|_| ()).map_err(|error| error.kind()))
}

async fn assert_reset(mut socket: TcpStream) {
    assert_eq!(rest(&mut socket).await, (Vec::new(), Err(ErrorKind::ConnectionReset)));
}

/// Bytes there and back, then both ends.
async fn exchange(mut near: TcpStream, mut far: TcpStream) {
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    assert_eq!(rest(&mut far).await, (b"question".to_vec(), Ok(())));
    far.write_all(b"an answer").await.unwrap();
    drop(far);
    assert_eq!(rest(&mut near).await, (b"an answer".to_vec(), Ok(())));
}

async fn refused_for(mut world: World, near: &str, far: Option<&str>) {
    let to = world.cart(PORT);
    assert_reset(world.captured(to).await).await;
    world.near.idle().await;
    assert_eq!(world.near.refused(near), 1);
    if let Some(far) = far {
        assert_eq!(world.far.refused(far), 1);
    }
    world.tasks.abort_all();
}

#[test]
fn a_connection_arrives_under_the_identity_of_its_pod() {
    run(1, Limits::default(), |mut world| async move {
        world.enrol(&[]);
        // Only the identity that the tunnel proves can open this door.
        world.policies(vec![allow(WEB)]);
        world.serve_tunnels().await;
        let listener = world.listen().await;
        for _ in 0..2 {
            let near = world.captured(world.cart(PORT)).await;
            exchange(near, accept(&listener).await).await;
        }
        world.near.idle().await;
        let ends = [(&world.near, "source"), (&world.far, "destination")];
        for (proxy, reporter) in ends {
            let reporter = format!("reporter=\"{reporter}\"");
            let principal = format!("source_principal=\"spiffe://{WEB}\"");
            let count = |name| proxy.metric(&[name, &reporter, &principal, "\"mutual_tls\""]);
            assert_eq!(count("istio_tcp_connections_opened_total{"), 2);
            assert_eq!(count("istio_tcp_received_bytes_total{"), 16);
            assert_eq!(count("istio_tcp_sent_bytes_total{"), 18);
        }
    });
}

#[test]
fn a_reset_on_one_side_is_a_reset_on_the_other() {
    run(2, Limits::default(), |mut world| async move {
        world.enrol(&[]);
        world.serve_tunnels().await;
        let listener = world.listen().await;
        for near_resets in [true, false] {
            let mut near = world.captured(world.cart(PORT)).await;
            let mut far = accept(&listener).await;
            near.write_all(b"x").await.unwrap();
            far.read_exact(&mut [0]).await.unwrap();
            let (first, second) = if near_resets { (near, far) } else { (far, near) };
            socket::reset_on_close(&first).unwrap();
            drop(first);
            assert_reset(second).await;
        }
        world.near.idle().await;
        for reason in ["application_reset", "peer_reset"] {
            assert_eq!(world.near.refused(reason), 1, "{reason}");
        }
    });
}

#[test]
fn who_is_not_allowed_is_refused_by_the_far_side() {
    let cases = [
        (3, allow("corp.example/ns/front/sa/other"), "policy_none_allowed"),
        (4, deny_web(), "policy_denied"),
    ];
    for (number, policy, reason) in cases {
        run(number, Limits::default(), |mut world| async move {
            world.enrol(&[]);
            world.policies(vec![policy]);
            world.serve_tunnels().await;
            refused_for(world, "connect_refused", Some(reason)).await;
        });
    }
}

#[test]
fn a_policy_that_has_not_arrived_is_waited_for_and_no_longer() {
    let limits = Limits { policy_wait_ms: 100, ..Limits::default() };
    run(5, limits, |mut world| async move {
        world.enrol(&[policy_key("shop/selected")]);
        world.serve_tunnels().await;
        refused_for(world, "connect_refused", Some("policy_unknown")).await;
    });
    run(6, Limits::default(), |mut world| async move {
        world.enrol(&[policy_key("shop/selected")]);
        world.serve_tunnels().await;
        let listener = world.listen().await;
        let near = world.captured(world.cart(PORT)).await;
        let mut selected = allow(WEB);
        selected.key = policy_key("shop/selected");
        world.policies(vec![selected]);
        exchange(near, accept(&listener).await).await;
        assert_eq!(world.far.refused("policy_unknown"), 0);
    });
}

#[test]
fn a_live_connection_ends_when_it_is_no_longer_allowed() {
    run(7, Limits::default(), |mut world| async move {
        world.enrol(&[]);
        world.serve_tunnels().await;
        let listener = world.listen().await;
        let near = world.captured(world.cart(PORT)).await;
        let far = accept(&listener).await;
        world.policies(vec![deny_web()]);
        assert_reset(near).await;
        assert_reset(far).await;
        assert_eq!(world.far.refused("policy_changed"), 1);
        world.near.idle().await;
        assert_eq!(world.near.refused("peer_reset"), 1);
    });
}

#[test]
fn plain_text_is_taken_unless_the_server_is_strict() {
    run(8, Limits::default(), |mut world| async move {
        world.enrol(&[]);
        let listener = world.listen().await;
        exchange(world.plaintext().await, accept(&listener).await).await;
        let live = world.plaintext().await;
        let far = accept(&listener).await;
        world.enrol(&[policy_key("istio-system/strict")]);
        world.policies(vec![strict()]);
        assert_reset(live).await;
        assert_reset(far).await;
        assert_reset(world.plaintext().await).await;
        world.far.idle().await;
        assert_eq!(world.far.refused("policy_changed"), 1);
        assert_eq!(world.far.refused("policy_denied"), 1);
        let plain = ["istio_tcp_connections_opened_total{", "security_policy=\"unknown\""];
        assert_eq!(world.far.metric(&plain), 3);
    });
}

#[test]
fn what_the_mesh_does_not_know_is_passed_through() {
    run(9, Limits::default(), |mut world| async move {
        world.enrol(&[]);
        let listener = TcpListener::bind(world.elsewhere()).await.unwrap();
        let near = world.captured(world.elsewhere()).await;
        exchange(near, accept(&listener).await).await;
        world.near.idle().await;
        let plain = ["istio_tcp_connections_opened_total{", "security_policy=\"unknown\""];
        assert_eq!(world.near.metric(&plain), 1);
    });
}

#[test]
fn a_pod_waits_for_its_own_record() {
    run(10, Limits::default(), |mut world| async move {
        world.serve_tunnels().await;
        let listener = world.listen().await;
        let near = world.captured(world.cart(PORT)).await;
        world.enrol(&[]);
        exchange(near, accept(&listener).await).await;
    });
    let limits = Limits { workload_wait_ms: 50, ..Limits::default() };
    run(11, limits, |world| async move {
        refused_for(world, "workload_unknown", None).await;
    });
}

#[test]
fn without_a_certificate_nobody_is_asked() {
    run(12, Limits::default(), |mut world| async move {
        world.without_certificates();
        world.enrol(&[]);
        let listener = TcpListener::bind(world.cart(HBONE)).await.unwrap();
        tokio::select! {
            biased;
            _ = listener.accept() => panic!("a tunnel was dialled"),
            () = refused_for(world, "no_certificate", None) => {}
        }
    });
}

#[test]
fn a_far_side_that_fails_has_its_reason() {
    // Nobody listens.
    run(13, Limits::default(), |mut world| async move {
        world.enrol(&[]);
        refused_for(world, "dial", None).await;
    });
    // It is somebody else.
    run(14, Limits::default(), |mut world| async move {
        world.enrol(&[]);
        let [_, mut cart] = world.workloads();
        let other = pod("shop/other", &[&cart.ips[0].to_string()]);
        cart.ips = vec![ip("127.77.14.3")];
        world.publish(Delta { workloads: vec![cart, other], ..Delta::default() });
        world.serve_tunnels().await;
        refused_for(world, "tunnel_tls", None).await;
    });
    // It says nothing.
    let limits = Limits { dial_ms: 1_000, ..Limits::default() };
    run(15, limits, |mut world| async move {
        world.enrol(&[]);
        let listener = TcpListener::bind(world.cart(HBONE)).await.unwrap();
        let silent = async {
            let _socket = listener.accept().await.unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = silent => {}
            () = refused_for(world, "tunnel_tls", None) => {}
        }
    });
}

#[test]
fn a_peer_that_asks_for_nothing_is_sent_away() {
    let limits = Limits { first_connect_ms: 50, ..Limits::default() };
    run(16, limits, |mut world| async move {
        world.enrol(&[]);
        world.serve_tunnels().await;
        let mut silent = TcpStream::connect(world.cart(HBONE)).await.unwrap();
        let _ = rest(&mut silent).await;
        world.far.idle().await;
        assert_eq!(world.far.refused("first_connect_timeout"), 1);
    });
}

/// Whoever has this address.
fn at(addr: std::net::SocketAddr) -> Wanted {
    Wanted::Addr(NetworkAddr { network: "".into(), ip: addr.ip() })
}

#[test]
fn a_destination_that_nobody_has_asked_for_is_waited_for() {
    run_on_demand(19, Limits::default(), |mut world| async move {
        let [web, cart] = world.workloads();
        world.publish(Delta { workloads: vec![web], ..Delta::default() });
        world.serve_tunnels().await;
        let listener = world.listen().await;
        let near = world.captured(world.cart(PORT)).await;
        assert_eq!(world.wanted().await, at(world.cart(PORT)));
        world.publish(Delta { workloads: vec![cart], ..Delta::default() });
        exchange(near, accept(&listener).await).await;
        // Through a tunnel, and from then on without a question.
        exchange(world.captured(world.cart(PORT)).await, accept(&listener).await).await;
        world.near.idle().await;
        assert_eq!(world.near.metric(&["istio_tcp_connections_opened_total{", "mutual_tls"]), 2);
        let lookups = world.lookups.as_mut().unwrap();
        let asked: Vec<Wanted> = std::iter::from_fn(|| lookups.try_recv().ok()).collect();
        // The far side asks who its client is, for the log, and waits for no answer.
        assert!(asked.iter().all(|wanted| *wanted != at(world.cart(PORT))));
        // Nobody is there: in plain text, as to any address outside the mesh.
        let listener = TcpListener::bind(world.elsewhere()).await.unwrap();
        let near = world.captured(world.elsewhere()).await;
        assert_eq!(world.wanted().await, at(world.elsewhere()));
        world.publish(Delta { answered: vec![at(world.elsewhere())], ..Delta::default() });
        exchange(near, accept(&listener).await).await;
    });
}

#[test]
fn a_destination_that_is_not_answered_is_not_served() {
    let limits = Limits { lookup_wait_ms: 50, ..Limits::default() };
    run_on_demand(20, limits, |mut world| async move {
        world.enrol(&[]);
        let listener = TcpListener::bind(world.elsewhere()).await.unwrap();
        let near = world.captured(world.elsewhere()).await;
        tokio::select! {
            biased;
            _ = listener.accept() => panic!("it was dialled"),
            () = assert_reset(near) => {}
        }
        assert_eq!(world.near.refused("lookup_unanswered"), 1);
    });
    // Nobody takes the question: there is nothing to wait for.
    let limits = Limits { lookup_wait_ms: 600_000, ..Limits::default() };
    run_on_demand(21, limits, |mut world| async move {
        world.enrol(&[]);
        world.lookups = None;
        assert_reset(world.captured(world.elsewhere()).await).await;
        assert_eq!(world.near.refused("lookup_unanswered"), 1);
    });
}

/// Asks a worker for something that it answers.
async fn ask(worker: &Worker, message: impl FnOnce(oneshot::Sender<()>) -> Message) {
    let (answer, told) = oneshot::channel();
    worker.tell(message(answer)).await;
    told.await.unwrap();
}

#[test]
fn what_another_worker_handed_over_is_waited_for() {
    run(17, Limits::default(), |mut world| async move {
        world.enrol(&[]);
        let listener = world.listen().await;
        let (worker, thread) = world.worker();
        ask(&worker, |closed| Message::Close { closed }).await;
        // It has nothing, and another one had this on its way when it closed as well.
        let (mut near, message) = world.handed_over().await;
        worker.tell(message).await;
        let (empty, mut told) = oneshot::channel();
        worker.tell(Message::Finish { empty }).await;
        let mut far = accept(&listener).await;
        near.write_all(b"?").await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'?');
        assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        exchange(near, far).await;
        told.await.unwrap();
        worker.tell(Message::End).await;
        thread.join().unwrap();
        world.tasks.abort_all();
    });
}

#[test]
fn what_is_handed_over_for_a_pod_that_left_is_refused() {
    run(18, Limits::default(), |mut world| async move {
        world.enrol(&[]);
        let (worker, thread) = world.worker();
        world.far.pod.leave();
        ask(&worker, |done| Message::Stop { pod: world.far.pod.id, done }).await;
        let (near, message) = world.handed_over().await;
        worker.tell(message).await;
        assert_reset(near).await;
        assert_eq!(world.far.refused("pod_removed"), 1);
        worker.tell(Message::End).await;
        thread.join().unwrap();
        world.tasks.abort_all();
    });
}
