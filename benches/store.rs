//! What writing down costs: `cargo bench --bench store`.
//!
//! Throughput and latency of `run hello` and its `wait` for one client and for fifty, with the store switched off, as it is by
//! default, and with everything synced; the start of a daemon that finds 100,000 ended instances and 1,000 that run again; and
//! `list` beside a guest that prints as fast as it can. Ratios within one run are what can be compared.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use coracle::client::Client;
use coracle::config::{Config, Durability};
use coracle::model::reply::InstanceView;
use coracle::server;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, JoinSet};

const PERIOD: Duration = Duration::from_secs(4);
const ENDED: u32 = 100_000;
const ALIVE: u32 = 1_000;

struct Daemon {
    address: SocketAddr,
    ended: JoinHandle<()>,
}

impl Daemon {
    async fn start(directory: &Path, change: impl FnOnce(&mut Config)) -> Daemon {
        let mut config = Config::new(([127, 0, 0, 1], 0).into(), directory.join("state"), directory.join("root"));
        config.module_dirs.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests"));
        change(&mut config);
        config.program = Some(env!("CARGO_BIN_EXE_coracle").into());
        let server = server::start(config).await.expect("the daemon starts");
        #[expect(clippy::disallowed_methods, reason = "its handle is awaited in `end`")]
        let (address, ended) = (server.address(), tokio::spawn(server.ended()));
        Daemon { address, ended }
    }

    async fn client(&self) -> Client {
        Client::connect(self.address).await.expect("a connection")
    }

    async fn end(self) {
        self.client().await.shut_down().await.expect("an orderly end");
        self.ended.await.expect("an orderly end");
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        throughput().await;
        recovery().await;
        flood().await;
    });
}

async fn throughput() {
    println!(
        "{:22} {:>8} {:>12} {:>10} {:>10} {:>10}",
        "run hello, wait", "clients", "runs/s", "of off", "p50 µs", "p99 µs"
    );
    for clients in [1, 50] {
        let mut off = None;
        for (what, durability) in [("off", Durability::Off), ("normal", Durability::Normal), ("full", Durability::Full)]
        {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let daemon = Daemon::start(directory.path(), |config| config.durability = durability).await;
            run_for(&daemon, clients, PERIOD / 4).await;
            let mut times = run_for(&daemon, clients, PERIOD).await;
            times.sort_unstable();
            let rate = times.len() as f64 / PERIOD.as_secs_f64();
            let of_off = rate / *off.get_or_insert(rate);
            let (p50, p99) = (at(&times, 50), at(&times, 99));
            println!("store {what:16} {clients:>8} {rate:>12.0} {of_off:>10.2} {p50:>10.0} {p99:>10.0}");
            daemon.end().await;
        }
    }
}

/// How long each run took, from the request to the end that its client was told of.
async fn run_for(daemon: &Daemon, clients: usize, period: Duration) -> Vec<Duration> {
    let mut tasks = JoinSet::new();
    for i in 0..clients {
        let mut client = daemon.client().await;
        tasks.spawn(async move {
            let name = format!("c{i}");
            let (begun, mut times) = (Instant::now(), vec![]);
            while begun.elapsed() < period {
                let one = Instant::now();
                client.run(&["--name", &name, "hello"]).await.expect("accepted");
                let view: InstanceView = client.request(&["wait", &name]).await.expect("its end");
                assert_eq!(view.exit_code, Some(0), "{view:?}");
                times.push(one.elapsed());
            }
            times
        });
    }
    tasks.join_all().await.concat()
}

