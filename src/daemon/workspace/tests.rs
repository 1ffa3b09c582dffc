//! Directories that are swapped, planted, lost and buried, each in a root of its own.

use super::*;
use std::os::unix::fs::PermissionsExt;

fn open_store(state: &Path) -> Store {
    let limits = crate::config::Config::new(([127, 0, 0, 1], 0).into(), "s".into(), "r".into()).limits;
    Store::open(state, crate::config::Durability::Normal, &limits).unwrap()
}

struct Fixture {
    _dir: tempfile::TempDir,
    root: PathBuf,
    state: PathBuf,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let (root, state) = (dir.path().join("root"), dir.path().join("state"));
        Fixture { _dir: dir, root, state }
    }

    fn open(&self) -> Workspaces {
        Workspaces::new(&self.root, Arc::new(open_store(&self.state))).unwrap()
    }
}

/// As a run does: what is known first.
fn reopen(workspaces: &Workspaces, s: &str) -> Result<Workspace> {
    match workspaces.open_known(&name(s))? {
        Some(workspace) => Ok(workspace),
        None => workspaces.open(&name(s)),
    }
}

fn name(s: &str) -> Name {
    s.parse().unwrap()
}

/// What was noted is written down, as it is before a run is answered.
fn settle(workspaces: &Workspaces) {
    workspaces.store.submit(Change::ForgetWorkspaces(vec![]), false).wait().unwrap();
}

#[test]
fn a_directory_is_private_and_kept_over_daemons() {
    let fixture = Fixture::new();
    let workspace = fixture.open().open(&name("a")).unwrap();
    let path = fixture.root.join("a");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    std::fs::write(workspace.lend().unwrap().join("kept"), "x").unwrap();
    drop(workspace);
    let again = fixture.open().open(&name("a")).unwrap();
    assert_eq!(std::fs::read_to_string(again.lend().unwrap().join("kept")).unwrap(), "x");
}

#[test]
fn what_the_daemon_did_not_make_is_refused_and_left_alone() {
    let fixture = Fixture::new();
    let workspaces = fixture.open();
    let precious = fixture.root.join("precious");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("file"), "mine").unwrap();
    std::fs::write(fixture.root.join("regular"), "mine").unwrap();
    std::os::unix::fs::symlink(&precious, fixture.root.join("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", fixture.root.join("dangling")).unwrap();
    for n in ["precious", "regular", "link", "dangling"] {
        let error = workspaces.open(&name(n)).unwrap_err();
        assert!(matches!(error, Error::Denied(_)), "{n}: {error}");
    }
    assert_eq!(std::fs::read_to_string(precious.join("file")).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(&precious).unwrap().count(), 1);
    assert!(!fixture.root.join("nowhere").exists());
}

#[test]
fn a_directory_that_was_swapped_or_opened_to_others_is_refused() {
    let fixture = Fixture::new();
    let workspaces = fixture.open();
    let (a, b) = (fixture.root.join("a"), fixture.root.join("b"));
    drop(reopen(&workspaces, "a").unwrap());
    drop(reopen(&workspaces, "b").unwrap());
    std::fs::rename(&a, fixture.root.join("old")).unwrap();
    std::fs::create_dir(&a).unwrap();
    assert!(matches!(reopen(&workspaces, "a"), Err(Error::Denied(_))));
    std::fs::remove_dir(&a).unwrap();
    std::os::unix::fs::symlink(fixture.root.join("old"), &a).unwrap();
    assert!(matches!(reopen(&workspaces, "a"), Err(Error::Denied(_))), "a link to the right directory is still a link");
    std::fs::set_permissions(&b, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(reopen(&workspaces, "b"), Err(Error::Denied(_))));
}

