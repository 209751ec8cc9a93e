//! Pipes for splicing, borrowed only while bytes are in them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::sys::pipe::Pipe;

/// Free pipes a worker keeps.
const KEPT_MAX: usize = 16;
/// Pipes of one worker that may be in use: beyond that bytes are copied. Each takes two
/// descriptors.
const USED_MAX: usize = 256;

/// One worker's store of empty pipes.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    free: RefCell<Vec<Pipe>>,
    used: Cell<usize>,
}

/// A borrowed pipe. Dropping it gives it back if it is empty, and closes it if bytes of a
/// connection are left in it: nobody else may ever see them.
#[derive(Debug)]
pub(super) struct Borrowed {
    pipe: Option<Pipe>,
    home: Rc<Pipes>,
}

impl Pipes {
    /// An empty pipe; `None` if there are no more to be had.
    pub(super) fn borrow(self: &Rc<Self>) -> Option<Borrowed> {
        if self.used.get() >= USED_MAX {
            return None;
        }
        let free = self.free.borrow_mut().pop();
        let pipe = match free {
            Some(pipe) => pipe,
            None => Pipe::new().ok()?,
        };
        self.used.set(self.used.get() + 1);
        Some(Borrowed { pipe: Some(pipe), home: Rc::clone(self) })
    }
}

impl std::ops::Deref for Borrowed {
    type Target = Pipe;

    fn deref(&self) -> &Pipe {
        self.pipe.as_ref().expect("it is there until it is dropped")
    }
}

impl std::ops::DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut Pipe {
        self.pipe.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.home.used.set(self.home.used.get() - 1);
        let Some(pipe) = self.pipe.take().filter(|pipe| pipe.filled() == 0) else { return };
        let mut free = self.home.free.borrow_mut();
        if free.len() < KEPT_MAX {
            free.push(pipe);
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
    fn pipes_are_used_again_and_bounded() {
        let pipes = Rc::new(Pipes::default());
        drop(pipes.borrow().unwrap());
        assert_eq!(pipes.free.borrow().len(), 1);
        let all: Vec<Borrowed> = (0..USED_MAX).map_while(|_| pipes.borrow()).collect();
        assert!(pipes.borrow().is_none());
        drop(all);
        assert_eq!((pipes.free.borrow().len(), pipes.used.get()), (KEPT_MAX, 0));
    }

    /// A hundred thousand connections that are cut at any point.
    #[test]
    fn no_byte_of_one_connection_is_seen_by_another() {
        let pipes = Rc::new(Pipes::default());
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut seen = [0; 4_096];
        for number in 0..100_000_u32 {
            let own = number.to_be_bytes();
            let ((mut near, inside), (out, mut far)) = (pair(), pair());
            near.write_all(&own.repeat(rng.usize(1..500))).unwrap();
            let mut pipe = pipes.borrow().unwrap();
            // It is cut before anything came, after something came, or after something left.
            let cut = rng.u8(..3);
            if cut > 0 {
                pipe.fill(&inside).unwrap();
            }
            if cut > 1 {
                pipe.drain(&out).unwrap();
            }
            drop(pipe);
            drop(out);
            let got = far.read(&mut seen).unwrap();
            assert!(seen[..got].chunks(4).all(|bytes| bytes == own), "connection {number}");
        }
    }
}
