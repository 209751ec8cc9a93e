//! The settings of `PROXY_CONFIG` and of the mesh file (spec operations 3).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::options;

use super::env::Env;

/// Relative to the working directory.
const MESH_FILE: &str = "./etc/istio/config/mesh";
/// The variable whose settings go before those of the file.
const VARIABLE: &str = "PROXY_CONFIG";
/// Prefix of metadata in the environment, and of keys that were copied from there.
const METADATA_PREFIX: &str = "ISTIO_META_";

/// The settings that we use; all others are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ProxyConfig {
    pub(super) discovery_address: Option<String>,
    pub(super) proxy_admin_port: Option<u16>,
    pub(super) stats_port: Option<u16>,
    /// Worker threads; 0 is one per core.
    pub(super) concurrency: Option<u16>,
    /// Without the prefix, once read.
    proxy_metadata: BTreeMap<String, String>,
}

/// The mesh file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Mesh {
    default_config: Option<ProxyConfig>,
}

impl ProxyConfig {
    /// Reads the mesh file and the variable, which goes before it field by field.
    pub(super) fn read(env: &mut Env<'_>, file: &dyn Fn(&Path) -> io::Result<String>) -> Self {
        let below = match file(Path::new(MESH_FILE)) {
            Ok(text) => parse::<Mesh>(env, MESH_FILE, &text).default_config.unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                env.wrong(MESH_FILE, format!("cannot be read: {error}"));
                Self::default()
            }
        };
        let text = env.text(VARIABLE).unwrap_or_default();
        let above: Self = parse(env, VARIABLE, &text);
        let mut proxy_metadata: BTreeMap<_, _> = unprefixed(below.proxy_metadata).collect();
        proxy_metadata.extend(unprefixed(above.proxy_metadata));
        Self {
            discovery_address: above.discovery_address.or(below.discovery_address),
            proxy_admin_port: above.proxy_admin_port.or(below.proxy_admin_port),
            stats_port: above.stats_port.or(below.stats_port),
            concurrency: above.concurrency.or(below.concurrency),
            proxy_metadata,
        }
    }

    /// An item of metadata: from the environment, else from here.
    pub(super) fn metadata(&self, env: &Env<'_>, name: &str) -> Option<String> {
        let here = || self.proxy_metadata.get(name).cloned();
        env.text(&format!("{METADATA_PREFIX}{name}")).or_else(here)
    }

    /// All items of metadata that are set here.
    pub(super) fn all_metadata(&self) -> impl Iterator<Item = (String, String)> {
        self.proxy_metadata.clone().into_iter()
    }
}

/// Reads YAML; an empty text says nothing. Errors name the place, and never show the text, which
/// may hold secrets among its metadata.
fn parse<T: DeserializeOwned + Default>(env: &mut Env<'_>, name: &str, text: &str) -> T {
    let options = options! { with_snippet: false };
    match serde_saphyr::from_str_with_options::<Option<T>>(text, options) {
        Ok(value) => value.unwrap_or_default(),
        Err(error) => {
            let place = error.location().map_or_else(String::new, |place| {
                format!(" (line {}, column {})", place.line(), place.column())
            });
            env.wrong(name, format!("is not the YAML it should be{place}"));
            T::default()
        }
    }
}

fn unprefixed(metadata: BTreeMap<String, String>) -> impl Iterator<Item = (String, String)> {
    metadata.into_iter().map(|(name, value)| match name.strip_prefix(METADATA_PREFIX) {
        Some(bare) => (bare.to_owned(), value),
        None => (name, value),
    })
}
