//! The store, against the registry that it follows and against files that are not what they should be.

mod questions;

use super::*;
use crate::config::Config;
use crate::model::event::EventKind;
use crate::model::instance::{Ended, ExitStatus, Rung, State, Stopped};
use crate::model::name::Name;
use crate::model::registry::Registry;
use crate::model::registry::tests::{launch, name};
use crate::model::reply::{Inspection, InstanceView, Listing, Reply};
use crate::model::request::WireFormat;
use proptest::prelude::*;
use rusqlite::types::Value;
use std::collections::BTreeMap;
use std::time::Duration;

fn limits() -> Limits {
    Config::new(([127, 0, 0, 1], 0).into(), "s".into(), "r".into()).limits
}

fn open(directory: &Path) -> Result<Store> {
    Store::open(directory, Durability::Normal, &limits())
}

fn row(name: &str, text: bool) -> ModuleRow {
    ModuleRow { name: name.into(), sha256: "ab".repeat(32), bytes: 7, text }
}

/// A registry and the store that follows it, as the supervisor has them.
struct Pair {
    registry: Registry,
    store: Store,
    seq_next: u64,
}

impl Pair {
    fn open(directory: &Path, limits: &Limits) -> Pair {
        let store = Store::open(directory, Durability::Normal, limits).unwrap();
        let loaded = store.loaded();
        let mut registry = Registry::restore(loaded.records);
        registry.reserve_ids(loaded.id_next);
        Pair { registry, store, seq_next: loaded.seq_next }
    }

    fn apply(&mut self, event: Event) -> Ticket {
        let seq = self.seq_next;
        self.seq_next += 1;
        let before = self.registry.by_id(event.id).cloned();
        self.registry.apply(&event);
        let after = self.registry.by_id(event.id);
        let view = Box::new(EventView::of(seq, &event, after.or(before.as_ref()).unwrap()));
        let ended_order = after.and_then(|r| r.ended_order);
        let env = vec![("KEY".to_owned(), "value".to_owned())];
        self.store.submit(Change::Event { event, view, ended_order, env }, false)
    }

    fn run(&mut self, n: &str) -> InstanceId {
        let event = self.registry.decide_run(&name(n), launch(n), 1000, Timestamp(1)).unwrap();
        let id = event.id;
        self.apply(event).wait().unwrap();
        id
    }

    fn end(&mut self, id: InstanceId, again: bool) {
        let ended = Ended {
            cpu_us: Some(1234),
            stopped: Some(Stopped { rung: Rung::Tick, took_us: 5678 }),
            ..Ended::new(ExitStatus::Exited(3), "exit", Some("\u{0} ü".into()))
        };
        let event = self.registry.ended(id, ended, again, Duration::default, Timestamp(5));
        self.apply(event).wait().unwrap();
    }
}

#[test]
fn what_was_stored_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let identity = Identity { device: u64::MAX, inode: 1 << 63, born: u64::MAX - 1 };
    {
        let store = open(&state).unwrap();
        store.submit(Change::PutModule(row("app", false)), true).wait().unwrap();
        store.submit(Change::PutModule(row("gone", false)), true).wait().unwrap();
        store.submit(Change::PutModule(row("app", true)), true).wait().unwrap();
        store.submit(Change::ForgetModule("gone".into()), true).wait().unwrap();
        store.note(Change::PutWorkspace("/tmp/x".into(), identity));
    }
    let store = open(&state).unwrap();
    assert_eq!(store.modules().unwrap(), [row("app", true)]);
    assert_eq!(store.workspace(Path::new("/tmp/x")).unwrap(), Some(identity));
    assert_eq!(store.workspace(Path::new("/tmp/y")).unwrap(), None);
    let removal = Removal { grave: "g".into(), path: "p".into(), device: u64::MAX, inode: 1 << 63 };
    store.submit(Change::PutRemoval(removal.clone()), false).wait().unwrap();
    assert_eq!(store.removals().unwrap(), [removal]);
    store.submit(Change::ForgetRemoval("g".into()), false).wait().unwrap();
    assert!(store.removals().unwrap().is_empty());
}

