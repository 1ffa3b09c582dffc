//! Directories of instances against whoever would have the daemon read, write or remove something else.
#![cfg(unix)]

use crate::support::{Cli, Foreground, Harness, cannot_try, guests, soon};
use coracle::client::{Client, ClientError};
use coracle::error::Code;
use serde_json::Value;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Waits until nothing but `left` is in `root`: what is removed is emptied behind the answer.
async fn emptied(root: &Path, left: &[&str]) {
    soon("the end of all removals", async {
        while std::fs::read_dir(root).unwrap().flatten().any(|e| !left.iter().any(|name| e.file_name() == *name)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Hears of every open, read and write of a directory and of what is in it (inotify(7)); a look at names and sizes is silent.
#[cfg(target_os = "linux")]
struct Watch(rustix::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Watch {
    fn new(directory: &Path) -> Watch {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        let fd = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        add_watch(&fd, directory, WatchFlags::ALL_EVENTS).unwrap();
        Watch(fd)
    }

    fn heard(&self) -> Vec<String> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = rustix::fs::inotify::Reader::new(&self.0, &mut buffer);
        let mut heard = vec![];
        while let Ok(event) = reader.next() {
            heard.push(format!("{:?} {:?}", event.events(), event.file_name()));
        }
        heard
    }
}

/// Somebody exchanges the directory and a link all the time, also between one look and the next: a run, a count and a removal
/// get the directory or a refusal, and never what the link leads to.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_comes_and_goes_at_the_path_leads_nobody_outside() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use std::sync::atomic::{AtomicBool, Ordering};
    const EACH: usize = 25;
    const MOST: usize = 3000;
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    let (path, link) = (daemon.root.join("a"), daemon.root.join("link"));
    let outside = daemon.root.join("outside");
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("secret"), "s").unwrap();
    symlink(&outside, &link).unwrap();
    let watch = Watch::new(&outside);
    daemon.run_to_end(&["--name", "a", "disk", "c0mine"]).await;
    /// Also when the test fails, or the other thread would go on for ever.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    let (mut ran, mut refused, mut removed, mut kept) = (0, 0, 0, 0);
    let swapping = async {
        for i in 0.. {
            if ran.min(refused) >= EACH && removed.min(kept) > 0 {
                break;
            }
            assert!(i < MOST, "{ran} ran, {refused} were refused, {removed} removed and {kept} not");
            match client.run(&["--name", "a", "disk", "c0mine", "w01", "c1secret"]).await {
                Ok(_) => {
                    client.request::<Value>(&["wait", "a"]).await.unwrap();
                    ran += 1;
                }
                Err(ClientError::Refused(refusal)) => {
                    assert_eq!(refusal.code, Code::Denied, "{refusal:?}");
                    refused += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
            match client.request::<Value>(&["rm", "-v", "a"]).await {
                Ok(_) => removed += 1,
                Err(ClientError::Refused(refusal)) => {
                    assert!([Code::Denied, Code::NotFound].contains(&refusal.code), "{refusal:?}");
                    kept += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                // There is no `a` for a moment after each removal.
                let _exchanged = renameat_with(CWD, &path, CWD, &link, RenameFlags::EXCHANGE);
                std::thread::yield_now();
            }
        });
        let _over = Over(&over);
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(swapping));
    });
    assert_eq!(watch.heard(), Vec::<String>::new(), "nothing outside was opened, read or written");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
}

/// The guest plants links, and then the daemon does everything with its directory that it ever does: counts it, lends it again,
/// moves it away, takes it apart.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn links_that_a_guest_plants_lead_nobody_outside() {
    let daemon = Harness::start().await;
    let mut client = daemon.client().await;
    let outside = daemon.root.join("outside");
    std::fs::create_dir_all(outside.join("sub")).unwrap();
    // More than the instances may have: a count that came here would leave them no room.
    std::fs::write(outside.join("secret"), vec![b's'; 2 << 20]).unwrap();
    let look = || ["", "secret", "sub"].map(|p| outside.join(p).metadata().map(|m| (m.mode(), m.nlink())).unwrap());
    let before = look();
    let watch = Watch::new(&outside);
    std::fs::read(outside.join("secret")).unwrap();
    assert!(!watch.heard().is_empty(), "the watch works");
    let links = [
        "y../outside,dir",
        "y../outside/secret,file",
        "y../outside/new,new",
        "yloop,loop",
        "yb,a",
        "ya,b",
        "y.,self",
        "msub",
        "y../..,sub/up",
        "y../../outside/sub,sub/dir",
    ];
    let cli = Cli::of(&daemon);
    // What a guest may not plant itself stands there later as if one had found a way.
    let absolute = format!("y{},absolute", outside.display());
    let plant = [&links[..], &[&absolute]].concat();
    for world in ["disk", "disk-p2"] {
        for name in ["removed", "pruned"] {
            let run = async |ops: &[&str]| {
                let options = ["--name", name, "--disk", "1m", "--files", "100", world];
                daemon.run_to_end(&[&options, ops].concat()).await
            };
            run(&plant).await;
            let directory = daemon.root.join(name);
            for link in ["dir", "file", "new", "loop", "a", "b", "self", "sub/up", "sub/dir"] {
                assert!(directory.join(link).is_symlink(), "{world}: {link}");
            }
            for (target, link) in [(outside.clone(), "absolute"), (outside.join("secret"), "absolute-file")] {
                let _there_already = symlink(target, directory.join(link));
            }
            // Counted, and lent again: there is room for a file, and nothing outside is within reach.
            run(&["c0mine", "w01000", "c1file", "c2new", "c3dir/x", "o4absolute-file"]).await;
            let log = daemon.log(name).await;
            let said: Vec<&str> = log.lines().collect();
            let said = &said[said.len() - 6..];
            assert_eq!(said[..2], ["00", "00"], "{world}: {log}");
            assert!(said[2..].iter().all(|errno| *errno != "00"), "{world}: {log}");
            let gone: &[&str] = if name == "removed" { &["rm", "-v", name] } else { &["prune", "-v"] };
            client.request::<Value>(gone).await.unwrap();
            emptied(&daemon.root, &["outside"]).await;
        }
        // Made for this run, so it goes with it, links and all.
        let (_, said, _) = cli.run(&[&["run", "--rm", "--name", "auto", world], &plant[..]].concat()).await;
        assert_eq!(said.lines().count(), plant.len(), "{world}: {said}");
        emptied(&daemon.root, &["outside"]).await;
    }
    assert_eq!(watch.heard(), Vec::<String>::new(), "nothing outside was opened, read or written");
    assert_eq!(look(), before);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 2);
}

