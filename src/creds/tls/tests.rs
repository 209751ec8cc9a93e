use rustls::{HandshakeKind, NamedGroup, ProtocolVersion};

use super::super::testing::*;
use super::*;

const A: &str = "spiffe://td/ns/a/sa/a";
const B: &str = "spiffe://td/ns/a/sa/b";

static TLS12: [&SupportedProtocolVersion; 1] = [&version::TLS12];

fn tls(policy: TlsPolicy) -> Tls {
    Tls::new(policy, Clock::system())
}

/// A handshake of a client and a server with these settings.
fn between(client: &Tls, server: &Tls) -> Result<(ProtocolVersion, NamedGroup), String> {
    let root = Ca::root("root");
    let client = Leaf::of(A).by(&root).client(client, &root, &[identity(B)]);
    let server = Leaf::of(B).by(&root).server(server, &root);
    let (client, _) = handshake(client, server).map_err(|fault| fault.explain())?;
    let group = client.negotiated_key_exchange_group().unwrap().name();
    Ok((client.protocol_version().unwrap(), group))
}

/// A client of ours, but for what `change` makes of it.
fn odd_client(change: impl FnOnce(&mut ClientConfig)) -> Result<(bool, bool), Fault> {
    let root = Ca::root("root");
    let client = Leaf::of(A).by(&root).client(&default_tls(), &root, &[identity(B)]);
    let mut client = ClientConfig::clone(&client);
    change(&mut client);
    let server = Leaf::of(B).by(&root).server(&default_tls(), &root);
    let (client, server) = handshake(Arc::new(client), server)?;
    Ok((negotiated_h2(&client), negotiated_h2(&server)))
}

/// The same with only these versions and groups on the client's side.
fn narrow(
    mut tls: Tls,
    versions: &'static [&'static SupportedProtocolVersion],
    group: &'static dyn SupportedKxGroup,
) -> Tls {
    let provider = CryptoProvider { kx_groups: vec![group], ..(*tls.provider).clone() };
    tls.provider = Arc::new(provider);
    tls.versions = versions;
    tls
}

#[test]
fn the_hybrid_group_comes_first_and_pqc_allows_no_other() {
    let classic = || narrow(tls(TlsPolicy::Tls13), &VERSIONS, kx_group::X25519);
    let hybrid = Ok((ProtocolVersion::TLSv1_3, NamedGroup::X25519MLKEM768));
    assert_eq!(between(&tls(TlsPolicy::Tls13), &tls(TlsPolicy::Tls13)), hybrid);
    assert_eq!(between(&tls(TlsPolicy::PostQuantum), &tls(TlsPolicy::Tls13)), hybrid);
    assert_eq!(between(&tls(TlsPolicy::Tls13), &tls(TlsPolicy::PostQuantum)), hybrid);
    let x25519 = Ok((ProtocolVersion::TLSv1_3, NamedGroup::X25519));
    assert_eq!(between(&classic(), &tls(TlsPolicy::Tls13)), x25519);
    assert_eq!(between(&tls(TlsPolicy::Tls13), &classic()), x25519);
    for group in [kx_group::SECP256R1, kx_group::SECP384R1] {
        let client = narrow(tls(TlsPolicy::Tls13), &VERSIONS, group);
        let (_, used) = between(&client, &tls(TlsPolicy::Tls13)).unwrap();
        assert_eq!(used, group.name());
    }
    assert!(between(&classic(), &tls(TlsPolicy::PostQuantum)).is_err());
    assert!(between(&tls(TlsPolicy::PostQuantum), &classic()).is_err());
}

#[test]
fn nothing_older_than_tls13_is_spoken() {
    let mut old = narrow(tls(TlsPolicy::Tls13), &TLS12, kx_group::SECP256R1);
    let cipher_suites = default_provider().cipher_suites;
    old.provider = Arc::new(CryptoProvider { cipher_suites, ..(*old.provider).clone() });
    assert!(between(&old, &tls(TlsPolicy::Tls13)).is_err());
    assert!(between(&tls(TlsPolicy::Tls13), &old).is_err());
    let (version, _) = between(&old, &old).unwrap();
    assert_eq!(version, ProtocolVersion::TLSv1_2, "the old ones understand each other");
}