/// A root that is mounted later is not one that was emptied.
#[cfg(unix)]
#[test]
fn a_directory_is_forgotten_if_it_is_gone_and_not_if_its_file_system_is() {
    let dir = tempfile::tempdir().unwrap();
    let device = std::os::unix::fs::MetadataExt::dev(&dir.path().metadata().unwrap());
    let known = |device| Identity { device, inode: 1, born: 1 };
    let store = open(&dir.path().join("state")).unwrap();
    let rows = [
        ("state", known(device), true),
        ("gone", known(device), false),
        ("intended", Identity::INTENDED, false),
        ("elsewhere", known(device + 1), true),
        ("not-mounted/a", known(device), true),
    ];
    for (path, identity, _) in rows {
        store.note(Change::PutWorkspace(dir.path().join(path).to_string_lossy().into_owned(), identity));
    }
    // The first to see that they are written down, the second that they are forgotten.
    store.submit(Change::ForgetWorkspaces(vec![]), false).wait().unwrap();
    store.forget_lost_workspaces().unwrap();
    store.submit(Change::ForgetWorkspaces(vec![]), false).wait().unwrap();
    for (path, identity, stays) in rows {
        assert_eq!(store.workspace(&dir.path().join(path)).unwrap(), stays.then_some(identity), "{path}");
    }
}

/// Checkpoints end behind the end of the log as long as somebody writes; the writer has to finish one by itself.
#[test]
fn the_log_of_the_database_begins_anew_though_somebody_always_writes() {
    const BYTES_A_PAGE: u64 = 4096 + 24;
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path(), &limits());
    let length = || std::fs::metadata(schema::log_path(dir.path())).unwrap().len();
    // SQLite writes a log that begins anew over the old one, so what stays the same for long is bounded.
    // What is written while a checkpoint of the other thread is under way comes on top.
    let bound = u64::try_from(3 * writer::CHECKPOINT_PAGES_MAX).unwrap() * BYTES_A_PAGE;
    let (mut longest, mut same) = (0, 0);
    while same < 2000 {
        let id = pair.run("a");
        pair.end(id, false);
        let now = length();
        assert!(now <= bound, "{now} bytes");
        same = if now > longest { 0 } else { same + 1 };
        longest = longest.max(now);
    }
    assert!(longest >= u64::try_from(writer::CHECKPOINT_EVERY).unwrap() * BYTES_A_PAGE);
}

/// Whatever happens to instances: what is read back is what was in memory.
#[test]
fn the_registry_is_read_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path(), &limits());
    let alive = pair.run("alive");
    let event = pair.registry.started(alive, Timestamp(2));
    pair.apply(event).wait().unwrap();
    let ended = pair.run("ended");
    pair.end(ended, false);
    let between = pair.run("between");
    pair.end(between, true);
    let again = pair.run("again");
    pair.end(again, true);
    let event = pair.registry.next_run(again, launch("again"), Timestamp(9));
    pair.apply(event).wait().unwrap();
    let stopped = pair.run("stopped");
    let event = pair.registry.decide_stop(&name("stopped"), Timestamp(3)).unwrap().unwrap();
    pair.apply(event).wait().unwrap();
    pair.end(stopped, true);
    let cancelled = pair.run("cancelled");
    pair.end(cancelled, true);
    let event = pair.registry.restart_cancelled(cancelled, Timestamp(7));
    pair.apply(event).wait().unwrap();
    let resumed = pair.run("resumed");
    pair.end(resumed, false);
    let event = Event::of(pair.registry.by_id(resumed).unwrap(), Timestamp(8), EventKind::Resumed);
    pair.apply(event).wait().unwrap();
    let removed = pair.run("removed");
    pair.end(removed, false);
    let event = pair.registry.decide_remove(&name("removed"), Timestamp(9)).unwrap();
    pair.apply(event).wait().unwrap();
    let records: Vec<Record> = pair.registry.records().cloned().collect();
    assert_eq!(records.len(), 7);
    let seq_next = pair.seq_next;
    drop(pair);

    let again = Pair::open(dir.path(), &limits());
    assert!(
        again.registry.records().eq(records.iter()),
        "{:#?}\n{records:#?}",
        again.registry.records().collect::<Vec<_>>()
    );
    assert_eq!(again.seq_next, seq_next, "numbers of events go on");
    assert_eq!(again.store.environment(alive).unwrap(), Some(vec![("KEY".to_owned(), "value".to_owned())]));
    let mut again = again;
    assert!(again.run("new").0 > removed.0, "an id is never used twice");
}

