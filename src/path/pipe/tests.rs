//! The table of ends and resets (spec hbone 12), over a tunnel in memory and real sockets for the
//! applications.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason as Code;
use http::{HeaderMap, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};

use super::super::buffers::Buffers;
use super::super::connections::Connections;
use super::super::tunnel::in_memory;
use super::super::tunnel::server::Server;
use super::super::tunnel::{First, Stream};
use super::{Around, tunnel};
use crate::hbone::testing::Pki;
use crate::report::{Direction, Failure, Reason};
use crate::sys::socket;

/// Nothing here takes nearly as long; a test that would hang fails instead.
const HANG: Duration = Duration::from_secs(30);
/// More than every buffer on the way holds.
const MUCH: usize = 24 * 1024 * 1024;

/// Two applications, the two pipes between them, and the tunnel between those.
struct World {
    _pipes: JoinSet<()>,
    drivers: JoinSet<()>,
    client: TcpStream,
    server: TcpStream,
    near: Pipe,
    far: Pipe,
}

struct Pipe {
    connections: Rc<Connections>,
    result: oneshot::Receiver<Result<(), Failure>>,
}

impl Pipe {
    fn cut(&self) {
        self.connections.cut_all(&Failure::from(Reason::PolicyChanged));
    }

    async fn ended_for(self) -> Option<Reason> {
        self.result.await.expect("the pipe ends").err().map(|failure| failure.reason)
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let test = async { tokio::time::timeout(HANG, test).await.expect("the test hangs") };
    runtime.block_on(local.run_until(test));
}

/// An application and the proxy's end of its connection.
async fn application() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (application, accepted) = tokio::join!(connect, listener.accept());
    (application.unwrap(), accepted.unwrap().0)
}

fn start(tasks: &mut JoinSet<()>, proxied: TcpStream, stream: Stream, way: Direction) -> Pipe {
    let connections = Rc::new(Connections::default());
    let connection = connections.enter(1);
    let (ended, result) = oneshot::channel();
    tasks.spawn_local(async move {
        let live = in_memory::live(way);
        let buffers = Rc::new(Buffers::default());
        let around =
            Around { connection: &connection, buffers: &buffers, live: &live, direction: way };
        let result = tunnel(proxied, stream, &around).await;
        live.finish(result.clone());
        let _ = ended.send(result);
    });
    Pipe { connections, result }
}

async fn serve_one(server: &mut Server) -> Stream {
    let incoming = server.next().await.unwrap().unwrap();
    incoming.accept(&HeaderMap::new()).unwrap()
}

async fn world() -> World {
    let (mut pipes, mut drivers) = (JoinSet::new(), JoinSet::new());
    let (a, b) = duplex(64 * 1024);
    let pki = Pki::new();
    let (a, b) =
        tokio::join!(in_memory::secured_client(a, &pki), in_memory::secured_server(b, &pki));
    let (near, driver) = in_memory::client(a);
    drivers.spawn_local(driver);
    let (accepted, stream) = oneshot::channel();
    drivers.spawn_local(async move {
        let mut server = in_memory::server(b);
        let _ = accepted.send(serve_one(&mut server).await);
        while server.next().await.is_some() {}
    });
    let near = near.connect().await;
    let far = stream.await.unwrap();
    let (client, proxied) = application().await;
    let near = start(&mut pipes, proxied, near, Direction::Outbound);
    let (server, proxied) = application().await;
    let far = start(&mut pipes, proxied, far, Direction::Inbound);
    World { _pipes: pipes, drivers, client, server, near, far }
}

