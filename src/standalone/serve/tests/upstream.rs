//! The control plane as the proxy's own connections see it.

use prost_types::{Struct, Value, value::Kind};
use rcgen::{CertificateParams, DistinguishedName, SanType};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;

use super::*;
use crate::config::{TlsPolicy, Token, TrustRoot, Upstream, XdsNode};
use crate::control::stream::{XdsParts, XdsSource};
use crate::creds::{
    Connect, Connector, IssueErrorKind, IssueRequest, Issuer, IstioCa, explain_status,
};
use crate::model::{PolicyKey, Publisher, View};
use crate::report::metrics::XdsMetrics;
use crate::wire::ca::auth::IstioCertificateRequest;
use crate::wire::ca::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use crate::wire::spiffe::Identity;

const WEB: &str = "spiffe://corp.example/ns/shop/sa/web";

fn connector(world: &World) -> Connector {
    let upstream = Upstream {
        address: format!("https://{}", world.address).parse().unwrap(),
        root: TrustRoot::File(world.folder.join("ca/root-cert.pem")),
        alternative_name: None,
        token: Some(Token::File(world.folder.join("token"))),
        cluster_id: "Kubernetes".into(),
        headers: Vec::new(),
    };
    let certificate_ttl = Duration::from_secs(3600);
    let settings = crate::creds::Settings { tls: TlsPolicy::Tls13, certificate_ttl };
    Connector::new(upstream, &settings, Clock::system())
}

fn request() -> IstioCertificateRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(WEB.try_into().unwrap())];
    let key = rcgen::KeyPair::generate().unwrap();
    let identity = Value { kind: Some(Kind::StringValue(WEB.to_owned())) };
    let fields = [("ImpersonatedIdentity".to_owned(), identity)].into();
    IstioCertificateRequest {
        csr: params.serialize_request(&key).unwrap().pem().unwrap(),
        validity_duration: 60,
        metadata: Some(Struct { fields }),
    }
}

#[tokio::test]
async fn the_token_is_read_again_for_each_request() {
    let world =
        World::start("upstream", &(NAMESPACE.to_owned() + &pod("web", "a", "10.0.0.1"))).await;
    let channel = connector(&world).connect().await.unwrap();
    let mut client = IstioCertificateServiceClient::new(channel);
    let path = world.folder.join("token");
    let mut ask = async || {
        let answer = timeout(PATIENCE, client.create_certificate(request())).await.unwrap();
        answer.map(|_| ()).map_err(|status| explain_status(&status))
    };
    let unreadable = ask().await.unwrap_err();
    assert!(unreadable.starts_with("no token to show to the server: "), "{unreadable}");
    fs::write(&path, "adit-dev:a:00").unwrap();
    let refused = ask().await.unwrap_err();
    assert!(refused.starts_with("Unauthenticated: authentication failure"), "{refused}");
    fs::write(&path, format!("  {}\n\n", world.token("a"))).unwrap();
    ask().await.unwrap();
}

#[tokio::test]
async fn the_root_is_read_again_for_each_connection() {
    let world = World::start("upstream", NAMESPACE).await;
    let root = world.folder.join("ca/root-cert.pem");
    let connector = connector(&world);
    connector.connect().await.unwrap();
    let pem = fs::read(&root).unwrap();
    fs::remove_file(&root).unwrap();
    assert!(connector.connect().await.is_err());
    fs::write(&root, pem).unwrap();
    connector.connect().await.unwrap();
}

#[tokio::test]
async fn the_proxys_own_client_gets_certificates_and_a_token_that_is_refused_is_replaced() {
    let yaml = NAMESPACE.to_owned() + &pod("web", "a", "10.0.0.1");
    let world = World::start("upstream", &yaml).await;
    let ca = IstioCa::new(Arc::new(connector(&world)), true, Clock::system());
    let identity: Identity = WEB.parse().unwrap();
    let ask = async || {
        let csr = CertificateSigningRequestDer::from_pem_slice(request().csr.as_bytes()).unwrap();
        let ttl = Duration::from_secs(60);
        let request = IssueRequest { identity: identity.clone(), csr, ttl };
        timeout(PATIENCE, ca.issue(request)).await.unwrap()
    };
    let path = world.folder.join("token");
    fs::write(&path, world.token("a").replace("adit-dev:a", "adit-dev:b")).unwrap();
    let error = ask().await.unwrap_err();
    assert_eq!(error.kind, IssueErrorKind::Denied);
    assert!(error.reason.contains("Unauthenticated"), "{error}");
    fs::write(&path, world.token("a")).unwrap();
    let issued = ask().await.unwrap();
    assert_eq!((issued.chain.len(), issued.roots.len()), (1, 1));
}

/// A proxy of `node` whose mesh is what the control plane says.
fn follow(world: &World, node: &str) -> (View, JoinSet<()>) {
    fs::write(world.folder.join("token"), world.token(node)).unwrap();
    let (publisher, view) = Publisher::new();
    let parts = XdsParts {
        node: XdsNode {
            id: "ztunnel~10.0.0.9~z.ns~ns.svc.cluster.local".to_owned(),
            metadata: [("NODE_NAME".to_owned(), node.into())].into(),
        },
        publisher,
        lookups: None,
        metrics: XdsMetrics::default(),
        clock: Clock::system(),
        rng: fastrand::Rng::new(),
        keep: None,
    };
    let (source, _) = XdsSource::new(Arc::new(connector(world)), parts);
    let mut tasks = JoinSet::new();
    tasks.spawn(source.run());
    (view, tasks)
}

#[tokio::test]
async fn the_proxys_own_stream_follows_the_manifests() {
    let yaml = NAMESPACE.to_owned() + &pod("web", "a", "10.0.0.1");
    let world = World::start("stream", &yaml).await;
    let (view, _tasks) = follow(&world, "a");
    let is = async |wanted: (usize, usize, usize)| {
        let found = view.wait_for(PATIENCE, |mesh| (mesh.counts() == wanted).then_some(())).await;
        assert_eq!(found, Some(()), "{:?} instead of {wanted:?}", view.load().counts());
    };
    is((1, 0, 0)).await;
    world.write(&format!("{yaml}{}---{POLICY}", pod("db", "b", "10.0.0.2")));
    is((2, 0, 1)).await;
    let policy = PolicyKey::new("shop", "only-web");
    assert!(view.load().policy(&policy).is_some());
    world.write(&format!("{NAMESPACE}{}", pod("db", "b", "10.0.0.2")));
    is((1, 0, 0)).await;
    // Nothing of ours is refused by our own.
    let status = world.status_with(|status| status["proxies"][0]["token_of"] == "a").await;
    let kinds = status["proxies"][0]["resources"].as_array().unwrap();
    assert!(kinds.iter().all(|kind| kind["nacks"] == 0), "{status}");
}
