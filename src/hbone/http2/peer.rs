//! What the peer has said about itself, and how both ends leave.

use super::{Connection, Error, Violation};
use crate::hbone::frame::{Entries, FRAME_LEN_DEFAULT, Setting, WINDOW_DEFAULT, WINDOW_MAX};
use crate::hbone::limits::Limits;

/// The peer's SETTINGS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) initial_window: u32,
    pub(super) frame_max: u32,
    pub(super) streams_max: u32,
    /// Longest field section it takes, as RFC 9113 6.5.2 counts.
    pub(super) header_list_max: u32,
}

/// Who is leaving, and which streams are still served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Going {
    /// We have said that we will leave.
    pub(super) announced: bool,
    /// The last stream of the peer that we serve, once it is decided.
    pub(super) last: Option<u32>,
    /// The last stream of ours that the peer serves, once it has said so.
    pub(super) peer_last: Option<u32>,
}

impl Peer {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            initial_window: WINDOW_DEFAULT,
            frame_max: FRAME_LEN_DEFAULT,
            streams_max: limits.streams_max,
            header_list_max: u32::MAX,
        }
    }
}

impl Going {
    pub(super) fn announce(&mut self) {
        self.announced = true;
    }

    pub(super) fn finish(&mut self, last: u32) {
        self.announced = true;
        self.last = Some(last);
    }

    pub(super) fn has_begun(&self) -> bool {
        self.announced
    }

    pub(super) fn is_final(&self) -> bool {
        self.last.is_some()
    }

    pub(super) fn peer_is_leaving(&self) -> bool {
        self.peer_last.is_some()
    }

    /// Whether a stream of the peer came after we had said which one is the last.
    pub(super) fn ignores(&self, id: u32) -> bool {
        self.last.is_some_and(|last| id > last) && id % 2 == 1
    }
}

impl Connection {
    /// Takes over the peer's SETTINGS, in their order.
    pub(super) fn follow(&mut self, entries: Entries<'_>) -> Result<(), Error> {
        for (setting, value) in entries {
            match setting {
                Setting::InitialWindowSize => self.resize_windows(value)?,
                Setting::MaxFrameSize => self.peer.frame_max = value,
                Setting::MaxConcurrentStreams => self.peer.streams_max = value,
                Setting::MaxHeaderListSize => self.peer.header_list_max = value,
                // Our encoder has no table, we push nothing and open no extended CONNECT.
                Setting::HeaderTableSize
                | Setting::EnablePush
                | Setting::EnableConnectProtocol
                | Setting::Unknown(_) => {}
            }
        }
        Ok(())
    }

    /// RFC 9113 6.9.2: the change applies to every stream, and may leave its window below zero.
    fn resize_windows(&mut self, initial: u32) -> Result<(), Error> {
        let change = i64::from(initial) - i64::from(self.peer.initial_window);
        self.peer.initial_window = initial;
        let mut opened = Vec::new();
        for stream in self.streams.iter_mut() {
            let window = i64::from(stream.send_window) + change;
            if window > i64::from(WINDOW_MAX) {
                return Err(Violation::WindowOverflow.into());
            }
            // Both parts have 32 bits and the sum is not above 2^31-1; below it saturates.
            stream.send_window = i32::try_from(window).unwrap_or(i32::MIN);
            if stream.mark.window_blocked && stream.send_window > 0 {
                opened.push(stream.id);
            }
        }
        opened.into_iter().for_each(|id| self.unblock(id));
        Ok(())
    }
}
