//! Modules are compiled in processes of their own: what they may take, who waits for whom, and what is kept of it on disk.

use crate::support::{Cli, Foreground, Harness, PATIENCE, large_module, soon};
use coracle::client::{Client, Next};
use coracle::config::Config;
use coracle::model::reply::{InstanceView, StreamEvent};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// One function within every limit on its structure, whose compilation takes many seconds and gigabytes: each local may be
/// something else behind each block. `seed` makes another content.
fn bomb(seed: usize) -> Vec<u8> {
    const LOCALS: usize = 2000;
    const BLOCKS: usize = 20_000;
    let mut text = format!("(module (func (export \"_start\") (local {})", "i32 ".repeat(LOCALS));
    for i in 0..BLOCKS {
        let [a, b, c] = [i * 7919, i * 104_729 + 1, i * 31 + 2].map(|n| (n + seed) % LOCALS);
        write!(text, "(block (br_if 0 (local.get {a})) (local.set {c} (i32.add (local.get {b}) (local.get {c}))))")
            .unwrap();
    }
    wat::parse_str(text + "))").unwrap()
}

/// A directory with `bomb0.wasm`, `bomb1.wasm`, ….
fn bombs(n: usize) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for i in 0..n {
        std::fs::write(directory.path().join(format!("bomb{i}.wasm")), bomb(i)).unwrap();
    }
    directory
}

async fn with_modules(directory: &TempDir, change: impl FnOnce(&mut Config)) -> Harness {
    let path = directory.path().to_owned();
    Harness::with(move |config| {
        config.module_dirs.push(path);
        change(config);
    })
    .await
}

/// Compiled code that a daemon keeps.
fn kept(state: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(state.join("compiled")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "cwasm"));
    paths.sort();
    paths
}

/// Other bytes under the same name. Never in place: this process has the old ones mapped, and may run them.
fn replace(path: &Path, bytes: &[u8]) {
    let aside = path.with_extension("aside");
    std::fs::write(&aside, bytes).unwrap();
    std::fs::rename(&aside, path).unwrap();
}

/// Memory of a process that is resident, in KiB.
#[cfg(target_os = "linux")]
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Compilers that this process started, by their ids.
#[cfg(target_os = "linux")]
fn compilers_of(pid: u32) -> Vec<i32> {
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(child) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // Behind the name in parentheses: state, parent (proc_pid_stat(5)).
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, parent) = (fields.next(), fields.next());
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if state != Some("Z")
            && parent == Some(&pid.to_string())
            && words.split(|b| *b == 0).nth(1) == Some(b"compile-module")
        {
            found.push(child);
        }
    }
    found
}

/// Refused by the one limit and by the other, and tried again when it is asked for again; the daemon stays as it was, and
/// others hardly notice.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_ends_with_the_limit_it_met_and_costs_the_daemon_nothing() {
    let directory = bombs(1);
    let modules = directory.path().to_str().unwrap();
    for (limits, says) in [
        (["--compile-cpu", "1s"], "takes more processor time than 1s (--compile-cpu)"),
        (["--compile-memory", "200m"], "takes more memory than 200.0 MiB (--compile-memory)"),
        (["--compile-time", "1s"], "takes longer than 1s (--compile-time)"),
    ] {
        let cli = Cli::alone();
        let daemon =
            Foreground::start(&cli, &[&["--listen", "127.0.0.1:0", "--modules", modules][..], &limits].concat());
        let mut other = Client::connect(daemon.address()).await.unwrap();
        let hello = async |client: &mut Client| {
            client.run(&["hello"]).await.unwrap();
            let view: InstanceView = client.request(&["wait", "hello"]).await.unwrap();
            assert_eq!(view.exit_code, Some(0));
        };
        hello(&mut other).await;
        let mut refusal = String::new();
        let before = resident_kib(daemon.child.id());
        for _ in 0..2 {
            let address = daemon.address();
            let mut bombed = JoinSet::new();
            bombed.spawn(async move { Client::connect(address).await.unwrap().run(&["bomb0"]).await });
            let mut most = 0;
            while bombed.try_join_next().is_none_or(|done| {
                refusal = done.unwrap().unwrap_err().to_string();
                false
            }) {
                hello(&mut other).await;
                most = most.max(resident_kib(daemon.child.id()));
            }
            assert_eq!(refusal, format!("module 'bomb0' cannot run: compiling it {says}"));
            assert!(most > 0 && most < before + 32 * 1024, "{before} KiB before, {most} KiB meanwhile");
        }
        assert_eq!(kept(&cli.directory.path().join("state")).len(), 1, "of the bomb nothing is kept");
        let left = std::fs::read_dir(cli.directory.path().join("state/compiled")).unwrap().count();
        assert_eq!(left, 1, "and nothing is left of the attempts");
    }
}