/// A database is not damaged because a later version has a verb more.
#[test]
fn a_name_that_has_become_a_verb_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path(), &limits());
    let id = pair.run("old");
    pair.end(id, false);
    pair.store.submit(Change::PutModule(row("old", false)), true).wait().unwrap();
    drop(pair);
    let connection = Connection::open(dir.path().join("state.db")).unwrap();
    connection
        .execute_batch(
            "UPDATE instance SET name = 'ls'; UPDATE module SET name = 'ps';
             UPDATE run SET launch = json_set(launch, '$.module', 'ps');
             UPDATE event SET detail = json_set(detail, '$.name', 'ls', '$.module', 'ps')",
        )
        .unwrap();
    drop(connection);
    let pair = Pair::open(dir.path(), &limits());
    let names: Vec<_> = pair.registry.records().map(|r| (r.name.as_str(), r.launch.module.as_str())).collect();
    assert_eq!(names, [("ls", "ps")]);
    assert_eq!(pair.store.runs(id).unwrap()[0].module.as_str(), "ps");
    assert_eq!(pair.store.events(0, 10, 1 << 20).unwrap().0[1].name.as_str(), "ls");
}

#[test]
fn runs_and_events_are_kept_within_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    let small = Limits { runs_max: 3, events_max: 10, ..limits() };
    let mut pair = Pair::open(dir.path(), &small);
    let mut id = InstanceId(0);
    for _ in 0..5 {
        id = pair.run("job");
        pair.end(id, false);
    }
    let runs = pair.store.runs(id).unwrap();
    assert_eq!(runs.iter().map(|r| r.run).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!((runs[0].state.as_str(), runs[0].exit_code, runs[0].ended_at.is_some()), ("exited", Some(3), true));
    for _ in 0..600 {
        pair.run("job");
        pair.end(id, false);
    }
    drop(pair);
    let pair = Pair::open(dir.path(), &small);
    let kept = pair.seq_next - pair.store.oldest_event().unwrap();
    assert!((10..=1100).contains(&kept), "{kept}: trimmed now and then");
    assert_eq!(pair.store.events(0, 5000, 16 << 20).unwrap().0.len() as u64, kept);
}

#[test]
fn events_are_found_by_number_and_by_time_and_followed() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path(), &limits());
    let mut live = pair.store.follow();
    let id = pair.run("a");
    pair.end(id, false);
    let (all, more) = pair.store.events(0, 10, 1 << 20).unwrap();
    assert!(!more);
    let (first, more) = pair.store.events(0, 10, 1).unwrap();
    assert!(more && first == all[..1], "one at least, and no more than there is room for");
    assert_eq!(all.iter().map(|e| (e.seq, e.kind.as_str())).collect::<Vec<_>>(), [(1, "created"), (2, "ended")]);
    assert_eq!((all[1].exit_code, all[1].state.as_deref()), (Some(3), Some("exited")));
    assert_eq!(*live.try_recv().unwrap(), all[0], "a follower sees what is on record");
    assert_eq!(*live.try_recv().unwrap(), all[1]);
    assert_eq!(pair.store.event_at(Timestamp(2)).unwrap(), 2);
    assert_eq!(pair.store.event_at(Timestamp(6)).unwrap(), 3, "the next one");
    assert_eq!(pair.store.newest_event(), 2);
}

#[test]
fn a_directory_serves_one_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir.path().join("s")).unwrap();
    let second = open(&dir.path().join("s")).unwrap_err();
    assert!(second.to_string().contains("another daemon"), "{second}");
    drop(store);
    open(&dir.path().join("s")).unwrap();
}

/// A lock file that a dead daemon left says nothing: the kernel's lock went with it.
#[test]
fn a_lock_that_nobody_holds_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lock"), "12345\n").unwrap();
    open(dir.path()).unwrap();
}

