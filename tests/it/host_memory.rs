//! Calls that would take much of the daemon's memory or stack: they fail in the guest or end it, and the daemon is as it was.

use crate::support::{Cli, Foreground, guests, soon};
use coracle::client::Client;
use coracle::model::limit::LimitViews;
use coracle::model::reply::InstanceView;
use std::path::PathBuf;

/// The real binary, so that its memory is its own.
struct Alone {
    cli: Cli,
    daemon: Foreground,
}

impl Alone {
    fn start(before: &str, words: &[&str]) -> Alone {
        let cli = Cli::alone();
        let modules = guests().display().to_string();
        // Guests as important as the rest: this is no test of who waits for whom.
        let listen = ["--listen", "127.0.0.1:0", "--guest-priority", "normal", "--modules", &modules];
        let daemon = Foreground::start_in_shell(&cli, before, &[&listen, words].concat());
        Alone { cli, daemon }
    }

    async fn client(&self) -> Client {
        Client::connect(self.daemon.address()).await.unwrap()
    }

    fn root(&self) -> PathBuf {
        self.cli.directory.path().join("root")
    }

    /// Runs to the end, while another client asks and is answered.
    async fn run(&self, words: &[&str]) -> InstanceView {
        let (mut client, mut witness) = (self.client().await, self.client().await);
        let created = client.run(words).await.unwrap();
        let asking = async {
            for _ in 0..20 {
                witness.list().await.unwrap();
            }
        };
        let wait = ["wait", created.name.as_str()];
        let end = soon("the end of the run", client.request(&wait));
        tokio::join!(end, asking).0.unwrap()
    }
}

/// The most that a process had of memory, in KiB (proc(5), VmHWM).
#[cfg(target_os = "linux")]
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What the daemon may have more at any moment than with a guest that does nothing: the guest's own memory that is touched
/// here (60 MB), and what one call may take (32 MiB) twice, for results are copied on their way.
#[cfg(target_os = "linux")]
const MORE_KIB: u64 = (60 + 2 * 32) << 10;

/// Exit codes are WASI's errno (48 no memory, 37 a name too long, 1 too big), 134 a trap. Preview 2's adapter passes on the
/// first buffer of a list only, and no more of that than the host takes.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn no_call_takes_more_of_the_daemons_memory_than_it_may() {
    const CALLS: &[(&[&str], u8, u8)] = &[
        (&["p", "100000"], 134, 134),
        (&["p", "600000"], 48, 134),
        (&["p", "1000000"], 48, 134),
        (&["p", "89478485"], 48, 134),
        (&["r", "120000000"], 134, 134),
        (&["r", "4294967295"], 134, 134),
        (&["i", "1000000", "0"], 0, 0),
        (&["i", "1000000", "67108864"], 48, 0),
        (&["i", "1", "4294967295"], 48, 0),
        (&["i", "536870911", "1"], 48, 0),
        (&["I", "1000000", "67108864"], 48, 0),
        (&["I", "536870911", "1"], 48, 0),
        (&["w", "1000000", "0"], 0, 0),
        (&["w", "1000000", "67108864"], 48, 0),
        (&["w", "1", "67108864"], 48, 0),
        (&["w", "536870911", "1"], 48, 0),
        (&["W", "1000000", "67108864"], 48, 134),
        (&["W", "1", "67108864"], 48, 134),
        (&["o", "1000000", "67108864"], 48, 0),
        (&["o", "1", "67108864"], 48, 0),
        (&["l", "5000"], 37, 1),
        (&["l", "30000000"], 37, 1),
        (&["l", "60000000"], 37, 134),
        (&["--name", "crowd", "d", "67108864"], 0, 0),
    ];
    for world in ["greedy", "greedy-p2"] {
        let alone = Alone::start("true", &[]);
        assert_eq!(alone.run(&["--name", "crowd", world, "r", "1"]).await.exit_code, Some(0));
        for i in 0..20_000 {
            std::fs::write(alone.root().join(format!("crowd/{i:0200}")), "").unwrap();
        }
        let before = peak_kib(alone.daemon.child.id());
        for (words, as_module, as_component) in CALLS {
            let call = words.iter().position(|word| word.len() == 1).unwrap();
            let view = alone.run(&[&words[..call], &[world], &words[call..]].concat()).await;
            let code = if world.ends_with("-p2") { as_component } else { as_module };
            assert_eq!(view.exit_code, Some(*code), "{world} {words:?}: {view:?}");
            let more = peak_kib(alone.daemon.child.id()) - before;
            assert!(more <= MORE_KIB, "{world} {words:?}: {more} KiB");
        }
    }
}

