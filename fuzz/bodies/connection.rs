//! A peer's bytes behind TLS, in any pieces.

use std::rc::Rc;

use adit::hbone::Role;
use adit::hbone::error::Error;
use adit::hbone::http2::{Connection, Event};
use adit::hbone::limits::Debts;

use super::parts::{LIMITS, Ledger, now};

/// It says the same however the bytes are split.
pub(super) fn run(role: Role, input: &[u8]) {
    let whole = told(role, input, usize::MAX);
    for split in [1, 10] {
        assert_eq!(told(role, input, split), whole, "{role:?} in pieces of {split}: {input:x?}");
    }
}

/// What one end makes of bytes that come in pieces of `split`: events, the bytes of streams joined,
/// and how it ended.
fn told(role: Role, input: &[u8], split: usize) -> (Vec<String>, Option<Error>) {
    let (now, ledger) = (now(), Rc::new(Ledger::default()));
    let debts: Debts = Rc::<Ledger>::clone(&ledger);
    let mut end = Connection::new(role, LIMITS, debts, now);
    if role == Role::Client {
        for _ in 0..2 {
            end.open("a:1", [], now).expect("there is room");
        }
    }
    let mut events = Vec::new();
    let mut last_data = None;
    let mut error = None;
    let mut read = |end: &mut Connection, piece: &[u8]| -> Result<(), Error> {
        let mut plain = piece;
        while let Some(event) = end.read(&mut plain, now)? {
            if let Event::Data { stream, bytes } = event {
                if last_data != Some(stream) {
                    events.push(format!("data {stream}"));
                }
                last_data = Some(stream);
                events.extend(bytes.iter().map(|byte| format!("{byte:x}")));
                end.taken(stream, bytes.len(), now);
                continue;
            }
            last_data = None;
            events.push(format!("{event:?}"));
            if let Event::Request { stream, .. } = event {
                end.respond(stream, 200, [], false);
            }
        }
        Ok(())
    };
    for piece in input.chunks(split.min(input.len().max(1))) {
        if let Err(found) = read(&mut end, piece) {
            error = Some(found);
            break;
        }
    }
    let mut out = vec![0; 1 << 16];
    while end.wants_write() {
        assert!(end.write(&mut out) > 0, "what is to be written fits an empty batch");
    }
    drop(end);
    assert_eq!(ledger.0.get(), 0, "no debt is left behind");
    (events, error)
}