/// With the daemon's own mark on record, and without one.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_somebody_elses_is_refused_and_left_alone() {
    const NOBODY: u32 = 65_534;
    let daemon = Harness::start().await;
    let mut raw = daemon.raw().await;
    for (name, mode) in [("ours", 0o777), ("ours-private", 0o700), ("theirs", 0o777), ("theirs-private", 0o700)] {
        let path = daemon.root.join(name);
        if name.starts_with("ours") {
            daemon.run_to_end(&["--name", name, "exit_7"]).await;
        } else {
            std::fs::create_dir(&path).unwrap();
        }
        std::fs::write(path.join("file"), "precious").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        if std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).is_err() {
            return cannot_try("directories of another user, which need root");
        }
        let before = path.metadata().unwrap();
        let reply = raw.ask(&format!("run --name {name} hello")).await;
        assert!(reply.starts_with("ERR denied ") && reply.contains("was not made by this daemon"), "{name}: {reply}");
        if name.starts_with("ours") {
            let reply = raw.ask(&format!("rm -v {name}")).await;
            assert!(reply.starts_with("ERR denied "), "{name}: {reply}");
        }
        let after = path.metadata().unwrap();
        assert_eq!((after.ino(), after.uid(), after.mode()), (before.ino(), NOBODY, before.mode()), "{name}");
        assert_eq!(std::fs::read_to_string(path.join("file")).unwrap(), "precious", "{name}");
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1, "{name}");
    }
}