async fn recovery() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let keep = |config: &mut Config| config.limits.ended_max = 1_000_000;
    let daemon = Daemon::start(directory.path(), keep).await;
    let mut client = daemon.client().await;
    client.run(&["hello"]).await.expect("accepted");
    client.request::<InstanceView>(&["wait", "hello"]).await.expect("its end");
    client.run(&["--restart", "always", "--name", "alive", "sleep"]).await.expect("accepted");
    drop(client);
    daemon.end().await;
    multiply(&directory.path().join("state/state.db"));
    let begun = Instant::now();
    let daemon = Daemon::start(directory.path(), keep).await;
    let mut client = daemon.client().await;
    client.request::<serde_json::Value>(&["ping"]).await.expect("pong");
    let serving = begun.elapsed();
    loop {
        let list = client.list_filtered(&["status=running".to_owned()]).await.expect("a list");
        if list.len() > ALIVE as usize {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!(
        "\na start with {ENDED} ended and {ALIVE} alive: serving after {:.2} s, all of them running after {:.2} s",
        serving.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    let mut times = vec![];
    for _ in 0..20 {
        let one = Instant::now();
        client.list().await.expect("a list");
        times.push(one.elapsed());
    }
    times.sort_unstable();
    println!("list of all of them: p50 {:.0} ms", at(&times, 50) / 1000.0);
    daemon.end().await;
}

/// As many records as are wanted, each a copy of one that a daemon wrote.
fn multiply(path: &Path) {
    let database = rusqlite::Connection::open(path).expect("the database");
    let copies = |name: &str, n: u32, ended_order: &str| {
        format!(
            "WITH RECURSIVE k(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k WHERE n < {n})
             INSERT INTO instance (name, run, restarts, stop_requested, restarting, ended_order, env)
             SELECT name || n, run, restarts, stop_requested, restarting, {ended_order}, env FROM instance, k WHERE name = '{name}';
             INSERT INTO run SELECT i.id, r.run, r.state, r.exit_code, r.reason, r.message, r.created_at, r.started_at,
             r.ended_at, r.launch FROM instance i, instance o JOIN run r ON r.instance = o.id
             WHERE o.name = '{name}' AND i.name LIKE '{name}%' AND i.id > 2;"
        )
    };
    let ended = copies("hello", ENDED, "1000000 + n");
    let alive = copies("alive", ALIVE, "2000000 + n");
    database.execute_batch(&format!("BEGIN; {ended} {alive} COMMIT;")).expect("copies");
}

async fn flood() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let daemon = Daemon::start(directory.path(), |_| ()).await;
    let mut client = daemon.client().await;
    let list = async |client: &mut Client| {
        let (begun, mut times) = (Instant::now(), vec![]);
        while begun.elapsed() < PERIOD {
            let one = Instant::now();
            client.list().await.expect("a list");
            times.push(one.elapsed());
        }
        times.sort_unstable();
        times
    };
    client.run(&["spin"]).await.expect("accepted");
    let beside_spin = list(&mut client).await;
    client.request::<InstanceView>(&["stop", "spin"]).await.expect("its end");
    println!("\n{:38} {:>10} {:>10} {:>10}", "list, on a machine with one guest", "p50 µs", "p99 µs", "MiB/s");
    println!("{:38} {:>10.0} {:>10.0}", "that computes", at(&beside_spin, 50), at(&beside_spin, 99));
    for (guest, what) in [("chatty", "that prints lines of 66 bytes"), ("flood", "that prints 64 KiB at a time")] {
        client.run(&[guest]).await.expect("accepted");
        let printed = Instant::now();
        let times = list(&mut client).await;
        client.request::<InstanceView>(&["stop", guest]).await.expect("its end");
        let seconds = printed.elapsed().as_secs_f64();
        client.send(&["logs", "--tail=0", guest]).await.expect("sent");
        let log: serde_json::Value = loop {
            if let coracle::client::Next::End(end) = client.next().await.expect("the log") {
                break end;
            }
        };
        // All but what the log keeps.
        let rate = log["dropped_bytes"].as_f64().expect("a number") / f64::from(1 << 20) / seconds;
        println!("{what:38} {:>10.0} {:>10.0} {rate:>10.0}", at(&times, 50), at(&times, 99));
    }
    daemon.end().await;
}

/// Microseconds at a percentile.
fn at(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1e6
}
