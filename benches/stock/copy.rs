//! Between a socket and a stream of a tunnel.

use std::future::poll_fn;
use std::io;

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// How much to read at a time after so many bytes: the ladder of spec hbone 4.
const READS: [(u64, usize); 3] =
    [(10 * 1024 * 1024, 256 * 1024 - 64), (128 * 1024, 16 * 1024 - 64), (0, 1024)];

/// Copies until both directions are over, or one is broken.
pub(super) async fn both(
    mut stream: TcpStream,
    send: SendStream<Bytes>,
    receive: RecvStream,
) -> io::Result<()> {
    let (read, write) = stream.split();
    tokio::try_join!(to_tunnel(read, send), from_tunnel(receive, write)).map(drop)
}

async fn to_tunnel(read: ReadHalf<'_>, mut send: SendStream<Bytes>) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    let mut total = 0_u64;
    loop {
        read.readable().await?;
        let size = READS.iter().find(|(from, _)| total >= *from).map_or(1024, |&(_, size)| size);
        buffer.reserve(size);
        match read.try_read_buf(&mut buffer) {
            Ok(0) => return send.send_data(Bytes::new(), true).map_err(io::Error::other),
            Ok(count) => total += count as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        let mut chunk = buffer.split().freeze();
        while !chunk.is_empty() {
            send.reserve_capacity(chunk.len());
            let Some(room) = poll_fn(|context| send.poll_capacity(context)).await else {
                return Err(io::ErrorKind::BrokenPipe.into());
            };
            let room = room.map_err(io::Error::other)?.min(chunk.len());
            send.send_data(chunk.split_to(room), false).map_err(io::Error::other)?;
        }
    }
}

async fn from_tunnel(mut receive: RecvStream, mut write: WriteHalf<'_>) -> io::Result<()> {
    while let Some(chunk) = receive.data().await {
        let chunk = chunk.map_err(io::Error::other)?;
        // As users have it: credit is returned when the frame is taken, not when it is written.
        receive.flow_control().release_capacity(chunk.len()).map_err(io::Error::other)?;
        write.write_all(&chunk).await?;
    }
    write.shutdown().await
}
