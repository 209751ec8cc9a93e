//! Connections of applications, and waiting for things to happen.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use adit::cli::lab::Pod;
use adit::sys::clock::Clock;
use adit::sys::socket;

use super::{Context, Outcome, PATIENCE, ensure};

/// Waits until something is so.
pub(crate) fn until(what: &str, is_so: impl Fn() -> Outcome<bool>) -> Outcome {
    let clock = Clock::system();
    let begin = clock.monotonic();
    while !is_so()? {
        let late = clock.monotonic().duration_since(begin) > PATIENCE;
        ensure!(!late, "not after {PATIENCE:?}: {what}");
        thread::yield_now();
    }
    Ok(())
}

/// A listener in a pod, for a test that wants to be the application itself.
pub(crate) fn listen(pod: &Pod, port: u16) -> Outcome<TcpListener> {
    let any = if pod.ipv6.is_some() { "[::]" } else { "0.0.0.0" };
    pod.netns.run(|| TcpListener::bind(format!("{any}:{port}"))).during("listening in a pod")
}

/// Accepts one connection on a thread.
pub(crate) fn accept_one(listener: &TcpListener) -> Outcome<JoinHandle<io::Result<TcpStream>>> {
    let listener = listener.try_clone().during("sharing a listener")?;
    Ok(thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }))
}

/// Opens a connection from a pod, with time limits on everything.
pub(crate) fn connect(pod: &Pod, to: SocketAddr) -> Outcome<TcpStream> {
    let stream = pod.connect(to, PATIENCE).during(&format!("connecting to {to}"))?;
    stream.set_read_timeout(Some(PATIENCE)).during("setting a time limit")?;
    stream.set_write_timeout(Some(PATIENCE)).during("setting a time limit")?;
    Ok(stream)
}

/// How the other side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// FIN.
    Finished,
    /// RST.
    Reset,
}

/// Reads to the end: the bytes, and how it ended.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> Outcome<(Vec<u8>, End)> {
    let mut bytes = Vec::new();
    let mut part = [0; 64 * 1024];
    loop {
        match stream.read(&mut part) {
            Ok(0) => return Ok((bytes, End::Finished)),
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                return Ok((bytes, End::Reset));
            }
            Err(error) => return Err(format!("reading to the end: {error}")),
        }
    }
}

/// Opens a connection that must be reset without a byte.
pub(crate) fn refused(pod: &Pod, to: SocketAddr) -> Outcome {
    let mut stream = match pod.connect(to, PATIENCE) {
        Ok(stream) => stream,
        // The refusal was faster than the end of the connect.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
        Err(error) => return Err(format!("connecting to {to}: {error}")),
    };
    stream.set_read_timeout(Some(PATIENCE)).during("setting a time limit")?;
    let seen = read_to_end(&mut stream)?;
    ensure!(seen == (Vec::new(), End::Reset), "a refused connection saw {seen:?}");
    Ok(())
}

/// Closes a connection by a reset.
pub(crate) fn reset(stream: TcpStream) -> Outcome {
    socket::reset_on_close(&stream).during("preparing a reset")?;
    drop(stream);
    Ok(())
}

/// Sends a line and expects it back.
pub(crate) fn echo(stream: &mut TcpStream, line: &str) -> Outcome {
    stream.write_all(line.as_bytes()).during("sending")?;
    let mut back = vec![0; line.len()];
    stream.read_exact(&mut back).during("reading the echo")?;
    ensure!(back == line.as_bytes(), "the echo of {line:?} is {back:?}");
    Ok(())
}

/// Sends a line, ends, and expects it back and the end.
pub(crate) fn echo_and_end(mut stream: TcpStream, line: &str) -> Outcome {
    stream.write_all(line.as_bytes()).during("sending")?;
    stream.shutdown(Shutdown::Write).during("ending")?;
    let (back, end) = read_to_end(&mut stream)?;
    ensure!(back == line.as_bytes() && end == End::Finished, "got {back:?}, then {end:?}");
    Ok(())
}
