use std::sync::Weak;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures_util::future::{self, BoxFuture};
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::issuer::{IssueError, IssueErrorKind, IssueRequest, Issued, Issuer};
use super::super::keeper::{Keeper, Settings};
use super::super::testing::*;
use super::*;
use crate::config::TlsPolicy;

const A: &str = "spiffe://td/ns/a/sa/a";
const B: &str = "spiffe://td/ns/a/sa/b";
const DAY: i64 = 24 * HOUR;
/// The keeper has looked at the wall clock once more, whatever it was doing.
const A_LOOK: Duration = Duration::from_secs(5);

/// What the issuer does with the next request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Good,
    Refuse,
    Hang,
    Panic,
    Empty,
    NoRoots,
    GarbageRoots,
    Garbage,
    OtherKey,
    OtherIdentity,
    ForeignDomain,
    TwoIdentities,
    ClientOnly,
    Past,
    Future,
    OtherRoot,
    OldMiddle,
}

#[derive(Debug)]
struct Scripted {
    mood: Mutex<Mood>,
    clock: Clock,
    ca: Ca,
    stranger: Ca,
    asked: AtomicUsize,
    active: Arc<AtomicUsize>,
    active_max: AtomicUsize,
}

/// Counts requests that have not been dropped.
struct Active(Arc<AtomicUsize>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Scripted {
    fn answer(&self, request: &IssueRequest, mood: Mood) -> Issued {
        let wall = self.clock.wall();
        let lasts = Duration::from_secs(60);
        let id = request.identity.to_string();
        let leaf = match mood {
            Mood::OtherIdentity => Leaf::of("spiffe://td/ns/a/sa/other"),
            Mood::ForeignDomain => Leaf::of("spiffe://other.example/ns/a/sa/a"),
            Mood::TwoIdentities => Leaf::new([uri(&id), uri("spiffe://td/ns/a/sa/other")]),
            Mood::ClientOnly => Leaf::of(&id).usage(&[ExtendedKeyUsagePurpose::ClientAuth]),
            _ => Leaf::of(&id),
        };
        let leaf = leaf.with(|params| {
            let (not_before, not_after) = match mood {
                Mood::Past => (wall - 2 * lasts, wall - lasts),
                Mood::Future => (wall + lasts, wall + request.ttl),
                _ => (wall - lasts, wall + request.ttl),
            };
            params.not_before = not_before.into();
            params.not_after = not_after.into();
        });
        let csr = CertificateSigningRequestParams::from_der(&request.csr).unwrap();
        let old = self.ca.sub("old", |params| params.not_after = (wall - lasts).into());
        let ca = match mood {
            Mood::OtherRoot => &self.stranger,
            Mood::OldMiddle => &old,
            _ => &self.ca,
        };
        let mut chain = match mood {
            Mood::Empty => vec![],
            Mood::Garbage => vec![vec![1, 2, 3].into()],
            Mood::OtherKey => leaf.by(ca).chain,
            _ => vec![leaf.for_key(&csr.public_key, ca)],
        };
        if mood == Mood::OldMiddle {
            chain.push(old.der.clone());
        }
        let roots = match mood {
            Mood::NoRoots => vec![],
            Mood::GarbageRoots => vec![vec![1, 2, 3].into()],
            _ => vec![self.ca.der.clone()],
        };
        Issued { chain, roots }
    }
}

impl Issuer for Scripted {
    fn issue(&self, request: IssueRequest) -> BoxFuture<'_, Result<Issued, IssueError>> {
        let mood = *self.mood.lock().unwrap();
        self.asked.fetch_add(1, Ordering::SeqCst);
        let active = self.active.fetch_add(1, Ordering::SeqCst) + 1;
        self.active_max.fetch_max(active, Ordering::SeqCst);
        let guard = Active(Arc::clone(&self.active));
        Box::pin(async move {
            let _guard = guard;
            tokio::task::yield_now().await;
            match mood {
                Mood::Refuse => Err(IssueError {
                    kind: IssueErrorKind::Unreachable,
                    reason: "the issuer is tired".into(),
                }),
                Mood::Hang => future::pending().await,
                Mood::Panic => panic!("the issuer's fault"),
                mood => Ok(self.answer(&request, mood)),
            }
        })
    }
}