/// ext4 gives a new directory the inode of the last one that went: only its birth tells the two apart.
#[test]
fn a_directory_that_was_made_anew_in_the_place_of_ours_is_refused() {
    let fixture = Fixture::new();
    let workspaces = fixture.open();
    drop(reopen(&workspaces, "a").unwrap());
    let path = fixture.root.join("a");
    let look = || workspaces.open_checked(&path).unwrap().unwrap().1;
    let ours = look();
    // Birth times are those of the kernel's clock, which goes in steps of some milliseconds.
    let until = std::time::Instant::now() + std::time::Duration::from_secs(2);
    let mut theirs = ours;
    while std::time::Instant::now() < until && (theirs.inode != ours.inode || theirs.born == ours.born) {
        std::fs::remove_dir_all(&path).unwrap();
        make_directory(&path).unwrap();
        std::fs::write(path.join("file"), "mine").unwrap();
        theirs = look();
    }
    // Where an inode does not come back, or nobody knows of births, the record is changed in place of the directory.
    if theirs.inode != ours.inode || theirs.born == ours.born {
        let another = Identity { born: theirs.born.max(1) + 1, ..theirs };
        workspaces.store.submit(put(&path, another), false).wait().unwrap();
        workspaces.known().insert(path.clone(), another);
    }
    if theirs.born == 0 {
        drop(reopen(&workspaces, "a").unwrap());
        return;
    }
    assert!(matches!(reopen(&workspaces, "a"), Err(Error::Denied(_))), "{ours:?} {theirs:?}");
    assert!(matches!(workspaces.bury(&name("a")), Err(Error::Denied(_))), "nor is it removed");
    drop(workspaces);
    assert!(matches!(fixture.open().open(&name("a")), Err(Error::Denied(_))), "nor does the next daemon take it");
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "mine");
}

/// What an earlier version wrote down has no birth, and gets one.
#[test]
fn a_directory_of_unknown_birth_is_ours_and_its_birth_is_written_down() {
    let fixture = Fixture::new();
    let workspaces = fixture.open();
    drop(workspaces.open(&name("a")).unwrap());
    settle(&workspaces);
    let path = fixture.root.join("a");
    let known = workspaces.store.workspace(&path).unwrap().unwrap();
    workspaces.store.submit(put(&path, Identity { born: 0, ..known }), false).wait().unwrap();
    drop(workspaces.open(&name("a")).unwrap());
    settle(&workspaces);
    assert_eq!(workspaces.store.workspace(&path).unwrap(), Some(known));
}

/// After a reboot, on btrfs or NFS: it is the same directory by its inode and its birth.
#[test]
fn a_file_system_with_another_device_number_has_the_same_directories() {
    let fixture = Fixture::new();
    let path = fixture.root.join("a");
    let change = |to: fn(Identity) -> Identity| {
        let store = open_store(&fixture.state);
        let known = store.workspace(&path).unwrap().unwrap();
        store.submit(put(&path, to(known)), false).wait().unwrap();
        known
    };
    drop(fixture.open().open(&name("a")).unwrap());
    let known = change(|known| Identity { device: known.device + 1, ..known });
    if known.born != 0 {
        let workspaces = fixture.open();
        drop(workspaces.open(&name("a")).unwrap());
        settle(&workspaces);
        assert_eq!(workspaces.store.workspace(&path).unwrap(), Some(known), "as it is now");
        drop(workspaces);
        change(|known| Identity { device: known.device + 1, ..known });
        let workspaces = fixture.open();
        let removal = workspaces.bury(&name("a")).unwrap().unwrap();
        workspaces.dig(&removal).unwrap();
        assert!(!path.exists() && !Path::new(&removal.grave).exists());
        drop(workspaces.open(&name("a")).unwrap());
        drop(workspaces);
    }
    // Without a birth the device is what there is to go by.
    change(|known| Identity { device: known.device + 1, born: 0, ..known });
    assert!(matches!(fixture.open().open(&name("a")), Err(Error::Denied(_))));
}

