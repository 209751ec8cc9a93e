//! The pool against scripted peers, in memory and in paused time.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::Reason as Code;
use http::{Method, Response, StatusCode};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex,
};
use tokio::task::{JoinSet, LocalSet};

use super::super::in_memory::{self, key};
use super::*;
use crate::hbone::testing::Pki;
use crate::path::buffers::{Appetite, Buffers};
use crate::sys::clock::Clock;

/// What a scripted peer does with the CONNECTs of one tunnel.
#[derive(Clone, Copy, Debug)]
enum Peer {
    /// Answers every one with 200.
    Accepts,
    /// Answers every one with this status.
    Answers(StatusCode),
    /// Resets every one with this code before it answers.
    Resets(Code),
    /// Says that it takes none, before it answers.
    GoesAway,
    /// Never answers.
    Silent,
    /// Says nothing, hears a CONNECT and is gone.
    Leaves,
}

struct World {
    pool: Rc<Pool>,
    /// Writes of our end of every connection together.
    writes: Rc<Cell<usize>>,
    peers: Rc<RefCell<VecDeque<Peer>>>,
    dials: Rc<Cell<usize>>,
    tasks: Rc<RefCell<JoinSet<()>>>,
    pki: Rc<Pki>,
}

/// Counts what is written to it.
struct Counted {
    io: DuplexStream,
    writes: Rc<Cell<usize>>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, space)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.set(self.writes.get() + 1);
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(LocalSet::new().run_until(test));
}

/// GOAWAY with last stream 0, after the CONNECT has arrived: the `h2` server never says that of a
/// stream it has seen, so this peer is written by hand.
async fn goes_away(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    hear_connect(&mut io).await;
    io.write_all(&SETTINGS).await.unwrap();
    io.write_all(&GOAWAY).await.unwrap();
    let _ = io.read_to_end(&mut Vec::new()).await;
}

/// Until a CONNECT has arrived, without a word.
async fn hear_connect(io: &mut (impl AsyncRead + Unpin)) {
    const HEADERS: u8 = 1;
    let mut preface = [0; 24];
    io.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        io.read_exact(&mut payload).await.unwrap();
        if head[3] == HEADERS {
            break;
        }
    }
}

async fn serve(mut io: impl AsyncRead + AsyncWrite + Unpin, peer: Peer) {
    match peer {
        Peer::GoesAway => return goes_away(io).await,
        Peer::Leaves => return hear_connect(&mut io).await,
        _ => {}
    }
    let mut connection = h2::server::handshake(io).await.unwrap();
    let mut kept = Vec::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let status = match peer {
            Peer::Accepts => StatusCode::OK,
            Peer::Answers(status) => status,
            Peer::Resets(code) => {
                respond.send_reset(code);
                continue;
            }
            Peer::GoesAway | Peer::Leaves => return,
            Peer::Silent => {
                kept.push((request, respond, None));
                continue;
            }
        };
        let mut response = Response::new(());
        *response.status_mut() = status;
        let stream = respond.send_response(response, status != StatusCode::OK).unwrap();
        let stream: h2::SendStream<Bytes> = stream;
        kept.push((request, respond, Some(stream)));
    }
}

fn world(peers: &[Peer]) -> World {
    let config = DataPathConfig { pool_streams_max: 2, ..in_memory::config() };
    let settings = Settings { client_streams: 2, ..in_memory::settings() };
    World {
        pool: Rc::new(Pool::new(&config, settings, Tasks::default())),
        writes: Rc::default(),
        peers: Rc::new(RefCell::new(peers.iter().copied().collect())),
        dials: Rc::default(),
        tasks: Rc::default(),
        pki: Rc::new(Pki::new()),
    }
}

fn request() -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = "10.0.0.1:80".parse().unwrap();
    request
}

impl World {
    async fn open(&self) -> Result<Stream, Failure> {
        let dial = || {
            self.dials.set(self.dials.get() + 1);
            let next = self.peers.borrow_mut().pop_front();
            let (tasks, pki) = (Rc::clone(&self.tasks), Rc::clone(&self.pki));
            let writes = Rc::clone(&self.writes);
            async move {
                let peer = next.ok_or_else(|| Failure::from(Reason::Dial))?;
                let (near, far) = duplex(64 * 1024);
                let theirs = Rc::clone(&pki);
                let peer = async move {
                    serve(in_memory::foreign_server(far, &theirs).await, peer).await;
                };
                tasks.borrow_mut().spawn_local(peer);
                let near = Counted { io: near, writes };
                Ok(in_memory::unsaid_client(near, &pki).await)
            }
        };
        let first = &mut First::none();
        self.pool.open(&key(), request, first, dial).await.map(|(_, stream)| stream)
    }

    async fn refused(&self) -> Reason {
        self.open().await.expect_err("the CONNECT fails").reason
    }
}

#[test]
fn streams_share_a_tunnel_until_it_is_full() {
    run(async {
        let world = world(&[Peer::Accepts, Peer::Accepts]);
        let first = world.open().await.unwrap();
        let _second = world.open().await.unwrap();
        assert_eq!(world.dials.get(), 1);
        let _third = world.open().await.unwrap();
        assert_eq!(world.dials.get(), 2);
        drop(first);
        let _fourth = world.open().await.unwrap();
        assert_eq!(world.dials.get(), 2, "a freed place is used again");
    });
}

