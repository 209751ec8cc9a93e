//! The client, with the keeper behind it, against an authority in memory.

mod fake;

use std::sync::atomic::Ordering;

use prost_types::value::Kind;
use tokio::time::{sleep, timeout};

use super::super::keys::PrivateKey;
use super::super::store::CertificateState;
use super::super::testing::*;
use super::*;
use fake::{Mood, Phase, Stage, TTL};

const A: &str = "spiffe://td/ns/a/sa/a";
const B: &str = "spiffe://td/ns/a/sa/b";
/// The keeper has looked at the wall clock once more, whatever it was doing.
const A_LOOK: Duration = Duration::from_secs(5);

fn request(id: &str) -> IssueRequest {
    let csr = PrivateKey::generate().unwrap().request(&identity(id)).unwrap();
    IssueRequest { identity: identity(id), csr, ttl: TTL }
}

#[tokio::test(start_paused = true)]
async fn the_request_is_what_istiod_wants() {
    let stage = Stage::new(Mood::Good);
    stage.ca.issue(request(A)).await.unwrap();
    let asked = stage.fake.last.lock().unwrap().take().unwrap();
    assert!(asked.csr.starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"), "{}", asked.csr);
    assert_eq!(asked.validity_duration, 86_400);
    let fields = asked.metadata.unwrap().fields;
    let value = fields.get("ImpersonatedIdentity").unwrap().kind.clone();
    assert_eq!((fields.len(), value), (1, Some(Kind::StringValue(A.to_owned()))));
}

#[tokio::test(start_paused = true)]
async fn the_proxy_of_one_pod_asks_for_itself() {
    let stage = Stage::new(Mood::Good);
    let own = IstioCa::new(Arc::clone(&stage.ca.connector), false, stage.clock.clone());
    own.issue(request(A)).await.unwrap();
    assert_eq!(stage.fake.last.lock().unwrap().take().unwrap().metadata, None);
}

#[tokio::test(start_paused = true)]
async fn intermediates_are_kept_between_leaf_and_root() {
    let stage = Stage::new(Mood::Middle);
    stage.credentials.hold(&identity(A));
    let server = stage.server(A).await.unwrap();
    let client = stage.credentials.client(&identity(A), &[identity(A)]).await.unwrap().config;
    handshake(client, server).unwrap();
    assert_eq!((stage.info(A).chain.len(), stage.info(A).roots.len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn each_fault_has_a_name_and_the_old_certificate_stays() {
    let check = async |mood: Mood, words: &str| {
        // As the first one: nothing is served.
        let stage = Stage::new(mood);
        stage.credentials.hold(&identity(A));
        let error = stage.server(A).await.unwrap_err();
        assert!(error.contains(words), "{mood:?}: {error:?} is not about {words:?}");
        assert_eq!(stage.info(A).state, CertificateState::Unavailable(error.as_str().into()));

        // As a renewal: the previous one stays.
        let stage = Stage::new(Mood::Good);
        stage.credentials.hold(&identity(A));
        let first = stage.server(A).await.unwrap();
        // The connection of the first request is used no more.
        sleep(REUSE_MAX).await;
        stage.mood(mood);
        stage.clock.shift_wall(16 * HOUR);
        sleep(A_LOOK + Duration::from_secs(30)).await;
        assert!(Arc::ptr_eq(&first, &stage.server(A).await.unwrap()), "{mood:?}");
        let info = stage.info(A);
        assert!(info.failures > 0, "{mood:?}");
        let text = info.last_error.unwrap();
        assert!(text.contains(words), "{mood:?}: {text:?} is not about {words:?}");

        // And when the authority has come to its senses, nobody needs to do anything.
        stage.mood(Mood::Good);
        sleep(Duration::from_secs(200)).await;
        assert!(!Arc::ptr_eq(&first, &stage.server(A).await.unwrap()), "{mood:?}");
        assert_eq!(stage.info(A).last_error, None);
    };
    check(Mood::Down, "no connection to 127.0.0.1:15012: Connection refused").await;
    check(Mood::Hang, "did not answer within 30 s").await;
    let unauthenticated = "authority refused: Unauthenticated: says the authority";
    check(Mood::Status(Code::Unauthenticated), unauthenticated).await;
    check(Mood::Status(Code::InvalidArgument), "authority refused: InvalidArgument").await;
    check(Mood::Status(Code::Unavailable), "Unavailable: says the authority").await;
    check(Mood::Nothing, "sent no certificate").await;
    check(Mood::NoRoot, "without a root certificate").await;
    check(Mood::Garbage, "element 1 of the certificate authority's answer").await;
    check(Mood::Huge, "OutOfRange").await;
    check(Mood::RootFirst, "begins with the certificate of an authority").await;
    check(Mood::OtherKey, "for another key").await;
    check(Mood::OtherIdentity, "the peer is spiffe://td/ns/a/sa/other, not").await;
    check(Mood::Past, "expired").await;
    check(Mood::Future, "not valid yet").await;
    check(Mood::Stranger, "does not lead to a trust anchor").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_expected_of_another_try() {
    let check = async |mood: Mood, expected: IssueErrorKind| {
        let stage = Stage::new(mood);
        let error = stage.ca.issue(request(A)).await.unwrap_err();
        assert_eq!(error.kind, expected, "{mood:?}: {error}");
    };
    check(Mood::Down, IssueErrorKind::Unreachable).await;
    check(Mood::Status(Code::Unavailable), IssueErrorKind::Unreachable).await;
    check(Mood::Status(Code::ResourceExhausted), IssueErrorKind::Unreachable).await;
    check(Mood::Status(Code::Internal), IssueErrorKind::Unreachable).await;
    check(Mood::Status(Code::Unauthenticated), IssueErrorKind::Denied).await;
    check(Mood::Status(Code::PermissionDenied), IssueErrorKind::Denied).await;
    check(Mood::Status(Code::InvalidArgument), IssueErrorKind::Refused).await;
    check(Mood::Status(Code::Unimplemented), IssueErrorKind::Refused).await;
    check(Mood::NoRoot, IssueErrorKind::Unfit).await;
    check(Mood::Huge, IssueErrorKind::Unfit).await;
}

#[tokio::test(start_paused = true)]
async fn away_past_half_life_and_back() {
    let stage = Stage::new(Mood::Good);
    stage.credentials.hold(&identity(A));
    let first = stage.server(A).await.unwrap();
    stage.mood(Mood::Down);
    for hour in 1..24 {
        stage.clock.shift_wall(hour * HOUR);
        sleep(Duration::from_secs(200)).await;
        assert!(Arc::ptr_eq(&first, &stage.server(A).await.unwrap()), "hour {hour}");
    }
    let failures = stage.info(A).failures;
    assert!(failures > 3, "{failures}");
    stage.mood(Mood::Good);
    sleep(Duration::from_secs(200)).await;
    assert!(!Arc::ptr_eq(&first, &stage.server(A).await.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_root_is_replaced_without_a_failed_handshake() {
    let stage = Stage::new(Mood::Good);
    let phases = [
        Phase { signer: 0, roots: &[0] },
        Phase { signer: 0, roots: &[0, 1] },
        Phase { signer: 1, roots: &[0, 1] },
        Phase { signer: 1, roots: &[1] },
    ];
    for id in [A, B] {
        stage.credentials.hold(&identity(id));
        stage.server(id).await.unwrap();
    }
    let mut mixed = 0;
    for hour in 0..40 * 4 {
        let phase = phases[usize::try_from(hour / 40).unwrap()];
        *stage.fake.phase.lock().unwrap() = phase;
        stage.clock.shift_wall(hour * HOUR);
        sleep(A_LOOK).await;
        for (from, to) in [(A, B), (B, A)] {
            let server = stage.server(to).await.unwrap();
            let expected = [identity(to)];
            let client = stage.credentials.client(&identity(from), &expected).await.unwrap().config;
            handshake(client, server).unwrap_or_else(|fault| panic!("{hour}: {fault:?}"));
        }
        let roots = |id: &str| stage.info(id).roots;
        mixed += u32::from(roots(A) != roots(B));
        if hour % 40 == 39 {
            assert_eq!((roots(A).len(), roots(B).len()), (phase.roots.len(), phase.roots.len()));
        }
    }
    // The two are renewed at different times, or nothing was shown.
    assert!(mixed > 0);
}

#[tokio::test(start_paused = true)]
async fn a_burst_shares_a_connection_and_a_later_renewal_makes_its_own() {
    let stage = Stage::new(Mood::Good);
    let connects = || stage.fake.connects.load(Ordering::SeqCst);
    for n in 0..40 {
        stage.credentials.hold(&identity(&format!("spiffe://td/ns/a/sa/sa{n}")));
    }
    for n in 0..40 {
        stage.server(&format!("spiffe://td/ns/a/sa/sa{n}")).await.unwrap();
    }
    assert_eq!(connects(), 1);
    sleep(REUSE_MAX).await;
    stage.ca.issue(request(A)).await.unwrap();
    assert_eq!(connects(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_connection_that_fails_is_told_at_once() {
    let stage = Stage::new(Mood::Down);
    let all = (0..8).map(|_| stage.ca.issue(request(A)));
    for answer in futures_util::future::join_all(all).await {
        assert!(answer.unwrap_err().reason.contains("Connection refused"));
    }
    assert_eq!(stage.fake.connects.load(Ordering::SeqCst), 1);
    sleep(Duration::from_millis(1)).await;
    assert!(stage.ca.issue(request(A)).await.is_err());
    assert_eq!(stage.fake.connects.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_takes_is_repeated_seldom() {
    let stage = Stage::new(Mood::Status(Code::InvalidArgument));
    stage.credentials.hold(&identity(A));
    for _ in 0..20 {
        assert!(timeout(A_LOOK, stage.server(A)).await.unwrap().is_err());
        sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(stage.info(A).failures, 1);
    assert_eq!(stage.counted.failures.get_or_create(&[("kind", "refused")]).get(), 1);
    assert_eq!(stage.counted.issued.get(), 0);
    stage.mood(Mood::Good);
    sleep(Duration::from_secs(100)).await;
    stage.server(A).await.unwrap();
    assert_eq!(stage.counted.issued.get(), 1);
}
