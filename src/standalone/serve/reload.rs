//! Follows the manifests: the last good state stays, errors are told once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::super::convert::convert;
use super::super::manifest::{ManifestError, Manifests, Stamps, look, read};
use super::catalogue::Catalogue;
use super::status::Loaded;
use crate::control::file::follow::Follower;
use crate::wire::xds::ResourceType;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Attempts at reading files that change meanwhile.
const READ_TRIES_MAX: u32 = 10;

/// The one writer of the catalogue.
#[derive(Debug)]
pub(super) struct Reload {
    path: PathBuf,
    trust_domain: Arc<str>,
    follower: Follower<Stamps>,
    catalogue: watch::Sender<Arc<Catalogue>>,
    loaded: watch::Sender<Loaded>,
}

/// The manifests at the start: a control plane with nothing to serve does not start.
pub(super) fn first(path: PathBuf, trust_domain: Arc<str>) -> Result<Reload, ManifestError> {
    let mut tries = 0;
    let manifests = loop {
        tries += 1;
        match read(&path)? {
            Some(manifests) => break manifests,
            None if tries < READ_TRIES_MAX => {}
            None => return Err(ManifestError::of(&path, "it keeps changing while it is read")),
        }
    };
    let (catalogue, loaded) = state(&manifests, &trust_domain, 1);
    let (catalogue, _) = watch::channel(Arc::new(catalogue));
    let (loaded, _) = watch::channel(loaded);
    Ok(Reload { path, trust_domain, follower: Follower::default(), catalogue, loaded })
}

/// What manifests come to, as state number `generation`.
fn state(manifests: &Manifests, trust_domain: &str, generation: u64) -> (Catalogue, Loaded) {
    let resources = convert(manifests, trust_domain);
    let loaded = Loaded { generation, error: None, notes: resources.notes.lines() };
    (Catalogue::of(&resources, generation), loaded)
}

impl Reload {
    /// Follows the state that is served.
    pub(super) fn catalogue(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.catalogue.subscribe()
    }

    /// Follows where the files stand.
    pub(super) fn loaded(&self) -> watch::Receiver<Loaded> {
        self.loaded.subscribe()
    }

    /// Publishes every new state of the files, until the future is dropped.
    pub(super) async fn run(mut self) {
        loop {
            sleep(LOOK_INTERVAL).await;
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let stamps = match look(&self.path) {
            Ok(stamps) => stamps,
            Err(error) => {
                self.follower.gone();
                return self.refuse(&error);
            }
        };
        if !self.follower.wants(stamps, false) {
            return;
        }
        let (path, trust_domain) = (self.path.clone(), Arc::clone(&self.trust_domain));
        let generation = self.catalogue.borrow().generation + 1;
        // A large mesh takes its time, which the streams do not have.
        let reading = spawn_blocking(move || {
            let read = read(&path)?;
            Ok(read.map(|manifests| state(&manifests, &trust_domain, generation)))
        });
        match reading.await {
            Ok(Ok(Some((next, loaded)))) => self.publish(next, loaded),
            Ok(Ok(None)) => self.follower.gone(),
            Ok(Err(error)) => self.refuse(&error),
            Err(error) => self.refuse(&ManifestError::of(&self.path, error.to_string())),
        }
    }

    fn publish(&self, next: Catalogue, loaded: Loaded) {
        // The first look after the start finds what is served already.
        if next.same_as(&self.catalogue.borrow()) {
            let mut was_wrong = false;
            self.loaded.send_modify(|now| {
                was_wrong = now.error.is_some();
                *now = Loaded { generation: now.generation, ..loaded };
            });
            if was_wrong {
                tracing::info!("the manifests are as they were served");
            }
            return;
        }
        let generation = next.generation;
        let count = |kind| next.entries(kind).len();
        let addresses = count(ResourceType::Address);
        let policies = count(ResourceType::Authorization);
        self.catalogue.send_replace(Arc::new(next));
        self.loaded.send_replace(loaded);
        tracing::info!(generation, addresses, policies, "manifests published");
    }

    fn refuse(&self, error: &ManifestError) {
        let text = error.to_string();
        if self.loaded.borrow().error.as_ref() != Some(&text) {
            tracing::error!(error = text, "the manifests cannot be used: the last good ones stay");
            self.loaded.send_modify(|loaded| loaded.error = Some(text));
        }
    }
}