/// A running keeper with a scripted issuer.
struct Stage {
    clock: Clock,
    issuer: Arc<Scripted>,
    credentials: Credentials,
    keeper: JoinSet<()>,
}

impl Stage {
    fn new(mood: Mood) -> Self {
        let clock = Clock::shiftable();
        let issuer = Arc::new(Scripted {
            mood: Mutex::new(mood),
            clock: clock.clone(),
            ca: Ca::root("root"),
            stranger: Ca::root("stranger"),
            asked: AtomicUsize::new(0),
            active: Arc::default(),
            active_max: AtomicUsize::new(0),
        });
        let certificate_ttl = Duration::from_secs(24 * 3600);
        let settings = Settings { tls: TlsPolicy::Tls13, certificate_ttl };
        let (keeper, credentials) =
            Keeper::new(settings, Arc::clone(&issuer) as Arc<dyn Issuer>, clock.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run());
        Self { clock, issuer, credentials, keeper: tasks }
    }

    /// With `A` held and its certificate there.
    async fn ready() -> Self {
        let stage = Self::new(Mood::Good);
        stage.credentials.hold(&identity(A));
        stage.server(A).await.unwrap();
        stage
    }

    fn mood(&self, mood: Mood) {
        *self.issuer.mood.lock().unwrap() = mood;
    }

    fn asked(&self) -> usize {
        self.issuer.asked.load(Ordering::SeqCst)
    }

    async fn server(&self, id: &str) -> Result<Arc<ServerConfig>, CredentialsError> {
        Ok(self.credentials.server(&identity(id)).await?.config)
    }