/// A file of each version that was ever released, read by this one.
#[test]
fn older_files_are_brought_to_this_version() {
    for version in 1..=schema::VERSION {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/state/v{version}.db"));
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(&file, dir.path().join("state.db")).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut pair = Pair::open(dir.path(), &limits());
        let modules = pair.store.modules().unwrap();
        assert_eq!(modules.len(), 1, "version {version}");
        assert_eq!((modules[0].name.as_str(), modules[0].text), ("seven", true));
        // Earlier versions did not look when it was made.
        let identity = Identity { device: 1, inode: 2, born: if version >= 4 { 3 } else { 0 } };
        assert_eq!(pair.store.workspace(Path::new("/nowhere/seven")).unwrap(), Some(identity));
        if version >= 2 {
            let records: BTreeMap<_, _> = pair.registry.records().map(|r| (r.name.to_string(), r)).collect();
            assert_eq!(records["seven"].state.to_string(), "exited (7)");
            assert_eq!(records["web"].launch.restart.to_string(), "unless-stopped");
            assert_eq!(records["web"].launch.labels["tier"], "front");
            assert!(records["web"].state.is_live(), "it was killed under it");
            assert_eq!(
                pair.store.environment(records["web"].id).unwrap(),
                Some(vec![("KEY".to_owned(), "value".to_owned())])
            );
            assert!(pair.seq_next > 3);
            if version >= 3 {
                let State::Ended(ended) = &records["halted"].state else { panic!("it was stopped") };
                assert_eq!((ended.cpu_us, ended.stopped.unwrap().rung), (Some(458), Rung::HostCall));
                assert_eq!(records["web"].launch.share.cpus_milli, Some(500));
            } else {
                assert_eq!(records["seven"].state.ended().unwrap().cpu_us, None);
            }
        }
        pair.run("new");
    }
}

#[test]
fn a_file_that_is_not_ours_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.db");
    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let ours = dir.path().join("ours");
    {
        let mut pair = Pair::open(&ours, &limits());
        for i in 0..100 {
            pair.run(&format!("n{i}"));
        }
    }
    let ours = ours.join("state.db");
    let changed = |sql: &str| {
        let copy = dir.path().join("copy.db");
        std::fs::copy(&ours, &copy).unwrap();
        Connection::open(&copy).unwrap().execute_batch(sql).unwrap();
        std::fs::read(&copy).unwrap()
    };
    let whole = std::fs::read(&ours).unwrap();
    for (bytes, why) in [
        (vec![], "empty"),
        (b"garbage".repeat(1000), "damaged"),
        (whole[..whole.len() / 2].to_vec(), "damaged"),
        (whole[..1000].to_vec(), "damaged"),
        (std::fs::read(&foreign).unwrap(), "not Coracle's"),
        (changed("PRAGMA user_version = 99"), "newer"),
        (changed("PRAGMA user_version = -1"), "newer"),
        // What SQLite cannot see.
        (changed("DELETE FROM run WHERE instance = 3"), "damaged"),
        (changed("UPDATE run SET state = 'dreaming' WHERE instance = 3"), "damaged"),
        (changed("UPDATE run SET launch = '{}' WHERE instance = 3"), "damaged"),
        (changed("UPDATE instance SET name = '../x' WHERE id = 3"), "damaged"),
        (changed("UPDATE instance SET ended_order = 7 WHERE id = 3"), "damaged"),
        (changed("UPDATE run SET created_at = 253402300800000000 WHERE instance = 3"), "year 9999"),
        (changed("UPDATE run SET started_at = 9223372036854775807 WHERE instance = 3"), "year 9999"),
        (changed("UPDATE run SET ended_at = 253402300800000000 WHERE instance = 3"), "year 9999"),
        (changed("UPDATE run SET created_at = -1 WHERE instance = 3"), "damaged"),
        // The next number would be none.
        (
            changed(
                "UPDATE instance SET run = 4294967295 WHERE id = 3; UPDATE run SET run = 4294967295 WHERE instance = 3",
            ),
            "damaged",
        ),
        (changed("UPDATE event SET seq = 9223372036854775807 WHERE seq = 3"), "damaged"),
        (changed("UPDATE sqlite_sequence SET seq = 9223372036854775807"), "damaged"),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("left as it is"), "{why}: {error}");
        let journal_mode = 18..20;
        let mut now = std::fs::read(&path).unwrap();
        if now.len() == bytes.len() && now.len() > 20 {
            // Opened in WAL mode before the rows were read; nothing else may differ.
            now[journal_mode.clone()].copy_from_slice(&bytes[journal_mode]);
        }
        assert!(now == bytes, "{why}: the file was touched");
        for left in ["state.db-wal", "state.db-shm", "modules", "incoming", "logs", "reserve"] {
            let left = dir.path().join(left);
            let _gone = std::fs::remove_file(&left).or_else(|_| std::fs::remove_dir_all(&left));
        }
    }
}

