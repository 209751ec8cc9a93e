//! Follows the manifests: the last good state stays, errors are told once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::super::convert::{Resources, convert};
use super::super::manifest::{Follower, ManifestError, Notes, look, read};
use super::catalogue::Catalogue;
use super::status::Loaded;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The one writer of the catalogue.
#[derive(Debug)]
pub(super) struct Reload {
    path: PathBuf,
    trust_domain: Arc<str>,
    follower: Follower,
    catalogue: watch::Sender<Arc<Catalogue>>,
    loaded: watch::Sender<Loaded>,
}

/// The manifests at the start: a control plane with nothing to serve does not start.
pub(super) fn first(path: PathBuf, trust_domain: Arc<str>) -> Result<Reload, ManifestError> {
    let mut tries = 0;
    let manifests = loop {
        tries += 1;
        match read(&path)? {
            Some((_, manifests)) => break manifests,
            None if tries < READ_TRIES_MAX => {}
            None => return Err(ManifestError::of(&path, "it keeps changing while it is read")),
        }
    };
    let resources = convert(&manifests, &trust_domain);
    let (catalogue, _) = watch::channel(Arc::new(Catalogue::of(&resources, 1)));
    let (loaded, _) = watch::channel(Loaded::of(&resources, 1));
    Ok(Reload { path, trust_domain, follower: Follower::default(), catalogue, loaded })
}

/// Attempts at reading files that change meanwhile.
const READ_TRIES_MAX: u32 = 10;

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
        // A large mesh takes its time, which the streams do not have.
        let reading = spawn_blocking(move || {
            let read = read(&path)?;
            Ok(read.map(|(_, manifests)| convert(&manifests, &trust_domain)))
        });
        match reading.await {
            Ok(Ok(Some(resources))) => self.publish(&resources),
            Ok(Ok(None)) => self.follower.gone(),
            Ok(Err(error)) => self.refuse(&error),
            Err(error) => self.refuse(&ManifestError::of(&self.path, error.to_string())),
        }
    }

    fn publish(&self, resources: &Resources) {
        let generation = self.catalogue.borrow().generation + 1;
        let next = Catalogue::of(resources, generation);
        let was_wrong = self.loaded.borrow().error.is_some();
        // The first look after the start finds what is served already.
        if next.same_as(&self.catalogue.borrow()) {
            self.loaded.send_modify(|loaded| loaded.error = None);
            if was_wrong {
                tracing::info!("the manifests are as they were served");
            }
            return;
        }
        self.catalogue.send_replace(Arc::new(next));
        self.loaded.send_replace(Loaded::of(resources, generation));
        let (addresses, policies) = (resources.addresses.len(), resources.policies.len());
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

impl Loaded {
    fn of(resources: &Resources, generation: u64) -> Self {
        Self { generation, error: None, notes: lines(&resources.notes) }
    }
}

/// One line for each note, and one for those that were not kept.
fn lines(notes: &Notes) -> Vec<String> {
    let mut lines: Vec<String> = notes.list.iter().map(ToString::to_string).collect();
    if notes.more > 0 {
        lines.push(format!("and {} more", notes.more));
    }
    lines
}
