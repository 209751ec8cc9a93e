//! Our tunnels with the `h2` crate over rustls at the other end, in both roles.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, LocalSet};

use super::direct::{Drawn, Tap};
use super::in_memory::{self, Near};
use super::server::Server;
use super::stream::{Receiver, Sender, Stream, StreamError};
use crate::hbone::record::PAYLOAD_MAX;
use crate::hbone::testing::Pki;
use crate::path::buffers::{Appetite, Buffers};
use crate::report::Direction;
use crate::sys::clock::Clock;

/// Nothing here takes nearly as long; a test that would hang fails instead.
const HANG: Duration = Duration::from_secs(60);
/// More than every window and buffer on the way.
const MUCH: usize = 12 * 1024 * 1024;
/// More than one batch, so that a read is full of records.
const WIRE: usize = 1024 * 1024;
/// Their frames are so small that a batch holds more of them than are written together.
const PIECE: usize = 3_000;
const CHATTY: usize = 200;

/// Streams of ours that an `h2` server has answered.
type Answered = tokio::sync::mpsc::UnboundedReceiver<(h2::SendStream<Bytes>, h2::RecvStream)>;

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async { tokio::time::timeout(HANG, test).await.expect("the test hangs") };
    runtime.block_on(LocalSet::new().run_until(test));
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
}

async fn send(sender: &mut Sender, mut bytes: &[u8]) {
    let buffers = Rc::new(Buffers::default());
    while !bytes.is_empty() {
        let mut buffer = buffers.borrow(&Appetite::default());
        let want = bytes.len().min(buffer.as_mut().len());
        let count = poll_fn(|cx| sender.poll_capacity(cx, want)).await.unwrap();
        buffer.as_mut()[..count].copy_from_slice(&bytes[..count]);
        sender.send(buffer, count).unwrap();
        bytes = &bytes[count..];
    }
    sender.finish().unwrap();
}

async fn receive(receiver: &mut Receiver) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = poll_fn(|cx| receiver.poll_next(cx)).await.unwrap() {
        all.extend_from_slice(&bytes);
        receiver.taken(bytes.len());
    }
    all
}

async fn h2_send(mut sender: h2::SendStream<Bytes>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        sender.reserve_capacity(bytes.len());
        // It tells only of growth: what is there already has to be asked for.
        let mut room = sender.capacity();
        if room == 0 {
            room = poll_fn(|cx| sender.poll_capacity(cx)).await.unwrap().unwrap();
        }
        sender.send_data(bytes.split_to(room.min(bytes.len()).min(PIECE)), false).unwrap();
    }
    sender.send_data(Bytes::new(), true).unwrap();
}

async fn h2_receive(mut receiver: h2::RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = receiver.data().await {
        let bytes = bytes.unwrap();
        receiver.flow_control().release_capacity(bytes.len()).unwrap();
        all.extend_from_slice(&bytes);
    }
    all
}

/// Everything both ways at once, each byte accounted for.
async fn exchange(
    mut ours: Stream,
    (theirs, body): (h2::SendStream<Bytes>, h2::RecvStream),
    len: usize,
) {
    let all = pattern(len);
    let Stream { sender, receiver, .. } = &mut ours;
    let (_, got, _, theirs_got) = tokio::join!(
        send(sender, &all),
        receive(receiver),
        h2_send(theirs, Bytes::from(all.clone())),
        h2_receive(body),
    );
    assert!(got == all, "we got {} bytes of {len}, or others", got.len());
    assert!(theirs_got == all, "they got {} bytes of {len}, or others", theirs_got.len());
}

/// We ask; what their end has below HTTP/2.
async fn near(tasks: &mut JoinSet<()>) -> (Near, tokio_rustls::server::TlsStream<DuplexStream>) {
    let (a, b) = duplex(WIRE);
    let pki = Pki::new();
    let (a, b) =
        tokio::join!(in_memory::secured_client(a, &pki), in_memory::foreign_server(b, &pki));
    let (near, driver) = in_memory::client(a);
    tasks.spawn_local(driver);
    (near, b)
}

