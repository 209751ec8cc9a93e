//! What really went over a wire: frames, put together into TCP streams.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sys::netns::Netns;
use crate::sys::packet::PacketSocket;

/// All that a capture keeps, bytes; what comes later is counted as lost.
const BYTES_MAX: usize = 32 << 20;
/// A frame is never longer: links of namespaces carry up to 64 KiB at once.
const FRAME_BYTES_MAX: usize = 80 * 1024;
/// How long the capturing thread may take to notice that it is to stop.
const GLANCE: Duration = Duration::from_millis(20);
/// Quiet on the wire for this long means that nothing is on its way any more.
const QUIET: Duration = Duration::from_millis(20);
/// Longest TLS record, with its header (RFC 8446 5.2).
const RECORD_BYTES_MAX: usize = 5 + 16_384 + 256;

/// A capture that is going on.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Captured>>>,
}

/// The TCP segments that were on a wire.
#[derive(Debug, Default)]
pub struct Captured {
    /// Frames of any kind that were seen.
    pub frames: u64,
    /// Frames that could not be kept.
    pub lost: u64,
    segments: Vec<Segment>,
    bytes: usize,
}

/// One direction of one TCP connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Who sent it.
    pub from: SocketAddr,
    /// To whom.
    pub to: SocketAddr,
    /// Its bytes from the first one captured to the first one missing.
    pub bytes: Vec<u8>,
    /// Its beginning was captured and none of its bytes are missing.
    pub whole: bool,
}

/// The records that a stream consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Records of the handshake, in the clear (types 20 to 22).
    pub handshake: usize,
    /// Encrypted records (type 23).
    pub encrypted: usize,
    /// Bytes at the end that belong to a record that is not there in full.
    pub rest: usize,
}

#[derive(Debug)]
struct Segment {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    opens: bool,
    payload: Vec<u8>,
}

impl Capture {
    /// Starts to capture on a link of a namespace.
    pub fn start(netns: &Netns, link: &str) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, started) = mpsc::channel();
        let (netns, link, stopped) = (netns.clone(), link.to_owned(), Arc::clone(&stop));
        let run = move || {
            let socket = netns.enter().and_then(|()| PacketSocket::open(&link));
            match socket {
                Ok(socket) => {
                    let _ = ready.send(Ok(()));
                    record(&socket, &stopped)
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    Ok(Captured::default())
                }
            }
        };
        let thread = thread::Builder::new().name("capture".into()).spawn(run)?;
        started.recv().map_err(|_| io::Error::other("the capture died"))??;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends the capture once the wire is quiet.
    pub fn finish(mut self) -> io::Result<Captured> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or(io::ErrorKind::NotFound)?;
        thread.join().map_err(|_| io::Error::other("the capture died"))?
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Captured {
    /// Whether these bytes were anywhere in a segment or in a stream.
    pub fn contains(&self, needle: &[u8]) -> bool {
        let within = |bytes: &[u8]| {
            !needle.is_empty() && bytes.windows(needle.len()).any(|window| window == needle)
        };
        self.segments.iter().any(|segment| within(&segment.payload))
            || self.streams().iter().any(|stream| within(&stream.bytes))
    }

    /// All TCP streams, both directions of each connection apart.
    pub fn streams(&self) -> Vec<Stream> {
        let mut flows: BTreeMap<(SocketAddr, SocketAddr), Vec<&Segment>> = BTreeMap::new();
        for segment in &self.segments {
            flows.entry((segment.from, segment.to)).or_default().push(segment);
        }
        flows.into_iter().map(|((from, to), segments)| assemble(from, to, &segments)).collect()
    }

    /// Bytes of TCP payload, repetitions included.
    pub fn payload_bytes(&self) -> usize {
        self.bytes
    }

    fn take(&mut self, frame: &[u8]) {
        self.frames += 1;
        let Some(segment) = parse(frame) else { return };
        if self.bytes + segment.payload.len() > BYTES_MAX || frame.len() >= FRAME_BYTES_MAX {
            self.lost += 1;
            return;
        }
        self.bytes += segment.payload.len();
        self.segments.push(segment);
    }
}

impl Stream {
    /// The TLS records that it consists of; `None` if it is something else.
    pub fn records(&self) -> Option<Records> {
        let mut records = Records::default();
        let mut rest = &self.bytes[..];
        while let [kind, major, minor, high, low, after @ ..] = rest {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            if *major != 3 || *minor > 4 || len == 0 || len + 5 > RECORD_BYTES_MAX {
                return None;
            }
            match kind {
                20..=22 => records.handshake += 1,
                23 => records.encrypted += 1,
                _ => return None,
            }
            let Some(next) = after.get(len..) else { break };
            rest = next;
        }
        records.rest = rest.len();
        Some(records)
    }
}

fn record(socket: &PacketSocket, stop: &AtomicBool) -> io::Result<Captured> {
    let mut captured = Captured::default();
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    loop {
        let patience = if stop.load(Ordering::Relaxed) { QUIET } else { GLANCE };
        match socket.receive(&mut buffer, patience)? {
            Some(len) => captured.take(&buffer[..len]),
            None if stop.load(Ordering::Relaxed) => return Ok(captured),
            None => {}
        }
    }
}

/// The TCP segment in an Ethernet frame, if there is one.
fn parse(frame: &[u8]) -> Option<Segment> {
    let packet = frame.get(14..)?;
    let (source, destination, tcp) = match u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?) {
        0x0800 => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let total = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
            let address = |at: usize| {
                Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?))
            };
            // Frames are padded to 60 bytes: the packet ends where it says.
            let tcp = (*packet.get(9)? == 6).then(|| packet.get(header..total))??;
            (IpAddr::V4(address(12)?), IpAddr::V4(address(16)?), tcp)
        }
        0x86dd => {
            let total = 40 + usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
            let address = |at: usize| {
                Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?))
            };
            let tcp = (*packet.get(6)? == 6).then(|| packet.get(40..total))??;
            (IpAddr::V6(address(8)?), IpAddr::V6(address(24)?), tcp)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
    let offset = usize::from(tcp.get(12)? >> 4) * 4;
    Some(Segment {
        from: SocketAddr::new(source, port(0)?),
        to: SocketAddr::new(destination, port(2)?),
        sequence: u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?),
        opens: tcp.get(13)? & 0x02 != 0,
        payload: tcp.get(offset..)?.to_vec(),
    })
}

/// Puts segments in order, whatever order and however often they came.
fn assemble(from: SocketAddr, to: SocketAddr, segments: &[&Segment]) -> Stream {
    let opening = segments.iter().find(|segment| segment.opens);
    let first = opening.or_else(|| segments.first()).map_or(0, |segment| segment.sequence);
    let first = if opening.is_some() { first.wrapping_add(1) } else { first };
    // Distances from the first byte: streams of a capture are far shorter than 2 GiB.
    let mut pieces: Vec<(u32, &[u8])> = segments
        .iter()
        .filter(|segment| !segment.payload.is_empty())
        .map(|segment| (segment.sequence.wrapping_sub(first), &segment.payload[..]))
        .filter(|(at, _)| *at < 1 << 31)
        .collect();
    pieces.sort_by_key(|(at, _)| *at);
    let mut bytes = Vec::new();
    let mut whole = opening.is_some();
    for (at, piece) in pieces {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if at > bytes.len() {
            whole = false;
            break;
        }
        bytes.extend_from_slice(piece.get(bytes.len() - at..).unwrap_or_default());
    }
    Stream { from, to, bytes, whole }
}

#[cfg(test)]
mod tests;
