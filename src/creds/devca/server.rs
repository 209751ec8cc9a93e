//! TLS of the development control plane: a certificate of the development root for its names.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls::sign::CertifiedKey;

use super::super::keys::{HandshakeKey, PrivateKey};
use super::super::tls::Tls;
use super::{DevCa, IssueError, because, unsigned};
use crate::config::TlsPolicy;
use crate::sys::clock::Clock;

/// How long a certificate of the server's is valid.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long one is used: the rest is for clocks that differ.
const USE: Duration = Duration::from_secs(12 * 3600);

/// The TLS settings of a control plane, made anew before they expire.
#[derive(Debug)]
pub struct ControlServer {
    ca: Arc<DevCa>,
    names: Vec<String>,
    ips: Vec<IpAddr>,
    tls: Tls,
    clock: Clock,
    current: Mutex<Option<(Arc<ServerConfig>, SystemTime)>>,
}

impl ControlServer {
    /// A server that is known by these names and addresses.
    pub fn new(ca: Arc<DevCa>, names: Vec<String>, ips: Vec<IpAddr>, clock: Clock) -> Self {
        let tls = Tls::new(TlsPolicy::Tls13, clock.clone());
        Self { ca, names, ips, tls, clock, current: Mutex::default() }
    }

    /// The settings for the next connection.
    pub fn config(&self) -> Result<Arc<ServerConfig>, IssueError> {
        let now = self.clock.wall();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((config, _)) = current.as_ref().filter(|(_, until)| now < *until) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make(now)?);
        *current = Some((Arc::clone(&config), now + USE));
        Ok(config)
    }

    fn make(&self, now: SystemTime) -> Result<ServerConfig, IssueError> {
        let key = PrivateKey::generate().map_err(|_| because("no key could be made"))?;
        let params = unsigned(now, (now + LIFE).min(self.ca.expires));
        let mut params = params.map_err(|error| because(error.to_string()))?;
        for name in &self.names {
            let name = name.as_str().try_into().map_err(|_| because("a name is not ASCII"))?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.subject_alt_names.extend(self.ips.iter().copied().map(SanType::IpAddress));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params
            .signed_by(&key, &self.ca.issuer)
            .map_err(|error| because(format!("signing failed: {error}")))?;
        let key = Arc::new(HandshakeKey::new(Arc::new(key)));
        let certified = Arc::new(CertifiedKey::new(vec![leaf.der().clone()], key));
        self.tls.control_server(certified).map_err(|error| because(error.to_string()))
    }
}