/// Below what is left for WebAssembly code the host has 1.5 MiB, wherever it is called.
#[tokio::test(flavor = "multi_thread")]
async fn a_recursion_that_calls_the_host_in_each_frame_is_a_trap() {
    let alone = Alone::start("true", &[]);
    for world in ["greedy", "greedy-p2"] {
        let view = alone.run(&[world, "D"]).await;
        assert_eq!(view.reason.as_deref(), Some("trap:stack-overflow"), "{view:?}");
    }
    assert_eq!(alone.run(&["exit_7"]).await.exit_code, Some(7));
}

/// Where the system has no memory for a growth that the budgets allow, the guest hears it, and no budget is charged.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn memory_that_the_system_refuses_is_not_charged() {
    let modules = tempfile::tempdir().unwrap();
    let text =
        "(module (import \"wasi_snapshot_preview1\" \"fd_read\" (func $read (param i32 i32 i32 i32) (result i32)))
        (memory (export \"memory\") 1)
        (func (export \"_start\")
          ;; A megabyte at a time, until it is refused; then it waits, and at the end of its input it traps.
          (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
          (i32.store (i32.const 0) (i32.const 64))
          (i32.store (i32.const 4) (i32.const 1))
          (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
          unreachable))";
    std::fs::write(modules.path().join("fills.wat"), text).unwrap();
    // RLIMIT_DATA counts what memories are as they grow (setrlimit(2)).
    let modules = modules.path().display().to_string();
    let alone = Alone::start("ulimit -d 1500000", &["--memory-total", "100g", "--modules", &modules]);
    let mut attached = alone.client().await;
    attached.send(&["run", "--attach", "-i", "-m", "4g", "fills"]).await.unwrap();
    let mut client = alone.client().await;
    let used = async |client: &mut Client| {
        let all: LimitViews = client.request(&["limits"]).await.unwrap();
        all.limits.iter().find(|limit| limit.flag == "--memory-total").unwrap().used.unwrap()
    };
    // It has grown as far as it can when its last growth was given back: all that is counted is whole.
    soon("the refusal", async {
        while client.list().await.unwrap().is_empty() || used(&mut client).await < 1 << 28 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let view: InstanceView = soon("its end", client.request(&["stop", "-t", "1h", "fills"])).await.unwrap();
    assert_eq!(view.reason.as_deref(), Some("trap:unreachable"), "{view:?}");
    let message = view.message.unwrap();
    assert!(message.contains("of memory by the system"), "{message}");
    assert_eq!(used(&mut client).await, 0);
}

/// A module that is a file is read by each run that asks for it while its times do not tell whether it changed: in pieces, and
/// not by all at a time.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_that_many_run_is_not_in_memory() {
    const MANY: usize = 8;
    let modules = tempfile::tempdir().unwrap();
    // All zeros, so that it takes no room, and is no module once it was read.
    std::fs::File::create(modules.path().join("large.wasm")).unwrap().set_len(100 << 20).unwrap();
    let alone = Alone::start("true", &["--modules", modules.path().to_str().unwrap()]);
    alone.run(&["exit_7"]).await;
    let before = peak_kib(alone.daemon.child.id());
    let mut asking = tokio::task::JoinSet::new();
    for i in 0..MANY {
        let mut client = alone.client().await;
        asking.spawn(async move { client.run(&["--name", &format!("n{i}"), "large"]).await.unwrap_err() });
    }
    for refused in soon("a refusal for each", asking.join_all()).await {
        assert_eq!(refused.code(), Some(coracle::Code::BadModule), "{refused}");
    }
    let grown = peak_kib(alone.daemon.child.id()) - before;
    assert!(grown < 32 << 10, "{grown} KiB more for {MANY} times 100 MiB");
}
