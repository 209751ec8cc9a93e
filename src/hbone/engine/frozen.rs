//! A tunnel as bytes, and a tunnel from them.

use std::time::Instant;

use zeroize::Zeroizing;

use super::Engine;
use crate::hbone::frozen::{Frozen, ResumeError, take};
use crate::hbone::http2::Connection;
use crate::hbone::limits::{Debts, Limits};
use crate::hbone::record::{DIRECTION_MAX, Layer, Opener, Sealer};

/// What the bytes begin with; the last of it is the version of the format.
const FORMAT: &[u8] = b"adit tunnel 2";
/// What the record layer needs beside its two directions, at most.
const RECORD_REST: usize = 64;

impl Engine {
    /// The tunnel between two bytes, to be gone on with by [`Engine::resume`]: keys, streams,
    /// windows, bytes that are parked, cut records and what is sealed and unsent. `None` if it is
    /// over and has only its last words to say, or speaks TLS 1.2, whose keys rustls keeps: it is
    /// to be drained instead.
    ///
    /// The bytes hold the traffic secrets of both directions: whoever has them can read and forge
    /// what follows. This tunnel must say nothing more.
    pub fn freeze(&self, now: Instant) -> Option<Zeroizing<Vec<u8>>> {
        let Self { http, layer, partial, unsent: _, unsent_at: _, alert, finished } = self;
        let Layer::Tls13(sealer, opener) = layer else { return None };
        if alert.is_some() || *finished {
            return None;
        }
        let mut out = Zeroizing::new(FORMAT.to_vec());
        partial.freeze(&mut out);
        self.unsent().to_vec().freeze(&mut out);
        http.freeze(now, &mut out)?;
        // The secrets come last, where there is room: a vector that grows leaves its bytes behind.
        out.reserve(2 * DIRECTION_MAX + RECORD_REST);
        sealer.freeze(&mut out);
        opener.freeze(&mut out);
        Some(out)
    }

    /// The tunnel that [`Engine::freeze`] made `bytes` of, with the limits and the account of this
    /// process. What its streams owe is charged whether there is room or not.
    pub fn resume(
        bytes: &[u8],
        limits: Limits,
        debts: Debts,
        now: Instant,
    ) -> Result<Self, ResumeError> {
        let mut input = bytes;
        if take(&mut input, FORMAT.len()) != Ok(FORMAT) {
            return Err(ResumeError::Format);
        }
        let input = &mut input;
        let (partial, unsent) = (Vec::thaw(input)?, Vec::thaw(input)?);
        let http = Connection::thaw(input, limits, debts, now)?;
        let sealer = Sealer::thaw(input, limits.records_max)?;
        let opener = Opener::thaw(input, http.role())?;
        if !input.is_empty() {
            return Err(ResumeError::Malformed);
        }
        let (unsent_at, alert, finished) = (0, None, false);
        let layer = Layer::Tls13(sealer, opener);
        Ok(Self { http, layer, partial, unsent, unsent_at, alert, finished })
    }
}
