//! Applications and their clients: bulk bytes, requests, and connections that only wait.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use adit::sys::netns::Netns;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::PATIENCE;

/// Takes bytes until the end and answers how many there were.
pub(crate) const SINK: u16 = 9000;
/// Answers each request.
pub(crate) const ANSWER: u16 = 9001;
/// Answers one request and closes.
pub(crate) const ANSWER_ONCE: u16 = 9002;

/// Takes a connection and never reads from it.
pub(crate) const STALL: u16 = 9003;
/// Connections that wait to be accepted, so that a burst of them is not taken for a flood.
const STALLED_BACKLOG: i32 = 4_096;
/// What the kernel keeps for who never reads; twice that is charged.
const STALLED_BUFFER: usize = 4 * 1024;
/// Bulk that nobody takes for this long does not move any more.
const STUCK: Duration = Duration::from_secs(4);
/// Nobody takes any more if nobody has for this long.
const QUIET: Duration = Duration::from_millis(200);

/// Tells those who hold connections to let them go.
static LET_GO: LazyLock<watch::Sender<()>> = LazyLock::new(Default::default);

/// About what a GET of `wrk` has.
pub(crate) const REQUEST: [u8; 96] = [b'q'; 96];
/// About what a short answer with headers has.
const ANSWER_BYTES: [u8; 256] = [b'a'; 256];
/// What a bulk sender hands to the kernel, and a sink takes from it, at a time.
pub(crate) const CHUNK: usize = 256 * 1024;

/// Monotonic time.
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Starts the applications in a namespace. They end with this process.
pub(crate) fn serve(netns: &Netns) -> io::Result<()> {
    let bind = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    let (sink, answered, once) =
        netns.run(|| Ok((bind(SINK)?, bind(ANSWER)?, bind(ANSWER_ONCE)?)))?;
    let stalled = netns.run(|| bind(STALL))?;
    SockRef::from(&stalled).set_recv_buffer_size(STALLED_BUFFER)?;
    SockRef::from(&stalled).listen(STALLED_BACKLOG)?;
    thread_each("sink", sink, drain)?;
    thread::Builder::new().name("answer".into()).spawn(move || {
        on_runtime(async move {
            let mut tasks = JoinSet::new();
            tasks.spawn(task_each(answered, |stream| answer(stream, false)));
            tasks.spawn(task_each(once, |stream| answer(stream, true)));
            tasks.spawn(task_each(stalled, hold));
            tasks.join_next().await;
            Ok(())
        })
    })?;
    Ok(())
}

/// Accepts for ever, and gives each connection to a thread of its own.
pub(crate) fn thread_each(
    name: &str,
    listener: TcpListener,
    serve: fn(TcpStream) -> io::Result<()>,
) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    })?;
    Ok(())
}

/// Accepts for ever, and gives each connection to a task of its own.
pub(crate) async fn task_each<F>(
    listener: TcpListener,
    serve: impl Fn(tokio::net::TcpStream) -> F,
) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = tasks.join_next(), if !tasks.is_empty() => {}
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                tasks.spawn(serve(stream));
            }
        }
    }
}

/// Holds a connection without reading from it until it is reset, or is to be let go.
async fn hold(stream: tokio::net::TcpStream) -> io::Result<()> {
    let mut let_go = LET_GO.subscribe();
    tokio::select! {
        _ = stream.ready(Interest::ERROR) => Ok(()),
        _ = let_go.changed() => SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
    }
}

/// Resets all connections that are held. A relay that was left by a client does not always say so
/// to the server, and what was sent to that would stay in the kernel.
pub(crate) fn let_go() {
    LET_GO.send_modify(|()| ());
}

fn drain(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut total = 0_u64;
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&total.to_be_bytes()),
            count => total += count as u64,
        }
    }
}

async fn answer(mut stream: tokio::net::TcpStream, once: bool) -> io::Result<()> {
    let mut request = [0; REQUEST.len()];
    stream.set_nodelay(true)?;
    while stream.read_exact(&mut request).await.is_ok() {
        stream.write_all(&ANSWER_BYTES).await?;
        if once {
            break;
        }
    }
    Ok(())
}

/// Sends from `netns` over `flows` connections for `duration`. Answers the bytes that arrived,
/// and the time until the last of them had.
pub(crate) fn bulk(
    netns: &Netns,
    to: SocketAddr,
    flows: usize,
    duration: Duration,
) -> io::Result<(u64, Duration)> {
    let streams: Vec<TcpStream> =
        netns.run(|| (0..flows).map(|_| connect(to)).collect::<io::Result<_>>())?;
    let start = now();
    let send = |mut stream: TcpStream| -> io::Result<u64> {
        stream.set_write_timeout(Some(STUCK))?;
        let chunk = vec![b'x'; CHUNK];
        let mut sent = 0;
        while now() - start < duration {
            stream.write_all(&chunk)?;
            sent += CHUNK as u64;
        }
        stream.shutdown(Shutdown::Write)?;
        let mut count = [0; 8];
        stream.read_exact(&mut count)?;
        let arrived = u64::from_be_bytes(count);
        if arrived == sent { Ok(arrived) } else { Err(lost(sent, arrived)) }
    };
    let total: io::Result<u64> = thread::scope(|scope| {
        let threads: Vec<_> =
            streams.into_iter().map(|stream| scope.spawn(move || send(stream))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(panicked()))).sum()
    });
    total.map(|total| (total, now() - start))
}

