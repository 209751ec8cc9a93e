//! Where certificates come from.

use std::path::{Path, PathBuf};

use super::env::{Env, shown};
use super::upstream::{self, Known, Upstream};

/// Where the development root is kept, below the user's own place.
const DEVELOPMENT_CA_ROOTS_PLACE: &str = "/run";
const DEVELOPMENT_CA_DIR: &str = "adit-dev-ca";

/// Where certificates come from.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// A development root of our own.
    Development(DevelopmentCa),
    /// A certificate authority that is asked.
    Server(Upstream),
}

/// Where the development root is kept.
#[derive(Clone, Debug)]
pub struct DevelopmentCa {
    /// The folder; made at first use.
    pub dir: PathBuf,
}

/// The certificate authority that was named, else istiod; a development root only for those who
/// asked for it and have no other.
pub(super) fn certificate_source(
    env: &mut Env<'_>,
    root: bool,
    known: &Known<'_>,
) -> Option<CertificateSource> {
    const FAKE: &str = "FAKE_CA";
    const REAL: &str = "CA_ADDRESS";
    const KUBERNETES: &str = "KUBERNETES_SERVICE_HOST";
    let named = env.text(REAL).is_some();
    if !env.switch(FAKE, false) {
        if env.is_set(REAL) && !named {
            env.wrong(
                REAL,
                "is empty, so that there is nothing to get certificates from. To try adit \
                 outside a cluster set FAKE_CA=true: certificates then come from a development \
                 root in DEV_CA_DIR",
            );
            return None;
        }
        let address = upstream::address(env, REAL, None)?;
        let server = Upstream::read(env, "CA", address, known);
        return Some(CertificateSource::Server(server));
    }
    if named {
        env.wrong(FAKE, "is refused because CA_ADDRESS names a real certificate authority");
    }
    if env.is_set(KUBERNETES) {
        env.wrong(FAKE, "is refused in a cluster (KUBERNETES_SERVICE_HOST is set)");
    }
    let dir = development_ca_dir(env, root)?;
    Some(CertificateSource::Development(DevelopmentCa { dir }))
}

/// The folder that was named, else one that belongs to the user alone.
pub(super) fn development_ca_dir(env: &mut Env<'_>, root: bool) -> Option<PathBuf> {
    const NAME: &str = "DEV_CA_DIR";
    if let Some(dir) = env.text(NAME) {
        if Path::new(&dir).is_absolute() {
            return Some(dir.into());
        }
        env.wrong(NAME, format!("{} is not an absolute path", shown(&dir)));
        return None;
    }
    let own = env.text("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute());
    match if root { Some(DEVELOPMENT_CA_ROOTS_PLACE.to_owned()) } else { own } {
        Some(place) => Some(Path::new(&place).join(DEVELOPMENT_CA_DIR)),
        None => {
            env.wrong(NAME, "is required: XDG_RUNTIME_DIR names no place of this user's own");
            None
        }
    }
}