/// We ask; each answered stream of theirs comes through the channel.
async fn asking(tasks: &mut JoinSet<()>) -> (Near, Answered) {
    asking_with(tasks, 1 << 20).await
}

/// As [`asking`], with the window that each of our streams begins with.
async fn asking_with(tasks: &mut JoinSet<()>, window: u32) -> (Near, Answered) {
    let (near, b) = near(tasks).await;
    let (answered, streams) = tokio::sync::mpsc::unbounded_channel();
    tasks.spawn_local(async move {
        let mut builder = h2::server::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(1 << 24);
        let mut peer = builder.max_frame_size(1 << 20).handshake(b).await.unwrap();
        while let Some(Ok((request, mut respond))) = peer.accept().await {
            let sender = respond.send_response(Response::new(()), false).unwrap();
            let _ = answered.send((sender, request.into_body()));
        }
    });
    (near, streams)
}

/// They ask.
async fn asked(tasks: &mut JoinSet<()>) -> (h2::client::SendRequest<Bytes>, Server) {
    let (a, b) = duplex(WIRE);
    let pki = Pki::new();
    let (a, b) =
        tokio::join!(in_memory::foreign_client(a, &pki), in_memory::secured_server(b, &pki));
    type Tls = tokio_rustls::client::TlsStream<DuplexStream>;
    let a: Tls = a;
    let (requests, connection) = h2::client::handshake(a).await.unwrap();
    tasks.spawn_local(async move {
        let _ = connection.await;
    });
    (requests, in_memory::server(b))
}

/// An application, and our end of its connection.
async fn application() -> (TcpStream, Rc<Tap>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (application, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let live = in_memory::live(Direction::Outbound);
    let tap = Tap::new(accepted.unwrap().0, live.meter(), Direction::Outbound);
    (application.unwrap(), tap)
}

fn connect() -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = http::Method::CONNECT;
    *request.uri_mut() = "10.0.0.1:80".parse().unwrap();
    request
}

#[test]
fn a_server_that_is_h2_gets_and_sends_everything() {
    run(async {
        let mut tasks = JoinSet::new();
        let (near, mut streams) = asking(&mut tasks).await;
        let ours = near.connect().await;
        exchange(ours, streams.recv().await.unwrap(), MUCH).await;
    });
}

#[test]
fn a_client_that_is_h2_gets_and_sends_everything() {
    run(async {
        let mut tasks = JoinSet::new();
        let (mut requests, mut server) = asked(&mut tasks).await;
        let (response, sender) = requests.send_request(connect(), false).unwrap();
        let ours = server.next().await.unwrap().unwrap().accept(&HeaderMap::new()).unwrap();
        tasks.spawn_local(async move { while server.next().await.is_some() {} });
        let body = response.await.unwrap().into_body();
        exchange(ours, (sender, body), MUCH).await;
    });
}

/// What is not taken waits in its order, however many pieces of it one read brings.
#[test]
fn a_slow_reader_gets_everything_in_order_and_stops_nobody_else() {
    run(async {
        let mut tasks = JoinSet::new();
        let (near, mut streams) = asking(&mut tasks).await;
        let mut slow = near.connect().await;
        let (theirs, _slow_body) = streams.recv().await.unwrap();
        let all = pattern(MUCH);
        tasks.spawn_local(h2_send(theirs, Bytes::from(all.clone())));
        // The others pass while the slow one has all that its window lets through.
        for _ in 0..3 {
            let quick = near.connect().await;
            exchange(quick, streams.recv().await.unwrap(), 1 << 20).await;
        }
        assert!(receive(&mut slow.receiver).await == all);
    });
}

#[test]
fn two_hundred_streams_of_one_tunnel_talk_at_once() {
    run(async {
        let mut tasks = JoinSet::new();
        let (near, mut streams) = asking(&mut tasks).await;
        let mut exchanges = JoinSet::new();
        for at in 0..CHATTY {
            let ours = near.connect().await;
            let theirs = streams.recv().await.unwrap();
            exchanges.spawn_local(exchange(ours, theirs, 3_000 + 97 * at));
        }
        while let Some(done) = exchanges.join_next().await {
            done.unwrap();
        }
    });
}

