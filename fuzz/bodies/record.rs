//! The record layer: records of any content, well sealed and not.

use adit::hbone::Role;
use adit::hbone::record::{Opened, Opener, record_len};

use super::parts::{Peer, Script, direction, other};

const APPLICATION_DATA: u8 = 23;
const HANDSHAKE: u8 = 22;

/// Application data comes out as it went in, until something is refused; what was not sealed
/// never comes out.
pub(super) fn run(input: &[u8]) {
    let mut script = Script(input);
    let role = if script.byte().is_multiple_of(2) { Role::Client } else { Role::Server };
    let state = direction(other(role));
    let mut opener = Opener::new(state, role).expect("the keys are good");
    let mut peer = Peer::new(other(role));
    while !script.is_over() {
        let (what, kind) = (script.byte(), script.byte());
        let mut wire = Vec::new();
        let len = if what & 1 == 0 { usize::from(script.byte()) } else { script.size() };
        let content = script.piece(len);
        if what & 0x80 == 0 {
            let kind = [APPLICATION_DATA, HANDSHAKE, 21, kind][usize::from(what >> 1 & 3)];
            peer.seal(content, kind, usize::from(what >> 3 & 7), &mut wire);
            // Zeros at the end are padding, whoever put them there.
            let inner = [content, &[kind]].concat();
            let end = inner.iter().rposition(|byte| *byte != 0);
            let inner = end.map(|end| (inner[end], &inner[..end]));
            let expected = inner.filter(|(kind, _)| *kind == APPLICATION_DATA);
            if !open(&mut opener, &mut wire, expected.map(|(_, content)| content)) {
                return;
            }
            // It took a key update for one: so does the peer.
            if opener.state().generation > peer.generation() {
                peer.update();
            }
        } else {
            wire.extend_from_slice(content);
            if !open(&mut opener, &mut wire, None) {
                return;
            }
        }
    }
}

/// Opens what is there; whether it goes on. Data must be `expected`.
fn open(opener: &mut Opener, wire: &mut [u8], expected: Option<&[u8]>) -> bool {
    match record_len(wire) {
        Ok(Some(len)) if len <= wire.len() => match opener.open(&mut wire[..len]) {
            Ok(Opened::Data(bytes)) => {
                assert_eq!(Some(bytes), expected, "what comes out is what was sealed");
                true
            }
            Ok(_) => {
                assert_eq!(expected, None, "application data does not vanish");
                true
            }
            Err(_) => false,
        },
        // The rest never comes.
        Ok(_) => true,
        Err(_) => false,
    }
}
