use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use futures_util::FutureExt;
use rustls::{ClientConnection, ServerConnection};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::testing::*;
use super::super::tls::{Tls, is_about_revocation};
use super::*;

const A: &str = "spiffe://td/ns/a/sa/a";
/// Time is paused: nothing waits for so long.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Lists in force.
fn lists(unknown: UnknownRevocation, lists: &[Vec<u8>]) -> Arc<Revocations> {
    let algorithms = default_provider().signature_verification_algorithms;
    let revocations = Revocations::new(unknown, algorithms, RevocationMetrics::default());
    let lists = lists.iter().map(|der| Lists::read(der).unwrap().0);
    revocations.replace(Lists(lists.flatten().collect()));
    Arc::new(revocations)
}

/// How a server, and how a client, that asks the lists takes a peer.
fn judged(peer: impl Fn() -> Peer, root: &Ca, revocations: &Arc<Revocations>) -> [String; 2] {
    let mut asking = default_tls();
    asking.look_up(Arc::clone(revocations));
    let plain = default_tls();
    let own = || Leaf::of("spiffe://td/ns/own/sa/own").by(root);
    let all = [identity(A), identity("spiffe://td/ns/own/sa/own")];
    let met = |client, server| match handshake(client, server) {
        Ok(_) => "let in".to_owned(),
        Err(fault) => match is_about_revocation(fault.error()) {
            Some(about) => format!("{about:?}"),
            None => fault.explain(),
        },
    };
    [
        met(peer().client(&plain, root, &all), own().server(&asking, root)),
        met(own().client(&asking, root, &all), peer().server(&plain, root)),
    ]
}

#[test]
fn who_is_on_a_list_is_refused() {
    use UnknownRevocation::{Allow, Refuse};
    let root = Ca::root("root");
    let middle = root.sub("middle", |params| params.serial_number = Some(70_u64.into()));
    let imposter = Ca::root("root");
    let direct = || Leaf::of(A).serial(7).by(&root);
    let through = || Leaf::of(A).serial(7).by(&middle).and([&middle]);
    let good = HOUR;
    let stale = -60;
    let [revoked, unknown, let_in] = ["Revoked", "Unknown", "let in"];
    type Case<'a> = (&'a dyn Fn() -> Peer, Vec<Vec<u8>>, &'a str, &'a str);
    let cases: [Case<'_>; 14] = [
        // Peer, lists, and how it is taken if what is unknown is allowed, and if it is refused.
        (&direct, vec![root.revokes(&[], good)], let_in, let_in),
        (&direct, vec![root.revokes(&[6, 8], good)], let_in, let_in),
        (&direct, vec![root.revokes(&[6, 7], good)], revoked, revoked),
        // Nobody says anything.
        (&direct, vec![], let_in, unknown),
        (&direct, vec![middle.revokes(&[7], good)], let_in, unknown),
        // A list that is out of date still revokes, and clears nobody.
        (&direct, vec![root.revokes(&[], stale)], let_in, unknown),
        (&direct, vec![root.revokes(&[7], stale)], revoked, revoked),
        // Somebody else says so under the issuer's name.
        (&direct, vec![imposter.revokes(&[7], good)], let_in, unknown),
        (&direct, vec![imposter.revokes(&[], good), root.revokes(&[7], good)], revoked, revoked),
        // The whole chain is looked up, each with its own issuer.
        (&through, vec![root.revokes(&[], good)], let_in, unknown),
        (&through, vec![root.revokes(&[7], good), middle.revokes(&[70], good)], let_in, let_in),
        (&through, vec![middle.revokes(&[7], good)], revoked, revoked),
        (&through, vec![root.revokes(&[70], good)], revoked, revoked),
        (&through, vec![root.revokes(&[], good), middle.revokes(&[7], stale)], revoked, revoked),
    ];
    for (number, (peer, said, allowing, refusing)) in cases.into_iter().enumerate() {
        for (policy, expected) in [(Allow, allowing), (Refuse, refusing)] {
            let revocations = lists(policy, &said);
            let got = judged(peer, &root, &revocations);
            assert_eq!(got, [expected; 2], "case {number}, {policy:?}");
        }
    }
}

