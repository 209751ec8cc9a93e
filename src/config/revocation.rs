//! Certificate revocation lists (spec identity 9).

use std::path::PathBuf;

use super::env::Env;

const PATH: &str = "CRL_PATH";
const UNKNOWN: &str = "CRL_UNKNOWN";

/// Where revocation lists come from, and what happens to a peer whom they do not cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationConfig {
    /// The file, read again when it changes; it need not be there.
    pub path: PathBuf,
    /// Peers of whom no list says whether they are revoked, or only one that is out of date.
    pub unknown: UnknownRevocation,
}

/// What happens to such a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownRevocation {
    /// It is let in, and counted.
    #[default]
    Allow,
    /// It is refused.
    Refuse,
}

pub(super) fn revocation(env: &mut Env<'_>) -> Option<RevocationConfig> {
    let unknown = env.value(UNKNOWN, |text| match text {
        "allow" => Ok(UnknownRevocation::Allow),
        "refuse" => Ok(UnknownRevocation::Refuse),
        _ => Err("is neither allow nor refuse".to_owned()),
    });
    let path = env.text(PATH);
    if path.is_none() && unknown.is_some() {
        env.warn(UNKNOWN, "without CRL_PATH nothing is checked; it has no effect");
    }
    Some(RevocationConfig { path: path?.into(), unknown: unknown.unwrap_or_default() })
}
