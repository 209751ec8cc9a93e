use std::fs::File;
use std::io::Write;
use std::os::unix::fs::symlink;

use super::*;
use crate::model::{Snapshot, View};

const ONE: &str = "policies: [{name: a, namespace: n, scope: Namespace, action: Deny, \
                   dryRun: false, rules: []}]\n";
const TWO: &str = "policies: [{name: a, namespace: n, scope: Namespace, action: Deny, \
                   dryRun: false, rules: []}, {name: b, namespace: n, scope: Global, \
                   action: Deny, dryRun: false, rules: []}]\n";

/// A folder of this test's own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("adit-file-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Replaces a file in one step.
    fn replace(&self, name: &str, text: &str) {
        let beside = self.path("beside");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.path(name)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Followed {
    view: View,
    status: watch::Receiver<FileStatus>,
    metrics: Arc<Metrics>,
}

impl Followed {
    /// Waits until so many policies are published.
    async fn policies(&self, count: usize) -> u64 {
        let found = |snapshot: &Snapshot| {
            (snapshot.counts().2 == count && snapshot.generation() > 0)
                .then(|| snapshot.generation())
        };
        let limit = Duration::from_secs(60);
        self.view.wait_for(limit, found).await.unwrap_or_else(|| panic!("{count} policies"))
    }

    /// Waits until the file is refused for a reason that contains `text`.
    async fn refused(&mut self, text: &str) {
        let refused = |status: &FileStatus| status.error.as_ref().is_some_and(|e| e.contains(text));
        let waited = tokio::time::timeout(Duration::from_secs(60), self.status.wait_for(refused));
        waited.await.unwrap_or_else(|_| panic!("no {text}")).unwrap();
    }

    /// Long enough for any change to be noticed.
    async fn rest(&self) {
        sleep(LOOK_INTERVAL * 5).await;
    }

    fn generation(&self) -> u64 {
        self.view.load().generation()
    }
}

/// Runs a test beside a source that follows `source`.
async fn follow<F: Future<Output = ()>>(source: LocalSource, test: impl FnOnce(Followed) -> F) {
    let (publisher, view) = Publisher::new();
    let metrics = Arc::new(Metrics::new("test"));
    let (source, status) =
        FileSource::new(source, publisher, Arc::clone(&metrics), Clock::system());
    tokio::select! {
        () = source.run() => panic!("a source never ends"),
        () = test(Followed { view, status, metrics }) => {}
    }
}

#[tokio::test(start_paused = true)]
async fn changes_are_published_and_nothing_else() {
    let folder = Folder::new("changes");
    let path = folder.path("mesh.yaml");
    fs::write(&path, ONE).unwrap();
    follow(LocalSource::Path(path.clone()), async |followed| {
        assert_eq!(followed.policies(1).await, 1);
        followed.rest().await;
        assert_eq!(followed.generation(), 1);
        // The same again, in another file: nothing to publish.
        folder.replace("mesh.yaml", ONE);
        followed.rest().await;
        assert_eq!(followed.generation(), 1);
        folder.replace("mesh.yaml", TWO);
        assert_eq!(followed.policies(2).await, 2);
        fs::write(&path, "{}").unwrap();
        assert_eq!(followed.policies(0).await, 3);
        assert!(followed.status.borrow().last_success.is_some());
        assert_eq!(followed.status.borrow().errors, 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_last_good_one_stays() {
    let folder = Folder::new("errors");
    let path = folder.path("mesh.yaml");
    follow(LocalSource::Path(path.clone()), async |mut followed| {
        followed.refused("No such file").await;
        assert!(!followed.status.borrow().loaded);
        fs::write(&path, ONE).unwrap();
        followed.policies(1).await;
        let check = async |followed: &mut Followed, reason: &str, errors: u64| {
            followed.refused(reason).await;
            followed.rest().await;
            let status = followed.status.borrow().clone();
            assert_eq!((status.loaded, status.errors), (true, errors), "{reason}");
            assert_eq!(followed.metrics.config_file.errors.get(), errors, "{reason}");
            assert!(status.error.unwrap().starts_with(&path.display().to_string()));
            assert_eq!(followed.policies(1).await, 1, "{reason}");
        };
        folder.replace("mesh.yaml", "policies: [{");
        check(&mut followed, "line 1, column", 2).await;
        // Another wrong state with the same reason counts again.
        folder.replace("mesh.yaml", "policies: [{");
        followed.rest().await;
        check(&mut followed, "line 1, column", 3).await;
        folder.replace("mesh.yaml", "");
        check(&mut followed, "it is empty", 4).await;
        fs::remove_file(&path).unwrap();
        check(&mut followed, "No such file", 5).await;
        fs::create_dir(&path).unwrap();
        check(&mut followed, "it is not a file", 6).await;
        fs::remove_dir(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        check(&mut followed, "it is not a file", 7).await;
        fs::remove_file(&path).unwrap();
        let large = File::create(&path).unwrap();
        large.set_len(BYTES_MAX as u64 + 1).unwrap();
        check(&mut followed, "larger than", 8).await;
        folder.replace("mesh.yaml", "\u{0}\u{1}");
        followed.rest().await;
        fs::write(folder.path("beside"), [0xff, 0xfe, 0xff]).unwrap();
        fs::rename(folder.path("beside"), &path).unwrap();
        check(&mut followed, "UTF-8", 10).await;
        folder.replace("mesh.yaml", TWO);
        followed.policies(2).await;
        assert_eq!(followed.status.borrow().error, None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_written_is_left_alone() {
    let folder = Folder::new("writing");
    let path = folder.path("mesh.yaml");
    fs::write(&path, TWO).unwrap();
    follow(LocalSource::Path(path.clone()), async |followed| {
        followed.policies(2).await;
        followed.rest().await;
        // Every prefix is good YAML, without the policies.
        let mut file = File::create(&path).unwrap();
        file.write_all(b"{}").unwrap();
        for _ in 0..20 {
            file.write_all(b" # more").unwrap();
            // Often enough that no two looks see the same.
            sleep(LOOK_INTERVAL / 3).await;
            assert_eq!(followed.generation(), 1);
        }
        assert_eq!(followed.policies(0).await, 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_link_to_another_folder_is_followed() {
    let folder = Folder::new("links");
    for (version, text) in [("v1", ONE), ("v2", TWO)] {
        fs::create_dir(folder.path(version)).unwrap();
        fs::write(folder.path(version).join("mesh.yaml"), text).unwrap();
    }
    symlink("v1", folder.path("data")).unwrap();
    symlink("data/mesh.yaml", folder.path("mesh.yaml")).unwrap();
    follow(LocalSource::Path(folder.path("mesh.yaml")), async |followed| {
        followed.policies(1).await;
        // As the kubelet does it with volumes.
        symlink("v2", folder.path("next")).unwrap();
        fs::rename(folder.path("next"), folder.path("data")).unwrap();
        followed.policies(2).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_text_is_published_once_or_refused() {
    follow(LocalSource::Inline(ONE.to_owned()), async |followed| {
        assert_eq!(followed.policies(1).await, 1);
    })
    .await;
    follow(LocalSource::Inline("?".to_owned()), async |mut followed| {
        followed.refused("LOCAL_XDS: ").await;
        assert_eq!(followed.generation(), 0);
    })
    .await;
}
