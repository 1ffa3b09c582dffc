//! Directories of the host that a run is lent besides its own: what a guest gets at through them, and what it does not.
#![cfg(unix)]

use crate::support::{Cli, Foreground, Harness, cannot_try, soon};
use coracle::client::{Client, Target};
use coracle::model::limit::LimitViews;
use coracle::model::reply::{Inspection, InstanceView};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const WORLDS: [&str; 2] = ["disk", "disk-p2"];
/// WASI's numbers of errors, as the guest prints them.
const ACCES: &str = "02";
const DQUOT: &str = "19";
const PERM: &str = "63";
const ROFS: &str = "69";
const XDEV: &str = "75";
const NOTCAPABLE: &str = "76";

/// A directory of the host with a file of five thousand bytes, and a secret beside it.
struct Host {
    directory: TempDir,
}

impl Host {
    fn new() -> Host {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("lent")).unwrap();
        std::fs::write(directory.path().join("lent/old"), vec![b'o'; 5000]).unwrap();
        std::fs::write(directory.path().join("secret"), "secret").unwrap();
        Host { directory }
    }

    fn lent(&self) -> PathBuf {
        self.directory.path().join("lent")
    }

    fn volume(&self, how: &str) -> String {
        format!("{}:/data{how}", self.lent().display())
    }
}

