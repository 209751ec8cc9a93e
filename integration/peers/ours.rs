//! Our side of TLS, over a socket that blocks.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;

use adit::hbone::handshake::{Handshake, KeySlot, Keys};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use crate::world::{Context, Outcome, ensure};

pub(crate) fn client(config: &ClientConfig, to: IpAddr) -> Outcome<Handshake> {
    let mut config = config.clone();
    config.key_log = Arc::new(KeySlot);
    config.enable_secret_extraction = true;
    let name = ServerName::IpAddress(to.into());
    Handshake::client(Arc::new(config), name).during("a handshake")
}

pub(crate) fn server(config: &ServerConfig) -> Outcome<Handshake> {
    let mut config = config.clone();
    config.key_log = Arc::new(KeySlot);
    config.enable_secret_extraction = true;
    Handshake::server(Arc::new(config)).during("a handshake")
}

/// Brings a handshake to its end.
pub(crate) fn shake(socket: &mut TcpStream, mut handshake: Handshake) -> Outcome<Keys> {
    socket.set_nodelay(true).during("no delay")?;
    let (mut out, mut buffer) = (Vec::new(), vec![0; 16 * 1024]);
    let mut done = handshake.feed(&[], &mut out).during("the handshake")?;
    loop {
        socket.write_all(&out).during("sending")?;
        out.clear();
        if done {
            return handshake.finish().during("the keys");
        }
        let count = socket.read(&mut buffer).during("reading")?;
        ensure!(count > 0, "the peer has hung up");
        done = handshake.feed(&buffer[..count], &mut out).during("the handshake")?;
    }
}
