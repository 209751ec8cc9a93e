//! The `hyper` crate on either end of a tunnel, as its documentation has one write it: CONNECT and
//! an upgrade. It is a process of its own, made of this binary, so that it is started, watched and
//! told to leave as the others are.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use adit::sys::socket;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::version::TLS13;
use rustls_pki_types::ServerName;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Mutex, watch};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::world::peer::{self, Pki, on_runtime};
use crate::world::{Context, Outcome};

/// What this binary is told to be one end; the arguments follow.
pub(crate) const SERVER: &str = "--hyper-server";
pub(crate) const CLIENT: &str = "--hyper-client";

/// One end, if the command line asks for it: `--hyper-server DIR IDENTITY PORT APPLICATION` or
/// `--hyper-client DIR IDENTITY PORT HOST APPLICATION`, `DIR` being that of the world's authority.
pub(crate) fn main() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (what, rest) = arguments.split_first()?;
    let ended = match (what.as_str(), rest) {
        (SERVER, [dir, identity, port, application]) => on_runtime(async {
            let (port, application) = (number(port)?, number(application)?);
            serve(Path::new(dir), identity, port, application).await
        }),
        (CLIENT, [dir, identity, port, host, application]) => on_runtime(async {
            let host: Ipv4Addr = host.parse().during("an address")?;
            let to = (host, number(application)?).into();
            ask(Path::new(dir), identity, number(port)?, to).await
        }),
        _ => return None,
    };
    if let Err(error) = &ended {
        println!("{error}");
    }
    Some(if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn number(text: &str) -> Outcome<u16> {
    text.parse().during("a port")
}

/// Answers CONNECT with a connection to a port on loopback. SIGUSR2 makes it say GOAWAY on every
/// connection and serve what is open.
async fn serve(dir: &Path, identity: &str, port: u16, application: u16) -> Outcome {
    let pki = Pki::of(dir)?;
    let tls = TlsAcceptor::from(pki.server(pki.issue(&[identity])?)?);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.during("listening")?;
    let mut leave = signal(SignalKind::user_defined2()).during("a signal")?;
    let (leaving, left) = watch::channel(());
    println!("serving");
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted.during("accepting")?.0,
            _ = leave.recv() => {
                leaving.send_replace(());
                continue;
            }
        };
        let (tls, left) = (tls.clone(), left.clone());
        in_background(async move { carry_streams(socket, tls, left, application).await });
    }
}

async fn carry_streams(
    socket: TcpStream,
    tls: TlsAcceptor,
    mut left: watch::Receiver<()>,
    application: u16,
) -> Outcome {
    left.mark_unchanged();
    let tls = tls.accept(socket).await.during("the handshake")?;
    let service = service_fn(move |request| answer(request, application));
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(tls), service));
    tokio::select! {
        ended = connection.as_mut() => return ended.during("a connection"),
        _ = left.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await.during("a connection that leaves")
}

async fn answer(
    mut request: Request<Incoming>,
    application: u16,
) -> io::Result<Response<Empty<Bytes>>> {
    let mut response = Response::new(Empty::new());
    if request.method() == Method::CONNECT {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, application)).await?;
        let upgrade = hyper::upgrade::on(&mut request);
        in_background(carry(upgrade, socket));
    } else {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    }
    Ok(response)
}

/// Makes a CONNECT of every connection to a port on loopback.
async fn ask(dir: &Path, identity: &str, port: u16, to: SocketAddr) -> Outcome {
    let shown = Pki::of(dir)?.issue(&[identity])?;
    let tls = TlsConnector::from(peer::tls(Some(&shown), &["h2"], &TLS13)?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.during("listening")?;
    let tunnel = Arc::new(Mutex::new(None));
    println!("serving");
    loop {
        let (socket, _) = listener.accept().await.during("accepting")?;
        let (tls, tunnel) = (tls.clone(), Arc::clone(&tunnel));
        in_background(async move {
            let mut sender = through(&tunnel, &tls, to).await?;
            let request =
                Request::connect(to.to_string()).body(Empty::new()).during("a CONNECT")?;
            let answer = sender.send_request(request).await.during("asking")?;
            if answer.status() != StatusCode::OK {
                socket::reset_on_close(&socket).during("a reset")?;
                return Err(format!("answered {}", answer.status()));
            }
            carry(hyper::upgrade::on(answer), socket).await
        });
    }
}

type Asking = SendRequest<Empty<Bytes>>;

/// The tunnel there is, or a new one.
async fn through(
    tunnel: &Mutex<Option<Asking>>,
    tls: &TlsConnector,
    to: SocketAddr,
) -> Outcome<Asking> {
    let mut tunnel = tunnel.lock().await;
    if let Some(sender) = tunnel.as_ref().filter(|sender| !sender.is_closed()) {
        return Ok(sender.clone());
    }
    let socket = TcpStream::connect((to.ip(), super::place::HBONE)).await.during("connecting")?;
    let tls = tls.connect(ServerName::IpAddress(to.ip().into()), socket).await;
    let io = TokioIo::new(tls.during("the handshake")?);
    let opened = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (sender, connection) = opened.during("HTTP/2")?;
    in_background(async move { connection.await.during("a connection") });
    *tunnel = Some(sender.clone());
    Ok(sender)
}

/// Until both directions have ended, or one of the two is broken.
async fn carry(upgrade: OnUpgrade, mut socket: TcpStream) -> Outcome {
    socket.set_nodelay(true).during("no delay")?;
    let mut stream = TokioIo::new(upgrade.await.during("the upgrade")?);
    let carried = copy_bidirectional(&mut stream, &mut socket).await;
    if carried.is_err() {
        socket::reset_on_close(&socket).during("a reset")?;
    }
    carried.map(|_| ()).during("a stream")
}

/// What goes wrong there is told in the log.
fn in_background(work: impl Future<Output = Outcome> + Send + 'static) {
    TokioExecutor::new().execute(async move {
        if let Err(error) = work.await {
            println!("{error}");
        }
    });
}
