//! A client of the generated code over connections of our own.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::unfold;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost_types::{Struct, Value, value::Kind};
use rcgen::{CertificateParams, DistinguishedName, SanType};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::wire::ca::auth::IstioCertificateRequest;
use crate::wire::ca::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use crate::wire::xds::ResourceType;
use crate::wire::xds::discovery;
use discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;

/// One connection.
pub(super) struct Client {
    channel: Channel,
    token: Option<String>,
    _tasks: JoinSet<()>,
}

/// One stream of delta xDS.
pub(super) struct Stream {
    requests: mpsc::Sender<discovery::DeltaDiscoveryRequest>,
    responses: tonic::Streaming<discovery::DeltaDiscoveryResponse>,
}

#[derive(Clone)]
struct Channel(http2::SendRequest<Body>);

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

impl Client {
    pub(super) async fn tls(address: SocketAddr, root: &[u8], token: Option<String>) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("istiod.istio-system.svc").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        Self::over(stream, token).await
    }

    pub(super) async fn plain(address: SocketAddr, token: Option<String>) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), token).await
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        token: Option<String>,
    ) -> Self {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { drop(connection.await) });
        Self { channel: Channel(sender), token, _tasks: tasks }
    }

    /// Opens a stream and asks for everything, as the proxy of `node`.
    pub(super) async fn stream(&mut self, node: &str) -> Result<Stream, Status> {
        let (requests, sent) = mpsc::channel(16);
        for kind in ResourceType::ALL {
            let name = Value { kind: Some(Kind::StringValue(node.to_owned())) };
            let fields = [("NODE_NAME".to_owned(), name)].into();
            let first = discovery::DeltaDiscoveryRequest {
                type_url: kind.url().to_owned(),
                node: Some(discovery::Node {
                    id: format!("ztunnel~10.0.0.9~{node}.ns~ns.svc.cluster.local"),
                    metadata: Some(Struct { fields }),
                    ..discovery::Node::default()
                }),
                ..discovery::DeltaDiscoveryRequest::default()
            };
            requests.send(first).await.unwrap();
        }
        let sent = unfold(sent, |mut sent| async { Some((sent.recv().await?, sent)) });
        let request = self.with_token(Box::pin(sent));
        let mut client = AggregatedDiscoveryServiceClient::with_origin(
            self.channel.clone(),
            http::Uri::from_static("https://control"),
        );
        let responses = client.delta_aggregated_resources(request).await?.into_inner();
        Ok(Stream { requests, responses })
    }

    /// Asks for a certificate of `asks` with a request for `csr`, valid for `seconds`.
    pub(super) async fn certificate(
        &mut self,
        asks: &str,
        csr: &str,
        seconds: i64,
    ) -> Result<Vec<String>, Status> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(csr.try_into().unwrap())];
        let key = rcgen::KeyPair::generate().unwrap();
        let identity = Value { kind: Some(Kind::StringValue(asks.to_owned())) };
        let fields = [("ImpersonatedIdentity".to_owned(), identity)].into();
        let request = IstioCertificateRequest {
            csr: params.serialize_request(&key).unwrap().pem().unwrap(),
            validity_duration: seconds,
            metadata: Some(Struct { fields }),
        };
        let mut client = IstioCertificateServiceClient::with_origin(
            self.channel.clone(),
            http::Uri::from_static("https://control"),
        );
        let request = self.with_token(request);
        Ok(client.create_certificate(request).await?.into_inner().cert_chain)
    }

    fn with_token<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        request
    }
}

impl Stream {
    pub(super) async fn next(&mut self) -> Result<discovery::DeltaDiscoveryResponse, Status> {
        Ok(self.responses.message().await?.expect("the server does not end streams"))
    }

    pub(super) async fn acknowledge(
        &self,
        response: &discovery::DeltaDiscoveryResponse,
        error: Option<&str>,
    ) {
        let status =
            |text: &str| discovery::Status { message: text.to_owned(), ..Default::default() };
        let answer = discovery::DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error.map(status),
            ..discovery::DeltaDiscoveryRequest::default()
        };
        self.requests.send(answer).await.unwrap();
    }
}

/// A page, by HTTP/1.
pub(super) async fn get(address: SocketAddr, path: &str) -> String {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async { drop(connection.await) });
    let request = Request::get(path).header("host", "control").body(Body::empty()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}