    fn info(&self, id: &str) -> CertificateInfo {
        let inventory = self.credentials.inventory();
        inventory.into_iter().find(|info| info.identity == identity(id)).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn two_workloads_shake_hands() {
    let stage = Stage::ready().await;
    stage.credentials.hold(&identity(B));
    let server = stage.server(B).await.unwrap();
    let expected = [identity(B)];
    let client = stage.credentials.client(&identity(A), &expected).await.unwrap().config;
    handshake(client.clone(), server.clone()).unwrap();
    // Made once and shared.
    assert!(Arc::ptr_eq(&server, &stage.server(B).await.unwrap()));
    let again = stage.credentials.client(&identity(A), &expected).await.unwrap().config;
    assert!(Arc::ptr_eq(&client, &again));
    let nobody = stage.credentials.client(&identity(A), &[]).await.unwrap().config;
    assert!(handshake(nobody, server.clone()).is_err());
    let other = stage.credentials.client(&identity(A), &[identity(A)]).await.unwrap().config;
    assert!(handshake(other, server).is_err());
}

#[tokio::test(start_paused = true)]
async fn all_readers_wait_for_one_fetch() {
    let stage = Stage::new(Mood::Good);
    stage.credentials.hold(&identity(A));
    assert_eq!(stage.info(A).state, CertificateState::Initializing);
    let mut readers = JoinSet::new();
    for _ in 0..50 {
        let credentials = stage.credentials.clone();
        readers.spawn(async move { credentials.server(&identity(A)).await.is_ok() });
    }
    while let Some(served) = readers.join_next().await {
        assert!(served.unwrap());
    }
    assert_eq!(stage.asked(), 1);
    let info = stage.info(A);
    assert_eq!(info.state, CertificateState::Available);
    assert_eq!((info.chain.len(), info.roots.len(), info.failures), (1, 1, 0));
    assert!(info.last_success.is_some() && info.not_after > info.not_before);
}

#[tokio::test(start_paused = true)]
async fn renewed_in_the_middle_of_its_life() {
    let stage = Stage::ready().await;
    let first = stage.server(A).await.unwrap();
    stage.clock.shift_wall(DAY * 44 / 100);
    sleep(A_LOOK).await;
    assert!(Arc::ptr_eq(&first, &stage.server(A).await.unwrap()));
    stage.clock.shift_wall(DAY * 66 / 100);
    sleep(A_LOOK).await;
    assert!(!Arc::ptr_eq(&first, &stage.server(A).await.unwrap()));
    assert_eq!(stage.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_bad_certificate_is_never_published() {
    let check = async |mood: Mood, words: &str| {
        // As the first one: nothing is served.
        let stage = Stage::new(mood);
        stage.credentials.hold(&identity(A));
        let error = stage.server(A).await.unwrap_err();
        let CredentialsError::Unavailable(text) = &error else { panic!("{mood:?}: {error:?}") };
        assert!(text.contains(words), "{mood:?}: {text:?} is not about {words:?}");
        assert_eq!(stage.info(A).state, CertificateState::Unavailable(text.clone()));

        // As a renewal: the previous one stays.
        let stage = Stage::ready().await;
        let first = stage.server(A).await.unwrap();
        stage.mood(mood);
        stage.clock.shift_wall(DAY * 66 / 100);
        sleep(A_LOOK + Duration::from_secs(30)).await;
        assert!(Arc::ptr_eq(&first, &stage.server(A).await.unwrap()), "{mood:?}");
        let info = stage.info(A);
        assert_eq!(info.state, CertificateState::Available, "{mood:?}");
        assert!(info.failures > 0, "{mood:?}");
        let text = info.last_error.unwrap();
        assert!(text.contains(words), "{mood:?}: {text:?} is not about {words:?}");
    };
    check(Mood::Refuse, "the issuer is tired").await;
    check(Mood::Hang, "did not answer within 30 s").await;
    check(Mood::Panic, "broke off").await;
    check(Mood::Empty, "no certificate").await;
    check(Mood::NoRoots, "no usable trust anchor").await;
    check(Mood::GarbageRoots, "no usable trust anchor").await;
    check(Mood::Garbage, "BadEncoding").await;
    check(Mood::OtherKey, "for another key").await;
    check(Mood::OtherIdentity, "the peer is spiffe://td/ns/a/sa/other, not").await;
    check(Mood::ForeignDomain, "the peer is spiffe://other.example/").await;
    check(Mood::TwoIdentities, "more than one SPIFFE id").await;
    check(Mood::ClientOnly, "extended key usage").await;
    check(Mood::Past, "expired").await;
    check(Mood::Future, "not valid yet").await;
    check(Mood::OtherRoot, "trust anchor").await;
    check(Mood::OldMiddle, "expired").await;
}

#[tokio::test(start_paused = true)]
async fn an_issuer_away_is_noticed_by_nobody_until_expiry() {
    let stage = Stage::ready().await;
    let first = stage.server(A).await.unwrap();
    stage.mood(Mood::Refuse);
    for hour in 1..24 {
        stage.clock.shift_wall(hour * HOUR);
        sleep(Duration::from_secs(200)).await;
        assert!(Arc::ptr_eq(&first, &stage.server(A).await.unwrap()), "hour {hour}");
    }
    // To the moment: no timer decides, the clock does.
    stage.clock.shift_wall(DAY);
    assert_eq!(stage.server(A).await.err(), Some(CredentialsError::Expired));
    let client = stage.credentials.client(&identity(A), &[identity(B)]).await;
    assert_eq!(client.err(), Some(CredentialsError::Expired));
    let CertificateState::Unavailable(text) = stage.info(A).state else { panic!() };
    assert!(text.contains("expired") && text.contains("tired"), "{text}");

    stage.mood(Mood::Good);
    sleep(Duration::from_secs(6)).await;
    assert!(stage.server(A).await.is_ok());
    assert_eq!((stage.info(A).failures, stage.info(A).last_error), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_reader_in_need_is_answered_at_once_and_tried_for_soon() {
    let stage = Stage::new(Mood::Refuse);
    stage.credentials.hold(&identity(A));
    sleep(Duration::from_secs(1000)).await;
    let (before, start) = (stage.asked(), stage.clock.monotonic());
    for _ in 0..1000 {
        assert!(stage.server(A).await.is_err());
    }
    assert_eq!(stage.clock.monotonic(), start);
    stage.mood(Mood::Good);
    sleep(Duration::from_secs(6)).await;
    assert!(stage.server(A).await.is_ok());
    assert_eq!(stage.asked(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn constant_need_does_not_hammer_the_issuer() {
    let stage = Stage::new(Mood::Refuse);
    stage.credentials.hold(&identity(A));
    for _ in 0..600 {
        assert!(stage.server(A).await.is_err());
        sleep(Duration::from_millis(500)).await;
    }
    // 300 seconds, at most one try in 5 after the first few.
    assert!((50..70).contains(&stage.asked()), "{}", stage.asked());
}

#[tokio::test(start_paused = true)]
async fn with_the_last_release_everything_is_gone() {
    let stage = Stage::ready().await;
    stage.credentials.hold(&identity(A));
    let server: Weak<_> = Arc::downgrade(&stage.server(A).await.unwrap());
    let client = stage.credentials.client(&identity(A), &[identity(B)]).await;
    let client: Weak<_> = client.map(|tls| Arc::downgrade(&tls.config)).unwrap();
    assert_eq!(stage.info(A).holds, 2);
    stage.credentials.release(&identity(A));
    assert!(server.upgrade().is_some() && stage.server(A).await.is_ok());
    stage.credentials.release(&identity(A));
    assert!(server.upgrade().is_none() && client.upgrade().is_none());
    let error = stage.server(A).await.unwrap_err();
    assert!(matches!(error, CredentialsError::Unavailable(_)), "{error:?}");
    assert!(stage.credentials.inventory().is_empty());
    stage.credentials.release(&identity(A));

    // Nothing is renewed for nobody.
    stage.clock.shift_wall(DAY * 66 / 100);
    sleep(A_LOOK).await;
    assert_eq!(stage.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_release_ends_the_fetch_and_the_waiting() {
    let stage = Stage::new(Mood::Hang);
    stage.credentials.hold(&identity(A));
    let credentials = stage.credentials.clone();
    let mut reader = JoinSet::new();
    reader.spawn(async move { credentials.server(&identity(A)).await.map(|_| ()) });
    sleep(Duration::from_millis(1)).await;
    assert_eq!(stage.issuer.active.load(Ordering::SeqCst), 1);
    stage.credentials.release(&identity(A));
    let answer = timeout(A_LOOK, reader.join_next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(answer, Err(CredentialsError::Unavailable(_))), "{answer:?}");
    sleep(Duration::from_millis(1)).await;
    assert_eq!(stage.issuer.active.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn released_and_held_again_is_fetched_again() {
    let stage = Stage::ready().await;
    let first = stage.server(A).await.unwrap();
    // Both before the keeper looks.
    stage.credentials.release(&identity(A));
    stage.credentials.hold(&identity(A));
    let second = timeout(A_LOOK, stage.server(A)).await.unwrap().unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert_eq!(stage.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_nobody_holds_is_not_fetched() {
    let stage = Stage::ready().await;
    let error = stage.server(B).await.unwrap_err();
    assert!(matches!(&error, CredentialsError::Unavailable(text) if text.contains(B)), "{error:?}");
    sleep(A_LOOK).await;
    assert_eq!(stage.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_keeper_what_is_there_is_served_and_nobody_waits() {
    let mut stage = Stage::ready().await;
    stage.mood(Mood::Hang);
    stage.credentials.hold(&identity(B));
    let credentials = stage.credentials.clone();
    let mut reader = JoinSet::new();
    reader.spawn(async move { credentials.server(&identity(B)).await.map(|_| ()) });
    sleep(Duration::from_millis(1)).await;
    stage.keeper.shutdown().await;
    let answer = timeout(A_LOOK, reader.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(answer, Err(CredentialsError::Stopped));
    assert_eq!(stage.server(B).await.err(), Some(CredentialsError::Stopped));
    assert!(stage.server(A).await.is_ok());
    stage.clock.shift_wall(DAY);
    assert_eq!(stage.server(A).await.err(), Some(CredentialsError::Expired));
    assert_eq!(stage.issuer.active.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn many_pods_are_served_eight_at_a_time() {
    let stage = Stage::new(Mood::Good);
    let all: Vec<_> = (0..60).map(|n| format!("spiffe://td/ns/a/sa/sa{n:02}")).collect();
    for id in &all {
        stage.credentials.hold(&identity(id));
    }
    for id in &all {
        stage.server(id).await.unwrap();
    }
    assert_eq!(stage.issuer.active_max.load(Ordering::SeqCst), 8);
    let inventory: Vec<_> =
        stage.credentials.inventory().iter().map(|info| info.identity.to_string()).collect();
    assert_eq!(inventory, all);
}