#[test]
fn what_is_unknown_is_counted_by_issuer() {
    let root = Ca::root("one");
    let peer = || Leaf::of(A).by(&root);
    let metrics = crate::report::metrics::Metrics::new("test");
    let algorithms = default_provider().signature_verification_algorithms;
    let counted = metrics.revocation.clone();
    let revocations = Arc::new(Revocations::new(UnknownRevocation::Allow, algorithms, counted));
    judged(peer, &root, &revocations);
    let text = metrics.render().unwrap();
    let named = text.lines().find(|line| line.starts_with("adit_crl_unknown_total{")).unwrap();
    assert!(named.contains("CN=one") && named.ends_with(" 2"), "{named}");
    assert!(text.contains("istio_crl_policy_rejections_total{reporter=\"source\"} 0"), "{text}");
    // A peer of another authority is told apart, but not one of any number of them.
    (0..100).for_each(|n| metrics.revocation.unknown(&format!("CN={n}")));
    let text = metrics.render().unwrap();
    let lines = text.lines().filter(|line| line.starts_with("adit_crl_unknown_total{"));
    assert_eq!(lines.count(), 65);
}

#[test]
fn a_peer_of_somebody_we_do_not_trust_is_looked_up_nowhere() {
    let (root, other) = (Ca::root("root"), Ca::root("other"));
    let revocations = lists(UnknownRevocation::Refuse, &[other.revokes(&[7], HOUR)]);
    let got = judged(|| Leaf::of(A).serial(7).by(&other), &root, &revocations);
    for text in got {
        assert!(text.contains("trust anchor") || text.contains("UnknownCA"), "{text}");
    }
}

#[test]
fn files_are_read_as_a_whole_or_not_at_all() {
    let root = Ca::root("root");
    let pem = |der: &[u8]| {
        let text = base64(der);
        format!("-----BEGIN X509 CRL-----\n{text}\n-----END X509 CRL-----\n")
    };
    let (one, two) = (root.revokes(&[1], HOUR), root.revokes(&[2], HOUR));
    let other = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let count = |bytes: &[u8]| Lists::read(bytes).map(|lists| lists.0.len());
    assert_eq!(count(&one), Ok(1));
    assert_eq!(count(b""), Ok(0));
    assert_eq!(count(b" \n"), Ok(0));
    assert_eq!(count(other.as_bytes()), Ok(0));
    let both = format!("# lists\n{}{other}{}", pem(&one), pem(&two));
    assert_eq!(count(both.as_bytes()), Ok(2));
    let wrong = format!("{}{}", pem(&one), pem(&two[..20]));
    assert!(matches!(count(wrong.as_bytes()), Err(ListsError::List(2, _))));
    assert!(matches!(count(&one[..one.len() - 1]), Err(ListsError::List(1, _))));
    assert!(matches!(count(b"garbage"), Err(ListsError::List(1, _))));
    let unended = "-----BEGIN X509 CRL-----\nAAAA\n";
    assert!(matches!(count(unended.as_bytes()), Err(ListsError::List(1, _))));
    // Cut off or changed anywhere, it is an error and not a panic.
    for at in 0..one.len() {
        let _ = count(&one[..at]);
        let mut changed = one.clone();
        changed[at] ^= 0xff;
        let _ = count(&changed);
    }
}

/// Base64 in one line, as a PEM reader takes it.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for (index, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let letter = LETTERS[(number >> shift & 63) as usize];
            text.push(if index <= chunk.len() { letter.into() } else { '=' });
        }
    }
    text
}

/// A tunnel between two that ask the same lists: what each of them watches.
fn tunnel(
    client: Peer,
    server: Peer,
    root: &Ca,
    tls: &Tls,
) -> (Peers, ClientConnection, Peers, ServerConnection) {
    let all = [identity(A), identity("spiffe://td/ns/b/sa/b")];
    let met = handshake(client.client(tls, root, &all), server.server(tls, root));
    let (client, server) = met.unwrap();
    let anchors = root.anchors();
    let servers = tls.peers(&anchors, PeerRole::Server);
    let clients = tls.peers(&anchors, PeerRole::Client);
    (servers, client, clients, server)
}

