use std::convert::Infallible;
use std::path::PathBuf;

use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use rustls_pki_types::CertificateDer;
use tokio::io::{DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::super::testing::*;
use super::*;
use crate::config::{TlsPolicy, TrustRoot};

fn upstream(address: &str, root: TrustRoot) -> Upstream {
    Upstream {
        address: address.parse().unwrap(),
        root,
        alternative_name: None,
        token: Some(Token::Text(" secret\n".to_owned())),
        cluster_id: "c1".into(),
        headers: vec![("x-tenant".parse().unwrap(), HeaderValue::from_static("blue"))],
    }
}

fn connector(upstream: Upstream) -> Connector {
    let ttl = Duration::from_secs(1);
    let settings = Settings { tls: TlsPolicy::Tls13, certificate_ttl: ttl };
    Connector::new(upstream, &settings, Clock::system())
}

async fn channel(stream: DuplexStream) -> Channel {
    let nowhere = TrustRoot::File("/nowhere".into());
    connector(upstream("https://istiod:15012", nowhere)).over(stream).await.unwrap()
}

fn request() -> Request<Body> {
    Request::post("/service/Method").body(Body::empty()).unwrap()
}

/// A server that answers everything and tells what it was asked; the future ends with the
/// connection.
fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> (impl Future<Output = ()> + Send, mpsc::UnboundedReceiver<Request<()>>) {
    let (asked, requests) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Incoming>| {
        asked.send(request.map(|_| ())).unwrap();
        async { Ok::<_, Infallible>(Response::new(Body::empty())) }
    });
    let executor = hyper_util::rt::TokioExecutor::new();
    let connection = server::Builder::new(executor).serve_connection(TokioIo::new(stream), service);
    (async { drop(connection.await) }, requests)
}

#[tokio::test]
async fn a_request_carries_the_servers_name_the_token_and_the_headers() {
    let (ours, theirs) = duplex(64 * 1024);
    let (connection, mut requests) = serve(theirs);
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let mut channel = channel(ours).await;
    channel.call(request()).await.unwrap();
    let asked = requests.recv().await.unwrap();
    assert_eq!(*asked.uri(), "https://istiod:15012/service/Method");
    let header = |name: &str| asked.headers().get(name).map(|value| value.to_str().unwrap());
    assert_eq!(header("authorization"), Some("Bearer secret"));
    assert_eq!(header("clusterid"), Some("c1"));
    assert_eq!(header("x-tenant"), Some("blue"));
}

#[tokio::test]
async fn everything_ends_with_the_last_clone() {
    let (ours, theirs) = duplex(64 * 1024);
    let (connection, mut requests) = serve(theirs);
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let mut channel = channel(ours).await;
    let mut clone = channel.clone();
    channel.call(request()).await.unwrap();
    drop(channel);
    clone.call(request()).await.unwrap();
    assert!(!clone.is_closed());
    drop(clone);
    tasks.join_next().await.unwrap().unwrap();
    assert!(requests.recv().await.is_some() && requests.recv().await.is_some());
    assert!(requests.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_in_flight_does_not_outlive_the_channel() {
    let (ours, _silent) = duplex(64 * 1024);
    let mut channel = channel(ours).await;
    let clock = Clock::system();
    let start = clock.monotonic();
    let answer = channel.call(request());
    drop(channel);
    let error = answer.await.unwrap_err();
    assert!(matches!(&error, ChannelError::Broken { .. }), "{error}");
    assert_eq!(clock.monotonic(), start);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_is_noticed() {
    let (ours, _silent) = duplex(64 * 1024);
    let mut channel = channel(ours).await;
    let clock = Clock::system();
    let start = clock.monotonic();
    let error = channel.call(request()).await.unwrap_err();
    assert!(matches!(&error, ChannelError::Broken { .. }), "{error}");
    let waited = clock.monotonic() - start;
    assert!(waited <= PING_INTERVAL + PING_MAX + Duration::from_secs(1), "{waited:?}");
}

#[tokio::test]
async fn tokens_that_cannot_be_sent() {
    let said = |token: Token| bearer(&token).unwrap_err().to_string();
    let missing = said(Token::File("/nowhere/token".into()));
    assert!(missing.starts_with("no token to show to the server: /nowhere/token: "), "{missing}");
    assert!(said(Token::File("/".into())).contains("not a file"));
    assert!(said(Token::Text(" \n".into())).contains("AUTH_TOKEN: it is empty"));
    let odd = said(Token::Text("sec\nret".into()));
    assert!(odd.contains("no header can carry") && !odd.contains("ret"), "{odd}");
}

/// Connects to a server that shows this certificate, as `https://localhost`.
async fn connect(
    peer: Peer,
    change: impl FnOnce(&mut Upstream),
    trusted: &Ca,
) -> Result<Channel, ChannelError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let config = default_tls().control_server(peer.certified()).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let _ = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
    });
    let mut upstream = upstream(&address, TrustRoot::Pem(pem(&trusted.der)));
    change(&mut upstream);
    connector(upstream).connect().await
}

