use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;

use futures_util::FutureExt;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;

use super::super::keeper::{Keeper, Settings};
use super::super::testing::{handshake, identity};
use super::*;
use crate::config::TlsPolicy;

const A: &str = "spiffe://td/ns/a/sa/a";
const TTL: Duration = Duration::from_secs(3600);

/// A folder of a test's own, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let unique = format!("adit-devca-{name}-{}-{:x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().canonicalize().unwrap().join(unique);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        Self(path)
    }

    fn ca(&self) -> PathBuf {
        self.0.join("ca")
    }

    fn open(&self) -> Result<DevCa, String> {
        DevCa::open(&self.ca(), Clock::system()).map_err(|error| error.to_string())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn request(id: &str, asks: &str, ttl: Duration) -> (PrivateKey, IssueRequest) {
    let key = PrivateKey::generate().unwrap();
    let csr = key.request(&identity(asks)).unwrap();
    (key, IssueRequest { identity: identity(id), csr, ttl })
}

fn issue(ca: &DevCa, request: IssueRequest) -> Result<Issued, IssueError> {
    ca.issue(request).now_or_never().unwrap()
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> X509Certificate<'a> {
    x509_parser::parse_x509_certificate(der).unwrap().1
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_root_is_made_once_and_closed_to_others() {
    let place = Place::new("root");
    let first = place.open().unwrap();
    let second = place.open().unwrap();
    assert_eq!(first.root(), second.root());
    assert_eq!(mode(&place.ca()), 0o700);
    for file in [KEY_FILE, CERTIFICATE_FILE] {
        assert_eq!(mode(&place.ca().join(file)), 0o600, "{file}");
    }
    let root = parsed(first.root());
    assert_eq!(root.subject().to_string(), format!("CN={COMMON_NAME}"));
    assert_eq!(root.subject(), root.issuer());
    assert!(root.is_ca());
    let life = root.validity().not_after.timestamp() - root.validity().not_before.timestamp();
    assert_eq!(life, (ROOT_LIFE + BACKDATING).as_secs() as i64);
    assert!(!format!("{first:?}").contains("Ecdsa"));
}

#[test]
fn of_many_who_start_at_once_all_have_one_root() {
    let place = Place::new("race");
    let roots: HashSet<_> = std::thread::scope(|scope| {
        let open = || scope.spawn(|| place.open().unwrap().root().to_vec());
        let all: Vec<_> = (0..8).map(|_| open()).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(roots.len(), 1);
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1);
}

#[test]
fn a_leaf_is_as_the_field_issues_it() {
    let place = Place::new("leaf");
    let ca = place.open().unwrap();
    let (key, asked) = request(A, A, TTL);
    let issued = issue(&ca, asked).unwrap();
    assert_eq!(issued.roots, [ca.root().clone()]);
    let [leaf] = issued.chain.as_slice() else { panic!() };
    let leaf = parsed(leaf);
    assert_eq!(leaf.subject().iter().count(), 0);
    assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical);
    assert_eq!(san.value.general_names, [GeneralName::URI(A)]);
    let basic = leaf.basic_constraints().unwrap().unwrap();
    assert!(!basic.value.ca);
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert_eq!(usage.flags, 0b101, "digitalSignature and keyEncipherment: {usage}");
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    assert!(leaf.extensions().iter().any(|extension| {
        matches!(extension.parsed_extension(), ParsedExtension::AuthorityKeyIdentifier(_))
    }));
    let life = leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp();
    assert_eq!(life, (TTL + BACKDATING).as_secs() as i64);
}

#[test]
fn serials_differ_and_lives_end_with_the_root() {
    let place = Place::new("life");
    let ca = place.open().unwrap();
    let leaf = |ttl| issue(&ca, request(A, A, ttl).1).unwrap().chain.remove(0);
    let serials: HashSet<_> = (0..20).map(|_| parsed(&leaf(TTL)).raw_serial().to_vec()).collect();
    assert_eq!(serials.len(), 20);
    assert!(serials.iter().all(|serial| serial.len() == SERIAL_BYTES && serial[0] < 0x80));
    let end = parsed(ca.root()).validity().not_after.timestamp();
    for ttl in [2 * ROOT_LIFE, Duration::MAX] {
        assert_eq!(parsed(&leaf(ttl)).validity().not_after.timestamp(), end, "{ttl:?}");
    }
}

#[test]
fn unsound_requests_are_refused() {
    let place = Place::new("request");
    let ca = place.open().unwrap();
    let check = |request: IssueRequest, words: &str| {
        let reason = issue(&ca, request).unwrap_err().reason;
        assert!(reason.contains(words), "{reason:?} is not about {words:?}");
    };
    check(request(A, "spiffe://td/ns/a/sa/b", TTL).1, "not for the identity");
    check(request(A, A, Duration::ZERO).1, "no lifetime");
    let (_, mut broken) = request(A, A, TTL);
    let mut der = broken.csr.to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    broken.csr = der.into();
    check(broken, "not sound");
    check(IssueRequest { csr: vec![1, 2, 3].into(), ..request(A, A, TTL).1 }, "not sound");
}

#[test]
fn a_broken_folder_is_named_and_left_alone() {
    let check = |name: &str, file: &str, harm: &dyn Fn(&Path), words: &str| {
        let place = Place::new(name);
        place.open().unwrap();
        let key = fs::read(place.ca().join(KEY_FILE)).unwrap();
        let path = place.ca().join(file);
        harm(&path);
        for _ in 0..2 {
            let error = place.open().unwrap_err();
            let place = place.ca().display().to_string();
            assert!(error.contains(words), "{name}: {error:?} is not about {words:?}");
            assert!(error.contains(&path.display().to_string()), "{name}: {error}");
            assert!(error.contains(&format!("uses {place}, remove it")), "{name}: {error}");
        }
        // Nothing was made anew.
        if file != KEY_FILE {
            assert_eq!(fs::read(place.ca().join(KEY_FILE)).unwrap(), key);
        }
    };
    let cut: &dyn Fn(&Path) = &|path| fs::write(path, b"").unwrap();
    let gone: &dyn Fn(&Path) = &|path| fs::remove_file(path).unwrap();
    let open: &dyn Fn(&Path) =
        &|path| fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
    let linked: &dyn Fn(&Path) = &|path| {
        let real = path.with_extension("real");
        fs::rename(path, &real).unwrap();
        symlink(&real, path).unwrap();
    };
    let folder: &dyn Fn(&Path) = &|path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    let exchanged: &dyn Fn(&Path) = &|path| {
        fs::write(path, &*PrivateKey::generate().unwrap().to_pkcs8().unwrap()).unwrap();
    };
    let leaf: &dyn Fn(&Path) = &|path| {
        let key = fs::read(path.with_file_name(KEY_FILE)).unwrap();
        let key = PrivateKey::from_pkcs8(&key).unwrap();
        let leaf = CertificateParams::default().self_signed(&key).unwrap();
        fs::write(path, leaf.pem()).unwrap();
    };
    check("key-cut", KEY_FILE, cut, "not a P-256 key");
    check("key-gone", KEY_FILE, gone, "No such file");
    check("key-open", KEY_FILE, open, "mode 0600");
    check("key-linked", KEY_FILE, linked, "mode 0600");
    check("key-folder", KEY_FILE, folder, "mode 0600");
    check("cert-cut", CERTIFICATE_FILE, cut, "not a certificate");
    check("cert-gone", CERTIFICATE_FILE, gone, "No such file");
    check("cert-open", CERTIFICATE_FILE, open, "mode 0600");
    check("cert-leaf", CERTIFICATE_FILE, leaf, "not the certificate of a root");
    // A key of another root is found by the certificate that does not fit it.
    let place = Place::new("exchanged");
    place.open().unwrap();
    exchanged(&place.ca().join(KEY_FILE));
    assert!(place.open().unwrap_err().contains("do not belong together"));
}

#[test]
fn a_root_out_of_its_time_is_refused() {
    let place = Place::new("time");
    place.open().unwrap();
    for years in [-1, 11] {
        let clock = Clock::shiftable();
        clock.shift_wall(years * 365 * 24 * 3600);
        let error = DevCa::open(&place.ca(), clock).unwrap_err().to_string();
        assert!(error.contains("not valid at this time"), "{error}");
    }
}

#[test]
fn a_folder_open_to_others_is_refused() {
    let place = Place::new("open");
    place.open().unwrap();
    fs::set_permissions(place.ca(), fs::Permissions::from_mode(0o755)).unwrap();
    let error = place.open().unwrap_err();
    assert!(error.contains("open to others"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn two_proxies_with_one_folder_trust_each_other() {
    let place = Place::new("two");
    let mut keepers = tokio::task::JoinSet::new();
    let mut proxy = || {
        let settings = Settings { tls: TlsPolicy::Tls13, certificate_ttl: TTL };
        let ca = Arc::new(place.open().unwrap());
        let (keeper, credentials) = Keeper::new(settings, ca, Clock::system());
        keepers.spawn(keeper.run());
        credentials
    };
    let (one, two) = (proxy(), proxy());
    let (a, b) = (identity(A), identity("spiffe://td/ns/b/sa/b"));
    one.hold(&a);
    two.hold(&b);
    let client = one.client(&a, std::slice::from_ref(&b)).await.unwrap().config;
    let (client, server) = handshake(client, two.server(&b).await.unwrap().config).unwrap();
    assert_eq!(*super::super::verified_peer(client.peer_certificates()).unwrap().identity(), b);
    assert_eq!(*super::super::verified_peer(server.peer_certificates()).unwrap().identity(), a);
}
