//! The disk budget, in both worlds: what fits, what does not, and that the directory is never larger than it may be.

use crate::support::Harness;
use coracle::model::reply::InstanceView;
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const WORLDS: [&str; 2] = ["disk", "disk-p2"];
/// WASI's errno for a budget that is used up, as the guest prints it.
const DQUOT: &str = "19";

/// Bytes and names in a directory, as the host sees them.
fn usage(directory: &Path) -> (u64, u64) {
    fn walk(directory: &Path, seen: &mut HashSet<u64>, (bytes, files): (&mut u64, &mut u64)) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.path().symlink_metadata().unwrap();
            *files += 1;
            if meta.is_dir() {
                walk(&entry.path(), seen, (bytes, files));
            } else if seen.insert(meta.ino()) {
                *bytes += meta.len();
            }
        }
    }
    let (mut bytes, mut files) = (0, 0);
    walk(directory, &mut HashSet::new(), (&mut bytes, &mut files));
    (bytes, files)
}

struct Disk {
    daemon: Harness,
    world: &'static str,
    bytes: u64,
    files: u64,
}

impl Disk {
    async fn start(world: &'static str, bytes: u64, files: u64) -> Disk {
        Disk { daemon: Harness::start().await, world, bytes, files }
    }

    async fn run(&self, ops: &[&str]) -> InstanceView {
        let (bytes, files) = (self.bytes.to_string(), self.files.to_string());
        let options = ["--name", "d", "--disk", &bytes, "--files", &files, self.world];
        self.daemon.run_to_end(&[&options[..], ops].concat()).await
    }

    /// Runs operations, each with the errno that is expected of it; afterwards the directory is within its budget.
    async fn expect(&self, ops: &[(&str, &str)]) {
        let words: Vec<&str> = ops.iter().map(|(op, _)| *op).collect();
        let view = self.run(&words).await;
        let log = self.daemon.log("d").await;
        let said: Vec<&str> = log.lines().collect();
        let said = &said[said.len().saturating_sub(ops.len())..];
        let got: Vec<(&str, &str)> = words.into_iter().zip(said.iter().copied()).collect();
        assert_eq!(got, ops, "{}: {view:?}", self.world);
        let (bytes, files) = self.usage();
        assert!(bytes <= self.bytes && files <= self.files, "{}: {bytes} bytes, {files} files", self.world);
    }

