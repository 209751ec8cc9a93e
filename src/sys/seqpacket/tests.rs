use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

use super::*;

/// A folder of the test's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("adit-seqpacket-{}-{:x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("agent.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

async fn pair() -> (Connection, Connection) {
    let folder = Folder::new();
    let listener = Listener::bind(&folder.socket()).unwrap();
    let client = Connection::connect(&folder.socket()).unwrap();
    (client, listener.accept().await.unwrap())
}

/// Sends `count` descriptors in one packet, which our own `send` never does.
fn send_many(from: &Connection, bytes: &[u8], file: &File, count: usize) {
    let fds = vec![file.as_raw_fd(); count];
    let socket = from.socket.get_ref().as_raw_fd();
    let rights = [ControlMessage::ScmRights(&fds)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket, &[IoSlice::new(bytes)], &rights, flags, None).unwrap();
}

#[tokio::test]
async fn packets_stay_apart_in_both_directions() {
    let (client, agent) = pair().await;
    client.send(b"hello", None).await.unwrap();
    client.send(b"again", None).await.unwrap();
    agent.send(b"ack", None).await.unwrap();
    let mut buf = [0; 64];
    for expected in [b"hello", b"again"] {
        let packet = agent.recv(&mut buf).await.unwrap();
        assert_eq!(&buf[..packet.len], expected);
        assert!(!packet.truncated && packet.fds.is_empty() && !packet.is_end());
    }
    assert_eq!(client.recv(&mut buf).await.unwrap().len, 3);
}

#[tokio::test]
async fn a_receiver_waits_for_its_packet() {
    let (client, agent) = pair().await;
    let mut buf = [0; 8];
    let (received, sent) = tokio::join!(agent.recv(&mut buf), client.send(b"late", None));
    sent.unwrap();
    assert_eq!(received.unwrap().len, 4);
}

#[tokio::test]
async fn a_descriptor_arrives_alive_and_closes_on_exec() {
    let (client, agent) = pair().await;
    let (mut reader, writer) = io::pipe().unwrap();
    client.send(b"add", Some(writer.as_fd())).await.unwrap();
    drop(writer);
    let mut packet = agent.recv(&mut [0; 8]).await.unwrap();
    assert!(!packet.truncated);
    let fd = packet.fds.pop().unwrap();
    assert!(packet.fds.is_empty());
    let flags = FdFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFD).unwrap());
    assert!(flags.contains(FdFlag::FD_CLOEXEC));
    let mut file = File::from(fd);
    file.write_all(b"x").unwrap();
    drop(file);
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut text = String::new();
    // Comes to an end only if the writing end exists nowhere any more.
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "x");
}

#[tokio::test]
async fn what_does_not_fit_is_reported_and_not_leaked() {
    // (bytes sent, descriptors sent, buffer) -> (bytes, descriptors, truncated)
    let cases = [
        ((4, 1, 4), (4, 1, false)),
        ((5, 1, 4), (4, 1, true)),
        ((1024, 0, 1024), (1024, 0, false)),
        ((1025, 0, 1024), (1024, 0, true)),
        ((1, FDS_PER_PACKET_MAX, 4), (1, FDS_PER_PACKET_MAX, false)),
        ((1, FDS_PER_PACKET_MAX + 1, 4), (1, FDS_PER_PACKET_MAX, true)),
        ((1, 253, 4), (1, FDS_PER_PACKET_MAX, true)),
        ((5, 253, 4), (4, FDS_PER_PACKET_MAX, true)),
    ];
    for ((bytes, fds, room), expected) in cases {
        let (client, agent) = pair().await;
        let (mut reader, writer) = io::pipe().unwrap();
        let writer = File::from(OwnedFd::from(writer));
        if fds == 0 {
            client.send(&vec![7; bytes], None).await.unwrap();
        } else {
            send_many(&client, &vec![7; bytes], &writer, fds);
        }
        drop(writer);
        let packet = agent.recv(&mut vec![0; room]).await.unwrap();
        assert_eq!((packet.len, packet.fds.len(), packet.truncated), expected);
        drop(packet);
        fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        // With a leaked copy of the writing end this would be no end but `WouldBlock`.
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    }
}

#[tokio::test]
async fn the_end_of_the_other_side_is_seen() {
    let (client, agent) = pair().await;
    client.send(b"bye", None).await.unwrap();
    drop(client);
    let mut buf = [0; 8];
    assert!(!agent.recv(&mut buf).await.unwrap().is_end());
    assert!(agent.recv(&mut buf).await.unwrap().is_end());
    let error = agent.send(b"ack", None).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_packet_too_large_is_an_error_and_the_connection_goes_on() {
    let (client, agent) = pair().await;
    let error = client.send(&vec![0; 64 << 20], None).await.unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    client.send(b"ok", None).await.unwrap();
    assert_eq!(agent.recv(&mut [0; 8]).await.unwrap().len, 2);
}

#[tokio::test]
async fn a_full_backlog_is_an_error_at_once() {
    let folder = Folder::new();
    let listener = Listener::bind(&folder.socket()).unwrap();
    let mut waiting = Vec::new();
    let error = loop {
        match Connection::connect(&folder.socket()) {
            Ok(connection) => waiting.push(connection),
            Err(error) => break error,
        }
        assert!(waiting.len() < 1000, "the backlog has no end");
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    let _accepted = listener.accept().await.unwrap();
    Connection::connect(&folder.socket()).unwrap();
}

#[tokio::test]
async fn only_a_stale_socket_is_replaced() {
    let folder = Folder::new();
    let path = folder.socket();
    let missing = Connection::connect(&path).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    drop(Listener::bind(&path).unwrap());
    let stale = Connection::connect(&path).unwrap_err();
    assert_eq!(stale.kind(), io::ErrorKind::ConnectionRefused);
    let listener = Listener::bind(&path).unwrap();
    let client = Connection::connect(&path).unwrap();
    client.send(b"hi", None).await.unwrap();
    assert_eq!(listener.accept().await.unwrap().recv(&mut [0; 8]).await.unwrap().len, 2);

    fs::remove_file(&path).unwrap();
    fs::write(&path, "precious").unwrap();
    let refused = Listener::bind(&path).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    let link = folder.0.join("link.sock");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(Listener::bind(&link).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn a_path_too_long_is_an_error() {
    let path = Path::new("/tmp").join("x".repeat(200));
    assert!(Connection::connect(&path).is_err());
    assert!(Listener::bind(&path).is_err());
}