#[test]
fn a_database_that_is_missing_is_told_and_not_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    std::fs::write(dir.path().join("modules/ab"), "x").unwrap();
    std::fs::remove_file(dir.path().join("state.db")).unwrap();
    let error = open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("is missing"), "{error}");
    assert!(dir.path().join("modules/ab").exists() && !dir.path().join("state.db").exists());
}

/// Whoever names a directory that has files in it loses none: a daemon removes what no row of its database knows.
#[test]
fn a_new_state_directory_takes_nothing_over_that_was_there() {
    let here =
        ["compiled/main.o", "compiled/link", "incoming/mail1", "modules/m", "logs/l", "state.db-journal", "reserve"];
    let sockets: &[&str] = if cfg!(unix) { &["coracle.sock"] } else { &[] };
    for file in here.iter().chain(sockets) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "mine").unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is missing, but there is"), "{file}: {error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine", "{file}");
        assert!(!dir.path().join("state.db").exists(), "{file}");
    }
}

/// Half of a database that a daemon left when it died, or a file of somebody's: none is in the way.
#[test]
fn a_new_database_is_made_beside_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("state.new"), "mine").unwrap();
    open(dir.path()).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("state.new")).unwrap(), "mine");
    let files = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
    assert_eq!(files.filter(|file| file.starts_with("state")).count(), 2, "the database and that one");
}

#[cfg(unix)]
#[test]
fn nobody_else_may_read_or_write_it() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut pair = Pair::open(&state, &limits());
    pair.run("a");
    assert_eq!(mode(&state), 0o700);
    for file in ["state.db", "state.db-wal", "state.db-shm", "lock"] {
        assert_eq!(mode(&state.join(file)), 0o600, "{file}");
    }
    drop(pair);
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(open(&state).unwrap_err().to_string().contains("chmod 700"));
}

/// A clock that is as wrong as can be is still a clock.
#[test]
fn the_last_time_that_can_be_shown_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path(), &limits());
    let event = pair.registry.decide_run(&name("a"), launch("a"), 1000, Timestamp::MAX).unwrap();
    let id = event.id;
    pair.apply(event).wait().unwrap();
    drop(pair);
    let pair = Pair::open(dir.path(), &limits());
    assert_eq!(pair.registry.by_id(id).unwrap().created_at, Timestamp::MAX);
    assert!(pair.store.runs(id).unwrap()[0].created_at.starts_with("9999-12-31T23:59:59"));
}

/// The sync that nobody waits for opens nothing: it may come when no descriptor is left, and a store whose sync failed writes
/// nothing any more.
#[test]
fn a_sync_needs_no_descriptor() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let connection = schema::open(dir.path()).unwrap();
    schema::settle(&connection).unwrap();
    let shared = Arc::new(Shared::new(dir.path(), 0));
    let log = schema::log_path(dir.path());
    let opened = File::options().write(true).open(&log).unwrap();
    let again = schema::open_again(dir.path()).unwrap();
    let (_writer, syncer) = Writer::new(connection, shared, Durability::Normal, &limits(), again, opened).unwrap();
    // In place of a process without descriptors: whoever opens it now fails.
    std::fs::rename(&log, dir.path().join("away")).unwrap();
    syncer.sync().unwrap();
    std::fs::rename(dir.path().join("away"), &log).unwrap();
}

/// After the first write that fails nothing more is accepted, and what was acknowledged before is there.
#[test]
fn after_a_failed_write_changes_are_refused() {
    for pages in [60, 75, 90] {
        let dir = tempfile::tempdir().unwrap();
        let mut pair = Pair::open(dir.path(), &limits());
        // A change that cannot be made, in place of a disk that fails: SQLite says no to this one and to all after it.
        let mut acknowledged = vec![];
        for i in 0..pages {
            pair.run(&format!("n{i}"));
            acknowledged.push(format!("n{i}"));
        }
        let ghost =
            Event { id: InstanceId(9999), name: name("ghost"), run: 1, at: Timestamp(1), kind: EventKind::Started };
        let record = pair.registry.by_id(InstanceId(1)).unwrap();
        let view = Box::new(EventView::of(pair.seq_next, &ghost, record));
        let ticket = pair.store.submit(Change::Event { event: ghost, view, ended_order: None, env: vec![] }, false);
        assert!(matches!(ticket.wait(), Err(Error::StateRefuses(_))));
        assert!(pair.store.accepting().is_err());
        let event = pair.registry.decide_run(&name("late"), launch("late"), 1000, Timestamp(1)).unwrap();
        assert!(pair.apply(event).wait().is_err(), "not even what could be written");
        assert_eq!(pair.store.newest_event(), pages, "and no follower hears of it");
        drop(pair);
        let pair = Pair::open(dir.path(), &limits());
        let names: Vec<String> = pair.registry.records().map(|r| r.name.to_string()).collect();
        assert_eq!(names, acknowledged);
    }
}

