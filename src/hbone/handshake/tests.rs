use super::*;
use crate::hbone::testing::{
    Offer, Pki, SUITES, directions, key_pair, name, with_client, with_server, with_server_that_says,
};

#[test]
fn both_ends_have_the_same_secrets() {
    for suite in SUITES {
        let (client, server) = key_pair(suite);
        assert_eq!((client.role, server.role), (Role::Client, Role::Server));
        let (up, down) = directions(client);
        let (sending, receiving) = directions(server);
        assert_eq!(up.secret.expose(), receiving.secret.expose());
        assert_eq!(down.secret.expose(), sending.secret.expose());
        assert_ne!(up.secret.expose(), down.secret.expose());
        assert_eq!((up.sequence, down.sequence), (0, 0));
        assert!(SLOT.with_borrow(Option::is_none));
    }
}

#[test]
fn a_fingerprint_is_of_one_connection() {
    let (client, server) = key_pair(SUITES[0]);
    let (other, _) = key_pair(SUITES[0]);
    assert_eq!(client.fingerprint(), server.fingerprint());
    assert_ne!(client.fingerprint(), other.fingerprint());
    let fingerprint = client.fingerprint().unwrap();
    assert!(!directions(client).0.secret.expose().starts_with(&fingerprint));
}

#[test]
fn what_follows_the_handshake_is_kept_whole() {
    for split in [1, 2, 7, 100, usize::MAX] {
        let (keys, _) = with_client(SUITES[0], b"hello", split);
        assert_eq!(keys.rest.len(), 5 + 5 + 17, "split {split}");
        assert_eq!(directions(keys).1.sequence, 0, "split {split}");
        let (keys, _) = with_server(SUITES[1], 2, split);
        // Tickets are sent before the server has our Finished only if it does not wait for it.
        assert_eq!(directions(keys).1.sequence, 0, "split {split}");
    }
}

/// With TLS 1.2 it is the server who is first to know that the handshake is over.
#[test]
fn what_an_older_server_says_at_once_is_kept_whole() {
    for split in [1, 7, 100, usize::MAX] {
        let (keys, _) = with_server(Offer::Tls12, 0, split);
        assert_eq!((keys.rest.len(), keys.fingerprint()), (0, None), "split {split}");
        let (keys, _) = with_server_that_says(b"hello", Offer::Tls12, 0, split);
        assert_eq!(keys.rest.len(), 5 + 8 + 5 + 16, "split {split}");
    }
}

#[test]
fn keys_that_rustls_does_not_have_are_refused() {
    let (suite, pki) = (SUITES[0], Pki::new());
    let mut server = pki.server(suite, 0);
    server.key_log = Arc::new(rustls::NoKeyLog);
    let mut client = Handshake::client(Arc::new(pki.client(suite)), name()).unwrap();
    let mut server = Handshake::server(Arc::new(server)).unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        client.feed(&std::mem::take(&mut down), &mut up).unwrap();
        server.feed(&std::mem::take(&mut up), &mut down).unwrap();
    }
    client.captured.client = client.captured.server.clone();
    assert_eq!(client.finish().unwrap_err(), HandshakeError::KeysDiffer);
    assert_eq!(server.finish().unwrap_err(), HandshakeError::KeysDiffer);
}

#[test]
fn a_handshake_that_fails_has_last_words() {
    let pki = Pki::new();
    let mut server = Handshake::server(Arc::new(pki.server(SUITES[0], 0))).unwrap();
    let mut out = Vec::new();
    let error = server.feed(b"GET / HTTP/1.1\r\n\r\n", &mut out).unwrap_err();
    assert!(matches!(error, HandshakeError::Tls(_)), "{error}");
    let mut client = Handshake::client(Arc::new(pki.client(SUITES[1])), name()).unwrap();
    let mut server = Handshake::server(Arc::new(pki.server(SUITES[0], 0))).unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    client.feed(&[], &mut up).unwrap();
    assert!(server.feed(&up, &mut down).is_err());
    assert_eq!(down[0], 21, "an alert: {down:?}");
    assert_eq!(server.finish().unwrap_err(), HandshakeError::NotDone);
}

#[test]
fn a_handshake_is_bounded() {
    let mut server = Handshake::server(Arc::new(Pki::new().server(SUITES[0], 0))).unwrap();
    let mut out = Vec::new();
    let error = server.feed(&vec![22; INCOMING_MAX + 1], &mut out).unwrap_err();
    assert_eq!(error, HandshakeError::TooLong);
}
