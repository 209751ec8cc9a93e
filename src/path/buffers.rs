//! Buffers that are borrowed only while bytes are in flight, so that an idle connection holds none.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::pipes::Pipes;
use crate::hbone::record::RECORD_MAX;

/// A small buffer: enough for a request, cheap to clear out of the cache.
const SMALL: usize = 16 * 1024;
/// A large buffer: the batch that still fits the second-level cache, sixteen records at their
/// longest and the beginning of another one.
const LARGE: usize = 17 * RECORD_MAX;
/// Free buffers a worker keeps of each size; the rest goes back to the allocator.
const KEPT_SMALL_MAX: usize = 64;
const KEPT_LARGE_MAX: usize = 16;

/// One worker's store of free buffers.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    small: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
    pipes: Rc<Pipes>,
}

/// A borrowed buffer; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Buffer {
    data: Option<Box<[u8]>>,
    home: Rc<Buffers>,
}

/// How large a buffer one direction of one connection asks for next.
#[derive(Debug, Default)]
pub(super) struct Appetite {
    large: Cell<bool>,
}

impl Buffers {
    pub(super) fn borrow(self: &Rc<Self>, appetite: &Appetite) -> Buffer {
        let (free, size) =
            if appetite.large.get() { (&self.large, LARGE) } else { (&self.small, SMALL) };
        let free = free.borrow_mut().pop();
        let data = free.unwrap_or_else(|| vec![0; size].into_boxed_slice());
        Buffer { data: Some(data), home: Rc::clone(self) }
    }

    /// The store of what carries bytes without a buffer.
    pub(super) fn pipes(&self) -> &Rc<Pipes> {
        &self.pipes
    }

    /// A batch, for as long as one turn takes. The one that was used last is the one that is still
    /// in the cache; only a tunnel inside of another one needs a second one at the same time.
    pub(super) fn batch(self: &Rc<Self>) -> Buffer {
        self.borrow(&Appetite { large: Cell::new(true) })
    }

    fn give_back(&self, data: Box<[u8]>) {
        let (free, kept_max) = if data.len() == LARGE {
            (&self.large, KEPT_LARGE_MAX)
        } else {
            (&self.small, KEPT_SMALL_MAX)
        };
        let mut free = free.borrow_mut();
        if free.len() < kept_max {
            free.push(data);
        }
    }
}

impl Appetite {
    /// Whether reads are of the larger size.
    pub(super) fn is_large(&self) -> bool {
        self.large.get()
    }

    /// The largest read this appetite asks for.
    pub(super) fn size(&self) -> usize {
        if self.large.get() { LARGE } else { SMALL }
    }

    /// A read that fills the `offered` bytes asks for more of them, a small one for few.
    pub(super) fn learn(&self, count: usize, offered: usize) {
        if count < SMALL / 4 {
            self.large.set(false);
        } else if count >= offered {
            self.large.set(true);
        }
    }
}

impl Buffer {
    pub(super) fn as_slice(&self) -> &[u8] {
        self.data.as_deref().unwrap_or_default()
    }

    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        self.data.as_deref_mut().unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(data) = self.data.take() {
            self.home.give_back(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_buffer_is_used_again_and_the_store_is_bounded() {
        let buffers = Rc::new(Buffers::default());
        let appetite = Appetite::default();
        let first = buffers.borrow(&appetite);
        let address = first.as_slice().as_ptr();
        assert_eq!(first.as_slice().len(), SMALL);
        drop(first);
        assert_eq!(buffers.borrow(&appetite).as_slice().as_ptr(), address);
        let many: Vec<_> = (0..KEPT_SMALL_MAX + 5).map(|_| buffers.borrow(&appetite)).collect();
        drop(many);
        assert_eq!(buffers.small.borrow().len(), KEPT_SMALL_MAX);
    }

    #[test]
    fn appetite_follows_what_is_read() {
        let appetite = Appetite::default();
        assert_eq!(appetite.size(), SMALL);
        appetite.learn(SMALL - 10, SMALL);
        assert_eq!(appetite.size(), SMALL);
        // Headers may have taken their share of a buffer.
        appetite.learn(SMALL - 9, SMALL - 9);
        assert_eq!(appetite.size(), LARGE);
        appetite.learn(SMALL / 2, LARGE);
        assert_eq!(appetite.size(), LARGE);
        appetite.learn(100, LARGE);
        assert_eq!(appetite.size(), SMALL);
        appetite.learn(100, 100);
        assert_eq!(appetite.size(), SMALL);
    }
}
