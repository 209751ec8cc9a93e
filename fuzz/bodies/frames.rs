//! Frames in a row, as each end reads them.

use adit::hbone::Role;
use adit::hbone::frame::{self, FRAME_LEN_DEFAULT, Frame, HEADER_LEN, Header};

/// What is read is written as it came.
pub(super) fn run(input: &[u8]) {
    for role in [Role::Client, Role::Server] {
        let mut rest = input;
        while let Some((head, after)) = rest.split_first_chunk::<HEADER_LEN>() {
            let header = Header::parse(*head);
            if header.check(FRAME_LEN_DEFAULT).is_err() || header.len as usize > after.len() {
                break;
            }
            let (payload, after) = after.split_at(header.len as usize);
            rest = after;
            let Ok(read) = frame::parse(header, payload, role) else { break };
            let again = match read {
                Frame::Ping(opaque) => frame::ping(opaque, false).to_vec(),
                Frame::PingAck(opaque) => frame::ping(opaque, true).to_vec(),
                Frame::RstStream(code) => frame::rst_stream(header.stream, code).to_vec(),
                Frame::WindowUpdate(by) => frame::window_update(header.stream, by).to_vec(),
                Frame::GoAway { last_stream, code, debug } => {
                    let mut out = Vec::new();
                    frame::goaway(last_stream, code, debug, &mut out);
                    out
                }
                _ => continue,
            };
            let (head, payload) = again.split_first_chunk::<HEADER_LEN>().expect("a frame");
            let written = Header::parse(*head);
            assert_eq!((written.kind, written.stream), (header.kind, header.stream));
            assert_eq!(frame::parse(written, payload, role), Ok(read));
        }
    }
}
