//! A certificate authority in memory that does as it is told, right or wrong.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::CertificateSigningRequestParams;
use tokio::io::duplex;
use tokio::task::JoinSet;
use tonic::codegen::Service;
use tonic::{Request, Response};

use super::*;
use crate::config::{TlsPolicy, Token, TrustRoot, Upstream};
use crate::creds::channel::Connector;
use crate::creds::keeper::{Keeper, Settings};
use crate::creds::store::{CertificateInfo, Credentials};
use crate::creds::testing::*;
use crate::report::dump::pem;
use crate::report::metrics::CertificateMetrics;
use crate::wire::ca::auth::IstioCertificateResponse;
use crate::wire::ca::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};

pub(super) const TTL: Duration = Duration::from_secs(24 * 3600);

/// What is done with the next request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Mood {
    Good,
    Middle,
    Down,
    Hang,
    Status(Code),
    Nothing,
    NoRoot,
    Garbage,
    Huge,
    RootFirst,
    OtherKey,
    OtherIdentity,
    Past,
    Future,
    Stranger,
}

/// Who signs, and what is given out as roots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    pub(super) signer: usize,
    pub(super) roots: &'static [usize],
}

#[derive(Debug)]
pub(super) struct Fake {
    pub(super) mood: Mutex<Mood>,
    pub(super) phase: Mutex<Phase>,
    pub(super) connects: AtomicUsize,
    pub(super) last: Mutex<Option<IstioCertificateRequest>>,
    cas: [Ca; 2],
    stranger: Ca,
    clock: Clock,
}

#[tonic::async_trait]
impl IstioCertificateService for Fake {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let request = request.into_inner();
        *self.last.lock().unwrap() = Some(request.clone());
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Hang => std::future::pending().await,
            Mood::Status(code) => Err(Status::new(code, "says the authority")),
            mood => {
                let cert_chain = self.answer(&request, mood);
                Ok(Response::new(IstioCertificateResponse { cert_chain }))
            }
        }
    }
}

impl Fake {
    fn answer(&self, request: &IstioCertificateRequest, mood: Mood) -> Vec<String> {
        let phase = *self.phase.lock().unwrap();
        let csr = CertificateSigningRequestParams::from_pem(&request.csr).unwrap();
        let ca = if mood == Mood::Stranger { &self.stranger } else { &self.cas[phase.signer] };
        let mut leaf = Leaf::new(csr.params.subject_alt_names.clone());
        if mood == Mood::OtherIdentity {
            leaf = Leaf::of("spiffe://td/ns/a/sa/other");
        }
        let (wall, lasts) = (self.clock.wall(), Duration::from_secs(120));
        let leaf = leaf.with(|params| {
            let life = Duration::from_secs(request.validity_duration.unsigned_abs());
            let (from, to) = match mood {
                Mood::Past => (wall - 2 * lasts, wall - lasts),
                Mood::Future => (wall + lasts, wall + life),
                _ => (wall - lasts, wall + life),
            };
            (params.not_before, params.not_after) = (from.into(), to.into());
        });
        let middle = self.cas[phase.signer].sub("middle", |params| {
            params.not_after = (wall + 2 * TTL).into();
        });
        let leaf = match mood {
            Mood::OtherKey => leaf.by(ca).chain.remove(0),
            Mood::Middle => leaf.for_key(&csr.public_key, &middle),
            _ => leaf.for_key(&csr.public_key, ca),
        };
        let roots: String = phase.roots.iter().map(|&at| pem(&self.cas[at].der)).collect();
        match mood {
            Mood::Nothing => vec![],
            Mood::NoRoot => vec![pem(&leaf)],
            Mood::Huge => vec![pem(&leaf), roots.repeat(ANSWER_BYTES_MAX / roots.len() + 1)],
            Mood::Garbage => vec!["garbage".to_owned(), roots],
            Mood::RootFirst => vec![pem(&ca.der), pem(&leaf), roots],
            Mood::Middle => vec![pem(&leaf), pem(&middle.der), roots],
            _ => vec![pem(&leaf), roots],
        }
    }
}

/// The way to it.
#[derive(Debug)]
struct Net {
    fake: Arc<Fake>,
    connector: Connector,
    servers: Mutex<JoinSet<()>>,
}

impl Connect for Net {
    fn connect(&self) -> BoxFuture<'_, Result<Channel, ChannelError>> {
        self.fake.connects.fetch_add(1, Ordering::SeqCst);
        if *self.fake.mood.lock().unwrap() == Mood::Down {
            let address = SocketAddr::from(([127, 0, 0, 1], 15_012));
            let reason = "Connection refused".to_owned();
            return Box::pin(async move {
                tokio::task::yield_now().await;
                Err(ChannelError::Unreachable { address, reason })
            });
        }
        let (ours, theirs) = duplex(64 * 1024);
        let server = IstioCertificateServiceServer::from_arc(Arc::clone(&self.fake));
        let service = service_fn(move |request| server.clone().call(request));
        let connection = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(theirs), service);
        self.servers.lock().unwrap().spawn(async { drop(connection.await) });
        Box::pin(self.connector.over(ours))
    }
}

/// A keeper that asks the fake, and what its readers see.
pub(super) struct Stage {
    pub(super) fake: Arc<Fake>,
    pub(super) ca: Arc<IstioCa>,
    pub(super) clock: Clock,
    pub(super) credentials: Credentials,
    pub(super) counted: CertificateMetrics,
    _keeper: JoinSet<()>,
}

impl Stage {
    pub(super) fn new(mood: Mood) -> Self {
        let clock = Clock::shiftable();
        let fake = Arc::new(Fake {
            mood: Mutex::new(mood),
            phase: Mutex::new(Phase { signer: 0, roots: &[0] }),
            connects: AtomicUsize::new(0),
            last: Mutex::default(),
            cas: [Ca::root("a"), Ca::root("b")],
            stranger: Ca::root("stranger"),
            clock: clock.clone(),
        });
        let settings = Settings { tls: TlsPolicy::Tls13, certificate_ttl: TTL };
        let upstream = Upstream {
            address: "https://ca:15012".parse().unwrap(),
            root: TrustRoot::System,
            alternative_name: None,
            token: Some(Token::Text("token".into())),
            cluster_id: "c1".into(),
            headers: Vec::new(),
        };
        let connector = Connector::new(upstream, &settings, clock.clone());
        let net = Net { fake: Arc::clone(&fake), connector, servers: Mutex::default() };
        let ca = Arc::new(IstioCa::new(Arc::new(net), true, clock.clone()));
        let issuer = Arc::clone(&ca) as Arc<dyn Issuer>;
        let (keeper, credentials) = Keeper::new(settings, issuer, clock.clone());
        let counted = CertificateMetrics::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.counting(counted.clone()).run());
        Self { fake, ca, clock, credentials, counted, _keeper: tasks }
    }

    pub(super) fn mood(&self, mood: Mood) {
        *self.fake.mood.lock().unwrap() = mood;
    }

    pub(super) async fn server(&self, id: &str) -> Result<Arc<rustls::ServerConfig>, String> {
        let server = self.credentials.server(&identity(id)).await;
        server.map(|tls| tls.config).map_err(|error| error.to_string())
    }

    pub(super) fn info(&self, id: &str) -> CertificateInfo {
        let inventory = self.credentials.inventory();
        inventory.into_iter().find(|info| info.identity == identity(id)).unwrap()
    }
}
