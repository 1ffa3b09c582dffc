//! `run --watch`: the file is run again when it changes, however it is replaced, and what is broken replaces nothing.

use crate::support::{Cli, Harness, soon};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use tokio::sync::mpsc;

/// Prints a word, and goes on.
fn says(word: &str) -> String {
    let line = word.len() + 1;
    format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\08\00\00\00\{line:02x}\00\00\00{word}\0a")
            (func (export "_start")
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 100)))
                (loop (br 0))))"#
    )
}

/// The same, and ends.
fn says_and_ends(word: &str) -> String {
    says(word).replace("(loop (br 0))", "")
}

/// A file that is watched, and what is heard of it.
struct Watching {
    daemon: Harness,
    file: PathBuf,
    child: Child,
    out: mpsc::UnboundedReceiver<String>,
    err: mpsc::UnboundedReceiver<String>,
    _cli: Cli,
}

fn lines(stream: impl std::io::Read + Send + 'static) -> mpsc::UnboundedReceiver<String> {
    let (send, receive) = mpsc::unbounded_channel();
    std::thread::spawn(move || BufReader::new(stream).lines().map_while(Result::ok).try_for_each(|l| send.send(l)));
    receive
}

impl Watching {
    async fn begin(text: &str) -> Watching {
        let daemon = Harness::start().await;
        let cli = Cli::of(&daemon);
        let file = cli.directory.path().join("app.wat");
        std::fs::write(&file, text).unwrap();
        let mut command = cli.command(&["run", "--watch", file.to_str().unwrap()]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Watching { daemon, file, child, out, err, _cli: cli }
    }

    async fn prints(&mut self, line: &str) {
        let printed = soon(&format!("the line '{line}'"), self.out.recv()).await;
        assert_eq!(printed.as_deref(), Some(line));
    }

    /// Something that is said and begins so.
    async fn tells(&mut self, begins: &str) -> String {
        let said = soon(&format!("'{begins}…'"), self.err.recv()).await.unwrap_or_default();
        assert!(said.starts_with(begins), "{said}");
        said
    }

    fn aside(&self, text: &str) -> PathBuf {
        let aside = self.file.with_extension("new");
        std::fs::write(&aside, text).unwrap();
        aside
    }

    fn run(&self) -> u32 {
        self.daemon.supervisor.view(&"app".parse().unwrap()).unwrap().run
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It may have ended, as it should.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn link(from: &Path, to: &Path) {
    std::fs::remove_file(to).unwrap();
    std::fs::hard_link(from, to).unwrap();
    std::fs::remove_file(from).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn however_a_file_is_replaced_it_is_run_again() {
    let mut watching = Watching::begin(&says("first")).await;
    watching.prints("first").await;
    let again = |watching: &Watching| format!("coracle: {} has changed, and is run again", watching.file.display());
    // Written in place.
    std::fs::write(&watching.file, says("second")).unwrap();
    watching.prints("second").await;
    let said = watching.tells("coracle: ").await;
    assert_eq!(said, again(&watching));
    // An editor's: another file, renamed over it.
    std::fs::rename(watching.aside(&says("third")), &watching.file).unwrap();
    watching.prints("third").await;
    watching.tells(&again(&watching)).await;
    // cargo's: a link to another file.
    link(&watching.aside(&says("fourth")), &watching.file);
    watching.prints("fourth").await;
    watching.tells(&again(&watching)).await;
    // Gone for a while, as by a clean build; meanwhile what runs goes on.
    std::fs::remove_file(&watching.file).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert_eq!((watching.run(), watching.daemon.supervisor.live()), (4, 1));
    std::fs::write(&watching.file, says("fifth")).unwrap();
    watching.prints("fifth").await;
    watching.tells(&again(&watching)).await;
    assert_eq!(watching.run(), 5);
    // Of the same length and with the old time.
    let modified = watching.file.metadata().unwrap().modified().unwrap();
    let aside = watching.aside(&says("sixth"));
    std::fs::File::options().write(true).open(&aside).unwrap().set_modified(modified).unwrap();
    std::fs::rename(aside, &watching.file).unwrap();
    watching.prints("sixth").await;
    assert_eq!(watching.run(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_compile_is_told_and_the_run_before_goes_on() {
    let mut watching = Watching::begin(&says("first")).await;
    watching.prints("first").await;
    std::fs::write(&watching.file, "(module (func (export \"_start\") (frobnicate)))").unwrap();
    let said = watching.tells("error: ").await;
    assert!(said.ends_with("unknown operator or unexpected token"), "{said}");
    assert!(watching.tells("coracle: waiting for ").await.ends_with("to change; the run before goes on"));
    assert_eq!((watching.run(), watching.daemon.supervisor.live()), (1, 1));
    // Half of a file that somebody still writes, and what has not changed but for its time, are nothing new.
    std::fs::write(&watching.file, "").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    std::fs::write(&watching.file, says("second")).unwrap();
    watching.prints("second").await;
    watching.tells("coracle: ").await;
    std::fs::write(&watching.file, says("second")).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert_eq!(watching.run(), 2);
    assert!(watching.err.try_recv().is_err() && watching.out.try_recv().is_err());
}

/// One that ends by itself, or cannot be compiled at first, waits for the file to change.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_is_told_and_the_next_change_runs_it_again() {
    let mut watching = Watching::begin("(module)").await;
    watching.tells("error: ").await;
    watching.tells("coracle: waiting for ").await;
    std::fs::write(&watching.file, says_and_ends("short")).unwrap();
    watching.prints("short").await;
    watching.tells("coracle: it ended with 0; waiting for ").await;
    std::fs::write(&watching.file, says("long")).unwrap();
    watching.prints("long").await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_stops_what_runs_and_ends_it() {
    let mut watching = Watching::begin(&says("first")).await;
    watching.prints("first").await;
    std::fs::write(&watching.file, says("second")).unwrap();
    watching.prints("second").await;
    crate::support::signal_child(&watching.child, rustix::process::Signal::INT);
    let ended = soon("the end of the command", async {
        loop {
            if let Some(status) = watching.child.try_wait().unwrap() {
                return status.code();
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(ended, Some(143));
    assert_eq!(watching.daemon.supervisor.live(), 0);
    assert_eq!(watching.daemon.supervisor.view(&"app".parse().unwrap()).unwrap().state, "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_go_with_it_is_refused_in_a_line() {
    let cli = Cli::alone();
    for (words, why) in [
        (&["-d", "./app.wat"][..], "it stays attached, and does not go with -d"),
        (&["-i", "./app.wat"], "it does not go with -i: what one run has read is not there for the next"),
        (&["--restart", "always", "./app.wat"], "it does not go with --restart: it is what runs it again"),
        (&["hello"], "it needs a file, such as ./app.wasm"),
    ] {
        let (code, out, err) = cli.run(&[&["run", "--watch"], words].concat()).await;
        assert_eq!((code, out.as_str(), err), (125, "", format!("error: --watch: {why}\n")));
    }
    let daemon = Harness::start().await;
    let (code, _, err) = Cli::of(&daemon).run(&["run", "--watch", "./nothing.wat"]).await;
    assert!(code == 127 && err.starts_with("error: cannot read ./nothing.wat"), "{err}");
}
