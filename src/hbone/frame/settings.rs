//! The entries of a SETTINGS frame (RFC 9113 6.5, RFC 8441).

use super::{ErrorCode, FRAME_LEN_DEFAULT, FRAME_LEN_MAX, Fault, Malformed, WINDOW_MAX};
use crate::hbone::Role;

/// Length of an entry in bytes.
const ENTRY_LEN: usize = 6;

/// What an entry sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Most bytes of the dynamic table of whoever encodes towards the sender; first 4,096.
    HeaderTableSize,
    /// Whether the sender takes pushes; first 1.
    EnablePush,
    /// Most streams that the sender lets the receiver have open; first no limit.
    MaxConcurrentStreams,
    /// First window of streams towards the sender, in bytes; first 65,535.
    InitialWindowSize,
    /// Longest payload that the sender takes, in bytes; first 16,384.
    MaxFrameSize,
    /// Advice: most bytes of a list of fields that the sender takes, 32 per field included.
    MaxHeaderListSize,
    /// Whether the sender takes extended CONNECT; first 0.
    EnableConnectProtocol,
    /// One that we do not know; ignored.
    Unknown(u16),
}

/// The entries of a SETTINGS frame in their order; each value is legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    /// Checks the values in the payload of a SETTINGS frame that came to `role`.
    pub(super) fn parse(payload: &'a [u8], role: Role) -> Result<Self, Malformed> {
        if !payload.len().is_multiple_of(ENTRY_LEN) {
            return Err(Malformed::connection(Fault::Length, ErrorCode::FrameSizeError));
        }
        let entries = Self(payload);
        for (setting, value) in entries {
            check(setting, value, role)?;
        }
        Ok(entries)
    }

    /// How many entries are left.
    pub fn len(&self) -> usize {
        self.0.len() / ENTRY_LEN
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Iterator for Entries<'_> {
    type Item = (Setting, u32);

    fn next(&mut self) -> Option<(Setting, u32)> {
        let (&[id0, id1, value @ ..], rest) = self.0.split_first_chunk::<ENTRY_LEN>()?;
        self.0 = rest;
        Some((Setting::from(u16::from_be_bytes([id0, id1])), u32::from_be_bytes(value)))
    }
}

impl From<u16> for Setting {
    fn from(id: u16) -> Self {
        match id {
            1 => Self::HeaderTableSize,
            2 => Self::EnablePush,
            3 => Self::MaxConcurrentStreams,
            4 => Self::InitialWindowSize,
            5 => Self::MaxFrameSize,
            6 => Self::MaxHeaderListSize,
            8 => Self::EnableConnectProtocol,
            id => Self::Unknown(id),
        }
    }
}

impl From<Setting> for u16 {
    fn from(setting: Setting) -> Self {
        match setting {
            Setting::HeaderTableSize => 1,
            Setting::EnablePush => 2,
            Setting::MaxConcurrentStreams => 3,
            Setting::InitialWindowSize => 4,
            Setting::MaxFrameSize => 5,
            Setting::MaxHeaderListSize => 6,
            Setting::EnableConnectProtocol => 8,
            Setting::Unknown(id) => id,
        }
    }
}

fn check(setting: Setting, value: u32, role: Role) -> Result<(), Malformed> {
    let protocol = |fault| Err(Malformed::connection(fault, ErrorCode::ProtocolError));
    match setting {
        Setting::EnablePush if value > 1 || (value == 1 && role == Role::Client) => {
            protocol(Fault::EnablePush)
        }
        Setting::InitialWindowSize if value > WINDOW_MAX => {
            Err(Malformed::connection(Fault::InitialWindowSize, ErrorCode::FlowControlError))
        }
        Setting::MaxFrameSize if !(FRAME_LEN_DEFAULT..=FRAME_LEN_MAX).contains(&value) => {
            protocol(Fault::MaxFrameSize)
        }
        Setting::EnableConnectProtocol if value > 1 => protocol(Fault::EnableConnectProtocol),
        _ => Ok(()),
    }
}
