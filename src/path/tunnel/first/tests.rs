use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::Error;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason as Code, RecvStream};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio_rustls::server::TlsStream;

use super::*;
use crate::hbone::testing::Pki;
use crate::path::room::Tasks;
use crate::path::tunnel::{Drawn, Pool, Stream, Tap, in_memory};
use crate::report::{Direction, Failure, Reason};

/// Nothing here takes nearly as long; a test that would hang fails instead.
const HANG: Duration = Duration::from_secs(30);
/// More than may be under way before the answer.
const MUCH: usize = 300_000;

type Server = h2::server::Connection<TlsStream<DuplexStream>, Bytes>;
type Asked = (Request<RecvStream>, h2::server::SendResponse<Bytes>);
type Script = Box<dyn FnOnce(Server) -> Pin<Box<dyn Future<Output = ()>>>>;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async { tokio::time::timeout(HANG, test).await.expect("the test hangs") };
    runtime.block_on(LocalSet::new().run_until(test));
}

fn script<F: Future<Output = ()> + 'static>(script: impl FnOnce(Server) -> F + 'static) -> Script {
    Box::new(|server| Box::pin(script(server)))
}

/// An application and our end of its connection.
async fn application() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = TcpStream::connect(listener.local_addr().unwrap());
    let (application, accepted) = tokio::join!(connect, listener.accept());
    (application.unwrap(), accepted.unwrap().0)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