#[tokio::test]
async fn open_tunnels_of_who_becomes_revoked_end() {
    let root = Ca::root("root");
    let revocations = lists(UnknownRevocation::Allow, &[root.revokes(&[], HOUR)]);
    let mut tls = default_tls();
    tls.look_up(Arc::clone(&revocations));
    let a = Leaf::of(A).serial(7).by(&root);
    let b = Leaf::of("spiffe://td/ns/b/sa/b").serial(8).by(&root);
    let (servers, client, clients, server) = tunnel(a, b, &root, &tls);
    let mut b_is_revoked = Box::pin(servers.watch(&client).unwrap());
    let mut a_is_revoked = Box::pin(clients.watch(&server).unwrap());
    assert_eq!((&mut b_is_revoked).now_or_never(), None);
    assert_eq!((&mut a_is_revoked).now_or_never(), None);
    // Somebody who is not the issuer ends nothing, nor does a list that is out of date.
    let imposter = Ca::root("root");
    let replace = |der: &[u8]| revocations.replace(Lists::read(der).unwrap());
    replace(&imposter.revokes(&[7, 8], HOUR));
    replace(&root.revokes(&[], -60));
    replace(&[]);
    assert_eq!((&mut a_is_revoked).now_or_never(), None);
    replace(&root.revokes(&[7], HOUR));
    assert_eq!((&mut a_is_revoked).now_or_never(), Some(()));
    assert_eq!((&mut b_is_revoked).now_or_never(), None);
    // What came between the handshake and the watch is seen.
    let late = Box::pin(clients.watch(&server).unwrap());
    assert_eq!(late.now_or_never(), Some(()));
    // Without lists nobody is watched.
    let peers = default_tls().peers(&root.anchors(), PeerRole::Client);
    assert!(peers.watch(&server).is_none());
}

#[tokio::test]
async fn that_a_certificate_expires_ends_no_tunnel_and_hides_no_revocation() {
    let root = Ca::root("root");
    let revocations = lists(UnknownRevocation::Allow, &[]);
    let peer = Leaf::of(A).serial(7).by(&root);
    let check = |seconds: i64| {
        let at = unix_time(at(seconds));
        let anchors = root.anchors();
        let chain =
            Chain { certificates: &peer.chain, roots: &anchors, role: PeerRole::Client, at };
        revocations.is_revoked(&chain, &revocations.lists.load())
    };
    revocations.replace(Lists::read(&root.revokes(&[7], HOUR)).unwrap());
    assert!(check(0));
    // As of the handshake, not as of now: this is what the watch looks at.
    assert!(!check(2 * HOUR));
}

/// A folder of the test's own.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("adit-crl-{:016x}", fastrand::u64(..)));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_file_is_followed_and_a_bad_one_replaces_nothing() {
    let (root, folder) = (Ca::root("root"), Folder::new());
    let path = folder.0.join("ca-crl.pem");
    let config = RevocationConfig { path: path.clone(), unknown: UnknownRevocation::Allow };
    let metrics = RevocationMetrics::default();
    let (_revocations, file) = revocations(&config, metrics.clone(), &Clock::system());
    let mut status = file.status();
    // It is not there yet.
    assert!(status.borrow().error.as_ref().unwrap().contains("No such file"));
    let mut run = JoinSet::new();
    run.spawn(file.run());
    let mut until = async |wanted: &dyn Fn(&RevocationStatus) -> bool| {
        let status = timeout(PATIENCE, status.wait_for(wanted)).await.unwrap();
        status.unwrap().clone()
    };
    fs::write(&path, root.revokes(&[1], HOUR)).unwrap();
    let good = until(&|status| status.lists == 1).await;
    assert!(good.error.is_none() && good.loaded.is_some());
    fs::write(&path, "garbage that is longer").unwrap();
    let bad = until(&|status| status.error.is_some()).await;
    assert_eq!((bad.lists, bad.loaded), (1, good.loaded));
    assert!(bad.error.unwrap().starts_with("list 1 cannot be read"));
    // As Kubernetes does it: a link to a folder is replaced.
    for name in ["one", "two"] {
        fs::create_dir(folder.0.join(name)).unwrap();
        fs::write(folder.0.join(name).join("ca-crl.pem"), "").unwrap();
    }
    fs::write(folder.0.join("two/ca-crl.pem"), root.revokes(&[1], HOUR)).unwrap();
    fs::remove_file(&path).unwrap();
    symlink("one", folder.0.join("..data")).unwrap();
    symlink("..data/ca-crl.pem", &path).unwrap();
    let empty = until(&|status| status.lists == 0).await;
    assert_eq!(empty.error, None);
    symlink("two", folder.0.join("..new")).unwrap();
    fs::rename(folder.0.join("..new"), folder.0.join("..data")).unwrap();
    until(&|status| status.lists == 1).await;
    assert_eq!(metrics.lists.get(), 1);
    // What is gone replaces nothing either.
    fs::remove_file(&path).unwrap();
    let gone = until(&|status| status.error.is_some()).await;
    assert_eq!(gone.lists, 1);
    assert_eq!(metrics.errors.get(), 3);
}