/// Bombs in every quick place and in the slow one have to make room.
#[tokio::test(flavor = "multi_thread")]
async fn a_short_compilation_does_not_wait_for_long_ones() {
    let places = std::thread::available_parallelism().unwrap().get();
    let long = places + places.div_ceil(4);
    let directory = bombs(long);
    let daemon = with_modules(&directory, |config| config.limits.compile_bytes_max = 1 << 30).await;
    let mut bombed = vec![];
    for i in 0..long {
        let mut raw = daemon.raw().await;
        raw.send(&format!("format json\nrun --attach bomb{i}\n")).await;
        raw.line().await;
        bombed.push(raw);
    }
    for raw in &mut bombed {
        assert!(raw.line().await.starts_with("{\"event\":{\"type\":\"compiling\""));
    }
    let begun = Instant::now();
    assert_eq!(daemon.run_to_end(&["exit_7"]).await.exit_code, Some(7));
    let took = begun.elapsed();
    assert!(took < PATIENCE / 4, "{took:?}");
    // A second one is compiled too, while those that had to make room wait.
    assert_eq!(daemon.run_to_end(&["exit_200"]).await.exit_code, Some(200));
}

/// With compilers that never come to an end, so that it does not matter how fast this machine is.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn too_many_that_wait_are_refused_and_who_waits_hears_its_place() {
    const WAITING: usize = 2;
    let directory = tempfile::tempdir().unwrap();
    for i in 0..100 {
        std::fs::write(directory.path().join(format!("m{i}.wat")), format!("(module (; {i} ;))")).unwrap();
    }
    let program = script(&directory, "exec sleep 1000");
    let daemon = with_modules(&directory, |config| {
        config.limits.compile_queue_max = WAITING;
        config.program = Some(program);
    })
    .await;
    let quick = std::thread::available_parallelism().unwrap().get();
    let slow = quick.div_ceil(4);
    let mut waiting = vec![];
    for i in 0.. {
        let mut client = daemon.client().await;
        client.send(&["run", "--attach", &format!("m{i}")]).await.unwrap();
        match soon("an event or a refusal", client.next::<InstanceView>()).await {
            Ok(Next::Event(StreamEvent::Compiling { queued, .. })) => {
                assert_eq!(queued.is_some_and(|place| (1..=WAITING).contains(&place)), queued.is_some(), "{queued:?}");
                assert!(i >= quick || queued.is_none(), "the first do not wait");
                waiting.push(client);
            }
            Err(refusal) => {
                let says = "the number of modules that wait to be compiled is limited to 2 (--compile-queue)";
                assert_eq!(refusal.to_string(), says);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    // Slow places are taken only if this took longer than a moment.
    let let_in = quick + WAITING..=quick + slow + WAITING;
    assert!(let_in.contains(&waiting.len()), "{}", waiting.len());
    // What is compiled already does not have to wait, and neither does a stop.
    assert_eq!(daemon.raw().await.ask("stop m0").await, "Container 'm0' stopped");
    let begun = Instant::now();
    daemon.supervisor.shut_down();
    for client in &mut waiting {
        while let Ok(Next::Event(_)) = soon("the end", client.next::<InstanceView>()).await {}
    }
    assert!(begun.elapsed() < PATIENCE / 4, "nobody waits for a compiler at the end");
}

/// A program that does this in place of compiling.
#[cfg(unix)]
fn script(directory: &TempDir, does: &str) -> PathBuf {
    let program = directory.path().join("compiler");
    std::fs::write(&program, format!("#!/bin/sh\nexec 1>&2\nPATH=/bin:/usr/bin\n{does}\n")).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    program
}

/// What was compiled is there after a restart; what was damaged since, or is another version's, is compiled anew.
#[tokio::test(flavor = "multi_thread")]
async fn compiled_code_outlives_the_daemon_and_is_checked() {
    let mut daemon = Harness::start().await;
    for name in ["exit_7", "exit_7-p2"] {
        assert_eq!(daemon.run_to_end(&[name]).await.exit_code.unwrap(), if name == "exit_7" { 7 } else { 1 });
    }
    assert_eq!(daemon.supervisor.compilations(), 2);
    let again = async |daemon: &mut Harness, compilations| {
        daemon.restart().await;
        assert_eq!(daemon.run_to_end(&["exit_7"]).await.exit_code, Some(7));
        assert_eq!(daemon.run_to_end(&["exit_7-p2"]).await.exit_code, Some(1));
        assert_eq!(daemon.supervisor.compilations(), compilations);
        assert_eq!(kept(&daemon.state).len(), 2);
    };
    again(&mut daemon, 0).await;
    let files = kept(&daemon.state);
    #[cfg(unix)]
    for (path, mode) in files.iter().map(|f| (f.as_path(), 0o600)).chain([(files[0].parent().unwrap(), 0o700)]) {
        let found = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777;
        assert_eq!(found, mode, "{}", path.display());
    }
    for path in &files {
        let mut bytes = std::fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        replace(path, &bytes);
    }
    again(&mut daemon, 2).await;
    for path in &files {
        replace(path, &std::fs::read(path).unwrap()[..1000]);
    }
    again(&mut daemon, 2).await;
    // Code under a name that promises another one: whole, and for the engine's other kind.
    let bytes = std::fs::read(&files[0]).unwrap();
    replace(&files[1], &bytes);
    again(&mut daemon, 1).await;
    // Another version's has another key.
    let name = files[0].file_name().unwrap().to_str().unwrap();
    std::fs::rename(&files[0], files[0].with_file_name(format!("{}{}", "0".repeat(64), &name[64..]))).unwrap();
    daemon.restart().await;
    assert_eq!(daemon.run_to_end(&["exit_7"]).await.exit_code, Some(7));
    assert_eq!(daemon.run_to_end(&["exit_7-p2"]).await.exit_code, Some(1));
    assert_eq!(
        (daemon.supervisor.compilations(), kept(&daemon.state).len()),
        (1, 3),
        "it is left until room is needed"
    );
}

/// The bytes are those that the daemon would write, and the digest fits: only the engine can tell.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_does_not_take_is_compiled_anew() {
    let mut daemon = Harness::start().await;
    assert_eq!(daemon.run_to_end(&["exit_7"]).await.exit_code, Some(7));
    let file = kept(&daemon.state).remove(0);
    daemon.end().await;
    let mut bytes = std::fs::read(&file).unwrap();
    let version = b"wasmtime 48.0.8, unroll ";
    let at = bytes.windows(version.len()).position(|w| w == version).expect("the version is in the code");
    bytes[at + 14] = b'7';
    let name = file.file_name().unwrap().to_str().unwrap();
    let foreign = file.with_file_name(format!("{}-{}.cwasm", &name[..64], crate::sandbox::sha256(&bytes)));
    std::fs::write(&foreign, bytes).unwrap();
    std::fs::remove_file(&file).unwrap();
    daemon.begin().await;
    assert_eq!(daemon.run_to_end(&["exit_7"]).await.exit_code, Some(7));
    assert_eq!((daemon.supervisor.compilations(), kept(&daemon.state)), (1, vec![file]));
}

#[tokio::test(flavor = "multi_thread")]
async fn compiled_code_on_disk_is_bounded_and_the_oldest_goes_first() {
    let mut daemon = Harness::with_limits(|l| l.compiled_bytes_max = 48 << 10).await;
    for _ in 0..2 {
        for (name, code) in [("exit_7", 7), ("exit_200", 200), ("hello", 0)] {
            assert_eq!(daemon.run_to_end(&[name]).await.exit_code, Some(code));
        }
        let bytes: u64 = kept(&daemon.state).iter().map(|path| path.metadata().unwrap().len()).sum();
        assert!((1..=48 << 10).contains(&bytes), "{bytes}");
        daemon.restart().await;
    }
    // One that alone is larger is refused.
    let large = large_module(400);
    let daemon = with_modules(&large, |config| config.limits.compiled_bytes_max = 48 << 10).await;
    let refusal = daemon.raw().await.ask("run large").await;
    assert_eq!(
        refusal,
        "ERR bad-module module 'large' cannot run: its compiled form is larger than 48.0 KiB (--compiled-cache, ulimit -f)"
    );
}

/// The compiler that a daemon has, when it has one.
#[cfg(target_os = "linux")]
async fn the_compiler_of(daemon: u32) -> i32 {
    soon("a compiler", async {
        loop {
            if let [compiler] = compilers_of(daemon)[..] {
                return compiler;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_that_is_killed_is_told_and_the_next_try_works() {
    let directory = large_module(3000);
    let cli = Cli::alone();
    let daemon = Foreground::start(&cli, &["--listen", "127.0.0.1:0", "--modules", directory.path().to_str().unwrap()]);
    let mut client = Client::connect(daemon.address()).await.unwrap();
    client.send(&["run", "large"]).await.unwrap();
    let compiler = the_compiler_of(daemon.child.id()).await;
    rustix::process::kill_process(rustix::process::Pid::from_raw(compiler).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    let refusal = soon("a refusal", client.next::<serde_json::Value>()).await.err().unwrap().to_string();
    assert_eq!(refusal, "module 'large' could not be compiled: its compiler was killed by signal 9; try again");
    client.run(&["large"]).await.unwrap();
}

/// Neither an orderly end nor a sudden one leaves a compiler behind.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn compilers_end_with_the_daemon() {
    let directory = bombs(1);
    for signal in [rustix::process::Signal::KILL, rustix::process::Signal::TERM] {
        let cli = Cli::alone();
        let mut daemon =
            Foreground::start(&cli, &["--listen", "127.0.0.1:0", "--modules", directory.path().to_str().unwrap()]);
        let mut client = Client::connect(daemon.address()).await.unwrap();
        client.send(&["run", "bomb0"]).await.unwrap();
        let compiler = the_compiler_of(daemon.child.id()).await;
        let begun = Instant::now();
        daemon.signal(signal);
        daemon.child.wait().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(10));
        soon("the end of the compiler", async {
            // A zombie that nobody has collected is an end too.
            while std::fs::read_to_string(format!("/proc/{compiler}/stat")).is_ok_and(|s| !s.contains(") Z ")) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// Whatever a compiler says: it is one line, short, and nothing of it acts.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_compiler_says_is_bounded_and_escaped() {
    let directory = tempfile::tempdir().unwrap();
    for (does, says) in [
        ("printf '\\033[2J\\n'; head -c 1000000 /dev/zero | tr '\\0' x", "the compiler crashed on it: \\x1b[2J"),
        ("printf '{\"outcome\":\"refused\",\"why\":\"\\\\u001b[2J\"}'", "cannot run: \\x1b[2J"),
        (
            "printf '{\"outcome\":\"done\"}'",
            "ERR io module 'hello' could not be compiled: its compiler made nothing that can be used",
        ),
        ("exit 3", "crashed on it: it said nothing"),
    ] {
        let program = script(&directory, does);
        let daemon = Harness::with(|config| config.program = Some(program)).await;
        let reply = daemon.raw().await.ask("run hello").await;
        assert!(reply.contains(says) && !reply.contains('\u{1b}') && reply.len() < 1024, "{says}: {reply}");
        assert_eq!(kept(&daemon.state), Vec::<PathBuf>::new());
    }
    let daemon = Harness::with(|config| config.program = Some("/nonexistent/compiler".into())).await;
    let reply = daemon.raw().await.ask("run hello").await;
    assert!(
        reply.starts_with("ERR io module 'hello' could not be compiled: its compiler cannot be started: "),
        "{reply}"
    );
}

/// A module that is replaced while it waits is not taken for what it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_under_the_compiler_is_noticed() {
    let directory = bombs(std::thread::available_parallelism().unwrap().get());
    let daemon = with_modules(&directory, |_| ()).await;
    let app = directory.path().join("app.wasm");
    std::fs::write(&app, [&b"\0asm\x01\0\0\0\0\x80\x80\x40"[..], &vec![0; 1 << 20]].concat()).unwrap();
    // Nobody leaves: what nobody waits for would not be begun.
    let mut waiting = vec![];
    for i in 0..std::thread::available_parallelism().unwrap().get() {
        let mut raw = daemon.raw().await;
        raw.send(&format!("format json\nrun --attach bomb{i}\n")).await;
        raw.line().await;
        raw.line().await;
        waiting.push(raw);
    }
    let mut client = daemon.client().await;
    client.send(&["run", "--attach", "app"]).await.unwrap();
    let Next::Event(StreamEvent::Compiling { queued: Some(1), .. }) = client.next::<InstanceView>().await.unwrap()
    else {
        panic!("it should wait");
    };
    // The same inode, as an editor would not do it.
    std::fs::write(&app, b"\0asm").unwrap();
    let refusal = loop {
        match soon("the refusal", client.next::<InstanceView>()).await {
            Ok(Next::Event(_)) => {}
            Ok(Next::End(view)) => panic!("{view:?}"),
            Err(e) => break e.to_string(),
        }
    };
    assert_eq!(refusal, "module 'app': the file changed while it was read; try again");
}

/// What nobody waits for any more is not begun when its turn comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_compilation_that_nobody_waits_for_leaves_the_queue() {
    const BOMBS: usize = 12;
    let directory = bombs(BOMBS);
    let daemon = with_modules(&directory, |_| ()).await;
    let waiting = || {
        let limits = daemon.supervisor.limit_views();
        limits.limits.iter().find(|limit| limit.flag == "--compile-queue").unwrap().used.unwrap()
    };
    let mut clients = vec![];
    for i in 0..BOMBS {
        let mut client = daemon.client().await;
        client.send(&["run", &format!("bomb{i}")]).await.unwrap();
        clients.push(client);
    }
    soon("a queue", async {
        while waiting() == 0 || daemon.supervisor.compilations() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut stopper = daemon.client().await;
    for i in 0..BOMBS {
        let _view: serde_json::Value = soon("the stop", stopper.request(&["stop", &format!("bomb{i}")])).await.unwrap();
    }
    let begun = daemon.supervisor.compilations();
    soon("an empty queue", async {
        while waiting() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // The others would have had to be compiled to make it empty.
    let more = daemon.supervisor.compilations() - begun;
    assert!(more <= 1, "{more} were begun for nobody");
}

/// What attacks the compiler may have it say anything: the daemon looks for itself before it removes a stored module.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_module_stays_whatever_its_compiler_says_of_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("compiler");
    let is = |script: &str| {
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o700)).unwrap();
    };
    let real = format!("exec '{}' \"$@\"", env!("CARGO_BIN_EXE_coracle"));
    is(&real);
    let mut daemon = Harness::with(|config| config.program = Some(program.clone())).await;
    let text = b"(module (func (export \"_start\")))";
    let digest = crate::sandbox::sha256(text);
    daemon.client().await.put("app", text, &digest, true, |_| ()).await.unwrap();
    daemon.end().await;
    for entry in std::fs::read_dir(daemon.state.join("compiled")).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    is("echo '{\"outcome\":\"changed\"}' >&2");
    daemon.begin().await;
    let refused = daemon.client().await.run(&["app"]).await.unwrap_err();
    assert_eq!(refused.code(), Some(coracle::Code::Io), "{refused}");
    let stored = daemon.state.join("modules").join(&digest);
    assert_eq!(std::fs::read(&stored).unwrap(), text);
    // Damaged in earnest it goes.
    std::fs::write(&stored, "(module)").unwrap();
    let refused = daemon.client().await.run(&["app"]).await.unwrap_err();
    assert!(refused.to_string().contains("is damaged; put it again"), "{refused}");
    assert!(!stored.exists());
    is(&real);
    daemon.client().await.put("app", text, &digest, true, |_| ()).await.unwrap();
    daemon.run_to_end(&["app"]).await;
}