#[test]
fn a_closing_server_lets_open_streams_end_and_then_goes() {
    run(async {
        let mut tasks = JoinSet::new();
        let (mut requests, mut server) = asked(&mut tasks).await;
        let (response, sender) = requests.send_request(connect(), false).unwrap();
        let ours = server.next().await.unwrap().unwrap().accept(&HeaderMap::new()).unwrap();
        server.close();
        let gone = async { while server.next().await.is_some() {} };
        let streams = async {
            let body = response.await.unwrap().into_body();
            exchange(ours, (sender, body), 1 << 20).await;
        };
        tokio::join!(gone, streams);
        assert!(poll_fn(|cx| requests.poll_ready(cx)).await.is_err());
    });
}

/// Much that an application has said leaves in batches and not record by record.
#[test]
fn bulk_is_read_in_batches_of_records() {
    run(async {
        let mut tasks = JoinSet::new();
        let (near, mut streams) = asking(&mut tasks).await;
        let mut ours = near.connect().await;
        let (_theirs, body) = streams.recv().await.unwrap();
        tasks.spawn_local(async move { drop(h2_receive(body).await) });
        let (mut application, tap) = application().await;
        tasks.spawn_local(async move { application.write_all(&pattern(MUCH)).await.unwrap() });
        let (appetite, mut most, mut all) = (Appetite::default(), 0, 0);
        while all < MUCH {
            let Drawn::Bytes(count) = ours.sender.draw(&tap, &appetite).await else { break };
            most = most.max(count);
            all += count;
        }
        assert_eq!(all, MUCH);
        assert!(most > 4 * PAYLOAD_MAX, "never more than {most} bytes at once");
    });
}

#[test]
fn a_peer_that_says_nothing_any_more_is_given_up() {
    run(async {
        let mut tasks = JoinSet::new();
        let (near, b) = near(&mut tasks).await;
        let mut connecting = pin!(near.connect());
        let answering = async {
            let mut peer = h2::server::handshake(b).await.unwrap();
            let (request, mut respond) = peer.accept().await.unwrap().unwrap();
            let sender: h2::SendStream<Bytes> =
                respond.send_response(Response::new(()), false).unwrap();
            (peer, request, sender)
        };
        let (mut peer, _request, _sender) = tokio::select! {
            _ = &mut connecting => panic!("nobody has answered"),
            answered = answering => answered,
        };
        let mut ours = tokio::select! {
            stream = &mut connecting => stream,
            _ = peer.accept() => panic!("nobody asks"),
        };
        // From here on the peer is there, and does nothing.
        tokio::time::pause();
        let clock = Clock::system();
        let begin = clock.monotonic();
        let error = ours.sender.reset_by_peer().await;
        assert!(matches!(error, StreamError::Lost(_)), "{error}");
        assert_eq!((clock.monotonic() - begin).as_secs(), 30);
    });
}

/// Small writes of an application whose peer never answers: what it says while they are held back
/// leaves together, and a reset is not waited for.
#[test]
fn small_writes_that_nobody_answers_gather() {
    run(async {
        let mut tasks = JoinSet::new();
        let (near, mut streams) = asking(&mut tasks).await;
        let mut ours = near.connect().await;
        let (mut theirs, body) = streams.recv().await.unwrap();
        tasks.spawn_local(async move { drop(h2_receive(body).await) });
        let (mut application, tap) = application().await;
        application.set_nodelay(true).unwrap();
        let appetite = Appetite::default();
        quiet().await;
        tokio::time::pause();
        let clock = Clock::system();
        for frame in 0..40 {
            let begin = clock.monotonic();
            application.write_all(b"a").await.unwrap();
            tap.socket().readable().await.unwrap();
            let mut drawing = pin!(ours.sender.draw(&tap, &appetite));
            let at_once = (&mut drawing).now_or_never();
            let held = at_once.is_none();
            assert_eq!(held, frame >= 32, "frame {frame}");
            if held {
                application.write_all(b"bc").await.unwrap();
            }
            let drawn = match at_once {
                Some(drawn) => drawn,
                None => drawing.await,
            };
            assert!(matches!(drawn, Drawn::Bytes(count) if count == if held { 3 } else { 1 }));
            let took = (clock.monotonic() - begin).as_millis();
            assert!(if held { (5..=6).contains(&took) } else { took == 0 }, "{took} ms");
        }
        application.write_all(b"a").await.unwrap();
        let begin = clock.monotonic();
        let mut drawing = pin!(ours.sender.draw(&tap, &appetite));
        assert!((&mut drawing).now_or_never().is_none());
        theirs.send_reset(h2::Reason::CANCEL);
        assert!(matches!(drawing.await, Drawn::Far(StreamError::Reset { clean: true, .. })));
        assert!((clock.monotonic() - begin).as_millis() < 5);
    });
}

