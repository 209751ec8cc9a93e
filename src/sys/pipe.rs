//! Pipes that carry bytes from socket to socket inside the kernel (splice(2)).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::unistd::pipe2;

/// What a pipe is made to hold, bytes. A smaller one is not used: pages of a socket are seldom
/// full, and each takes a whole place.
pub const PIPE_BYTES: usize = 1 << 20;

/// A pipe, and what is in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    filled: usize,
}

impl Pipe {
    /// An empty pipe. Errors: no descriptors, or the kernel gives this user none of this size.
    pub fn new() -> io::Result<Self> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        let asked = i32::try_from(PIPE_BYTES).map_err(io::Error::other)?;
        let size = fcntl(&write, FcntlArg::F_SETPIPE_SZ(asked))?;
        if size < asked {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Self { read, write, filled: 0 })
    }

    /// Bytes that are in it.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Moves what a socket has into the empty pipe, as much as fits; 0 at the socket's end.
    ///
    /// The pipe must be empty, so that `WouldBlock` can only mean that the socket has nothing: of a
    /// pipe that is full, with as little as a byte in each of its places, the kernel says the same.
    pub fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        if self.filled > 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.filled = again(|| splice(&from, None, &self.write, None, PIPE_BYTES, flags()))?;
        Ok(self.filled)
    }

    /// Moves what is in the pipe on to a socket, as much as that takes.
    pub fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        let count = again(|| splice(&self.read, None, &to, None, self.filled, flags()))?;
        if count == 0 && self.filled > 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.filled -= count;
        Ok(count)
    }
}

/// Without SPLICE_F_MORE: the kernel would hold back the last bytes for more that may never come.
fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

fn again(mut call: impl FnMut() -> nix::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        for stream in [&near, &far] {
            stream.set_nonblocking(true).unwrap();
        }
        (near, far)
    }

    #[test]
    fn bytes_pass_and_an_end_is_told() {
        let ((mut near, inside), (out, mut far)) = (pair(), pair());
        let mut pipe = Pipe::new().unwrap();
        assert_eq!(pipe.fill(&inside).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        near.write_all(b"hello").unwrap();
        assert_eq!((pipe.fill(&inside).unwrap(), pipe.filled()), (5, 5));
        assert_eq!(pipe.fill(&inside).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!((pipe.drain(&out).unwrap(), pipe.filled()), (5, 0));
        let mut got = [0; 5];
        far.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        drop(near);
        assert_eq!(pipe.fill(&inside).unwrap(), 0);
    }

    #[test]
    fn what_the_other_side_does_not_take_stays() {
        let ((mut near, inside), (out, mut far)) = (pair(), pair());
        let mut pipe = Pipe::new().unwrap();
        let (mut sent, mut got, mut buffer) = (0_usize, 0, vec![0; 100_000]);
        while sent < 3_000_000 || got < sent {
            if sent < 3_000_000 {
                sent += near.write(&vec![7; 50_000]).unwrap_or(0);
            }
            if pipe.filled() == 0 {
                let _ = pipe.fill(&inside);
            }
            match pipe.drain(&out) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            got += far.read(&mut buffer).unwrap_or(0);
        }
        assert_eq!(got, sent);
    }
}
