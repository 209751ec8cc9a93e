//! State as bytes, to go on with in another process of the same version.

use std::collections::VecDeque;
use std::fmt;

/// Why bytes are not the state of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResumeError {
    /// Another format: that of another version.
    Format,
    /// They end too early, go on too long, or say what no state says.
    Malformed,
    /// The record layer could not start.
    Record(super::record::RecordError),
}

/// What can be written to bytes and read back.
pub(super) trait Frozen: Sized {
    fn freeze(&self, out: &mut Vec<u8>);
    /// Reads from the front of `input` and steps over it.
    fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError>;

    /// Many in a row; bytes go faster.
    fn freeze_all(items: &[Self], out: &mut Vec<u8>) {
        items.iter().for_each(|item| item.freeze(out));
    }

    /// As many as are asked for. No space is made for what is not there.
    fn thaw_all(input: &mut &[u8], len: u32) -> Result<Vec<Self>, ResumeError> {
        (0..len).map(|_| Self::thaw(input)).collect()
    }
}

/// A structure whose fields follow one another. Each of them is named, so that none is forgotten.
macro_rules! frozen {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::hbone::frozen::Frozen for $name {
            fn freeze(&self, out: &mut Vec<u8>) {
                let Self { $($field),+ } = self;
                $($crate::hbone::frozen::Frozen::freeze($field, out);)+
            }

            fn thaw(input: &mut &[u8]) -> Result<Self, $crate::hbone::frozen::ResumeError> {
                $(let $field = $crate::hbone::frozen::Frozen::thaw(input)?;)+
                Ok(Self { $($field),+ })
            }
        }
    };
}
pub(super) use frozen;

/// The next `len` bytes.
pub(super) fn take<'a>(input: &mut &'a [u8], len: usize) -> Result<&'a [u8], ResumeError> {
    let (bytes, rest) = input.split_at_checked(len).ok_or(ResumeError::Malformed)?;
    *input = rest;
    Ok(bytes)
}

impl Frozen for u8 {
    fn freeze(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }

    fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError> {
        Ok(take(input, 1)?[0])
    }

    fn freeze_all(items: &[Self], out: &mut Vec<u8>) {
        out.extend_from_slice(items);
    }

    fn thaw_all(input: &mut &[u8], len: u32) -> Result<Vec<Self>, ResumeError> {
        Ok(take(input, len as usize)?.to_vec())
    }
}

macro_rules! numbers {
    ($($kind:ty),+) => {$(
        impl Frozen for $kind {
            fn freeze(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }

            fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError> {
                let (bytes, rest) = input.split_first_chunk().ok_or(ResumeError::Malformed)?;
                *input = rest;
                Ok(Self::from_be_bytes(*bytes))
            }
        }
    )+};
}
numbers!(u16, u32, u64, i32);

impl Frozen for bool {
    fn freeze(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError> {
        match u8::thaw(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(ResumeError::Malformed),
        }
    }
}

impl<const N: usize> Frozen for [u8; N] {
    fn freeze(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError> {
        let (bytes, rest) = input.split_first_chunk().ok_or(ResumeError::Malformed)?;
        *input = rest;
        Ok(*bytes)
    }
}

impl<T: Frozen> Frozen for Option<T> {
    fn freeze(&self, out: &mut Vec<u8>) {
        self.is_some().freeze(out);
        if let Some(value) = self {
            value.freeze(out);
        }
    }

    fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError> {
        bool::thaw(input)?.then(|| T::thaw(input)).transpose()
    }
}

impl<A: Frozen, B: Frozen> Frozen for (A, B) {
    fn freeze(&self, out: &mut Vec<u8>) {
        self.0.freeze(out);
        self.1.freeze(out);
    }

    fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError> {
        Ok((A::thaw(input)?, B::thaw(input)?))
    }
}

/// A list behind its length.
impl<T: Frozen> Frozen for Vec<T> {
    fn freeze(&self, out: &mut Vec<u8>) {
        freeze_list([self, &[]], out);
    }

    fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError> {
        let len = u32::thaw(input)?;
        T::thaw_all(input, len)
    }
}

impl<T: Frozen> Frozen for VecDeque<T> {
    fn freeze(&self, out: &mut Vec<u8>) {
        freeze_list(self.as_slices().into(), out);
    }

    fn thaw(input: &mut &[u8]) -> Result<Self, ResumeError> {
        Ok(Vec::thaw(input)?.into())
    }
}

fn freeze_list<T: Frozen>(parts: [&[T]; 2], out: &mut Vec<u8>) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    // Every list of a tunnel has a limit far below this.
    u32::try_from(len).unwrap_or(u32::MAX).freeze(out);
    parts.iter().for_each(|part| T::freeze_all(part, out));
}

impl fmt::Display for ResumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => f.write_str("the state of a tunnel has another format"),
            Self::Malformed => f.write_str("these bytes are not the state of a tunnel"),
            Self::Record(error) => write!(f, "the state of a tunnel: {error}"),
        }
    }
}

impl std::error::Error for ResumeError {}