#[test]
fn tls12_is_spoken_with_those_that_know_nothing_newer_if_so_told() {
    let both = tls(TlsPolicy::Tls12);
    for suite in SUITES_TLS12 {
        let mut old = narrow(both.clone(), &TLS12, kx_group::SECP256R1);
        let cipher_suites = vec![suite];
        old.provider = Arc::new(CryptoProvider { cipher_suites, ..(*old.provider).clone() });
        // The keys of workloads are of one kind, and suites are of one kind each.
        let ecdsa = format!("{:?}", suite.suite()).contains("ECDSA");
        let old_one = Ok((ProtocolVersion::TLSv1_2, NamedGroup::secp256r1));
        for met in [between(&old, &both), between(&both, &old)] {
            assert_eq!(met == old_one, ecdsa, "{suite:?}: {met:?}");
        }
    }
    let hybrid = Ok((ProtocolVersion::TLSv1_3, NamedGroup::X25519MLKEM768));
    for other in [TlsPolicy::Tls13, TlsPolicy::Tls12, TlsPolicy::PostQuantum] {
        assert_eq!(between(&both, &tls(other)), hybrid, "{other:?}");
        assert_eq!(between(&tls(other), &both), hybrid, "{other:?}");
    }
}

#[test]
fn suites_are_the_two_and_their_order_is_ours() {
    use rustls::CipherSuite as Suite;
    let tls = tls(TlsPolicy::Tls13);
    let suites = tls.provider.cipher_suites.iter().map(SupportedCipherSuite::suite);
    let two = [Suite::TLS13_AES_256_GCM_SHA384, Suite::TLS13_AES_128_GCM_SHA256];
    assert_eq!(suites.collect::<Vec<_>>(), two);
    let tls = self::tls(TlsPolicy::Tls12);
    let suites = tls.provider.cipher_suites.iter().map(SupportedCipherSuite::suite);
    let four = [
        Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ];
    assert_eq!(suites.collect::<Vec<_>>(), [&two[..], &four[..]].concat());
}

#[test]
fn http2_has_to_be_agreed_upon() {
    assert_eq!(odd_client(|_| ()).unwrap(), (true, true));
    let none = odd_client(|client| client.alpn_protocols.clear()).unwrap();
    assert_eq!(none, (false, false));
    let fault = odd_client(|client| client.alpn_protocols = vec![b"http/1.1".to_vec()]);
    let fault = fault.unwrap_err();
    assert!(matches!(fault, Fault::Server(_)) && !is_about_identity(fault.error()), "{fault:?}");
}

#[test]
fn a_client_without_certificate_is_refused() {
    let root = Ca::root("root");
    let base = default_tls().client(Leaf::of(A).by(&root).certified(), root.anchors()).unwrap();
    let expected = Arc::from([identity(B)]);
    let mut client = default_tls().expecting(&base, root.anchors(), expected);
    client.client_auth_cert_resolver = Arc::new(Anonymous);
    let server = Leaf::of(B).by(&root).server(&default_tls(), &root);
    let fault = handshake(Arc::new(client), server).unwrap_err();
    assert_eq!(fault.explain(), "the peer showed no certificate");
    assert!(is_about_identity(fault.error()));
}

#[test]
fn nothing_is_resumed_and_no_name_is_sent() {
    let root = Ca::root("root");
    let ours = Leaf::of(A).by(&root).client(&default_tls(), &root, &[identity(B)]);
    let server = Leaf::of(B).by(&root).server(&default_tls(), &root);
    // A client that would like to resume, beside one of ours.
    let mut eager = ClientConfig::clone(&ours);
    eager.resumption = Resumption::in_memory_sessions(8);
    for client in [&ours, &ours, &Arc::new(eager.clone()), &Arc::new(eager)] {
        let (client, server) = handshake(client.clone(), server.clone()).unwrap();
        assert_eq!(client.tls13_tickets_received(), 0);
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(server.server_name(), None);
    }
}

#[test]
fn dates_follow_our_clock() {
    let root = Ca::root("root");
    let clock = Clock::shiftable();
    let tls = Tls::new(TlsPolicy::Tls13, clock.clone());
    let client = Leaf::of(A).by(&root).client(&tls, &root, &[identity(B)]);
    let server = Leaf::of(B).by(&root).server(&tls, &root);
    assert!(handshake(client.clone(), server.clone()).is_ok());
    clock.shift_wall(2 * HOUR);
    let fault = handshake(client, server).unwrap_err();
    assert!(fault.explain().contains("expired"), "{fault:?}");
}

#[test]
fn a_tls_error_is_found_inside_an_io_error() {
    let tls = rustls::Error::from(PeerRefusal::NobodyExpected);
    let error = io::Error::new(io::ErrorKind::InvalidData, tls);
    let refusal = tls_error(&error).and_then(peer_refusal);
    assert_eq!(refusal, Some(&PeerRefusal::NobodyExpected));
    assert!(tls_error(&io::Error::other("something else")).is_none());
}

#[derive(Debug)]
struct Anonymous;

impl rustls::client::ResolvesClientCert for Anonymous {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
