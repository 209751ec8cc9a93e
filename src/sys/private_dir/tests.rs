use std::os::unix::fs::symlink;
use std::sync::Barrier;
use std::thread;

use super::*;

/// A folder of the test's own under the system's temporary one, removed at its end.
struct Room(PathBuf);

impl Room {
    fn new() -> Self {
        let temp = fs::canonicalize(std::env::temp_dir()).unwrap();
        let path = temp.join(format!("adit-private-{:016x}", fastrand::u64(..)));
        DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }

    fn folder(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    fn entries(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn key(folder: &Path) -> io::Result<()> {
    fs::write(folder.join("key"), "secret")
}

#[track_caller]
fn check_refused(path: &Path, told: &str, remedy: &str) {
    let error = open_or_create_private_dir(path, |_| panic!("must not be filled"));
    let text = error.unwrap_err().to_string();
    assert!(text.contains(told) && text.contains(remedy), "{text}");
}

#[test]
fn the_first_makes_it_and_the_next_uses_it() {
    let room = Room::new();
    let path = room.0.join("ca");
    let made = open_or_create_private_dir(&path, key).unwrap();
    assert_eq!(made, PrivateDir { path: path.clone(), made: true });
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
    let found = open_or_create_private_dir(&path, |_| panic!("is there already")).unwrap();
    assert_eq!(found, PrivateDir { path: path.clone(), made: false });
    assert_eq!(fs::read_to_string(path.join("key")).unwrap(), "secret");
    assert_eq!(room.entries(), 1);
}

#[test]
fn an_empty_private_folder_is_filled() {
    let room = Room::new();
    let path = room.folder("ca", 0o700);
    assert!(open_or_create_private_dir(&path, key).unwrap().made);
    assert!(path.join("key").exists());
}

#[test]
fn a_failed_filling_leaves_nothing() {
    let room = Room::new();
    let fill = |folder: &Path| {
        key(folder)?;
        Err(io::Error::other("no entropy"))
    };
    let error = open_or_create_private_dir(&room.0.join("ca"), fill).unwrap_err();
    assert!(error.to_string().ends_with("ca: cannot fill it: no entropy"), "{error}");
    assert_eq!(room.entries(), 0);
}

#[test]
fn of_many_at_once_one_makes_it() {
    let room = Room::new();
    let path = room.0.join("ca");
    let all_built = Barrier::new(8);
    let made = thread::scope(|scope| {
        let one = || {
            let fill = |folder: &Path| {
                key(folder)?;
                all_built.wait();
                Ok(())
            };
            open_or_create_private_dir(&path, fill).unwrap().made
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap().then_some(())).count()
    });
    assert_eq!((made, room.entries()), (1, 1));
}

#[test]
fn what_others_could_read_or_replace_is_refused() {
    let room = Room::new();
    for mode in [0o701, 0o710, 0o720, 0o755, 0o777, 0o1777] {
        let path = room.folder(&format!("open-{mode:o}"), mode);
        check_refused(&path, &format!("mode {mode:04o}"), "chmod 0700");
    }
    for mode in [0o720, 0o702, 0o777] {
        let parent = room.folder(&format!("parent-{mode:o}"), mode);
        check_refused(&parent.join("ca"), &format!("mode {mode:04o}"), "chmod go-w");
    }
    let sticky = room.folder("sticky", 0o1777);
    assert!(open_or_create_private_dir(&sticky.join("ca"), key).unwrap().made);
}

#[test]
fn detours_are_refused() {
    let room = Room::new();
    let real = room.folder("real", 0o700);
    let link = room.0.join("link");
    symlink(&real, &link).unwrap();
    check_refused(&link, "link: is a symbolic link", real.to_str().unwrap());
    check_refused(&link.join("ca"), "link: is a symbolic link", real.to_str().unwrap());
    symlink(room.0.join("nowhere"), room.0.join("broken")).unwrap();
    check_refused(&room.0.join("broken"), "leads nowhere", "remove it");
    fs::write(room.0.join("file"), "").unwrap();
    check_refused(&room.0.join("file"), "not a folder", "name another");
    check_refused(&room.0.join("file/ca"), "not a folder", "name another");
    check_refused(&room.0.join("no/ca"), "no: does not exist", "mkdir");
    check_refused(&real.join("../ca"), "not a plain path", "without `..`");
    check_refused(Path::new("/"), "not a plain path", "name");
}

#[test]
fn owners_are_judged() {
    #[track_caller]
    fn check(fault: Option<Reason>, expected: &str) {
        let text = fault.map(|fault| refused(Path::new("/x"), fault).to_string());
        let text = text.unwrap_or_else(|| "fine".to_owned());
        assert!(text.contains(expected), "{text}");
    }
    const OURS: u32 = 1000;
    const MALLORY: u32 = 1001;
    let foreign = "belongs to user 1001, this process is user 1000; remove it";
    check(folder_fault(OURS, 0o40_700, OURS), "fine");
    check(folder_fault(0, 0o40_700, OURS), "belongs to user 0, this process is user 1000");
    check(folder_fault(MALLORY, 0o40_700, OURS), foreign);
    check(folder_fault(OURS, 0o40_750, OURS), "mode 0750");
    let parent = |owner, mode| parent_fault(owner, mode, OURS, &[0, OURS]);
    check(parent(OURS, 0o40_755), "fine");
    check(parent(0, 0o41_777), "fine");
    check(parent(MALLORY, 0o40_700), foreign);
    check(parent(MALLORY, 0o41_777), foreign);
    check(parent(0, 0o40_775), "mode 0775");
}
