use super::*;

fn open_with_window(initial: u32) -> Fixture {
    let mut fixture = Fixture::greeted(Role::Server);
    fixture.feed(&frame(SETTINGS, NONE, 0, &setting(4, initial)), usize::MAX).unwrap();
    fixture.feed(&connect(1), usize::MAX).unwrap();
    fixture.written();
    fixture
}

#[test]
fn we_send_no_more_than_the_windows_let_us() {
    let mut fixture = open_with_window(1_000);
    let room = |fixture: &mut Fixture| fixture.connection.room(1, false);
    assert_eq!(room(&mut fixture), Room::Bytes(1_000));
    fixture.connection.sent(1, 1_000);
    assert_eq!(room(&mut fixture), Room::Wait);
    assert_eq!(fixture.connection.next_turn(), None);
    // Less than nothing, and back.
    fixture.feed(&frame(SETTINGS, NONE, 0, &setting(4, 500)), usize::MAX).unwrap();
    fixture.feed(&frame(WINDOW, NONE, 1, &500_u32.to_be_bytes()), usize::MAX).unwrap();
    assert_eq!((room(&mut fixture), fixture.connection.next_turn()), (Room::Wait, None));
    fixture.feed(&frame(WINDOW, NONE, 1, &1_u32.to_be_bytes()), usize::MAX).unwrap();
    assert_eq!(fixture.connection.next_turn(), Some(1));
    assert_eq!(room(&mut fixture), Room::Bytes(1));
    // More by SETTINGS: that is a turn as well.
    fixture.connection.sent(1, 1);
    assert_eq!(room(&mut fixture), Room::Wait);
    fixture.feed(&frame(SETTINGS, NONE, 0, &setting(4, 600)), usize::MAX).unwrap();
    assert_eq!(fixture.connection.next_turn(), Some(1));
    assert_eq!(room(&mut fixture), Room::Bytes(100));
}

#[test]
fn the_window_of_the_connection_holds_for_all() {
    let mut fixture = open_with_window(1 << 20);
    fixture.feed(&connect(3), usize::MAX).unwrap();
    fixture.written();
    assert_eq!(fixture.connection.room(1, false), Room::Bytes(65_535));
    fixture.connection.sent(1, 65_535);
    assert_eq!(fixture.connection.room(3, false), Room::Wait);
    assert_eq!(fixture.connection.room(1, false), Room::Wait);
    assert_eq!(fixture.connection.next_turn(), None);
    fixture.feed(&frame(WINDOW, NONE, 0, &10_u32.to_be_bytes()), usize::MAX).unwrap();
    // Who asked first comes first.
    assert_eq!(fixture.connection.next_turn(), Some(3));
    assert_eq!(fixture.connection.room(3, false), Room::Bytes(10));
}

#[test]
fn the_connection_s_window_comes_back_on_receipt() {
    let mut fixture = Fixture::greeted(Role::Server);
    fixture.feed(&connect(1), usize::MAX).unwrap();
    fixture.written();
    fixture.connection.receive_window = WINDOW_MAX - (1 << 30) + 3;
    fixture.feed(&frame(DATA, NONE, 1, b"xx"), usize::MAX).unwrap();
    assert_eq!(fixture.written().len(), 0);
    fixture.feed(&frame(DATA, NONE, 1, b"x"), usize::MAX).unwrap();
    let frames = fixture.written();
    assert_eq!((frames[0].0.kind, frames[0].0.stream), (Kind::WindowUpdate, 0));
    assert_eq!(frames[0].1, (1_u32 << 30).to_be_bytes());
    fixture.connection.receive_window = 1;
    let error = fixture.feed(&frame(DATA, NONE, 1, b"xx"), usize::MAX).unwrap_err();
    assert_eq!(error, Error::Violation(Violation::ConnectionWindow));
}