/// The `h2` crate gives all of a connection's window to a stream that nobody reads.
#[test]
fn who_comes_after_readers_that_stopped_goes_through_another_tunnel() {
    run(async {
        let world = world(&[Peer::Accepts, Peer::Accepts]);
        let mut stopped = world.open().await.unwrap();
        let buffers = Rc::new(Buffers::default());
        let mut window = 65_535;
        while window > 0 {
            let count = poll_fn(|cx| stopped.sender.poll_capacity(cx, 1_000)).await.unwrap();
            stopped.sender.send(buffers.borrow(&Appetite::default()), count).unwrap();
            window -= count;
        }
        // It may be that nobody has come to read yet.
        drop(world.open().await.unwrap());
        assert_eq!(world.dials.get(), 1);
        tokio::time::advance(Duration::from_secs(2)).await;
        let _late = world.open().await.unwrap();
        assert_eq!(world.dials.get(), 2);
    });
}

/// One round trip after the TCP connection: hello, then all the rest.
#[test]
fn the_first_connect_leaves_with_the_end_of_the_handshake() {
    run(async {
        let world = Rc::new(world(&[Peer::Leaves]));
        // A task, as in the proxy: what it waits for may wake others with it.
        let (asking, mut tasks) = (Rc::clone(&world), JoinSet::new());
        tasks.spawn_local(async move { asking.refused().await });
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), Reason::TunnelLost);
        assert_eq!(world.writes.get(), 2);
    });
}

#[test]
fn simultaneous_openers_share_one_dial() {
    run(async {
        let world = world(&[Peer::Accepts, Peer::Accepts]);
        let (a, b) = tokio::join!(world.open(), world.open());
        assert!(a.is_ok() && b.is_ok());
        assert_eq!(world.dials.get(), 1);
    });
}

#[test]
fn a_failed_dial_is_told_to_all_who_wait_and_the_next_one_dials_again() {
    run(async {
        let world = world(&[]);
        let (a, b) = tokio::join!(world.refused(), world.refused());
        assert_eq!((a, b), (Reason::Dial, Reason::Dial));
        assert_eq!(world.dials.get(), 1);
        assert_eq!(world.refused().await, Reason::Dial);
        assert_eq!(world.dials.get(), 2);
    });
}

#[test]
fn an_opener_that_gives_up_does_not_stop_the_dial_for_others() {
    run(async {
        let world = world(&[Peer::Accepts]);
        {
            let mut impatient = std::pin::pin!(world.open());
            let first = poll_fn(|cx| Poll::Ready(impatient.as_mut().poll(cx)));
            assert!(first.await.is_pending());
        }
        assert!(world.open().await.is_ok());
        assert_eq!(world.dials.get(), 1);
    });
}

#[test]
fn a_connect_that_was_not_processed_goes_once_to_another_tunnel() {
    run(async {
        for refusal in [Peer::Resets(Code::REFUSED_STREAM), Peer::GoesAway] {
            let once = world(&[refusal, Peer::Accepts]);
            // The full pool forces the second attempt to another tunnel.
            assert!(once.open().await.is_ok(), "{refusal:?}");
            let twice = world(&[refusal, refusal, Peer::Accepts]);
            assert_eq!(twice.refused().await, Reason::TunnelHttp2, "{refusal:?}");
        }
    });
}

#[test]
fn a_connect_that_may_have_been_processed_is_not_repeated() {
    run(async {
        for code in [Code::CANCEL, Code::INTERNAL_ERROR, Code::CONNECT_ERROR] {
            let world = world(&[Peer::Resets(code), Peer::Accepts]);
            assert_eq!(world.refused().await, Reason::TunnelHttp2, "{code:?}");
            assert_eq!(world.dials.get(), 1);
        }
    });
}

#[test]
fn another_status_than_200_fails_the_connection_and_not_the_tunnel() {
    run(async {
        let world = world(&[Peer::Answers(StatusCode::UNAUTHORIZED)]);
        let failure = world.open().await.expect_err("refused");
        assert_eq!(failure.to_string(), "connect_refused: the far side answered 401");
        assert_eq!(world.refused().await, Reason::ConnectRefused);
        assert_eq!(world.dials.get(), 1);
    });
}

#[test]
fn an_answer_is_waited_for_twenty_seconds() {
    run(async {
        let world = world(&[Peer::Silent]);
        let clock = Clock::system();
        let start = clock.monotonic();
        assert_eq!(world.refused().await, Reason::ConnectTimeout);
        assert_eq!(clock.monotonic().duration_since(start).as_secs(), 20);
    });
}

#[test]
fn an_unused_tunnel_is_closed_after_its_time_and_a_used_one_is_not() {
    run(async {
        let world = world(&[Peer::Accepts, Peer::Accepts]);
        let stream = world.open().await.unwrap();
        tokio::time::advance(Duration::from_secs(3600)).await;
        let second = world.open().await.unwrap();
        assert_eq!(world.dials.get(), 1, "a tunnel with a stream is in use");
        drop((stream, second));
        // Far enough for every timer on the way to have had its turn.
        tokio::time::sleep(Duration::from_secs(299)).await;
        assert!(!world.pool.keys.borrow()[&key()].tunnels[0].is_closed());
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(world.pool.keys.borrow()[&key()].tunnels[0].is_closed());
        let _again = world.open().await.unwrap();
        assert_eq!(world.dials.get(), 2);
    });
}

#[test]
fn the_tunnels_of_a_pod_that_left_are_not_used_again() {
    run(async {
        let world = world(&[Peer::Accepts, Peer::Accepts]);
        let _stream = world.open().await.unwrap();
        world.pool.close_pod(1);
        let _other = world.open().await.unwrap();
        assert_eq!(world.dials.get(), 2);
    });
}
