//! A path that takes its time: whoever comes to one port of a pod reaches another port of it, and
//! every byte is held on the way, in both directions.
//!
//! It ends TCP on both sides, so that what is measured through it is how far HTTP/2's windows
//! reach; the congestion control of the kernel sees no delay.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream as StdTcpStream};
use std::thread;
use std::time::{Duration, Instant};

use adit::cli::lab::PROXY_MARK;
use adit::sys::netns::Netns;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use crate::load::{self, CHUNK, connect, now};

/// Where it listens.
pub(crate) const PORT: u16 = 15_108;
/// How long a byte takes.
pub(crate) const ONE_WAY: Duration = Duration::from_millis(20);
/// What is held at once is bounded by so many pieces of this size: more than 20 Gb/s need.
const PIECE: usize = 64 * 1024;
const PIECES_MAX: usize = 1_024;

/// Takes bytes until the end and answers how they came.
pub(crate) const TIMELINE: u16 = 9004;
/// How finely.
const SLOT_MS: u64 = 20;
/// From which part of the rate of its second half on a flow has come to it, for so many slots.
const FULL_PERCENT: u64 = 90;
const FULL_SLOTS: usize = 4;

/// Starts it in a namespace, on the way to `to`, and a server that takes the time. Both end with
/// this process.
pub(crate) fn serve(netns: &Netns, to: SocketAddr) -> io::Result<()> {
    let bind = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
    let (listener, timeline) = netns.run(|| Ok((bind(PORT)?, bind(TIMELINE)?)))?;
    load::thread_each("timeline", timeline, time)?;
    let netns = netns.clone();
    let carry_all = move || load::task_each(listener, move |near| carry(near, to));
    thread::Builder::new()
        .name("delay".into())
        .spawn(move || netns.run(|| load::on_runtime(carry_all())))?;
    Ok(())
}

async fn carry(near: TcpStream, to: SocketAddr) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    // What a proxy opens is not captured.
    SockRef::from(&socket).set_mark(PROXY_MARK)?;
    let far = socket.connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::try_join!(pump(near_read, far_write), pump(far_read, near_write))?;
    Ok(())
}

/// One direction.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
    let (arrive, mut under_way) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let reading = async move {
        loop {
            let mut piece = vec![0; PIECE];
            let count = from.read(&mut piece).await?;
            piece.truncate(count);
            if count == 0 || arrive.send((now() + ONE_WAY, piece)).await.is_err() {
                return io::Result::Ok(());
            }
        }
    };
    let writing = async {
        while let Some((due, piece)) = under_way.recv().await {
            sleep_until(due.into()).await;
            to.write_all(&piece).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing).map(|_| ())
}

/// Answers bytes per second of the second half, and the ms from the first byte until that rate.
fn time(mut stream: StdTcpStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut slots = Vec::new();
    let mut begin = None;
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        let passed = now() - *begin.get_or_insert_with(now);
        let slot = usize::try_from(passed.as_millis() / u128::from(SLOT_MS)).unwrap_or(0);
        slots.resize(slots.len().max(slot + 1), 0_u64);
        slots[slot] += count as u64;
    }
    let second = &slots[slots.len() / 2..];
    let (bytes, count) = (second.iter().sum::<u64>(), second.len().max(1) as u64);
    let enough = bytes * FULL_SLOTS as u64 * FULL_PERCENT;
    let is_full = |slots: &[u64]| slots.iter().sum::<u64>() * count * 100 >= enough;
    let came = slots.windows(FULL_SLOTS).position(is_full).unwrap_or(slots.len());
    let rate = bytes * 1_000 / (count * SLOT_MS);
    let after = came as u64 * SLOT_MS;
    stream.write_all(&rate.to_be_bytes())?;
    stream.write_all(&after.to_be_bytes())
}

/// Sends over one connection for `duration`. Answers the bytes, those that came per second in the
/// second half, and how long they took to come at that rate.
pub(crate) fn timed(
    netns: &Netns,
    to: SocketAddr,
    duration: Duration,
) -> io::Result<(u64, f64, Duration)> {
    let mut stream = netns.run(|| connect(to))?;
    let (start, chunk) = (now(), vec![b'x'; CHUNK]);
    let mut sent = 0;
    while now() - start < duration {
        stream.write_all(&chunk)?;
        sent += CHUNK as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answer = [[0; 8]; 2];
    for part in &mut answer {
        stream.read_exact(part)?;
    }
    let [rate, after] = answer.map(u64::from_be_bytes);
    Ok((sent, rate as f64, Duration::from_millis(after)))
}