/// What each operation came to, as the guest said it.
async fn say(daemon: &Harness, options: &[&str], world: &str, ops: &[&str]) -> Vec<String> {
    let words = [&["--name", "m"], options, &[world], ops].concat();
    daemon.run_to_end(&words).await;
    let log = daemon.log("m").await;
    let said: Vec<String> = log.lines().map(str::to_owned).collect();
    said[said.len().saturating_sub(ops.len())..].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lent_directory_is_the_hosts_own_and_stays_lent_over_runs() {
    for world in WORLDS {
        let (daemon, host) = (Harness::start().await, Host::new());
        let volume = host.volume("");
        let ops =
            ["c0mine", "@4", "c1new", "w15", "x1", "o1old", "mdir", "c2dir/deep", "w23", "unothing", "rnew,renamed"];
        let said = say(&daemon, &["-v", &volume], world, &ops).await;
        assert_eq!(said, ["00", "00", "00", "00", "00", "00", "00", "00", "00", "44", "00"], "{world}");
        assert_eq!(std::fs::read(host.lent().join("renamed")).unwrap().len(), 5);
        assert_eq!(std::fs::read(host.lent().join("dir/deep")).unwrap().len(), 3);
        assert!(daemon.root.join("m/mine").exists() && !daemon.root.join("m/dir").exists());
        let mut client = daemon.client().await;
        let view: Inspection = client.request(&["inspect", "m"]).await.unwrap();
        let shown = serde_json::to_value(&view).unwrap();
        assert_eq!(shown["mounts"][0]["guest"], "/data", "{shown}");
        // The next run of it is lent the same.
        std::fs::remove_dir_all(host.lent().join("dir")).unwrap();
        std::fs::remove_file(host.lent().join("renamed")).unwrap();
        let _restarted: serde_json::Value = client.request(&["restart", "m"]).await.unwrap();
        let view: InstanceView = soon("the second run", client.request(&["wait", "m"])).await.unwrap();
        assert_eq!((view.run, view.exit_code), (2, Some(0)), "{view:?}");
        assert!(host.lent().join("renamed").exists() && host.lent().join("dir/deep").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lent_to_be_read_is_not_written() {
    for world in WORLDS {
        let (daemon, host) = (Harness::start().await, Host::new());
        let ops = ["@4", "o0old", "c1new", "t2old", "mdir", "uold", "rold,new", "lold,new", "yold,new", "dnothing"];
        let said = say(&daemon, &["-v", &host.volume(":ro")], world, &ops).await;
        assert_eq!(said[..2], ["00", "00"], "{world}");
        for (op, errno) in ops.iter().zip(&said).skip(2) {
            assert!([PERM, ROFS, NOTCAPABLE].contains(&errno.as_str()), "{world} {op}: {errno}");
        }
        let names: Vec<_> = std::fs::read_dir(host.lent()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["old"]);
        assert_eq!(std::fs::metadata(host.lent().join("old")).unwrap().len(), 5000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_of_what_is_lent_is_seen() {
    for world in WORLDS {
        let (daemon, host) = (Harness::start().await, Host::new());
        std::os::unix::fs::symlink("../secret", host.lent().join("out")).unwrap();
        std::os::unix::fs::symlink(host.directory.path().join("secret"), host.lent().join("absolute")).unwrap();
        let ops =
            ["@4", "o0../secret", "o0out", "o0absolute", "c0../new", "u../secret", "rold,../new", "l../secret,new"];
        let said = say(&daemon, &["-v", &host.volume("")], world, &ops).await;
        for (op, errno) in ops.iter().zip(&said).skip(1) {
            assert!([PERM, NOTCAPABLE].contains(&errno.as_str()), "{world} {op}: {errno}");
        }
        assert_eq!(std::fs::read_to_string(host.directory.path().join("secret")).unwrap(), "secret");
        assert_eq!(std::fs::metadata(host.directory.path().join("secret")).unwrap().nlink(), 1);
        assert_eq!(std::fs::read_dir(host.directory.path()).unwrap().count(), 2);
    }
}

/// What is removed there makes no room in the guest's own directory, nothing is moved between them, and what is added is bounded.
#[tokio::test(flavor = "multi_thread")]
async fn a_lent_directory_has_a_budget_of_its_own() {
    for world in WORLDS {
        let (daemon, host) = (Harness::start().await, Host::new());
        let options = ["-v", &host.volume(""), "--disk", "1000", "--files", "3"];
        let ops = ["c0a", "w01000", "w01", "@4", "c1new", "w11000", "w11", "uold", "@3", "w01"];
        let said = say(&daemon, &options, world, &ops).await;
        assert_eq!(said, ["00", "00", DQUOT, "00", "00", "00", DQUOT, "00", "00", DQUOT], "{world}");
        assert_eq!(std::fs::metadata(daemon.root.join("m/a")).unwrap().len(), 1000);
        assert_eq!(std::fs::metadata(host.lent().join("new")).unwrap().len(), 1000);
        let ops =
            [">4", "ra,moved", "la,linked", "@4", ">3", "rnew,moved", "lnew,linked", "@4", "ma", "mb", "mc", "md"];
        let said = say(&daemon, &options, world, &ops).await;
        let expected = ["00", XDEV, XDEV, "00", "00", XDEV, XDEV, "00", "00", "00", "00", DQUOT];
        assert_eq!(said, expected, "{world}");
        assert_eq!(std::fs::read_dir(daemon.root.join("m")).unwrap().count(), 1);
    }
}

/// To open a FIFO would take a thread of all guests for as long as nobody else opens it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_not_opened() {
    for world in WORLDS {
        let (daemon, host) = (Harness::start().await, Host::new());
        let fifo = host.lent().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        std::os::unix::fs::symlink("fifo", host.lent().join("link")).unwrap();
        let ops = ["@4", "o0fifo", "c0fifo", "a0fifo", "T0fifo", "o0link", "hfifo", "hlink", "o0old", "hold"];
        let said = say(&daemon, &["-v", &host.volume("")], world, &ops).await;
        assert_eq!(said, ["00", PERM, PERM, PERM, PERM, PERM, PERM, PERM, "00", "00"], "{world}");
        assert_eq!(std::fs::metadata(host.lent().join("old")).unwrap().mtime(), 2, "{world}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_lent_is_refused_before_anything_is_made() {
    let host = Host::new();
    let root = host.directory.path().to_owned();
    let daemon = Harness::with(|config| config.mount_roots.push(root.join("lent"))).await;
    let mut client = daemon.client().await;
    let mut refused = async |words: Vec<String>| -> String {
        let words = [words, vec!["--name".into(), "m".into(), "hello".into()]].concat();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        client.run(&words).await.unwrap_err().to_string()
    };
    let volume = |host: &Path| vec!["-v".to_owned(), format!("{}:/data", host.display())];
    assert!(refused(volume(host.directory.path())).await.contains("--mount-root"));
    assert!(refused(volume(Path::new("lent"))).await.contains("absolute"));
    assert!(refused(volume(&host.lent().join("nothing"))).await.contains("cannot open the directory"));
    let many: Vec<String> = (0..17).flat_map(|i| ["-v".to_owned(), format!("/x:/{i}")]).collect();
    assert!(refused(many).await.contains("at most 16"));
    assert!(refused(vec!["-v".into(), "/x:/a".into(), "--dir".into(), "/y::/a".into()]).await.contains("'/a'"));
    assert!(client.list().await.unwrap().is_empty());
    assert!(!daemon.root.join("m").exists());
    client.run(&["-v", &host.volume(""), "hello"]).await.unwrap();
    // Where anything may be lent, what the daemon lives by is not.
    let daemon = Harness::start().await;
    let error = daemon.client().await.run(&["-v", &volume(&daemon.state)[1], "hello"]).await.unwrap_err();
    assert!(error.to_string().contains("daemon's state"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_means_its_own_directory() {
    let (daemon, host) = (Harness::start().await, Host::new());
    let cli = Cli::of(&daemon);
    let mut command = cli.command(&[
        "run",
        "--name",
        "m",
        "-v",
        "lent:/data",
        "--dir",
        ".::/up",
        "disk",
        "@4",
        "o0old",
        "@5",
        "o1secret",
    ]);
    command.current_dir(host.directory.path());
    assert_eq!(cli.finish(command, b"").await, (0, "00\n00\n00\n00\n".into(), String::new()));
}

/// The kernel holds to it what the permissions of the daemon's user, root here, would allow.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_fence_keeps_guests_from_the_systems_directories_and_lets_through_what_is_lent() {
    let (cli, host) = (Cli::alone(), Host::new());
    let guests = crate::support::guests().to_str().unwrap();
    let daemon = Foreground::start(&cli, &["--listen", "127.0.0.1:0", "--modules", guests]);
    let mut client = Client::connect(Target::tcp(daemon.address())).await.unwrap();
    let all: LimitViews = client.request(&["limits"]).await.unwrap();
    if !all.fence.starts_with("landlock") {
        return cannot_try(&format!("the kernel's fence: {}", all.fence));
    }
    let mut ended = async |name: &str, volume: &str, ops: &[&str]| -> InstanceView {
        client.run(&[&["--name", name, "-v", volume, "disk", "@4"], ops].concat()).await.unwrap();
        soon("the end", client.request(&["wait", name])).await.unwrap()
    };
    let target = Path::new("/usr/local/coracle-was-here");
    assert!(!target.exists());
    let view = ended("system", "/usr/local:/data", &["c0coracle-was-here"]).await;
    assert_eq!(view.exit_code.unwrap().to_string(), ACCES.trim_start_matches('0'), "{view:?}");
    assert!(!target.exists());
    assert_eq!(ended("read", "/usr:/data", &["o0bin/env"]).await.exit_code, Some(0));
    assert_eq!(ended("lent", &host.volume(""), &["c0new"]).await.exit_code, Some(0));
    // It is the process's, and for good.
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

/// With `--mount-root` the rest of the machine is not only not lent, but cannot be written to.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_tight_fence_runs_guests_and_compiles() {
    let (cli, host) = (Cli::alone(), Host::new());
    let guests = crate::support::guests().to_str().unwrap();
    let lent = host.lent();
    let words = ["--listen", "127.0.0.1:0", "--modules", guests, "--mount-root", lent.to_str().unwrap()];
    let daemon = Foreground::start(&cli, &words);
    let mut client = Client::connect(Target::tcp(daemon.address())).await.unwrap();
    client.run(&["-v", &host.volume(""), "disk", "@4", "c0new", "w05", "@3", "c1own"]).await.unwrap();
    let view: InstanceView = soon("the end", client.request(&["wait", "disk"])).await.unwrap();
    assert_eq!(view.exit_code, Some(0), "{view:?}");
    assert!(host.lent().join("new").exists());
}