/// Between the look and the guest: what is lent and counted is what was looked at, not what its path leads to by then.
#[cfg(target_os = "linux")]
#[test]
fn a_swap_after_the_check_changes_nothing() {
    let fixture = Fixture::new();
    let workspaces = fixture.open();
    let at = |n: &str| fixture.root.join(n);
    drop(workspaces.open(&name("a")).unwrap());
    std::fs::write(at("a").join("own"), "1234567").unwrap();
    for swap in ["directory", "link"] {
        let workspace = reopen(&workspaces, "a").unwrap();
        std::fs::rename(at("a"), at("away")).unwrap();
        std::fs::create_dir_all(at("other")).unwrap();
        std::fs::write(at("other").join("precious"), "mine").unwrap();
        match swap {
            "directory" => std::fs::rename(at("other"), at("a")).unwrap(),
            _ => std::os::unix::fs::symlink(at("other"), at("a")).unwrap(),
        }
        let lent = workspace.lend().unwrap();
        assert!(lent.join("own").exists() && !lent.join("precious").exists(), "{swap}");
        std::fs::write(lent.join("own"), "12345678").unwrap();
        assert_eq!(std::fs::read_to_string(at("away").join("own")).unwrap(), "12345678", "{swap}");
        let usage = workspace.scan().unwrap()(&tokio_util::sync::CancellationToken::new()).unwrap();
        assert_eq!((usage.bytes, usage.files), (8, 1), "{swap}");
        assert!(reopen(&workspaces, "a").is_err(), "{swap}");
        std::fs::remove_file(at("a")).or_else(|_| std::fs::remove_dir_all(at("a"))).unwrap();
        std::fs::rename(at("away"), at("a")).unwrap();
    }
}

#[test]
fn a_directory_that_was_removed_is_made_again() {
    let fixture = Fixture::new();
    let workspaces = fixture.open();
    drop(reopen(&workspaces, "a").unwrap());
    std::fs::remove_dir(fixture.root.join("a")).unwrap();
    drop(reopen(&workspaces, "a").unwrap());
    drop(reopen(&workspaces, "a").unwrap());
}

/// Killed between making it and writing that down, or with a disk that failed in between.
#[test]
fn a_directory_that_was_about_to_be_made_is_ours_as_long_as_it_is_empty() {
    let fixture = Fixture::new();
    let workspaces = fixture.open();
    for n in ["a", "b"] {
        workspaces.store.submit(put(&fixture.root.join(n), Identity::INTENDED), false).wait().unwrap();
        make_directory(&fixture.root.join(n)).unwrap();
    }
    std::fs::write(fixture.root.join("b/file"), "mine").unwrap();
    drop(workspaces.open(&name("a")).unwrap());
    drop(workspaces.open(&name("a")).unwrap());
    assert!(matches!(workspaces.open(&name("b")), Err(Error::Denied(_))));
    assert_eq!(std::fs::read_to_string(fixture.root.join("b/file")).unwrap(), "mine");
}

#[test]
fn what_could_not_be_made_is_not_expected_to_be_ours_later() {
    let fixture = Fixture::new();
    let workspaces = fixture.open();
    // Nobody, not even root, makes a directory there.
    std::fs::remove_dir(&fixture.root).unwrap();
    assert!(matches!(workspaces.open(&name("a")), Err(Error::Io { .. })));
    assert_eq!(workspaces.store.workspace(&fixture.root.join("a")).unwrap(), None);
    // And one that a daemon had meant to make when it died.
    workspaces.store.submit(put(&fixture.root.join("b"), Identity::INTENDED), false).wait().unwrap();
    assert!(matches!(workspaces.open(&name("b")), Err(Error::Io { .. })));
    std::fs::create_dir(&fixture.root).unwrap();
    for n in ["a", "b"] {
        make_directory(&fixture.root.join(n)).unwrap();
        assert!(matches!(workspaces.open(&name(n)), Err(Error::Denied(_))), "{n} is the user's");
        assert!(workspaces.bury(&name(n)).unwrap().is_none() && fixture.root.join(n).exists(), "{n} stays");
    }
}

