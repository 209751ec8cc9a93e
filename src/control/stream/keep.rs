//! The mesh of the next process: saved while the control plane speaks, used when it does not.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::mesh::{Applied, Mesh, lock};
use super::status::Teller;
use crate::control::ads::Kept;
use crate::control::stored::{Origin, Stored, StoredError};
use crate::sys::clock::Clock;

/// How long the control plane has for its first answers before the file is used.
const RESTORE_AFTER: Duration = Duration::from_secs(5);
/// Between two looks at whether there is something to save.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two changes that are saved.
const SAVE_INTERVAL: Duration = Duration::from_secs(30);
/// What has not changed is saved again after this, because its age counts.
const SAVE_AT_LEAST: Duration = Duration::from_secs(900);

/// Where the mesh is kept, and what may be used of it.
#[derive(Clone, Debug)]
pub(super) struct Keep {
    pub(super) path: PathBuf,
    pub(super) age_max: Duration,
    pub(super) origin: Origin,
    pub(super) clock: Clock,
}

impl Keep {
    /// Restores once, then saves for as long as the future lives.
    pub(super) async fn run(self, mesh: Arc<Mutex<Mesh>>, teller: Arc<Teller>) {
        sleep(RESTORE_AFTER).await;
        if !teller.is_loaded() {
            self.restore(&mesh, &teller).await;
        }
        let mut saved: Option<(u64, Instant)> = None;
        loop {
            sleep(LOOK_INTERVAL).await;
            let now = self.clock.monotonic();
            let Some(generation) = lock(&mesh).generation_to_save() else { continue };
            let due = saved.is_none_or(|(last, at)| {
                let pause = if last == generation { SAVE_AT_LEAST } else { SAVE_INTERVAL };
                now.duration_since(at) >= pause
            });
            if due {
                let outcome = self.save(&mesh).await;
                // What failed is tried again no sooner than what has changed is saved.
                saved = Some((if outcome.is_ok() { generation } else { 0 }, now));
                teller.saved(&self.path, outcome);
            }
        }
    }

    async fn restore(&self, mesh: &Arc<Mutex<Mesh>>, teller: &Teller) {
        let (keep, mesh) = (self.clone(), Arc::clone(mesh));
        let restore = move || keep.restore_now(&mesh);
        match spawn_blocking(restore).await.unwrap_or(Err(StoredError::Damaged)) {
            Ok(Some((at, applied))) => teller.restored(at, &applied),
            Ok(None) => {}
            Err(error) => teller.not_restored(&self.path, &error),
        }
    }

    fn restore_now(
        &self,
        mesh: &Mutex<Mesh>,
    ) -> Result<Option<(SystemTime, Applied)>, StoredError> {
        let now = self.clock.wall();
        let stored = Stored::read(&self.path, &self.origin, now, self.age_max)?;
        let restored = stored.and_then(|stored| {
            let applied = lock(mesh).restore(stored.responses)?;
            Some((stored.at, applied))
        });
        Ok(restored)
    }

    async fn save(&self, mesh: &Arc<Mutex<Mesh>>) -> Result<SystemTime, StoredError> {
        let (keep, mesh, at) = (self.clone(), Arc::clone(mesh), self.clock.wall());
        let save = move || {
            let kept = lock(&mesh).kept();
            let responses = kept.iter().map(Kept::response).collect();
            let stored = Stored { at, origin: keep.origin, responses };
            stored.write(&keep.path).map(|()| at)
        };
        spawn_blocking(save).await.unwrap_or(Err(StoredError::Damaged))
    }
}