/// Envoy ends a connection when WINDOW_UPDATEs exceed 5 + 2 x (streams + 10 x its DATA frames).
#[test]
fn credit_is_given_in_few_and_large_steps() {
    for (frame_len, padding) in [(16_384, 0), (1, 0), (100, 255), (1_000, 0)] {
        let mut fixture = Fixture::greeted(Role::Server);
        fixture.feed(&connect(1), usize::MAX).unwrap();
        assert_eq!(fixture.written()[0].0.kind, Kind::Headers);
        let (mut frames, mut updates, mut bytes) = (0_u32, 1_u32, 0_usize);
        while bytes < 300_000 && frames < 30_000 {
            let payload = match padding {
                0 => vec![0; frame_len],
                _ => [vec![255], vec![0; frame_len + 255]].concat(),
            };
            let flags = if padding > 0 { PADDED } else { NONE };
            fixture.feed(&frame(DATA, flags, 1, &payload), usize::MAX).unwrap();
            frames += 1;
            bytes += frame_len;
            for (header, payload) in fixture.written() {
                assert_eq!(header.kind, Kind::WindowUpdate);
                assert!(u32::from_be_bytes(payload.try_into().unwrap()) >= 32 * 1024);
                updates += 1;
            }
            assert!(updates <= 5 + 2 * (1 + 10 * frames));
        }
        assert_eq!(fixture.data.len(), bytes, "padding is credited like data");
    }
}

#[test]
fn small_frames_are_held_back_only_where_nobody_answers() {
    let mut fixture = open_with_window(1 << 20);
    for (frames, expected) in [(31, 0), (1, 5), (223, 5), (1, 20), (768, 100)] {
        for _ in 0..frames {
            fixture.connection.sent(1, 14);
        }
        assert_eq!(fixture.connection.hold_ms(1), expected, "after {frames} more");
    }
    fixture.feed(&frame(DATA, NONE, 1, b"answer"), usize::MAX).unwrap();
    assert_eq!(fixture.connection.hold_ms(1), 0);
    (0..40).for_each(|_| fixture.connection.sent(1, 14));
    fixture.connection.sent(1, 256);
    assert_eq!(fixture.connection.hold_ms(1), 0);
}

#[test]
fn nothing_goes_out_before_the_answer_or_after_the_end() {
    let mut fixture = Fixture::greeted(Role::Server);
    let bytes = connect(1);
    let mut plain = bytes.as_slice();
    fixture.connection.read(&mut plain, fixture.now).unwrap();
    assert_eq!(fixture.connection.room(1, false), Room::Wait);
    fixture.connection.finish(1);
    assert!(!fixture.connection.wants_write());
    fixture.connection.respond(1, 200, [("baggage", "x")], false);
    assert!(matches!(fixture.connection.room(1, false), Room::Bytes(_)));
    fixture.connection.finish(1);
    assert_eq!(fixture.connection.room(1, false), Room::Closed);
    let kinds: Vec<_> =
        fixture.written().iter().map(|(header, _)| (header.kind, header.flags)).collect();
    assert_eq!(kinds, [(Kind::Headers, WHOLE), (Kind::Data, END)]);
    assert_eq!(fixture.connection.room(99, false), Room::Closed);
}

#[test]
fn control_frames_wait_as_flags_for_however_little_room() {
    let mut fixture = Fixture::greeted(Role::Server);
    fixture.feed(&connect(1), usize::MAX).unwrap();
    fixture.written();
    for _ in 0..3 {
        fixture.feed(&frame(DATA, NONE, 1, &[0; 40_000]), usize::MAX).unwrap();
    }
    fixture.connection.reset(1, ErrorCode::ConnectError);
    fixture.feed(&frame(PING, NONE, 0, &[7; 8]), usize::MAX).unwrap();
    let mut wire = Vec::new();
    while fixture.connection.wants_write() {
        let mut out = [0; 17];
        let len = fixture.connection.write(&mut out);
        assert!(len > 0);
        wire.extend_from_slice(&out[..len]);
    }
    // One PING ack and one RST_STREAM: the credit of a stream that is over is not given.
    assert_eq!(wire.len(), 17 + 13);
}