/// What is at its path later is not the guest's.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_stays_in_its_directory_when_another_one_takes_its_path() {
    let daemon = Harness::start().await;
    for guest in ["append", "append-p2"] {
        let (path, away) = (daemon.root.join(guest), daemon.root.join(format!("{guest}-away")));
        daemon.client().await.run(&[guest]).await.unwrap();
        soon("a file", async {
            while !path.join("data").exists() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        std::fs::rename(&path, &away).unwrap();
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        let written = || away.join("data").metadata().unwrap().modified().unwrap();
        let before = written();
        soon("it writes on", async {
            while written() == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        daemon.client().await.request::<Value>(&["stop", guest]).await.unwrap();
    }
}

/// What was answered is done by the next daemon, if this one did not come to its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_kill_9_interrupts_goes_on_with_the_next_daemon() {
    let mut cli = Cli::alone();
    let modules = guests().to_str().unwrap();
    let words = ["--listen", "127.0.0.1:0", "--modules", modules];
    let mut daemon = Foreground::start(&cli, &words);
    cli.address = daemon.address();
    let root = cli.directory.path().join("root");
    let mut client = Client::connect(cli.address).await.unwrap();
    client.run(&["--name", "t", "exit_7"]).await.unwrap();
    client.request::<Value>(&["wait", "t"]).await.unwrap();
    for i in 0..20_000 {
        std::fs::write(root.join(format!("t/f{i}")), "").unwrap();
    }
    let mut deep = root.join("t");
    deep.extend(std::iter::repeat_n("d", 1000));
    std::fs::create_dir_all(&deep).unwrap();
    client.request::<Value>(&["rm", "-v", "t"]).await.unwrap();
    daemon.signal(rustix::process::Signal::KILL);
    tokio::task::spawn_blocking(move || daemon.child.wait().unwrap()).await.unwrap();
    let left: Vec<String> =
        std::fs::read_dir(&root).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.len() == 1 && left[0].starts_with(".coracle-removed-"), "it was at it: {left:?}");
    let _daemon = Foreground::start(&cli, &words);
    emptied(&root, &[]).await;
    let database = rusqlite::Connection::open(cli.directory.path().join("state/state.db")).unwrap();
    soon("no tombstone", async {
        while database.query_row("SELECT count(*) FROM removal", [], |row| row.get::<_, i64>(0)).unwrap() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A guest would write modules there that others run; and so would whoever may `put` one, under any name.
#[tokio::test(flavor = "multi_thread")]
async fn modules_are_not_taken_from_where_guests_or_clients_write() {
    let mut cli = Cli::alone();
    let daemon = Foreground::start(&cli, &["--listen", "127.0.0.1:0"]);
    cli.address = daemon.address();
    assert_eq!(cli.run(&["run", "--name", "web", "hello"]).await.0, 0);
    assert_eq!(cli.run(&["shutdown"]).await.0, 0);
    drop(daemon);
    let at = |path: &str| cli.directory.path().join(path).to_str().unwrap().to_owned();
    std::fs::create_dir_all(at("root/web/sub")).unwrap();
    std::fs::create_dir_all(at("root/own")).unwrap();
    symlink(at("root/web"), at("link")).unwrap();
    symlink(at("state"), at("link-to-state")).unwrap();
    for (directory, why) in [
        ("root/web", "the directory of an instance"),
        ("root/web/sub", "the directory of an instance"),
        ("root/own/../web", "the directory of an instance"),
        ("link", "the directory of an instance"),
        ("link/sub", "the directory of an instance"),
        ("state", "the state directory"),
        ("state/modules", "the state directory"),
        ("link-to-state/incoming", "the state directory"),
    ] {
        let directory = at(directory);
        let (code, out, err) = cli.run(&["daemon", "--listen", "127.0.0.1:0", "--modules", &directory]).await;
        assert!(code == 125 && out.is_empty() && err.contains(why), "{directory}: {code} {out} {err}");
        let told: Vec<&str> = err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(told.len() == 1 && told[0].contains(&format!("--modules {directory}: ")), "{err}");
    }
    // Beside them is no harm.
    let (root, own) = (at("root"), at("root/own"));
    Foreground::start(&cli, &["--listen", "127.0.0.1:0", "--modules", &root, "--modules", &own]).address();
}