/// Opens a stream for an application, with peers that each do as their script says. The tunnels
/// live as long as the pool.
async fn open(
    first: &mut First<'_>,
    window: u32,
    scripts: impl IntoIterator<Item = Script>,
) -> (Rc<Pool>, Result<Stream, Failure>) {
    let tasks = Tasks::default();
    let pool = Pool::new(&in_memory::config(), in_memory::settings(), tasks.clone());
    let pool = Rc::new(pool);
    let scripts = Rc::new(RefCell::new(scripts.into_iter().collect::<VecDeque<_>>()));
    let pki = Rc::new(Pki::new());
    let dial = || {
        let script = scripts.borrow_mut().pop_front();
        let (pki, tasks) = (Rc::clone(&pki), tasks.clone());
        async move {
            let script = script.ok_or_else(|| Failure::from(Reason::Dial))?;
            let (near, far) = duplex(1 << 20);
            let theirs = Rc::clone(&pki);
            tasks.spawn(async move {
                let tls = in_memory::foreign_server(far, &theirs).await;
                let mut builder = h2::server::Builder::new();
                builder.initial_window_size(window).initial_connection_window_size(1 << 20);
                let server = builder.handshake(tls).await;
                script(server.unwrap()).await;
            });
            Ok(in_memory::secured_client(near, &pki).await)
        }
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "10.0.0.1:80".parse().unwrap();
    let request = || request.clone();
    let opened = pool.open(&in_memory::key(), request, first, dial).await;
    (pool, opened.map(|(_, stream)| stream))
}

async fn asked(server: &mut Server) -> Asked {
    server.accept().await.unwrap().unwrap()
}

/// Reads so many bytes of a request while its connection goes on.
async fn read(server: &mut Server, body: &mut RecvStream, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < len {
        let bytes = tokio::select! {
            bytes = body.data() => bytes.unwrap().unwrap(),
            _ = server.accept() => panic!("the connection ends, or another stream comes"),
        };
        body.flow_control().release_capacity(bytes.len()).unwrap();
        all.extend_from_slice(&bytes);
    }
    all
}

async fn accept(mut server: Server, mut respond: h2::server::SendResponse<Bytes>) {
    let _open = respond.send_response(Response::new(()), false).unwrap();
    while server.accept().await.is_some() {}
}

/// A peer that answers only when it has heard this.
fn hears(expected: Vec<u8>) -> Script {
    script(|mut server| async move {
        let (request, respond) = asked(&mut server).await;
        let heard = read(&mut server, &mut request.into_body(), expected.len()).await;
        assert!(heard == expected);
        accept(server, respond).await;
    })
}

#[test]
fn what_is_said_before_the_answer_travels_with_the_connect() {
    run(async {
        let (mut application, socket) = application().await;
        application.write_all(b"question").await.unwrap();
        let mut first = First::new(&socket);
        let (_pool, opened) = open(&mut first, 65_535, [hears(b"question".to_vec())]).await;
        assert!(opened.is_ok());
        assert_eq!(first.said(), b"question");
    });
}

#[test]
fn what_is_said_while_the_answer_is_waited_for_is_sent_at_once() {
    run(async {
        let (mut application, socket) = application().await;
        let (arrived, mut told) = tokio::sync::oneshot::channel();
        let peer = script(|mut server| async move {
            let (request, respond) = asked(&mut server).await;
            arrived.send(()).unwrap();
            let heard = read(&mut server, &mut request.into_body(), 7).await;
            assert_eq!(heard, b"onetwo3");
            accept(server, respond).await;
        });
        let mut first = First::new(&socket);
        let ((_pool, opened), ()) = tokio::join!(open(&mut first, 65_535, [peer]), async {
            (&mut told).await.unwrap();
            for part in ["one", "two", "3"] {
                application.write_all(part.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            // The end is for later.
            application.shutdown().await.unwrap();
        });
        assert!(opened.is_ok());
    });
}

#[test]
fn what_was_not_processed_is_said_again_and_only_there() {
    run(async {
        let (mut application, socket) = application().await;
        application.write_all(b"question").await.unwrap();
        let refuses = script(|mut server| async move {
            let (request, mut respond) = asked(&mut server).await;
            let heard = read(&mut server, &mut request.into_body(), 8).await;
            assert_eq!(heard, b"question");
            respond.send_reset(Code::REFUSED_STREAM);
            while server.accept().await.is_some() {}
        });
        let mut first = First::new(&socket);
        let (_pool, opened) =
            open(&mut first, 65_535, [refuses, hears(b"question".to_vec())]).await;
        assert!(opened.is_ok());
        assert_eq!(first.said(), b"question");
    });
}

/// Of much, a part goes before the answer; the rest follows in its order, also if the peer's window
/// let less through.
#[test]
fn the_rest_follows_in_order() {
    for window in [10, 65_535, 1 << 20] {
        run(async move {
            let (mut application, socket) = application().await;
            let all = pattern(MUCH);
            let before = usize::try_from(window).unwrap().min(FIRST_MAX);
            let expected = all.clone();
            let (whole, heard) = tokio::sync::oneshot::channel();
            let peer = script(move |mut server| async move {
                let (request, mut respond) = asked(&mut server).await;
                let mut body = request.into_body();
                let bytes = tokio::select! {
                    bytes = body.data() => bytes.unwrap().unwrap(),
                    _ = server.accept() => panic!("the connection ends"),
                };
                let mut got = bytes.to_vec();
                assert!(got.len() <= before, "{} bytes before the answer", got.len());
                let _open = respond.send_response(Response::new(()), false).unwrap();
                body.flow_control().release_capacity(bytes.len()).unwrap();
                got.extend(read(&mut server, &mut body, MUCH - bytes.len()).await);
                assert!(got == expected, "other bytes, or another order");
                whole.send(()).unwrap();
                while server.accept().await.is_some() {}
            });
            let tasks = Tasks::default();
            tasks.spawn(async move {
                application.write_all(&all).await.unwrap();
                std::future::pending::<()>().await;
            });
            let mut first = First::new(&socket);
            let (_pool, opened) = open(&mut first, window, [peer]).await;
            let mut stream = opened.unwrap();
            let live = in_memory::live(Direction::Outbound);
            let tap = Tap::new(socket, live.meter(), Direction::Outbound);
            let appetite = Appetite::default();
            let draw = async {
                loop {
                    let drawn = stream.sender.draw(&tap, &appetite).await;
                    assert!(matches!(drawn, Drawn::Bytes(_)), "{drawn:?}");
                }
            };
            tokio::select! {
                () = draw => {}
                heard = heard => heard.unwrap(),
            }
        });
    }
}

#[test]
fn no_more_is_on_its_way_before_the_answer_than_it_may() {
    run(async {
        let (mut application, socket) = application().await;
        let tasks = Tasks::default();
        tasks.spawn(async move {
            application.write_all(&pattern(MUCH)).await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut first = First::new(&socket);
        // It would take more.
        let (_pool, opened) = open(&mut first, 1 << 20, [hears(pattern(FIRST_MAX))]).await;
        assert!(opened.is_ok());
        assert_eq!(first.said().len(), FIRST_MAX);
    });
}

#[test]
fn an_application_that_breaks_meanwhile_ends_the_attempt() {
    run(async {
        let (application, socket) = application().await;
        let (broken, told) = tokio::sync::oneshot::channel::<Error>();
        let peer = script(|mut server| async move {
            let (mut request, _respond) = asked(&mut server).await;
            crate::sys::socket::reset_on_close(&application).unwrap();
            drop(application);
            let body = request.body_mut();
            let seen = tokio::select! {
                seen = body.data() => seen.unwrap().unwrap_err(),
                _ = server.accept() => panic!("the connection ends"),
            };
            assert_eq!(seen.reason(), Some(Code::CONNECT_ERROR));
            broken.send(Error::other("seen")).unwrap();
        });
        let (_pool, opened) = open(&mut First::new(&socket), 65_535, [peer]).await;
        assert_eq!(opened.unwrap_err().reason, Reason::ApplicationReset);
        told.await.unwrap();
    });
}

#[test]
fn a_refusal_stays_one() {
    run(async {
        let (mut application, socket) = application().await;
        application.write_all(b"question").await.unwrap();
        let peer = script(|mut server| async move {
            let (_request, mut respond) = asked(&mut server).await;
            let refused = Response::builder().status(StatusCode::UNAUTHORIZED).body(()).unwrap();
            respond.send_response(refused, true).unwrap();
            while server.accept().await.is_some() {}
        });
        let (_pool, opened) = open(&mut First::new(&socket), 65_535, [peer]).await;
        assert_eq!(opened.unwrap_err().reason, Reason::ConnectRefused);
        let mut end = [0];
        drop(socket);
        assert!(application.read(&mut end).await.is_ok_and(|count| count == 0));
    });
}