/// One request after the other on one connection. Answers the time of each.
pub(crate) fn requests(
    netns: &Netns,
    to: SocketAddr,
    duration: Duration,
) -> io::Result<Vec<Duration>> {
    netns.run(|| {
        let mut stream = connect(to)?;
        stream.set_nodelay(true)?;
        let mut answer = [0; ANSWER_BYTES.len()];
        let mut times = Vec::new();
        let end = now() + duration;
        loop {
            let start = now();
            if start > end {
                return Ok(times);
            }
            stream.write_all(&REQUEST)?;
            stream.read_exact(&mut answer)?;
            times.push(now() - start);
        }
    })
}

/// A request every `pause` on one connection, or as soon as the one before was answered. Answers
/// the time of each.
pub(crate) fn paced(
    netns: &Netns,
    to: SocketAddr,
    pause: Duration,
    duration: Duration,
) -> io::Result<Vec<Duration>> {
    netns.run(|| {
        on_runtime(async {
            let mut stream = tokio::net::TcpStream::connect(to).await?;
            stream.set_nodelay(true)?;
            let mut due = tokio::time::interval(pause);
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let (mut times, end) = (Vec::new(), now() + duration);
            while now() < end {
                due.tick().await;
                let start = now();
                exchange(&mut stream).await?;
                times.push(now() - start);
            }
            Ok(times)
        })
    })
}

/// Opens connections whose server never reads, and sends so much on each, or what is taken of it:
/// more than a stream and its server keep, but not so much that the kernel runs out of room for all
/// others. They are reset when they are dropped.
pub(crate) fn stall(
    netns: &Netns,
    to: SocketAddr,
    (count, bytes): (usize, usize),
) -> io::Result<Vec<TcpStream>> {
    let mut streams: Vec<TcpStream> =
        netns.run(|| (0..count).map(|_| connect(to)).collect::<io::Result<_>>())?;
    let mut left = vec![bytes; count];
    for stream in &streams {
        stream.set_nonblocking(true)?;
        SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
    }
    let chunk = vec![b'x'; CHUNK];
    let mut quiet_since = now();
    while now() - quiet_since < QUIET {
        for (stream, left) in streams.iter_mut().zip(&mut left).filter(|(_, left)| **left > 0) {
            match stream.write(&chunk[..chunk.len().min(*left)]) {
                Ok(count) => {
                    *left -= count;
                    quiet_since = now();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        thread::yield_now();
    }
    Ok(streams)
}

/// One request after the other on each of `connections`. Answers how many were answered.
pub(crate) fn parallel_requests(
    netns: &Netns,
    to: SocketAddr,
    connections: usize,
    duration: Duration,
) -> io::Result<(u64, Duration)> {
    netns.run(|| {
        on_runtime(async {
            let mut streams = Vec::new();
            for _ in 0..connections {
                let stream = tokio::net::TcpStream::connect(to).await?;
                stream.set_nodelay(true)?;
                streams.push(stream);
            }
            let start = now();
            let mut tasks = JoinSet::new();
            for mut stream in streams {
                tasks.spawn(async move {
                    let mut count = 0_u64;
                    while now() - start < duration {
                        exchange(&mut stream).await?;
                        count += 1;
                    }
                    io::Result::Ok(count)
                });
            }
            sum(tasks, start).await
        })
    })
}

/// A new connection for each request, `parallel` at a time, at most `count_max` in all.
pub(crate) fn new_connections(
    netns: &Netns,
    to: SocketAddr,
    (parallel, count_max): (usize, u64),
    duration: Duration,
) -> io::Result<(u64, Duration)> {
    netns.run(|| {
        on_runtime(async {
            let start = now();
            let mut tasks = JoinSet::new();
            for _ in 0..parallel {
                tasks.spawn(async move {
                    let mut count = 0_u64;
                    while now() - start < duration && count < count_max / parallel as u64 {
                        let mut stream = tokio::net::TcpStream::connect(to).await?;
                        stream.set_nodelay(true)?;
                        exchange(&mut stream).await?;
                        if stream.read(&mut [0]).await? != 0 {
                            return Err(io::ErrorKind::InvalidData.into());
                        }
                        count += 1;
                    }
                    io::Result::Ok(count)
                });
            }
            sum(tasks, start).await
        })
    })
}

/// Opens connections until `streams` has `count`, each with one request answered.
pub(crate) fn idle(
    netns: &Netns,
    to: SocketAddr,
    streams: &mut Vec<TcpStream>,
    count: usize,
) -> io::Result<()> {
    netns.run(|| {
        while streams.len() < count {
            let mut stream = connect(to)?;
            stream.write_all(&REQUEST)?;
            stream.read_exact(&mut [0; ANSWER_BYTES.len()])?;
            streams.push(stream);
        }
        Ok(())
    })
}

async fn exchange(stream: &mut tokio::net::TcpStream) -> io::Result<()> {
    stream.write_all(&REQUEST).await?;
    stream.read_exact(&mut [0; ANSWER_BYTES.len()]).await?;
    Ok(())
}

async fn sum(mut tasks: JoinSet<io::Result<u64>>, start: Instant) -> io::Result<(u64, Duration)> {
    let mut total = 0;
    while let Some(count) = tasks.join_next().await {
        total += count.map_err(|_| panicked())??;
    }
    Ok((total, now() - start))
}

pub(crate) fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

pub(crate) fn on_runtime<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work)
}

fn lost(sent: u64, arrived: u64) -> io::Error {
    io::Error::other(format!("{sent} bytes were sent and {arrived} arrived"))
}

fn panicked() -> io::Error {
    io::Error::other("a client panicked")
}
