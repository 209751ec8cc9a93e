use rcgen::{BasicConstraints, CustomExtension, ExtendedKeyUsagePurpose as Usage, IsCa, SanType};

use super::super::keys::PrivateKey;
use super::super::testing::*;
use super::super::tls::{is_about_identity, peer_refusal};
use super::*;

const PEER: &str = "spiffe://td/ns/a/sa/peer";
const NO_ANCHOR: &str = "does not lead to a trust anchor";
const NO_IDENTITY: &str = "no workload identity";

/// What our side makes of a peer: accepted, or refused with these words.
type Expected = Result<(), &'static str>;

/// The peer as a client of ours and as a server that we call.
fn check(root: &Ca, case: &str, peer: impl Fn() -> Peer, as_client: Expected, as_server: Expected) {
    let tls = default_tls();
    let us = || Leaf::of("spiffe://td/ns/a/sa/us").by(root);
    let anybody = [identity(PEER), identity("spiffe://td/ns/a/sa/us")];

    let client = peer().client(&tls, root, &anybody);
    let got = handshake(client, us().server(&tls, root));
    verdict(
        case,
        "as client",
        as_client,
        got.map(|(_, server)| server.peer_certificates().map(<[CertificateDer<'_>]>::to_vec)),
        |fault| matches!(fault, Fault::Server(_)),
    );

    let server = peer().server(&tls, root);
    let got = handshake(us().client(&tls, root, &[identity(PEER)]), server);
    verdict(
        case,
        "as server",
        as_server,
        got.map(|(client, _)| client.peer_certificates().map(<[CertificateDer<'_>]>::to_vec)),
        |fault| matches!(fault, Fault::Client(_)),
    );
}

fn verdict(
    case: &str,
    role: &str,
    expected: Expected,
    got: Result<Option<Vec<CertificateDer<'static>>>, Fault>,
    ours: impl Fn(&Fault) -> bool,
) {
    match (expected, got) {
        (Ok(()), Ok(chain)) => {
            verified_peer(chain.as_deref()).unwrap_or_else(|e| panic!("{case} {role}: {e}"));
        }
        (Err(words), Err(fault)) => {
            let text = fault.explain();
            assert!(text.contains(words), "{case} {role}: {text:?} is not about {words:?}");
            assert!(ours(&fault), "{case} {role}: the wrong side refused: {fault:?}");
            assert!(is_about_identity(fault.error()), "{case} {role}: {fault:?}");
        }
        (expected, got) => panic!("{case} {role}: expected {expected:?}, got {got:?}"),
    }
}

/// The same in both roles.
fn check_both(root: &Ca, case: &str, peer: impl Fn() -> Peer, expected: Expected) {
    check(root, case, peer, expected, expected);
}

#[test]
fn identities() {
    let root = &Ca::root("root");
    let uris = |ids: &[&str]| Leaf::new(ids.iter().map(|id| uri(id)).collect::<Vec<_>>());
    let one = |id: &str| uris(&[id]).by(root);
    let not_peer = "not spiffe://td/ns/a/sa/peer";
    check_both(root, "good", || one(PEER), Ok(()));
    check(root, "other account", || one("spiffe://td/ns/a/sa/x"), Ok(()), Err(not_peer));
    check(root, "other namespace", || one("spiffe://td/ns/b/sa/peer"), Ok(()), Err(not_peer));
    let foreign = "trust domain other.example is not td";
    let id = "spiffe://other.example/ns/a/sa/peer";
    check(root, "foreign", || one(id), Err(foreign), Err(not_peer));
    let foreign = "trust domain TD is not td";
    let id = "spiffe://TD/ns/a/sa/peer";
    check(root, "trust domain in capitals", || one(id), Err(foreign), Err(not_peer));
    check_both(root, "scheme in capitals", || one("SPIFFE://td/ns/a/sa/peer"), Err(NO_IDENTITY));
    check_both(root, "not a workload", || one("spiffe://td/peer"), Err(NO_IDENTITY));
    check_both(root, "one part more", || one("spiffe://td/ns/a/sa/peer/x"), Err(NO_IDENTITY));
    check_both(root, "a space in it", || one("spiffe://td/ns/a/sa/peer x"), Err(NO_IDENTITY));
    check_both(root, "a line end in it", || one("spiffe://td/ns/a/sa/p\nx"), Err(NO_IDENTITY));
    let long = format!("spiffe://td/ns/a/sa/{}", "x".repeat(SPIFFE_ID_BYTES_MAX));
    check_both(root, "too long", || one(&long), Err(NO_IDENTITY));
    let two = "more than one SPIFFE id";
    check_both(root, "two", || uris(&[PEER, "spiffe://td/ns/a/sa/x"]).by(root), Err(two));
    check_both(root, "twice the same", || uris(&[PEER, PEER]).by(root), Err(two));
    let foreign_first = ["spiffe://evil/ns/a/sa/x", PEER];
    check_both(root, "foreign first", || uris(&foreign_first).by(root), Err(two));
    let unreadable_first = ["spiffe:garbage", PEER];
    check_both(root, "unreadable first", || uris(&unreadable_first).by(root), Err(two));
    let others = "other URIs";
    check_both(root, "web too", || uris(&[PEER, "https://td/x"]).by(root), Err(others));
    check_both(root, "web only", || one("https://td/x"), Err(NO_IDENTITY));
    check_both(root, "two webs", || uris(&["https://a", "https://b"]).by(root), Err(NO_IDENTITY));
    check_both(root, "nameless", || uris(&[]).by(root), Err(NO_IDENTITY));
    check_both(root, "host only", || Leaf::new([dns("peer.td")]).by(root), Err(NO_IDENTITY));
    check_both(root, "host too", || Leaf::new([dns("peer.td"), uri(PEER)]).by(root), Ok(()));
    let names = |count: usize| {
        let hosts = (1..count).map(|n| dns(&format!("h{n}.td")));
        Leaf::new(std::iter::once(uri(PEER)).chain(hosts).collect::<Vec<SanType>>()).by(root)
    };
    check_both(root, "as many names as may be", || names(NAMES_MAX), Ok(()));
    check_both(root, "a name too many", || names(NAMES_MAX + 1), Err("more than 64 names"));
}

#[test]
fn usage_and_dates() {
    let root = &Ca::root("root");
    let usage = |usages: &[Usage]| Leaf::of(PEER).usage(usages).by(root);
    let purpose = "does not allow extended key usage";
    check(root, "client only", || usage(&[Usage::ClientAuth]), Ok(()), Err(purpose));
    check(root, "server only", || usage(&[Usage::ServerAuth]), Err(purpose), Ok(()));
    check_both(root, "code only", || usage(&[Usage::CodeSigning]), Err(purpose));
    check_both(root, "no usage at all", || usage(&[]), Ok(()));
    let dated = |from, to| Leaf::of(PEER).dates(from, to).by(root);
    check_both(root, "expired", || dated(-HOUR, -60), Err("certificate expired"));
    check_both(root, "not yet", || dated(60, HOUR), Err("certificate not valid yet"));
    check_both(root, "just begun", || dated(-1, HOUR), Ok(()));
}

#[test]
fn chains() {
    let root = &Ca::root("root");
    let middle = &root.sub("middle", |_| ());
    let leaf = || Leaf::of(PEER);
    check_both(root, "with intermediate", || leaf().by(middle).and([middle]), Ok(()));
    check_both(root, "without intermediate", || leaf().by(middle), Err(NO_ANCHOR));
    check_both(root, "with root", || leaf().by(root).and([root]), Ok(()));
    let stranger = &root.sub("stranger", |_| ());
    check_both(root, "with a stranger", || leaf().by(root).and([stranger]), Ok(()));
    check_both(root, "self-signed", || leaf().by_itself(), Err(NO_ANCHOR));
    let other = &Ca::root("other");
    check_both(root, "other root", || leaf().by(other).and([other]), Err(NO_ANCHOR));
    let namesake = &Ca::root("root");
    check_both(root, "root's namesake", || leaf().by(namesake), Err("BadSignature"));
    let expired = &root.sub("old", |p| p.not_after = at(-60).into());
    check_both(root, "old middle", || leaf().by(expired).and([expired]), Err("expired"));
    let no_ca = &root.sub("leaf", |p| p.is_ca = IsCa::ExplicitNoCa);
    check_both(
        root,
        "issued by a leaf",
        || leaf().by(no_ca).and([no_ca]),
        Err("EndEntityUsedAsCa"),
    );
    let short = &root.sub("short", |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let below = &short.sub("below", |_| ());
    let deep = || leaf().by(below).and([below, short]);
    check_both(root, "path too long", deep, Err("PathLenConstraintViolated"));
    let ca = || leaf().with(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).by(root);
    check_both(root, "leaf is a CA", ca, Err("CaUsedAsEndEntity"));
    let critical = || {
        let mut extension =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99, 1], vec![5, 0]);
        extension.set_criticality(true);
        leaf().with(|p| p.custom_extensions.push(extension)).by(root)
    };
    check_both(root, "unknown critical extension", critical, Err(": UnsupportedCriticalExtension"));
    let padded = |count| leaf().by(root).and(std::iter::repeat_n(stranger, count));
    check_both(root, "as many as may be", || padded(CHAIN_CERTIFICATES_MAX - 1), Ok(()));
    check_both(root, "one too many", || padded(CHAIN_CERTIFICATES_MAX), Err("9 certificates"));
    check_both(root, "a hundred", || padded(100), Err("longer than"));
    let heavy = || {
        let content = vec![0; CHAIN_BYTES_MAX];
        let extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99, 2], content);
        leaf().with(|p| p.custom_extensions.push(extension)).by(root)
    };
    check_both(root, "too heavy", heavy, Err("longer than"));
    let garbage = || Peer { chain: vec![vec![0x30, 0x01, 0x00].into()], key: key() };
    check_both(root, "garbage", garbage, Err("BadEncoding"));
    let not_its_key = || Peer { key: key(), ..leaf().by(root) };
    check_both(root, "somebody else's certificate", not_its_key, Err("BadSignature"));
}

#[test]
fn refusals_carry_their_reason() {
    let root = Ca::root("root");
    let tls = default_tls();
    let us = || Leaf::of("spiffe://td/ns/a/sa/us").by(&root);
    let foreign = Leaf::of("spiffe://far/ns/a/sa/x").by(&root).client(&tls, &root, &[]);
    let server = us().server(&tls, &root);
    // A client that expects nobody refuses everybody.
    let fault = handshake(foreign, server.clone()).unwrap_err();
    assert_eq!(peer_refusal(fault.error()), Some(&PeerRefusal::NobodyExpected));
    assert!(matches!(fault, Fault::Client(_)));

    let expected = [identity("spiffe://td/ns/a/sa/us")];
    let foreign = Leaf::of("spiffe://far/ns/a/sa/x").by(&root).client(&tls, &root, &expected);
    let fault = handshake(foreign, server).unwrap_err();
    let refusal =
        PeerRefusal::TrustDomain { peer: identity("spiffe://far/ns/a/sa/x"), ours: "td".into() };
    assert_eq!(peer_refusal(fault.error()), Some(&refusal));
}

#[test]
fn one_of_several_expected_is_enough() {
    let root = Ca::root("root");
    let tls = default_tls();
    let server = Leaf::of(PEER).by(&root).server(&tls, &root);
    let expect = |ids: &[&str]| {
        let expected: Vec<_> = ids.iter().map(|id| identity(id)).collect();
        let us = Leaf::of("spiffe://td/ns/a/sa/us").by(&root).client(&tls, &root, &expected);
        handshake(us, server.clone()).map(|_| ()).map_err(|fault| fault.explain())
    };
    assert_eq!(expect(&["spiffe://td/ns/a/sa/x", PEER]), Ok(()));
    let text = expect(&["spiffe://td/ns/a/sa/x", "spiffe://td/ns/a/sa/y"]).unwrap_err();
    assert!(text.contains("none of the 2 expected identities"), "{text}");
}

#[test]
fn no_chain_is_no_peer() {
    assert_eq!(verified_peer(None), Err(PeerError::NoCertificate));
    assert_eq!(verified_peer(Some(&[])), Err(PeerError::NoCertificate));
    assert_eq!(verified_peer(Some(&[vec![1].into()])), Err(PeerError::Unreadable));
    let chain = Leaf::of(PEER).by(&Ca::root("root")).chain;
    assert_eq!(*verified_peer(Some(&chain)).unwrap().identity(), identity(PEER));
}

fn key() -> PrivateKey {
    PrivateKey::generate().unwrap()
}
