//! Small applications that run in pods.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream as AsyncTcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::mesh::Pod;
use crate::sys::clock::Clock;

/// Bytes moved at once by those that only move bytes.
const CHUNK: usize = 128 * 1024;
/// Connections that wait to be accepted. Where a queue is full the kernel turns to SYN cookies, and
/// resets connections that it takes for forged under load.
const BACKLOG: i32 = 1024;
/// Without progress, a transfer is given up after this.
const STALLED: Duration = Duration::from_secs(10);

/// What an application does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Sends back what it gets, then ends when the client ends.
    Echo,
    /// Sends the client's address as it sees it, on a line, then is an echo.
    Peer,
    /// Takes everything; at the client's end, sends how many bytes that were, on a line.
    Sink,
    /// Reads how many bytes are wanted, on a line, and sends that many.
    Source,
}

/// A server in a pod. It ends, and all its connections with it, when this is dropped.
#[derive(Debug)]
pub struct App {
    port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl App {
    /// Starts a server on all addresses of a pod. Port 0 is any port.
    pub fn start(pod: &Pod, port: u16, service: Service) -> io::Result<Self> {
        let netns = pod.netns.clone();
        let any = match pod.ipv6 {
            Some(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            None => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        };
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let run = move || {
            let listening = netns.enter().and_then(|()| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let listener = runtime.block_on(TcpListener::bind(any))?;
                SockRef::from(&listener).listen(BACKLOG)?;
                let port = listener.local_addr()?.port();
                Ok((runtime, listener, port))
            });
            let (runtime, listener) = match listening {
                Ok((runtime, listener, port)) => {
                    let _ = ready.send(Ok(port));
                    (runtime, listener)
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = serve(listener, service) => {}
                }
            });
        };
        let thread = thread::Builder::new().name("app".into()).spawn(run)?;
        let port = started.recv().map_err(|_| io::Error::other("the application died"))??;
        Ok(Self { port, stop: Some(stop), thread: Some(thread) })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for App {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It can only have panicked, which has been reported by then.
            let _ = thread.join();
        }
    }
}

/// Sends `bytes` to a [`Service::Sink`] and returns bytes per second, measured until it confirms
/// that it has them all.
pub fn measure_upload(pod: &Pod, to: SocketAddr, bytes: u64, clock: &Clock) -> io::Result<f64> {
    let mut stream = pod.connect(to, STALLED)?;
    stream.set_write_timeout(Some(STALLED))?;
    stream.set_read_timeout(Some(STALLED))?;
    let chunk = vec![0x5a; CHUNK];
    let begin = clock.monotonic();
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        stream.write_all(&chunk[..now])?;
        left -= now as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let seconds = clock.monotonic().duration_since(begin).as_secs_f64();
    if answer.trim().parse() == Ok(bytes) {
        #[expect(clippy::cast_precision_loss, reason = "a rate, not a count")]
        return Ok(bytes as f64 / seconds.max(1e-9));
    }
    Err(io::Error::other(format!("{bytes} bytes sent, the other side counted {}", answer.trim())))
}

/// Sends a line to an [`Service::Echo`] and returns the line that came back.
pub fn ask(stream: &mut TcpStream, line: &str, patience: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(line.as_bytes())?;
    let mut back = vec![0; line.len()];
    stream.read_exact(&mut back)?;
    String::from_utf8(back).map_err(|_| io::ErrorKind::InvalidData.into())
}

async fn serve(listener: TcpListener, service: Service) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(attend(stream, peer, service));
                }
                // Out of descriptors: those that end make room.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Errors of a connection end it and are the client's to notice.
async fn attend(mut stream: AsyncTcpStream, peer: SocketAddr, service: Service) {
    let _ = match service {
        Service::Echo => echo(&mut stream).await,
        Service::Peer => {
            let seen = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            match stream.write_all(format!("{seen}\n").as_bytes()).await {
                Ok(()) => echo(&mut stream).await,
                Err(error) => Err(error),
            }
        }
        Service::Sink => sink(&mut stream).await,
        Service::Source => source(&mut stream).await,
    };
}

async fn echo(stream: &mut AsyncTcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}

async fn sink(stream: &mut AsyncTcpStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut count = 0_u64;
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            len => count += len as u64,
        }
    }
    stream.write_all(format!("{count}\n").as_bytes()).await?;
    stream.shutdown().await
}

async fn source(stream: &mut AsyncTcpStream) -> io::Result<()> {
    /// Digits of a number of bytes.
    const LINE_BYTES_MAX: usize = 20;
    let mut line = String::new();
    while line.len() < LINE_BYTES_MAX {
        match stream.read_u8().await? {
            b'\n' => break,
            byte => line.push(char::from(byte)),
        }
    }
    let mut left: u64 =
        line.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    let chunk = vec![0x5a; CHUNK];
    while left > 0 {
        let now = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        stream.write_all(&chunk[..now]).await?;
        left -= now as u64;
    }
    stream.shutdown().await
}