async fn read_all(socket: &mut TcpStream) -> (Vec<u8>, Result<(), ErrorKind>) {
    let mut bytes = Vec::new();
    let mut part = vec![0; 64 * 1024];
    loop {
        match socket.read(&mut part).await {
            Ok(0) => return (bytes, Ok(())),
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) => return (bytes, Err(error.kind())),
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

#[test]
fn bytes_arrive_exactly_and_each_direction_ends_by_itself() {
    run(async {
        let World { _pipes, drivers: _drivers, mut client, mut server, near, far } = world().await;
        let sent = pattern(MUCH);
        let upload = async {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
        };
        let (got, ()) = tokio::join!(read_all(&mut server), upload);
        assert!(got == (sent, Ok(())), "the upload differs: {} bytes, {:?}", got.0.len(), got.1);
        // The other direction is still open.
        server.write_all(b"late answer").await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(read_all(&mut client).await, (b"late answer".to_vec(), Ok(())));
        assert_eq!(near.ended_for().await, None);
        assert_eq!(far.ended_for().await, None);
    });
}

#[test]
fn a_reset_of_the_client_is_a_reset_for_the_server_after_the_bytes_before_it() {
    run(async {
        let World { _pipes, drivers: _drivers, mut client, mut server, near, far } = world().await;
        client.write_all(b"last words").await.unwrap();
        let mut first = [0; 10];
        server.read_exact(&mut first).await.unwrap();
        socket::reset_on_close(&client).unwrap();
        drop(client);
        assert_eq!(read_all(&mut server).await, (Vec::new(), Err(ErrorKind::ConnectionReset)));
        assert_eq!(near.ended_for().await, Some(Reason::ApplicationReset));
        assert_eq!(far.ended_for().await, Some(Reason::PeerReset));
    });
}

#[test]
fn a_reset_of_the_server_is_a_reset_for_the_client_after_the_bytes_before_it() {
    run(async {
        let World { _pipes, drivers: _drivers, mut client, mut server, near, far } = world().await;
        server.write_all(b"last words").await.unwrap();
        let mut first = [0; 10];
        client.read_exact(&mut first).await.unwrap();
        socket::reset_on_close(&server).unwrap();
        drop(server);
        assert_eq!(read_all(&mut client).await, (Vec::new(), Err(ErrorKind::ConnectionReset)));
        assert_eq!(near.ended_for().await, Some(Reason::PeerReset));
        assert_eq!(far.ended_for().await, Some(Reason::ApplicationReset));
    });
}

/// Fills everything on the way, so that nobody reads the client's socket any more, and resets it.
async fn fill_and_reset(mut client: TcpStream) {
    let filled = async {
        let part = vec![7; 64 * 1024];
        while client.write(&part).await.is_ok() {}
    };
    let full = tokio::time::timeout(Duration::from_millis(300), filled).await;
    assert!(full.is_err(), "the way is never full");
    socket::reset_on_close(&client).unwrap();
    drop(client);
}

#[test]
fn a_reset_is_seen_while_the_other_side_does_not_read() {
    run(async {
        let World { _pipes, drivers: _drivers, client, server, near, far } = world().await;
        fill_and_reset(client).await;
        // There is nothing to wait for but the clock.
        tokio::time::pause();
        assert_eq!(near.ended_for().await, Some(Reason::ApplicationReset));
        assert_eq!(far.ended_for().await, Some(Reason::PeerReset));
        drop(server);
    });
}

#[test]
fn a_reset_is_seen_though_the_application_has_finished_and_does_not_read() {
    run(async {
        let World { _pipes, drivers: _drivers, mut client, mut server, near, far } = world().await;
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        fill_and_reset(client).await;
        tokio::time::pause();
        assert_eq!(near.ended_for().await, Some(Reason::ApplicationReset));
        assert_eq!(far.ended_for().await, Some(Reason::PeerReset));
        drop(server);
    });
}

#[test]
fn a_cut_is_a_reset_for_both() {
    run(async {
        let World { _pipes, drivers: _drivers, mut client, mut server, near, far } = world().await;
        far.cut();
        assert_eq!(read_all(&mut server).await, (Vec::new(), Err(ErrorKind::ConnectionReset)));
        assert_eq!(read_all(&mut client).await, (Vec::new(), Err(ErrorKind::ConnectionReset)));
        assert_eq!(far.ended_for().await, Some(Reason::PolicyChanged));
        assert_eq!(near.ended_for().await, Some(Reason::PeerReset));
    });
}

#[test]
fn a_lost_tunnel_is_a_reset_for_both() {
    run(async {
        let World { _pipes, mut drivers, mut client, mut server, near, far } = world().await;
        client.write_all(b"on its way").await.unwrap();
        let mut first = [0; 10];
        server.read_exact(&mut first).await.unwrap();
        drivers.abort_all();
        assert_eq!(read_all(&mut client).await, (Vec::new(), Err(ErrorKind::ConnectionReset)));
        assert_eq!(read_all(&mut server).await, (Vec::new(), Err(ErrorKind::ConnectionReset)));
        assert_eq!(near.ended_for().await, Some(Reason::TunnelLost));
        assert_eq!(far.ended_for().await, Some(Reason::TunnelLost));
    });
}

/// What one adit application sees when the far side is the `h2` crate itself, scripted.
async fn against(
    script: impl AsyncFnOnce(&mut h2::SendStream<Bytes>),
) -> ((Vec<u8>, Result<(), ErrorKind>), Option<Reason>) {
    let mut tasks = JoinSet::new();
    let (a, b) = duplex(64 * 1024);
    let pki = Pki::new();
    let (a, b) =
        tokio::join!(in_memory::secured_client(a, &pki), in_memory::foreign_server(b, &pki));
    let (near, driver) = in_memory::client(a);
    tasks.spawn_local(driver);
    let (accepted, stream) = oneshot::channel();
    tasks.spawn_local(async move {
        let mut peer = h2::server::handshake(b).await.unwrap();
        let (request, mut respond) = peer.accept().await.unwrap().unwrap();
        let sender = respond.send_response(Response::new(()), false).unwrap();
        let _ = accepted.send((sender, request.into_body()));
        while peer.accept().await.is_some() {}
    });
    let near = near.connect().await;
    let (mut sender, _body) = stream.await.unwrap();
    let (mut client, proxied) = application().await;
    let near = start(&mut tasks, proxied, near, Direction::Outbound);
    script(&mut sender).await;
    let seen = read_all(&mut client).await;
    drop(client);
    (seen, near.ended_for().await)
}

#[test]
fn no_code_before_the_end_is_a_clean_end() {
    run(async {
        for code in [Code::NO_ERROR, Code::CANCEL, Code::CONNECT_ERROR, Code::INTERNAL_ERROR] {
            let (seen, ended) = against(async |sender| sender.send_reset(code)).await;
            assert_eq!(seen, (Vec::new(), Err(ErrorKind::ConnectionReset)), "{code:?}");
            assert_eq!(ended, Some(Reason::PeerReset), "{code:?}");
        }
    });
}

#[test]
fn the_end_of_the_stream_is_the_end_for_the_application() {
    run(async {
        let (seen, ended) = against(async |sender| {
            sender.send_data(Bytes::from_static(b"all of it"), true).unwrap();
        })
        .await;
        assert_eq!(seen, (b"all of it".to_vec(), Ok(())));
        assert_eq!(ended, None);
    });
}

/// Nobody may wait for an application that has nothing to say.
#[test]
fn an_answer_is_not_kept_for_long() {
    run(async {
        let (mut pipes, mut drivers) = (JoinSet::new(), JoinSet::new());
        let (a, b) = duplex(64 * 1024);
        let pki = Pki::new();
        let (a, b) =
            tokio::join!(in_memory::secured_client(a, &pki), in_memory::secured_server(b, &pki));
        let (near, driver) = in_memory::client(a);
        drivers.spawn_local(driver);
        let (mut client, proxied) = application().await;
        client.write_all(b"question").await.unwrap();
        // Not an accepted one, which is read once before anything is known of it.
        let (towards_server, mut server) = application().await;
        let mut tunnel = in_memory::server(b);
        // With another stream open, nothing of the tunnel's own beginning carries the answer along.
        let (_before, _) = tokio::join!(near.connect(), serve_one(&mut tunnel));
        let answer = async {
            let incoming = tunnel.next().await.unwrap().unwrap();
            drivers.spawn_local(async move { while tunnel.next().await.is_some() {} });
            // The driver has its turn first: nothing else is to carry the answer along.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let far = incoming.accept(&HeaderMap::new()).unwrap();
            assert!(far.kept_answer().is_some());
            start(&mut pipes, towards_server, far, Direction::Inbound)
        };
        let mut first = First::new(&proxied);
        let (_near, _far) = tokio::join!(near.connect_for(&mut first), answer);
        let mut heard = [0; 8];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"question");
    });
}