/// Another user of a shared root may make anything there that is not there yet.
#[test]
fn nobody_keeps_a_directory_from_being_removed_by_taking_the_name_of_its_grave() {
    use std::os::unix::fs::MetadataExt;
    let fixture = Fixture::new();
    let workspaces = fixture.open();
    let at = |n: &str| fixture.root.join(n);
    drop(workspaces.open(&name("a")).unwrap());
    settle(&workspaces);
    let meta = at("a").metadata().unwrap();
    // What it was called when everybody could know.
    let foreseen = at(&format!(".coracle-removed-{}-{}", meta.dev(), meta.ino()));
    std::fs::create_dir(&foreseen).unwrap();
    let first = workspaces.bury(&name("a")).unwrap().unwrap();
    drop(workspaces.open(&name("a")).unwrap());
    settle(&workspaces);
    let second = workspaces.bury(&name("a")).unwrap().unwrap();
    assert_ne!(first.grave, second.grave);
    for removal in [first, second] {
        workspaces.dig(&removal).unwrap();
        assert!(!Path::new(&removal.grave).exists());
    }
    assert!(foreseen.is_dir());
}

#[test]
fn a_grave_that_is_taken_is_left_alone_and_another_one_is_tried() {
    let fixture = Fixture::new();
    let workspaces = fixture.open();
    let at = |n: &str| fixture.root.join(n);
    drop(workspaces.open(&name("a")).unwrap());
    settle(&workspaces);
    std::fs::write(at("a").join("file"), "x").unwrap();
    // Whatever it is: an empty directory and a dangling link could be renamed over.
    std::fs::create_dir(at(".0")).unwrap();
    std::fs::write(at(".1"), "theirs").unwrap();
    std::os::unix::fs::symlink("nowhere", at(".2")).unwrap();
    let taken = workspaces.bury_in(&name("a"), || ".0".to_owned()).unwrap_err();
    assert!(taken.to_string().contains("is taken"), "{taken}");
    assert!(at("a/file").exists() && workspaces.store.removals().unwrap().is_empty());
    let mut numbers = 0..;
    let removal = workspaces.bury_in(&name("a"), || format!(".{}", numbers.next().unwrap())).unwrap().unwrap();
    assert_eq!(removal.grave, at(".3").to_string_lossy());
    assert!(at(".3/file").exists() && !at("a").exists());
    assert_eq!(
        workspaces.store.removals().unwrap(),
        std::slice::from_ref(&removal),
        "and no row for what was only tried"
    );
    workspaces.dig(&removal).unwrap();
    assert!(at(".0").is_dir() && at(".1").is_file() && at(".2").is_symlink() && !at(".3").exists());
}

#[test]
fn a_root_that_others_may_change_has_to_be_sticky() {
    let fixture = Fixture::new();
    let store = Arc::new(open_store(&fixture.state));
    std::fs::create_dir(&fixture.root).unwrap();
    let mode = |m| std::fs::set_permissions(&fixture.root, std::fs::Permissions::from_mode(m)).unwrap();
    mode(0o777);
    assert!(Workspaces::new(&fixture.root, Arc::clone(&store)).unwrap_err().to_string().contains("sticky"));
    mode(0o1777);
    Workspaces::new(&fixture.root, store).unwrap();
}

/// Sticky or not: who owns the root may swap what is in it.
#[test]
fn a_root_of_somebody_elses_is_refused() {
    const NOBODY: u32 = 65_534;
    let fixture = Fixture::new();
    let store = Arc::new(open_store(&fixture.state));
    std::fs::create_dir(&fixture.root).unwrap();
    if std::os::unix::fs::chown(&fixture.root, Some(NOBODY), Some(NOBODY)).is_err() {
        // Needs root.
        return;
    }
    for mode in [0o1777, 0o1755, 0o700] {
        std::fs::set_permissions(&fixture.root, std::fs::Permissions::from_mode(mode)).unwrap();
        let refused = Workspaces::new(&fixture.root, Arc::clone(&store)).unwrap_err();
        assert!(matches!(refused, Error::Denied(_)), "{mode:o}: {refused}");
    }
}

/// What was made is empty; what stands there a moment later need not be it.
#[test]
fn a_directory_that_is_swapped_as_soon_as_it_is_made_is_refused() {
    let fixture = Fixture::new();
    let workspaces = fixture.open();
    let (path, other) = (fixture.root.join("a"), fixture.root.join("other"));
    make_directory(&other).unwrap();
    std::fs::write(other.join("file"), "mine").unwrap();
    let swapped = workspaces.open_or_make(&name("a"), |path| {
        make_directory(path)?;
        std::fs::rename(path, fixture.root.join("away"))?;
        std::fs::rename(&other, path)
    });
    assert!(matches!(swapped, Err(Error::Denied(_))), "{swapped:?}");
    assert_eq!(workspaces.store.workspace(&path).unwrap(), None, "and it is not written down as ours");
    assert!(matches!(workspaces.open(&name("a")), Err(Error::Denied(_))));
    assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "mine");
}