/// What happened waits for a database that another program holds; nothing new is begun that would wait with it.
#[test]
fn while_somebody_else_holds_the_database_nothing_new_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path(), &limits());
    let database = Connection::open(dir.path().join("state.db")).unwrap();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = pair.store.submit(Change::PutModule(row("app", false)), true).wait();
    assert!(matches!(refused, Err(Error::StateRefuses(_))) && pair.store.accepting().is_ok(), "nothing waits for it");
    let event = pair.registry.decide_run(&name("a"), launch("a"), 1000, Timestamp(1)).unwrap();
    assert!(matches!(pair.apply(event).wait(), Err(Error::NotWrittenYet(_))));
    let refused = pair.store.accepting().unwrap_err().to_string();
    assert!(refused.contains("another program holds state.db"), "{refused}");
    pair.store.accepting_removals().unwrap();
    assert!(!pair.store.full().load(Ordering::Relaxed), "there is room for what guests print");
    database.execute_batch("COMMIT").unwrap();
    // Behind what waited.
    pair.store.submit(Change::PutModule(row("app", false)), true).wait().unwrap();
    pair.store.accepting().unwrap();
    assert_eq!(pair.store.newest_event(), 1);
}

#[test]
fn states_on_disk_are_words_that_a_person_reads() {
    let dir = tempfile::tempdir().unwrap();
    let mut pair = Pair::open(dir.path(), &limits());
    let id = pair.run("web");
    assert!(matches!(pair.registry.by_id(id).unwrap().state, State::Created));
    pair.end(id, false);
    let connection = Connection::open(dir.path().join("state.db")).unwrap();
    let row: (String, String, i64) = connection
        .query_row("SELECT name, state, exit_code FROM instance JOIN run ON instance = id", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!(row, ("web".to_owned(), "exited".to_owned(), 3));
}

/// The tables with an instance of each kind, in memory.
fn tables() -> (Connection, Registry) {
    let mut connection = Connection::open_in_memory().unwrap();
    schema::migrate(&mut connection, 0).unwrap();
    let mut registry = Registry::default();
    for n in ["created", "ended", "between"] {
        let event = registry.decide_run(&name(n), launch(n), 1000, Timestamp(1)).unwrap();
        let id = event.id;
        write(&connection, &mut registry, event).unwrap();
        if n != "created" {
            let ended = Ended::new(ExitStatus::Exited(3), "exit", None);
            let event = registry.ended(id, ended, n == "between", Duration::default, Timestamp(5));
            write(&connection, &mut registry, event).unwrap();
        }
    }
    connection.execute("INSERT INTO module VALUES ('app', ?1, 7, 0)", ["ab".repeat(32)]).unwrap();
    connection.execute("INSERT INTO workspace (path, device, inode, born) VALUES ('/tmp/x', 1, 2, 3)", []).unwrap();
    connection.execute("INSERT INTO removal VALUES ('g', '/tmp/y', 1, 2)", []).unwrap();
    (connection, registry)
}

/// As the supervisor and the writer do together.
fn write(connection: &Connection, registry: &mut Registry, event: Event) -> rusqlite::Result<()> {
    let (_, seq) = rows::next_numbers(connection)?;
    let before = registry.by_id(event.id).cloned();
    registry.apply(&event);
    let after = registry.by_id(event.id);
    let view = Box::new(EventView::of(seq, &event, after.or(before.as_ref()).unwrap()));
    let ended_order = after.and_then(|r| r.ended_order);
    rows::write(connection, &Change::Event { event, view, ended_order, env: vec![] }, 100)
}

/// Everything that a daemon does with what it read: what is there is shown, and all of it goes on.
fn live_with(connection: &Connection) -> rusqlite::Result<()> {
    let mut registry = Registry::restore(rows::records(connection)?);
    registry.reserve_ids(rows::next_numbers(connection)?.0);
    for record in registry.records() {
        let view = InstanceView::of(record);
        let mut listed = String::new();
        Listing::new(WireFormat::Json, false).push(&mut listed, record);
        assert!(!listed.is_empty());
        let runs = rows::runs(connection, record.id)?;
        let instance = Inspection { instance: view, runs };
        assert!(!Reply::Inspected(Box::new(instance)).json().is_empty());
        rows::environment(connection, record.id)?;
    }
    for event in rows::events(connection, 0, 100, 1 << 20)?.0 {
        assert!(!event.line().is_empty());
    }
    rows::modules(connection)?;
    rows::removals(connection)?;
    rows::workspace(connection, "/tmp/x")?;
    for event in registry.decide_recovery(Timestamp(9)) {
        write(connection, &mut registry, event).expect("what was read goes on");
    }
    let names: Vec<Name> = registry.records().map(|r| r.name.clone()).chain([name("new")]).collect();
    for name in names {
        if let Ok(event) = registry.decide_run(&name, launch("m"), 1000, Timestamp(9)) {
            let id = event.id;
            write(connection, &mut registry, event).expect("a new run is written");
            let ended = Ended::new(ExitStatus::Stopped, "stop", None);
            let event = registry.ended(id, ended, false, Duration::default, Timestamp(9));
            write(connection, &mut registry, event).expect("its end is written");
        }
    }
    assert_eq!(rows::records(connection)?, registry.records().cloned().collect::<Vec<_>>());
    Ok(())
}

#[test]
fn what_was_written_can_be_lived_with() {
    let (connection, registry) = tables();
    assert_eq!(rows::records(&connection).unwrap(), registry.records().cloned().collect::<Vec<_>>());
    live_with(&connection).unwrap();
}

/// Every column of the state, and what may stand in it as far as SQLite is concerned.
fn changes() -> impl Strategy<Value = (&'static str, &'static str, Value)> {
    let columns = "instance.id instance.name instance.run instance.restarts instance.stop_requested instance.restarting \
                   instance.ended_order instance.env run.instance run.run run.state run.exit_code run.reason run.message \
                   run.created_at run.started_at run.ended_at run.launch run.cpu_us run.stopped event.seq event.at \
                   event.detail module.name module.bytes workspace.device removal.path sqlite_sequence.seq";
    let columns: Vec<(&str, &str)> = columns.split(' ').map(|c| c.split_once('.').unwrap()).collect();
    let texts = "exited running created lost ended web WEB con {} [] null 7 \"x\" [[\"KEY\",\"value\"]] \
                 {\"rung\":\"tick\",\"took_us\":1}";
    let value = prop_oneof![
        prop::sample::select(vec![
            i64::MIN,
            -1,
            0,
            1,
            2,
            255,
            256,
            1 << 31,
            1 << 32,
            253_402_300_800_000_000,
            i64::MAX
        ])
        .prop_map(Value::Integer),
        any::<i64>().prop_map(Value::Integer),
        prop::sample::select(texts.split(' ').collect::<Vec<_>>()).prop_map(|text| Value::Text(text.to_owned())),
        "\\PC{0,9}".prop_map(Value::Text),
        Just(Value::Null),
    ];
    (prop::sample::select(columns), value).prop_map(|((table, column), value)| (table, column, value))
}

proptest! {
    /// Whatever stands in the rows: they are refused, or everything in them can be shown and goes on.
    #[test]
    fn rows_that_nobody_wrote_are_refused_or_lived_with(
        changes in prop::collection::vec((changes(), prop::option::of(1i64..4)), 1..4)
    ) {
        let (connection, _) = tables();
        for ((table, column, value), which) in changes {
            let number = match table {
                "instance" => "id",
                "run" => "instance",
                "event" => "seq",
                _ => "?2",
            };
            let sql = format!("UPDATE {table} SET {column} = ?1 WHERE ?2 IS NULL OR {number} = ?2");
            // What the schema does not take does not come that far.
            let _kept = connection.execute(&sql, rusqlite::params![value, which]);
        }
        let _refused = live_with(&connection);
    }
}

#[test]
fn a_closed_store_can_be_opened_whoever_still_has_its_handles() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    // As in a child between fork(2) and exec(2).
    let inherited = lock(&store.lock).as_ref().unwrap().try_clone().unwrap();
    assert!(open(directory.path()).is_err(), "two daemons on one directory");
    store.close();
    open(directory.path()).unwrap();
    drop(inherited);
}
