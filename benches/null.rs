//! The null relay: the sockets and namespaces of a node proxy, and `splice` between them.

use std::io;
use std::net::{IpAddr, Shutdown};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::relay::{Captured, RelayPod, accept, ready};

/// Bytes that a pipe holds. What stays in the cache is faster than what does not.
const PIPE: usize = 256 * 1024;

/// Pipes that nobody uses now: an idle connection holds none.
type Pipes = Arc<Mutex<Vec<Pipe>>>;

/// An empty pipe.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// Serves until something breaks.
pub(crate) async fn serve(pods: Vec<Arc<RelayPod>>) -> io::Result<()> {
    let pipes = Pipes::default();
    let mut tasks = JoinSet::new();
    for pod in pods {
        let sockets = pod.listen()?;
        // Out of the pod the source is its own, in to it that of whoever opened the connection.
        // There are no tunnels, so nobody comes to the port for them.
        for (listener, inbound) in [(sockets.outbound, false), (sockets.plaintext, true)] {
            let (pod, pipes) = (Arc::clone(&pod), Arc::clone(&pipes));
            tasks.spawn(accept(listener, move |captured| {
                let source = inbound.then(|| captured.peer.ip());
                relay(Arc::clone(&pod), captured, source, Arc::clone(&pipes))
            }));
        }
    }
    ready()?;
    tasks.join_next().await.map_or(Ok(()), |ended| ended.map_err(io::Error::other)?)
}

async fn relay(
    pod: Arc<RelayPod>,
    captured: Captured,
    source: Option<IpAddr>,
    pipes: Pipes,
) -> io::Result<()> {
    let there = pod.dial(captured.to, source).await?;
    let here = &captured.stream;
    tokio::try_join!(one_way(here, &there, &pipes), one_way(&there, here, &pipes)).map(drop)
}

async fn one_way(from: &TcpStream, to: &TcpStream, pipes: &Pipes) -> io::Result<()> {
    loop {
        from.readable().await?;
        let pipe = take(pipes)?;
        let read = from.try_io(Interest::READABLE, || {
            Ok(splice(from, None, &pipe.write, None, PIPE, flags())?)
        });
        match read {
            Ok(0) => {
                give(pipes, pipe);
                return SockRef::from(to).shutdown(Shutdown::Write);
            }
            Ok(count) => {
                empty(&pipe, to, count).await?;
                give(pipes, pipe);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => give(pipes, pipe),
            Err(error) => return Err(error),
        }
    }
}

async fn empty(pipe: &Pipe, to: &TcpStream, mut count: usize) -> io::Result<()> {
    while count > 0 {
        let write = || Ok(splice(&pipe.read, None, to, None, count, flags())?);
        match to.try_io(Interest::WRITABLE, write) {
            Ok(written) => count -= written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn take(pipes: &Pipes) -> io::Result<Pipe> {
    if let Some(pipe) = pipes.lock().unwrap_or_else(PoisonError::into_inner).pop() {
        return Ok(pipe);
    }
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let size = i32::try_from(PIPE).map_err(io::Error::other)?;
    fcntl(&write, FcntlArg::F_SETPIPE_SZ(size))?;
    Ok(Pipe { read, write })
}

fn give(pipes: &Pipes, pipe: Pipe) {
    pipes.lock().unwrap_or_else(PoisonError::into_inner).push(pipe);
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}