/// A client that left has let go of the name, and what it began waits for the disk all the same: whoever comes next waits too,
/// and takes what was made.
#[test]
fn who_opens_a_directory_that_is_being_made_waits_for_it() {
    let fixture = Fixture::new();
    let workspaces = fixture.open();
    let database = rusqlite::Connection::open(fixture.state.join("state.db")).unwrap();
    // Nothing is written down meanwhile.
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut opened = std::thread::scope(|scope| {
        let opening = [0, 1].map(|_| scope.spawn(|| workspaces.open(&name("a"))));
        // Both wait for the disk, or one of them for the other.
        std::thread::park_timeout(std::time::Duration::from_millis(200));
        database.execute_batch("COMMIT").unwrap();
        opening.map(|opening| opening.join().unwrap().unwrap())
    });
    opened.sort_by_key(|workspace| workspace.made);
    assert!(!opened[0].made && opened[1].made);
    settle(&workspaces);
    let (_, found) = workspaces.open_checked(&fixture.root.join("a")).unwrap().unwrap();
    assert_eq!(workspaces.store.workspace(&fixture.root.join("a")).unwrap(), Some(found));
}

/// What could not be found again by its row would never be removed.
#[test]
fn a_root_that_no_row_can_hold_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let fixture = Fixture::new();
    let root = fixture.root.join(std::ffi::OsStr::from_bytes(b"r\xff"));
    let refused = Workspaces::new(&root, Arc::new(open_store(&fixture.state))).unwrap_err();
    assert!(refused.to_string().contains("UTF-8"), "{refused}");
    assert!(!root.exists());
}

/// The root is mounted after the daemon began: what is on it is still there, and still the daemon's.
#[test]
fn what_is_not_mounted_is_neither_forgotten_nor_taken_for_removed() {
    let fixture = Fixture::new();
    let workspaces = fixture.open();
    for n in ["a", "b"] {
        drop(workspaces.open(&name(n)).unwrap());
    }
    settle(&workspaces);
    let buried = workspaces.bury(&name("b")).unwrap().unwrap();
    settle(&workspaces);
    drop(workspaces);
    let mounted = fixture.root.with_extension("mounted");
    std::fs::rename(&fixture.root, &mounted).unwrap();
    {
        // As if what is there now were on another device than the rows say.
        let store = open_store(&fixture.state);
        let known = store.workspace(&fixture.root.join("a")).unwrap().unwrap();
        let elsewhere = Identity { device: known.device + 1, ..known };
        store.submit(put(&fixture.root.join("a"), elsewhere), false).wait().unwrap();
        let moved = Removal { device: buried.device + 1, ..buried.clone() };
        store.submit(Change::PutRemoval(moved), false).wait().unwrap();
    }
    let workspaces = fixture.open();
    let [left] = workspaces.store.removals().unwrap().try_into().unwrap();
    workspaces.dig(&left).unwrap();
    assert!(workspaces.bury(&name("a")).unwrap().is_none());
    settle(&workspaces);
    assert!(workspaces.store.workspace(&fixture.root.join("a")).unwrap().is_some());
    assert_eq!(workspaces.store.removals().unwrap(), std::slice::from_ref(&left));
    // Back again, as it was.
    workspaces.store.submit(Change::PutRemoval(buried.clone()), false).wait().unwrap();
    std::fs::remove_dir(&fixture.root).unwrap();
    std::fs::rename(&mounted, &fixture.root).unwrap();
    workspaces.dig(&buried).unwrap();
    settle(&workspaces);
    assert_eq!(workspaces.store.removals().unwrap(), []);
    assert!(!Path::new(&buried.grave).exists());
}
