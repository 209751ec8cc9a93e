//! How a server of the control plane is reached: istiod, or a certificate authority (spec xds 1,
//! identity 2).

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Uri};

use super::env::Env;

/// Where Kubernetes mounts the root certificate of istiod.
const ROOT_DEFAULT: &str = "./var/run/secrets/istio/root-cert.pem";
/// Where Kubernetes mounts the token for istiod.
const TOKEN_DEFAULT: &str = "./var/run/secrets/tokens/istio-token";
const TOKEN: &str = "AUTH_TOKEN";
const CLUSTER_ADDRESS: &str = "https://istiod.istio-system.svc:15012";
const LOCAL_ADDRESS: &str = "https://localhost:15012";
/// Asks for the trust anchors of the operating system.
const SYSTEM: &str = "SYSTEM";
/// Where else an address may be named.
const DISCOVERY: &str = "discoveryAddress";
const PEM_MARK: &str = "-----BEGIN";

/// A server of the control plane, how it is verified, and what it is shown.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where it is.
    pub address: ServerAddress,
    /// What its certificate must lead to.
    pub root: TrustRoot,
    /// A name that its certificate may have instead of the host's.
    pub alternative_name: Option<String>,
    /// What we are known by.
    pub token: Option<Token>,
    /// The cluster that knows the token; sent beside it.
    pub cluster_id: Arc<str>,
    /// Sent with each request. The values are marked as secrets.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// TLS; without it the host is on loopback.
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Trust anchors of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustRoot {
    /// A PEM file, read at each connection.
    File(PathBuf),
    /// Those of the operating system.
    System,
    /// PEM.
    Pem(String),
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// A file, read for each request.
    File(PathBuf),
    /// The token itself.
    Text(String),
}

/// What the variables of a server are read with.
pub(super) struct Known<'a> {
    pub(super) cluster_id: &'a Arc<str>,
    /// Whether there is something at a path.
    pub(super) exists: &'a dyn Fn(&Path) -> bool,
}

impl Upstream {
    /// The settings of the server whose variables have this prefix, `CA` or `XDS`.
    pub(super) fn read(
        env: &mut Env<'_>,
        prefix: &str,
        address: ServerAddress,
        known: &Known<'_>,
    ) -> Self {
        let root = match env.text(&format!("{prefix}_ROOT_CA")) {
            None => TrustRoot::File(ROOT_DEFAULT.into()),
            Some(text) if (known.exists)(Path::new(&text)) => TrustRoot::File(text.into()),
            Some(text) if text == SYSTEM => TrustRoot::System,
            Some(text) if text.contains(PEM_MARK) => TrustRoot::Pem(text),
            // A file that is mounted later is read then.
            Some(text) => TrustRoot::File(text.into()),
        };
        Self {
            address,
            root,
            alternative_name: env.text(&format!("ALT_{prefix}_HOSTNAME")),
            token: token(env, known.exists),
            cluster_id: Arc::clone(known.cluster_id),
            headers: headers(env, &format!("{prefix}_HEADER_")),
        }
    }
}

/// The address in a variable, else the one that was `named` elsewhere, else where istiod is; `None`
/// if the variable says that there is none, or it cannot be understood.
pub(super) fn address(env: &mut Env<'_>, name: &str, named: Option<&str>) -> Option<ServerAddress> {
    let in_cluster = env.is_set("KUBERNETES_SERVICE_HOST");
    let default = if in_cluster { CLUSTER_ADDRESS } else { LOCAL_ADDRESS };
    if !env.is_set(name) {
        let parsed = named.unwrap_or(default).parse();
        return parsed.map_err(|error: AddressError| env.wrong(DISCOVERY, error.to_string())).ok();
    }
    env.text(name)?;
    env.value(name, |text| text.parse().map_err(|error: AddressError| error.to_string()))
}

/// A text that is meant as a path is one even if the file is not there at the start.
fn token(env: &Env<'_>, exists: &dyn Fn(&Path) -> bool) -> Option<Token> {
    let Some(text) = env.text(TOKEN) else {
        let wanted = env.is_set("KUBERNETES_SERVICE_HOST") || exists(Path::new(TOKEN_DEFAULT));
        return wanted.then(|| Token::File(TOKEN_DEFAULT.into()));
    };
    let path = Path::new(&text);
    let file = path.is_absolute() || text.starts_with("./") || exists(path);
    Some(if file { Token::File(text.into()) } else { Token::Text(text) })
}

fn headers(env: &mut Env<'_>, prefix: &str) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    for (name, value) in env.prefixed(prefix) {
        let variable = format!("{prefix}{name}");
        // Names come out in lower case, as HTTP/2 wants them.
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            env.wrong(&variable, "what follows the prefix is no name of a header");
            continue;
        };
        match HeaderValue::from_str(value.trim()) {
            Ok(mut value) => {
                value.set_sensitive(true);
                headers.push((name, value));
            }
            Err(_) => env.wrong(&variable, "has characters that no header can carry"),
        }
    }
    headers
}

/// Why a text is not the address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// Not of the form `https://host:port`.
    Form,
    /// Neither `https` nor `http`.
    Scheme,
    /// Without TLS, and not on this machine.
    NotLoopback,
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri: Uri = whole.parse().map_err(|_| AddressError::Form)?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(AddressError::Scheme),
        };
        let authority = uri.authority().ok_or(AddressError::Form)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let plain = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if host.is_empty() || !plain || authority.as_str().contains('@') {
            return Err(AddressError::Form);
        }
        let port = match authority.port_u16() {
            Some(0) => return Err(AddressError::Form),
            Some(port) => port,
            // A port that is no number is not the absence of one.
            None if authority.as_str() != authority.host() => return Err(AddressError::Form),
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
        };
        let loopback = match host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => host == "localhost",
        };
        if !tls && !loopback {
            return Err(AddressError::NotLoopback);
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl ServerAddress {
    /// Host and port as a URI has them.
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl fmt::Display for TrustRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::System => f.write_str("the system's trust anchors"),
            Self::Pem(_) => f.write_str("the PEM text in the environment"),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text"),
        }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "is not of the form https://host:port",
            Self::Scheme => "begins with neither https:// nor http://",
            Self::NotLoopback => "would be asked without TLS: http:// is for this machine only",
        })
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests;
