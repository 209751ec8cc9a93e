//! A node agent written from the protocol's description alone (spec node-and-pods 1 to 3): a Unix
//! seqpacket socket and bytes, nothing of ours.

use std::fs;
use std::io::{IoSlice, Read};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Context, Outcome, PATIENCE, ensure};

/// Read buffer of both sides, bytes.
const BUFFER_BYTES: usize = 1024;
/// A proxy says that it speaks version 1.
const HELLO: &[u8] = b"\x08\x01";

/// The agent's socket.
pub(crate) struct RawAgent {
    listener: Socket,
}

/// One proxy's session.
pub(crate) struct RawSession {
    connection: Socket,
}

impl RawAgent {
    /// Listens at `path`, where a stale socket may be.
    pub(crate) fn listen(path: &Path) -> Outcome<Self> {
        let _ = fs::remove_file(path);
        let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None).during("a socket")?;
        listener.bind(&SockAddr::unix(path).during("a path")?).during("binding")?;
        listener.listen(5).during("listening")?;
        listener.set_read_timeout(Some(PATIENCE)).during("a time limit")?;
        Ok(Self { listener })
    }

    /// The next proxy, after its hello.
    pub(crate) fn accept(&self) -> Outcome<RawSession> {
        let (connection, _) = self.listener.accept().during("waiting for a proxy")?;
        connection.set_read_timeout(Some(PATIENCE)).during("a time limit")?;
        let session = RawSession { connection };
        let hello = session.receive()?;
        ensure!(hello == HELLO, "the hello is {hello:?}");
        Ok(session)
    }
}

impl RawSession {
    /// Sends a message and returns what the proxy says: `Err` with its text if it refuses.
    pub(crate) fn tell(
        &self,
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Outcome<Result<(), String>> {
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let parts = [IoSlice::new(message)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let fd = self.connection.as_raw_fd();
        sendmsg::<UnixAddr>(fd, &parts, control, flags, None).during("telling the proxy")?;
        let answer = self.receive()?;
        // WorkloadResponse { ack = 1 { error = 1 } }
        match answer.as_slice() {
            [0x0a, 0] => Ok(Ok(())),
            [0x0a, rest @ ..] => {
                let (_, ack) = length(rest)?;
                ensure!(ack.first() == Some(&0x0a), "the answer is {answer:?}");
                let (len, text) = length(&ack[1..])?;
                ensure!(text.len() == len, "the answer is {answer:?}");
                Ok(Err(String::from_utf8_lossy(text).into_owned()))
            }
            _ => Err(format!("the answer is {answer:?}")),
        }
    }

    /// Sends a message that must succeed.
    pub(crate) fn order(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> Outcome {
        self.tell(message, descriptors)?.during("the proxy refuses")
    }

    /// Waits until the proxy ends the session.
    pub(crate) fn ended(&self) -> Outcome {
        let got = self.receive()?;
        ensure!(got.is_empty(), "the proxy says {got:?} unasked");
        Ok(())
    }

    fn receive(&self) -> Outcome<Vec<u8>> {
        let mut buffer = [0; BUFFER_BYTES];
        let len = (&self.connection).read(&mut buffer).during("waiting for the proxy")?;
        Ok(buffer[..len].to_vec())
    }
}

/// WorkloadRequest { add = 1: AddWorkload { uid = 1, workload_info = 2 } }
pub(crate) fn add(uid: &str, name: &str, namespace: &str, account: &str) -> Vec<u8> {
    let info =
        [field(1, name.as_bytes()), field(2, namespace.as_bytes()), field(3, account.as_bytes())];
    field(1, &[field(1, uid.as_bytes()), field(2, &info.concat())].concat())
}

/// WorkloadRequest { del = 2: DelWorkload { uid = 2 } }
pub(crate) fn del(uid: &str) -> Vec<u8> {
    field(2, &field(2, uid.as_bytes()))
}

/// WorkloadRequest { snapshot_sent = 3 }
pub(crate) fn snapshot_sent() -> Vec<u8> {
    field(3, b"")
}

/// WorkloadRequest { keep = 5: KeepWorkload { uid = 1 } }
pub(crate) fn keep(uid: &str) -> Vec<u8> {
    field(5, &field(1, uid.as_bytes()))
}

/// A protobuf field of bytes, a string or a message.
pub(crate) fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut len = bytes.len();
    while len > 0x7f {
        field.push(u8::try_from(len & 0x7f).unwrap_or(0) | 0x80);
        len >>= 7;
    }
    field.push(u8::try_from(len).unwrap_or(0));
    field.extend(bytes);
    field
}

/// Reads a length of at most two bytes.
fn length(bytes: &[u8]) -> Outcome<(usize, &[u8])> {
    match bytes {
        [low, rest @ ..] if *low < 0x80 => Ok(((*low).into(), rest)),
        [low, high, rest @ ..] if *high < 0x80 => {
            Ok((usize::from(low & 0x7f) | usize::from(*high) << 7, rest))
        }
        _ => Err(format!("no length: {bytes:?}")),
    }
}