/// A stream whose handles are gone, with words and their end that wait for the peer's window.
#[test]
fn last_words_leave_when_there_is_room_and_nothing_stays_of_their_stream() {
    for reset in [false, true] {
        run(async move {
            let mut tasks = JoinSet::new();
            let (near, mut streams) = asking_with(&mut tasks, 4).await;
            let mut ours = near.connect().await;
            let (mut theirs, body) = streams.recv().await.unwrap();
            theirs.send_data(Bytes::new(), true).unwrap();
            quiet().await;
            let (link, id) = (Rc::clone(&ours.sender.link), ours.sender.stream);
            link.core().say(id, b"last words", &link);
            ours.sender.finish().unwrap();
            drop(ours);
            quiet().await;
            assert!(link.core().seats.get_mut(id).is_some(), "it still has something to say");
            if reset {
                theirs.send_reset(h2::Reason::CANCEL);
            } else {
                assert_eq!(h2_receive(body).await, b"last words");
            }
            quiet().await;
            assert!(link.core().seats.get_mut(id).is_none());
            assert!(!link.core().engine.http().is_done(), "the tunnel goes on");
        });
    }
}

/// Lets everybody do what there is to do.
async fn quiet() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A first stream, after which nothing of the tunnel's own beginning carries an answer along.
async fn begun(requests: &mut h2::client::SendRequest<Bytes>, server: &mut Server) -> Stream {
    let (response, _sender) = requests.send_request(connect(), false).unwrap();
    let ours = server.next().await.unwrap().unwrap().accept(&HeaderMap::new()).unwrap();
    tokio::select! {
        response = response => drop(response.unwrap()),
        _ = server.next() => panic!("nobody asks"),
    }
    ours
}

#[test]
fn an_answer_to_who_has_spoken_leaves_with_the_first_words() {
    for words in [true, false] {
        run(async move {
            let mut tasks = JoinSet::new();
            let (mut requests, mut server) = asked(&mut tasks).await;
            let _before = begun(&mut requests, &mut server).await;
            let (mut response, mut sender) = requests.send_request(connect(), false).unwrap();
            sender.send_data(Bytes::from_static(b"question"), false).unwrap();
            let incoming = server.next().await.unwrap().unwrap();
            tasks.spawn_local(async move { while server.next().await.is_some() {} });
            quiet().await;
            let mut ours = incoming.accept(&HeaderMap::new()).unwrap();
            let answer = ours.kept_answer().expect("it has spoken");
            quiet().await;
            assert!((&mut response).now_or_never().is_none());
            if words {
                send(&mut ours.sender, b"reply").await;
            } else {
                answer.give();
            }
            quiet().await;
            let mut body = response.now_or_never().unwrap().unwrap().into_body();
            if words {
                assert_eq!(body.data().await.unwrap().unwrap(), "reply");
            }
        });
    }
}

#[test]
fn who_has_said_nothing_is_answered_at_once() {
    run(async {
        let mut tasks = JoinSet::new();
        let (mut requests, mut server) = asked(&mut tasks).await;
        let _before = begun(&mut requests, &mut server).await;
        let (response, _sender) = requests.send_request(connect(), false).unwrap();
        let incoming = server.next().await.unwrap().unwrap();
        tasks.spawn_local(async move { while server.next().await.is_some() {} });
        quiet().await;
        let ours = incoming.accept(&HeaderMap::new()).unwrap();
        assert!(ours.kept_answer().is_none());
        quiet().await;
        assert!(response.now_or_never().is_some_and(|response| response.is_ok()));
    });
}
