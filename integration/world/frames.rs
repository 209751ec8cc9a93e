//! HTTP/2 frames by hand, for what no library would send.

use tokio::io::AsyncReadExt;

use super::Outcome;
use super::peer::{Tls, within};

/// The connection preface and empty SETTINGS (RFC 9113 3.4).
pub(crate) const PREFACE: [u8; 33] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// An HTTP/2 frame (RFC 9113 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("frames are small").to_be_bytes();
    let mut frame = vec![len[1], len[2], len[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The HEADERS of a CONNECT.
pub(crate) fn connect(stream: u32, authority: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(authority))
}

/// The HEADERS of a CONNECT that goes on in CONTINUATION.
pub(crate) fn connect_begun(stream: u32, authority: &str) -> Vec<u8> {
    frame(HEADERS, 0, stream, &block(authority))
}

/// RST_STREAM with CANCEL.
pub(crate) fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL)
}

/// Reads frames until one of a kind; `None` if the connection ends before.
pub(crate) async fn until(stream: &mut Tls, kind: u8) -> Outcome<Option<Vec<u8>>> {
    within(async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.ok()?;
            let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; len];
            stream.read_exact(&mut payload).await.ok()?;
            if head[3] == kind {
                return Some(payload);
            }
        }
    })
    .await
}

/// A CONNECT in HPACK without any table: literals with indexed names.
fn block(authority: &str) -> Vec<u8> {
    let mut block = b"\x02\x07CONNECT\x01".to_vec();
    block.push(u8::try_from(authority.len()).expect("targets are short"));
    block.extend(authority.bytes());
    block
}