    fn usage(&self) -> (u64, u64) {
        usage(&self.daemon.root.join("d"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_fills_the_budget_to_the_last_byte_and_not_beyond() {
    for world in WORLDS {
        let disk = Disk::start(world, 10_000, 10).await;
        disk.expect(&[("c0a", "00"), ("w09999", "00"), ("w01", "00"), ("w01", DQUOT), ("w00", "00")]).await;
        assert_eq!(disk.usage(), (10_000, 1));
        // Overwriting needs nothing, in the next run too, which begins with what is there.
        disk.expect(&[("c0a", "00"), ("w010000", "00"), ("w01", DQUOT), ("c1b", "00"), ("w11", DQUOT)]).await;
        assert_eq!(disk.usage(), (10_000, 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_does_not_fit_writes_nothing() {
    for world in WORLDS {
        let disk = Disk::start(world, 6_000, 10).await;
        disk.expect(&[("c0a", "00"), ("w03000", "00"), ("w03001", DQUOT)]).await;
        assert_eq!(disk.usage(), (3_000, 1), "{world}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_writes_without_end_stops_at_the_budget() {
    for world in WORLDS {
        let disk = Disk::start(world, 1 << 20, 10).await;
        disk.expect(&[("c0a", "00"), ("W01024", "00"), ("W01", DQUOT)]).await;
        assert_eq!(disk.usage(), (1 << 20, 1));
        disk.expect(&[("a0a", "00"), ("W02", DQUOT), ("T0a", "00"), ("W02000", DQUOT), ("u0a", "44"), ("ua", "00")])
            .await;
        assert_eq!(disk.usage(), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_name_is_a_file() {
    for world in WORLDS {
        let disk = Disk::start(world, 10_000, 5).await;
        disk.expect(&[("n5", "00"), ("n6", DQUOT), ("c0new", DQUOT), ("e0new", DQUOT), ("c0n0000", "00")]).await;
        assert_eq!(disk.usage(), (0, 5));
        disk.expect(&[
            ("mdir", DQUOT),
            ("ln0000,again", DQUOT),
            ("yn0000,link", DQUOT),
            ("T0other", DQUOT),
            ("a0other", DQUOT),
            ("un0000", "00"),
            ("mdir", "00"),
            ("mdir2", DQUOT),
            ("mdir", DQUOT),
            ("ddir", "00"),
            ("mn0001", "20"),
            ("ln0001,again", "00"),
            ("un0001", "00"),
            ("yn0000,link", "00"),
            ("uagain", "00"),
            ("rn0002,n0003", "00"),
            ("rn0003,n0003", "00"),
            ("n9", DQUOT),
        ])
        .await;
        assert_eq!(disk.usage().1, 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_count_as_what_they_could_become() {
    for world in WORLDS {
        let disk = Disk::start(world, 10_000, 10).await;
        disk.expect(&[
            ("c0a", "00"),
            ("p010000", DQUOT),
            ("p01000000000000", DQUOT),
            ("s010001", DQUOT),
            ("s09223372036854775807", DQUOT),
            ("p09999", "00"),
            ("s010000", "00"),
            ("c1b", "00"),
            ("p10", DQUOT),
            ("s09000", "00"),
            ("p1999", "00"),
            ("p11000", DQUOT),
            // Not there in wasmtime-wasi, so nothing to charge.
            ("f09999", "58"),
        ])
        .await;
        assert_eq!(disk.usage(), (10_000, 2), "{world}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_or_cut_off_gives_room_back() {
    for world in WORLDS {
        let disk = Disk::start(world, 10_000, 10).await;
        disk.expect(&[
            ("c0a", "00"),
            ("w010000", "00"),
            ("x0", "00"),
            ("ua", "00"),
            ("c0b", "00"),
            ("w010000", "00"),
            ("t1b", "00"),
            ("w110000", "00"),
            ("s10", "00"),
            ("p19999", "00"),
            ("c2c", "00"),
            ("x2", "00"),
            ("x1", "00"),
            ("x0", "00"),
            // In its place, and gone with it.
            ("rc,b", "00"),
            ("c0d", "00"),
            ("w010000", "00"),
            ("w01", DQUOT),
        ])
        .await;
        assert_eq!(disk.usage(), (10_000, 2), "{world}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_open_keeps_its_charge_when_its_name_is_gone() {
    for world in WORLDS {
        let disk = Disk::start(world, 10_000, 3).await;
        disk.expect(&[
            ("c0a", "00"),
            ("w09000", "00"),
            ("o1a", "00"),
            ("ua", "00"),
            ("c2b", "00"),
            ("w21001", DQUOT),
            ("w21000", "00"),
            // The one without a name is still a file.
            ("mdir", "00"),
            ("mdir2", DQUOT),
            ("x0", "00"),
            ("w21", DQUOT),
            ("x1", "00"),
            ("w29000", "00"),
            ("mdir2", "00"),
            ("w21", DQUOT),
            // Over an open one, and then that one closed by renumbering.
            ("ddir2", "00"),
            ("c3c", "00"),
            ("rc,b", "00"),
            ("p30", DQUOT),
            ("g32", "00"),
            ("p20", "00"),
        ])
        .await;
        assert_eq!(disk.usage(), (1, 2), "{world}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_handles_and_names_are_one_file() {
    for world in WORLDS {
        let disk = Disk::start(world, 10_000, 10).await;
        disk.expect(&[
            ("c0a", "00"),
            ("c1a", "00"),
            ("w06000", "00"),
            ("w16000", "00"),
            ("la,b", "00"),
            ("c2b", "00"),
            ("w210000", "00"),
            ("w01", "00"),
            ("a3b", "00"),
            ("w31", DQUOT),
            ("x0", "00"),
            ("x1", "00"),
            ("x2", "00"),
            ("x3", "00"),
            ("ua", "00"),
            ("rb,c", "00"),
            ("c0d", "00"),
            ("w01", DQUOT),
            ("lc,e", "00"),
            // Two names of one file: nothing happens.
            ("rc,e", "00"),
            ("uc", "00"),
            ("ue", "00"),
            ("w010000", "00"),
        ])
        .await;
        assert_eq!(disk.usage(), (10_000, 1), "{world}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbolic_link_counts_with_its_target_and_leads_to_a_file_that_counts() {
    for world in WORLDS {
        let disk = Disk::start(world, 100, 3).await;
        let long = format!("y{},long", "x".repeat(101));
        disk.expect(&[
            (&long, DQUOT),
            ("ytarget,link", "00"),
            // Created through the link.
            ("c0link", "00"),
            ("w094", "00"),
            ("w01", DQUOT),
            ("ulink", "00"),
            ("w06", "00"),
        ])
        .await;
        assert_eq!(disk.usage(), (100, 1), "{world}");
    }
}

/// The budget is less than what is there: it runs, and may only take away.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_over_its_budget_does_not_grow() {
    for world in WORLDS {
        let mut disk = Disk::start(world, 10_000, 10).await;
        disk.expect(&[("c0a", "00"), ("w010000", "00"), ("n9", "00")]).await;
        (disk.bytes, disk.files) = (5_000, 5);
        let view = disk.run(&["c0a", "w010000", "w01", "c1new", "s04999", "w01"]).await;
        let log = disk.daemon.log("d").await;
        assert!(log.ends_with("00\n00\n19\n19\n00\n19\n"), "{world}: {log}");
        assert_ne!(view.exit_code, Some(0));
        assert_eq!(disk.usage(), (4_999, 10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_has_budgets_for_all_and_shows_them() {
    let daemon = Harness::with_limits(|l| (l.disk_bytes_max, l.files_max) = (1000, 2)).await;
    for world in WORLDS {
        let view = daemon.run_to_end(&[world, "c0a", "w01000", "c1b"]).await;
        assert_eq!((view.disk_bytes_max, view.files_max), (1000, 2));
        assert_eq!((view.exit_code, view.message), (Some(0), None));
        let view = daemon.run_to_end(&[world, "c0c"]).await;
        assert_ne!(view.exit_code, Some(0));
        assert_eq!(view.message.unwrap(), "it was refused 3 files; its limit is 2 (--files)");
        let view = daemon.run_to_end(&[world, "c0a", "p02000", "!"]).await;
        assert_eq!(view.reason.as_deref(), Some("trap:unreachable"));
        let message = view.message.unwrap();
        assert!(
            message.starts_with("it was refused 2.0 KiB of disk; its limit is 1000 B (--disk); then "),
            "{message}"
        );
        let view = daemon.run_to_end(&["--disk", "1m", "--files", "3", world, "c0c", "p02000"]).await;
        assert_eq!((view.disk_bytes_max, view.files_max, view.exit_code), (1 << 20, 3, Some(0)));
    }
}

/// Within its own budget, and the disk would be too full.
#[tokio::test(flavor = "multi_thread")]
async fn guests_leave_room_on_the_disk() {
    for world in WORLDS {
        // More than any disk has.
        let daemon = Harness::with_limits(|limits| limits.disk_free_bytes = 1 << 60).await;
        let view = daemon.run_to_end(&["--name", "d", world, "c0a", "mb", "c0a"]).await;
        assert_eq!(daemon.log("d").await, "51\n51\n51\n", "{world}: ENOSPC");
        let message = view.message.unwrap();
        assert!(message.contains("--disk-free"), "{message}");
        assert_eq!(std::fs::read_dir(daemon.root.join("d")).unwrap().count(), 0);
        let daemon = Harness::with_limits(|limits| limits.disk_free_bytes = 1).await;
        daemon.run_to_end(&["--name", "d", world, "c0a", "w010", "mb"]).await;
        assert_eq!(daemon.log("d").await, "00\n00\n00\n", "{world}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_run_is_given_more_disk_than_the_ceiling() {
    let daemon = Harness::with_limits(|limits| {
        limits.disk_bytes_ceiling = 300 << 20;
        limits.files_ceiling = 20_000;
    })
    .await;
    let mut client = daemon.client().await;
    for (over, just, flag) in
        [("--disk=301m", "--disk=300m", "--disk-max"), ("--files=20001", "--files=20000", "--files-max")]
    {
        let error = client.run(&["--name", "over", over, "hello"]).await.unwrap_err().to_string();
        assert!(error.contains(flag), "{error}");
        assert_eq!(daemon.run_to_end(&[just, "hello"]).await.exit_code, Some(0));
    }
}
