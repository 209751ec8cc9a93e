//! The gateway in front of another network, of the test's own making: it ends the outer tunnel and
//! carries what is in it to a node port without looking at it.

use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use adit::cli::lab::Pod;
use adit::sys::netns::Netns;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinSet, LocalSet};
use tokio_rustls::TlsAcceptor;

use super::{Context, Outcome, PATIENCE, listen};

/// The port of tunnels.
pub(crate) const HBONE: u16 = 15008;
/// What one read of it moves at most.
const PART: usize = 64 * 1024;

/// A running gateway; it ends when dropped.
pub(crate) struct Gateway {
    asked: Receiver<Request<()>>,
    ended: Receiver<bool>,
    status: Arc<Mutex<u16>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What every stream of it needs.
#[derive(Clone)]
struct Behind {
    netns: Netns,
    to: SocketAddr,
    status: Arc<Mutex<u16>>,
    asked: Sender<Request<()>>,
    ended: Sender<bool>,
}

impl Gateway {
    /// Starts one in a pod; what comes for it goes to `to`.
    pub(crate) fn start(pod: &Pod, to: SocketAddr, config: Arc<ServerConfig>) -> Outcome<Self> {
        let listener = listen(pod, HBONE)?;
        listener.set_nonblocking(true).during("a listener")?;
        let (asked, requests) = mpsc::channel();
        let (ended, ends) = mpsc::channel();
        let status = Arc::new(Mutex::new(200));
        let netns = pod.netns.clone();
        let behind = Behind { netns, to, status: Arc::clone(&status), asked, ended };
        let (end, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.during("a runtime")?;
        let thread = thread::spawn(move || {
            let serve = async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, config, behind) => {}
                    _ = stopped => {}
                }
            };
            LocalSet::new().block_on(&runtime, serve);
        });
        Ok(Self { asked: requests, ended: ends, status, end: Some(end), thread: Some(thread) })
    }

    /// The next CONNECT that arrived.
    pub(crate) fn asked(&self) -> Outcome<Request<()>> {
        self.asked.recv_timeout(PATIENCE).during("waiting for a CONNECT at the gateway")
    }

    /// Whether there is a CONNECT that nobody has looked at.
    pub(crate) fn was_asked(&self) -> bool {
        self.asked.try_recv().is_ok()
    }

    /// Waits until a client has ended its direction of a stream; whether by END_STREAM.
    pub(crate) fn ended_cleanly(&self) -> Outcome<bool> {
        self.ended.recv_timeout(PATIENCE).during("waiting for the end of a stream at the gateway")
    }

    /// Answers every CONNECT with this status from now on.
    pub(crate) fn answer(&self, status: u16) {
        *self.status.lock().expect("nobody panics with it") = status;
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, config: Arc<ServerConfig>, behind: Behind) {
    let acceptor = TlsAcceptor::from(config);
    let mut tunnels = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let (acceptor, behind) = (acceptor.clone(), behind.clone());
        tunnels.spawn_local(async move {
            let Ok(tls) = acceptor.accept(socket).await else { return };
            let Ok(mut tunnel) = h2::server::handshake(tls).await else { return };
            let mut streams = JoinSet::new();
            while let Some(Ok((request, respond))) = tunnel.accept().await {
                streams.spawn_local(carry(request, respond, behind.clone()));
            }
        });
    }
}

async fn carry(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    behind: Behind,
) -> Option<()> {
    let (head, from_client) = request.into_parts();
    let _ = behind.asked.send(Request::from_parts(head, ()));
    let status = *behind.status.lock().ok()?;
    let answer = Response::builder().status(status).body(()).ok()?;
    if status != 200 {
        respond.send_response(answer, true).ok()?;
        return Some(());
    }
    let far = behind.netns.run(|| std::net::TcpStream::connect_timeout(&behind.to, PATIENCE));
    let far = far.ok()?;
    far.set_nonblocking(true).ok()?;
    let (read, write) = TcpStream::from_std(far).ok()?.into_split();
    let to_client = respond.send_response(answer, false).ok()?;
    let inward = async {
        let _ = behind.ended.send(inward(from_client, write).await);
    };
    tokio::join!(inward, outward(read, to_client));
    Some(())
}

/// Whether it came to a clean end.
async fn inward(mut from: RecvStream, mut to: OwnedWriteHalf) -> bool {
    while let Some(bytes) = from.data().await {
        let Ok(bytes) = bytes else { return false };
        if to.write_all(&bytes).await.is_err() {
            return false;
        }
        let _ = from.flow_control().release_capacity(bytes.len());
    }
    true
}

async fn outward(mut from: OwnedReadHalf, mut to: SendStream<Bytes>) {
    let mut part = vec![0; PART];
    loop {
        let Ok(count) = from.read(&mut part).await else { return to.send_reset(Reason::CANCEL) };
        let mut left = Bytes::copy_from_slice(&part[..count]);
        while !left.is_empty() {
            to.reserve_capacity(left.len());
            let ready = std::future::poll_fn(|cx| to.poll_capacity(cx)).await;
            let Some(Ok(ready)) = ready else { return };
            let now = left.split_to(ready.min(left.len()));
            if to.send_data(now, false).is_err() {
                return;
            }
        }
        if count == 0 {
            let _ = to.send_data(Bytes::new(), true);
            return;
        }
    }
}
