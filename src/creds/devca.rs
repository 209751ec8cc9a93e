//! The development CA (`FAKE_CA=true`): a root of our own in a private folder.
//!
//! Every adit on the machine that names the same folder has the same root, and so do the
//! workloads of all of them trust each other. Whoever can read the folder can be any workload:
//! it is for demos and tests, and says so.

mod node_tokens;
mod server;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use futures_util::future::{self, BoxFuture};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::issuer::{IssueError, IssueErrorKind, IssueRequest, Issued, Issuer};
use super::keys::PrivateKey;
use super::material::Validity;
use crate::sys::clock::Clock;
use crate::sys::private_dir::{PrivateDirError, open_or_create_private_dir};

pub use node_tokens::NodeTokens;
pub use server::ControlServer;

/// Logged when the development CA is opened.
pub const WARNING: &str = "workload certificates come from a development root. \
     Whoever can read its folder can be any workload. Never use it in production.";

const COMMON_NAME: &str = "adit development root (not for production)";
/// The root certificate, in the folder of the development root.
pub const CERTIFICATE_FILE: &str = "root-cert.pem";
const KEY_FILE: &str = "root-key.der";
/// Neither file is ever near this size.
const FILE_BYTES_MAX: u64 = 64 * 1024;
const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How far certificates are dated back, for clocks that are a little behind (spec identity 3).
const BACKDATING: Duration = Duration::from_secs(2 * 60);
const SERIAL_BYTES: usize = 16;

/// The development CA.
#[derive(Debug)]
pub struct DevCa {
    root: CertificateDer<'static>,
    expires: SystemTime,
    issuer: rcgen::Issuer<'static, PrivateKey>,
    tokens: NodeTokens,
    clock: Clock,
}

/// Why there is no development CA. It is never mended by itself: another adit may be using what
/// is left of it.
#[derive(Debug)]
pub struct DevCaError {
    /// The file or folder at fault.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
    /// The folder whose removal has a new root made.
    dir: PathBuf,
}

/// What is wrong with a development CA.
#[derive(Debug)]
pub enum Problem {
    /// The folder is refused, or could not be made.
    Folder(PrivateDirError),
    /// The file cannot be read.
    Io(io::Error),
    /// The file is not a plain file of ours that is closed to others.
    NotPrivate,
    /// The file is not what it should be.
    Corrupt(&'static str),
    /// The key does not belong to the certificate.
    Mismatch,
    /// The root has expired, or is not valid yet.
    Expired,
}

impl DevCa {
    /// Opens the root in `dir`, making folder and root at first use (mode 0700, whole or not at
    /// all, and one root if two processes start at once).
    pub fn open(dir: &Path, clock: Clock) -> Result<Self, DevCaError> {
        tracing::warn!(folder = %dir.display(), "{WARNING}");
        let fault = |path: PathBuf, problem| DevCaError { path, problem, dir: dir.to_path_buf() };
        let folder = open_or_create_private_dir(dir, |new| make_root(new, clock.wall()))
            .map_err(|error| fault(dir.to_path_buf(), Problem::Folder(error)))?
            .path;
        let (certificate, key) = (folder.join(CERTIFICATE_FILE), folder.join(KEY_FILE));
        let pem = read_private(&certificate).map_err(|p| fault(certificate.clone(), p))?;
        let pkcs8 = read_private(&key).map_err(|p| fault(key.clone(), p))?;
        let signing = PrivateKey::from_pkcs8(&pkcs8)
            .map_err(|_| fault(key.clone(), Problem::Corrupt("not a P-256 key in PKCS#8 form")))?;
        let (root, validity) =
            read_root(&pem, &signing).map_err(|p| fault(certificate.clone(), p))?;
        let now = clock.wall();
        if now < validity.not_before || now >= validity.not_after {
            return Err(fault(certificate, Problem::Expired));
        }
        let issuer = rcgen::Issuer::from_ca_cert_der(&root, signing)
            .map_err(|_| fault(certificate, Problem::Corrupt("not a certificate of a CA")))?;
        let tokens = NodeTokens::of(&pkcs8);
        Ok(Self { root, expires: validity.not_after, issuer, tokens, clock })
    }

    /// Tokens by which the proxies of nodes show who they are.
    pub fn tokens(&self) -> &NodeTokens {
        &self.tokens
    }

