//! A peer of the test's own making: its certificates, its TLS, its HTTP/2.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit::cli::lab::Pod;
use adit::sys::clock::Clock;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Uri};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, RevokedCertParams,
    SanType, SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs::default_provider};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Context, Outcome, PATIENCE};

const HOUR: i64 = 3600;

/// Somebody who issues certificates.
pub(crate) struct Pki {
    pub(crate) root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// What a peer shows, and the key to it.
pub(crate) struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// A connection with TLS.
pub(crate) type Tls = TlsStream<TcpStream>;

/// One tunnel as a client sees it. The driver ends with it.
pub(crate) struct Tunnel {
    pub(crate) requests: SendRequest<Bytes>,
    driver: JoinSet<Result<(), h2::Error>>,
}

/// The streams of a CONNECT that was answered with 200.
pub(crate) type Carried = (h2::SendStream<Bytes>, h2::RecvStream);

impl Pki {
    /// The development root of a world: what its workloads trust.
    pub(crate) fn of(dir: &Path) -> Outcome<Self> {
        let ca = dir.join("ca");
        let pem = fs::read(ca.join("root-cert.pem")).during("reading the root")?;
        let root = CertificateDer::from_pem_slice(&pem).during("reading the root")?;
        let key = fs::read(ca.join("root-key.der")).during("reading the root's key")?;
        let key = KeyPair::try_from(key.as_slice()).during("reading the root's key")?;
        let issuer = Issuer::from_ca_cert_der(&root, key).during("the root")?;
        Ok(Self { root, issuer })
    }

    /// A root that nobody trusts.
    pub(crate) fn foreign() -> Outcome<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "somebody else");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().during("making a key")?;
        let root = params.self_signed(&key).during("a root")?.der().clone();
        Ok(Self { root, issuer: Issuer::new(params, key) })
    }

    /// How a server of this mesh speaks TLS: it asks for a certificate of the same root.
    pub(crate) fn server(&self, Shown { chain, key }: Shown) -> Outcome<Arc<ServerConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).during("the root")?;
        let provider = Arc::new(default_provider());
        let roots = Arc::new(roots);
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .during("TLS")?
            .with_client_cert_verifier(verifier.during("TLS")?)
            .with_single_cert(chain, key)
            .during("TLS")?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// A certificate with these URIs, good for an hour.
    pub(crate) fn issue(&self, uris: &[&str]) -> Outcome<Shown> {
        self.issue_for(uris, (-HOUR, HOUR))
    }

    /// A certificate valid between two times, seconds from now.
    pub(crate) fn issue_for(&self, uris: &[&str], valid: (i64, i64)) -> Outcome<Shown> {
        self.issue_as(uris, valid, fastrand::u64(1..))
    }

    /// A list of revoked serial numbers, good for an hour; DER.
    pub(crate) fn revokes(&self, serials: &[u128]) -> Outcome<Vec<u8>> {
        let revoked = |serial: &u128| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&serial.to_be_bytes()),
            revocation_time: at(-HOUR).into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: at(-HOUR).into(),
            next_update: at(HOUR).into(),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).during("a list")?;
        Ok(list.der().to_vec())
    }

    /// The same with this serial number.
    pub(crate) fn issue_as(
        &self,
        uris: &[&str],
        (from, to): (i64, i64),
        serial: u64,
    ) -> Outcome<Shown> {
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial.into());
        params.distinguished_name = DistinguishedName::new();
        for uri in uris {
            let uri = (*uri).try_into().during("a URI")?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (at(from).into(), at(to).into());
        let key = KeyPair::generate().during("making a key")?;
        let leaf = params.signed_by(&key, &self.issuer).during("issuing")?;
        Ok(Shown { chain: vec![leaf.der().clone()], key: PrivateKeyDer::from(key) })
    }
}

/// Wall time, `seconds` from now.
fn at(seconds: i64) -> SystemTime {
    let now = Clock::system().wall();
    let shift = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { now - shift } else { now + shift }
}

