//! What a `run` costs over TCP, beside what the connection itself costs: `cargo bench --bench roundtrip`.
//!
//! One daemon in a process of its own, one client. Every figure stands beside a `ping` of the same run, because machines
//! differ and are noisy: the ratio is what can be compared.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use coracle::client::Client;
use coracle::model::reply::InstanceView;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 5_000;

struct Daemon {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It goes with this program, however that ends.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut child = Command::new(env!("CARGO_BIN_EXE_coracle"))
        .args(["daemon", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(directory.path().join("state"))
        .arg("--root")
        .arg(directory.path().join("root"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("its first line");
    let daemon = Daemon { child, _directory: directory };
    let address: std::net::SocketAddr =
        line.trim().strip_prefix("listening on ").expect("where it listens").parse().expect("an address");
    let idle = resident_kib(daemon.child.id());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let mut client = Client::connect(address).await.expect("a connection");
        let ping = measure(&mut client, async |client| {
            client.request::<serde_json::Value>(&["ping"]).await.expect("pong");
        })
        .await;
        let list = measure(&mut client, async |client| {
            client.list().await.expect("a list");
        })
        .await;
        let run = measure(&mut client, async |client| {
            client.run(&["hello"]).await.expect("accepted");
            let view: InstanceView = client.request(&["wait", "hello"]).await.expect("its end");
            assert_eq!(view.exit_code, Some(0), "{view:?}");
        })
        .await;
        let stop = measure(&mut client, async |client| {
            client.run(&["spin"]).await.expect("accepted");
            client.request::<InstanceView>(&["stop", "spin"]).await.expect("its end");
        })
        .await;
        println!("{:24} {:>10} {:>10} {:>14}", "one connection", "p50 µs", "p99 µs", "p50 / ping's");
        for (what, times) in
            [("ping", &ping), ("list (0 instances)", &list), ("run hello, wait", &run), ("run spin, stop", &stop)]
        {
            let (p50, p99) = (at(times, 50), at(times, 99));
            println!("{what:24} {p50:>10.1} {p99:>10.1} {:>14.2}", p50 / at(&ping, 50));
        }
    });
    println!(
        "\nresident memory of the daemon: {idle} KiB before the first request, {} KiB after all",
        resident_kib(daemon.child.id())
    );
}

async fn measure(client: &mut Client, one: impl AsyncFn(&mut Client)) -> Vec<Duration> {
    for _ in 0..ROUNDS / 10 {
        one(client).await;
    }
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        one(client).await;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    times
}

/// Microseconds at a percentile.
fn at(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1e6
}

/// `VmRSS` of proc_pid_status(5), in KiB; 0 where there is no /proc.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}