    /// The root certificate.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The leaf of spec identity 3: one critical URI, empty subject, both usages, not a CA.
    fn leaf(&self, request: &IssueRequest) -> Result<CertificateDer<'static>, IssueError> {
        let csr = CertificateSigningRequestParams::from_der(&request.csr)
            .map_err(|error| because(format!("the request is not sound: {error}")))?;
        let uri = request.identity.to_string().try_into().map_err(|_| because("not ASCII"))?;
        let names = [SanType::URI(uri)];
        if csr.params.subject_alt_names != names {
            return Err(because("the request is not for the identity that asks"));
        }
        let now = self.clock.wall();
        let wanted = now.checked_add(request.ttl).unwrap_or(self.expires);
        let not_after = wanted.min(self.expires);
        if not_after <= now {
            return Err(because("the development root has expired, or no lifetime was asked for"));
        }
        let params = unsigned(now, not_after);
        let mut params = params.map_err(|error| because(error.to_string()))?;
        params.subject_alt_names = names.into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params
            .signed_by(&csr.public_key, &self.issuer)
            .map_err(|error| because(format!("signing failed: {error}")))?;
        Ok(leaf.der().clone())
    }
}

impl Issuer for DevCa {
    fn issue(&self, request: IssueRequest) -> BoxFuture<'_, Result<Issued, IssueError>> {
        let issued = self
            .leaf(&request)
            .map(|leaf| Issued { chain: vec![leaf], roots: vec![self.root.clone()] });
        Box::pin(future::ready(issued))
    }
}

impl fmt::Display for DevCaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, problem, dir } = self;
        // A refused folder comes with its own path and remedy.
        if let Problem::Folder(error) = problem {
            return write!(f, "development CA: {error}");
        }
        let (path, dir) = (path.display(), dir.display());
        write!(
            f,
            "development CA: {path}: {problem}; \
             stop every adit that uses {dir}, remove it, and a new root will be made"
        )
    }
}

impl std::error::Error for DevCaError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(error) => fmt::Display::fmt(error, f),
            Self::Io(error) => fmt::Display::fmt(error, f),
            Self::NotPrivate => f.write_str("not a plain file of this user with mode 0600"),
            Self::Corrupt(what) => f.write_str(what),
            Self::Mismatch => f.write_str("certificate and key do not belong together"),
            Self::Expired => f.write_str("the root is not valid at this time"),
        }
    }
}

/// Writes a new root into a folder that nobody else sees yet.
fn make_root(dir: &Path, now: SystemTime) -> io::Result<()> {
    let key = PrivateKey::generate().map_err(io::Error::other)?;
    let mut params = unsigned(now, now + ROOT_LIFE)?;
    params.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = params.self_signed(&key).map_err(io::Error::other)?;
    write_private(&dir.join(KEY_FILE), &key.to_pkcs8().map_err(io::Error::other)?)?;
    write_private(&dir.join(CERTIFICATE_FILE), root.pem().as_bytes())
}

fn read_root(pem: &[u8], key: &PrivateKey) -> Result<(CertificateDer<'static>, Validity), Problem> {
    let unreadable = || Problem::Corrupt("not a certificate in PEM form");
    let root = CertificateDer::from_pem_slice(pem).map_err(|_| unreadable())?;
    let validity = Validity::of(std::slice::from_ref(&root)).ok_or_else(unreadable)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&root).map_err(|_| unreadable())?;
    if !parsed.is_ca() || parsed.subject() != parsed.issuer() {
        return Err(Problem::Corrupt("not the certificate of a root"));
    }
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(Problem::Mismatch);
    }
    Ok((root, validity))
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, Problem> {
    // Opened without following links and without waiting for a pipe's writer; then judged.
    let file: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => Problem::NotPrivate,
            _ => Problem::Io(error),
        })?;
    let about = file.metadata().map_err(Problem::Io)?;
    let ours = about.uid() == nix::unistd::geteuid().as_raw();
    if !about.is_file() || !ours || about.mode() & 0o077 != 0 {
        return Err(Problem::NotPrivate);
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::new());
    let size = usize::try_from(about.len().min(FILE_BYTES_MAX)).unwrap_or_default();
    bytes.reserve_exact(size + 32);
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(Problem::Io)?;
    Ok(bytes)
}

/// A certificate from now to `until` with a number of its own; it names nobody yet.
fn unsigned(now: SystemTime, until: SystemTime) -> io::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(serial()?);
    params.not_before = (now - BACKDATING).into();
    params.not_after = until.into();
    Ok(params)
}

fn serial() -> io::Result<SerialNumber> {
    let mut bytes = [0; SERIAL_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no randomness"))?;
    // Positive, and of the same length always.
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from(bytes.to_vec()))
}

fn because(reason: impl Into<String>) -> IssueError {
    IssueError { kind: IssueErrorKind::Refused, reason: reason.into() }
}

#[cfg(test)]
mod tests;