/// How a peer speaks TLS: what it shows, what it offers.
pub(crate) fn tls(
    shown: Option<&Shown>,
    alpn: &[&str],
    version: &'static SupportedProtocolVersion,
) -> Outcome<Arc<ClientConfig>> {
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .during("TLS")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match shown {
        Some(Shown { chain, key }) => {
            builder.with_client_auth_cert(chain.clone(), key.clone_key()).during("TLS")?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// A connection from a pod, for use on the calling runtime.
pub(crate) fn dial(pod: &Pod, to: SocketAddr) -> Outcome<TcpStream> {
    let stream = pod.connect(to, PATIENCE).during(&format!("connecting to {to}"))?;
    stream.set_nonblocking(true).during("a socket")?;
    stream.set_nodelay(true).during("a socket")?;
    TcpStream::from_std(stream).during("a socket")
}

/// A connection from a pod with TLS. With TLS 1.3 this can succeed although the server is about to
/// refuse the peer.
pub(crate) async fn handshake(
    pod: &Pod,
    to: SocketAddr,
    config: &Arc<ClientConfig>,
) -> Outcome<Tls> {
    let name = ServerName::IpAddress(to.ip().into());
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name, dial(pod, to)?);
    within(handshake).await?.during("the handshake")
}

/// Fails the test if something takes far too long.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> Outcome<T> {
    tokio::time::timeout(PATIENCE, work).await.map_err(|_| "it takes too long".to_owned())
}

/// Runs the asynchronous part of a test.
pub(crate) fn on_runtime<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.during("a runtime")?.block_on(work)
}

impl Tunnel {
    /// Opens a tunnel from a pod.
    pub(crate) async fn open(
        pod: &Pod,
        to: SocketAddr,
        config: &Arc<ClientConfig>,
    ) -> Outcome<Self> {
        let tls = handshake(pod, to, config).await?;
        let (requests, connection) =
            h2::client::Builder::new().handshake(tls).await.during("HTTP/2")?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok(Self { requests, driver })
    }

    /// Sends a request: its status, and the stream if that is 200.
    pub(crate) async fn ask(
        &self,
        method: Method,
        uri: &str,
        headers: HeaderMap,
    ) -> Outcome<(u16, Option<Carried>)> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse::<Uri>().during(&format!("the target {uri}"))?;
        *request.headers_mut() = headers;
        let mut requests = within(self.requests.clone().ready()).await?.during("the tunnel")?;
        let (answer, sender) = requests.send_request(request, false).during("asking")?;
        let answer = within(answer).await?.during("the answer")?;
        let status = answer.status().as_u16();
        Ok((status, (status == 200).then(|| (sender, answer.into_body()))))
    }

    /// Sends a CONNECT without headers.
    pub(crate) async fn connect(&self, authority: &str) -> Outcome<(u16, Option<Carried>)> {
        self.ask(Method::CONNECT, authority, HeaderMap::new()).await
    }

    /// Waits until the other side ends the tunnel; what it said.
    pub(crate) async fn ended(mut self) -> Outcome<Result<(), h2::Error>> {
        let ended = within(self.driver.join_next()).await?.ok_or("ended before")?;
        ended.during("driving a tunnel")
    }
}

/// Sends bytes on a stream and expects them back.
pub(crate) async fn echo(carried: &mut Carried, text: &'static str) -> Outcome {
    let (sender, receiver) = carried;
    sender.send_data(Bytes::from_static(text.as_bytes()), false).during("sending")?;
    let mut back = Vec::new();
    while back.len() < text.len() {
        let part = within(receiver.data()).await?.ok_or("the stream has ended")?;
        let part = part.during("receiving")?;
        receiver.flow_control().release_capacity(part.len()).during("giving credit")?;
        back.extend_from_slice(&part);
    }
    if back == text.as_bytes() { Ok(()) } else { Err(format!("the echo of {text:?}: {back:?}")) }
}

/// Ends a stream, and waits for the end from the other side.
pub(crate) async fn finish((sender, receiver): &mut Carried) -> Outcome {
    sender.send_data(Bytes::new(), true).during("the end")?;
    // The end may come with a frame of its own.
    while let Some(more) = within(receiver.data()).await? {
        let more = more.during("receiving")?;
        crate::world::ensure!(more.is_empty(), "instead of the end: {more:?}");
    }
    Ok(())
}

/// Believes every server.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