fn pem(der: &CertificateDer<'_>) -> String {
    crate::report::dump::pem(der)
}

#[tokio::test]
async fn the_server_is_verified_by_its_name_or_the_alternative() {
    let root = Ca::root("root");
    let named = |name: &str| Leaf::new([dns(name)]).by(&root);
    let nothing = |_: &mut Upstream| ();
    let or_istiod = |upstream: &mut Upstream| upstream.alternative_name = Some("istiod".into());
    connect(named("localhost"), nothing, &root).await.unwrap();
    connect(named("localhost"), or_istiod, &root).await.unwrap();
    connect(named("istiod"), or_istiod, &root).await.unwrap();
    let refused = async |peer: Peer, change: &dyn Fn(&mut Upstream), ca: &Ca, why: &str| {
        let error = connect(peer, change, ca).await.unwrap_err();
        assert!(matches!(&error, ChannelError::Tls { .. }), "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
    };
    refused(named("istiod"), &nothing, &root, "not valid for").await;
    refused(named("other"), &or_istiod, &root, "not valid for").await;
    let stranger = Ca::root("stranger");
    refused(named("localhost"), &nothing, &stranger, "does not lead to a trust anchor").await;
    let expired = Leaf::new([dns("localhost")]).dates(-2 * HOUR, -HOUR).by(&root);
    refused(expired, &or_istiod, &root, "expired").await;
}

#[tokio::test]
async fn what_is_wrong_before_anything_is_sent() {
    let said = async |change: &dyn Fn(&mut Upstream)| {
        let root = Ca::root("root");
        let peer = Leaf::new([dns("localhost")]).by(&root);
        connect(peer, change, &root).await.unwrap_err().to_string()
    };
    let file = |path: &str| {
        let root = TrustRoot::File(PathBuf::from(path));
        move |upstream: &mut Upstream| upstream.root = root.clone()
    };
    let missing = said(&file("/nowhere/root.pem")).await;
    assert!(missing.contains("/nowhere/root.pem: No such file"), "{missing}");
    let empty = said(&|upstream| upstream.root = TrustRoot::Pem("-----BEGIN".into())).await;
    assert!(empty.contains("no usable certificate"), "{empty}");
    let unnamed = said(&|upstream| upstream.address.host = "no_name!".into()).await;
    assert!(unnamed.contains("no certificate can have"), "{unnamed}");
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let root = TrustRoot::Pem(pem(&Ca::root("root").der));
    let error = connector(upstream(&format!("https://{address}"), root)).connect().await;
    let said = error.unwrap_err().to_string();
    assert!(said.starts_with(&format!("no connection to {address}: Connection refused")), "{said}");
}

#[tokio::test]
async fn without_tls_only_this_machine_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let root = TrustRoot::File("/nowhere".into());
    let mut channel = connector(upstream(&address, root)).connect().await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let (connection, mut requests) = serve(stream);
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    channel.call(request()).await.unwrap();
    assert_eq!(requests.recv().await.unwrap().uri().scheme_str(), Some("http"));
}
