//! Whether a crowd that computes holds up anybody, and whether it shares: `cargo bench --bench fair`.
//!
//! A daemon in a process of its own, with 1,000 endless loops; beside it, for comparison, the same daemon with the guests in
//! the runtime's own queue, first in, first out. Then clients that misbehave, and what another one has of that; shares, weights
//! and limits of CPU time; and what the queue costs where nobody competes. Takes about nine minutes. Figures beside each other
//! are of one run; the goals are for two cores.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

#[path = "fair/clients.rs"]
mod clients;

use coracle::client::{Client, Next};
use coracle::config::{Config, Durability};
use coracle::model::reply::{Inspection, InstanceView, StreamEvent};
use coracle::server;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CROWD: usize = 1000;

struct Daemon {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It goes with this program, however that ends.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    Fair,
    /// Ours, and nothing is written down: what is left is not the disk's.
    Unwritten,
    Plain,
}

impl Daemon {
    /// This program once more, as a daemon.
    fn start(queue: Queue) -> Daemon {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let this = std::env::current_exe().expect("this program has a path");
        let mut child = Command::new(this)
            .arg(match queue {
                Queue::Fair => "serve-fair",
                Queue::Unwritten => "serve-unwritten",
                Queue::Plain => "serve-plain",
            })
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("its address");
        Daemon { child, address: line.trim().parse().expect("an address"), _directory: directory }
    }

    async fn client(&self) -> Client {
        Client::connect(self.address).await.expect("a connection")
    }

    /// User and system time of the whole process.
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // proc_pid_stat(5): behind the name in brackets utime is the 12th field, stime the 13th, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields.get(11..13).unwrap_or_default().iter().filter_map(|f| f.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let [_, how, directory] = args.as_slice()
        && how.starts_with("serve-")
    {
        return runtime.block_on(serve(Path::new(directory), how));
    }
    if let [_, mode, number, address] = args.as_slice()
        && mode == "flood"
    {
        let (number, address) = (number.parse().expect("a number"), address.parse().expect("an address"));
        return runtime.block_on(clients::flood(number, address));
    }
    let only = args.iter().skip(1).find(|a| !a.starts_with('-')).map(String::as_str);
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    runtime.block_on(async {
        if only == Some("fair") {
            crowd(&[Queue::Fair, Queue::Unwritten]).await;
        } else if wanted("crowd") {
            crowd(&[Queue::Fair, Queue::Unwritten, Queue::Plain]).await;
        }
        if wanted("clients") {
            clients::clients().await;
        }
        if wanted("shares") {
            shares().await;
        }
        if wanted("alone") {
            alone().await;
        }
        if wanted("idle") {
            idle().await;
        }
    });
}

async fn serve(directory: &Path, how: &str) {
    let mut config = Config::new(([127, 0, 0, 1], 0).into(), directory.join("state"), directory.join("root"));
    config.module_dirs.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests"));
    config.plain_queue = how == "serve-plain";
    if how == "serve-unwritten" {
        config.durability = Durability::Off;
    }
    config.program = Some(env!("CARGO_BIN_EXE_coracle").into());
    let server = server::start(config).await.expect("the daemon starts");
    println!("{}", server.address());
    server.ended().await;
}

/// Microseconds at a percentile; times are sorted.
fn at(times: &[Duration], per_mille: usize) -> f64 {
    times[(times.len() * per_mille / 1000).min(times.len() - 1)].as_secs_f64() * 1e3
}

fn row(what: &str, mut times: Vec<Duration>, goal_ms: Option<f64>) {
    times.sort_unstable();
    let p99 = at(&times, 990);
    let verdict = match goal_ms {
        Some(goal) if p99 <= goal => format!("p99 ≤ {goal} ms: met"),
        Some(goal) => format!("p99 ≤ {goal} ms: missed"),
        None => String::new(),
    };
    let (n, p50, worst) = (times.len(), at(&times, 500), at(&times, 1000));
    println!("{what:44} {n:>6} {p50:>9.2} {p99:>9.2} {worst:>9.2}  {verdict}");
}

async fn time(times: &mut Vec<Duration>, one: impl Future<Output = ()>) {
    let begun = Instant::now();
    one.await;
    times.push(begun.elapsed());
}

/// A request in plain text, on a connection that stays open.
struct Plain(tokio::io::BufReader<TcpStream>);

impl Plain {
    async fn ask(&mut self, line: &str) -> String {
        self.0.write_all(format!("{line}\n").as_bytes()).await.expect("sent");
        let mut reply = String::new();
        self.0.read_line(&mut reply).await.expect("a reply");
        reply
    }
}

async fn crowd(queues: &[Queue]) {
    println!("{:44} {:>6} {:>9} {:>9} {:>9}", "ms", "n", "p50", "p99", "worst");
    for &queue in queues {
        let name = match queue {
            Queue::Fair => "",
            Queue::Unwritten => ", no store",
            Queue::Plain => ", plain queue",
        };
        let goal = |ms: f64| Some(ms).filter(|_| queue != Queue::Plain);
        let daemon = Daemon::start(queue);
        let mut client = daemon.client().await;
        let mut plain =
            Plain(tokio::io::BufReader::new(TcpStream::connect(daemon.address).await.expect("a connection")));
        hello(&mut client).await;
        let mut times = vec![];
        for _ in 0..2000 {
            time(&mut times, hello(&mut client)).await;
        }
        row(&format!("run hello, wait: nobody else{name}"), times, None);
        for i in 0..CROWD {
            client.run(&["--name", &format!("s{i}"), "spin"]).await.expect("accepted");
        }
        // The first turns of newcomers go before others' and are used up by now; and the plain queue needs time to fill.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (lists, hellos, stops) = if queue != Queue::Plain { (5000, 2000, 500) } else { (500, 4, 2) };
        let mut times = vec![];
        for _ in 0..lists {
            time(&mut times, async {
                assert!(plain.ask("list").await.starts_with("Available"));
            })
            .await;
        }
        row(&format!("list: {CROWD} spinning{name}"), times, goal(1.0));
        let mut times = vec![];
        for _ in 0..hellos {
            time(&mut times, hello(&mut client)).await;
        }
        row(&format!("run hello, wait: {CROWD} spinning{name}"), times, goal(2.0));
        let mut times = vec![];
        for i in 0..stops {
            let name = format!("s{i}");
            time(&mut times, async {
                client.request::<InstanceView>(&["stop", &name]).await.expect("its end");
            })
            .await;
            client.run(&["--name", &name, "spin"]).await.expect("accepted");
        }
        row(&format!("stop: {CROWD} spinning{name}"), times, goal(10.0));
        if queue == Queue::Fair {
            row("how late: wakes each 10 ms, 1000 spinning", lateness(&mut client).await, Some(5.0));
            client.run(&["--name", "fill1", "fill"]).await.expect("accepted");
            client.run(&["--name", "fill2", "fill"]).await.expect("accepted");
            client.run(&["--name", "fill3", "fill"]).await.expect("accepted");
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut times = vec![];
            for _ in 0..500 {
                time(&mut times, hello(&mut client)).await;
            }
            row("run hello, wait: and 3 that fill 192 MiB", times, None);
        }
    }
}

async fn hello(client: &mut Client) {
    client.run(&["hello"]).await.expect("accepted");
    let view: InstanceView = client.request(&["wait", "hello"]).await.expect("its end");
    assert_eq!(view.exit_code, Some(0), "{view:?}");
}

async fn lateness(client: &mut Client) -> Vec<Duration> {
    client.run(&["punctual"]).await.expect("accepted");
    let view: InstanceView = client.request(&["wait", "punctual"]).await.expect("its end");
    assert_eq!(view.exit_code, Some(0), "{view:?}");
    client.send(&["logs", "punctual"]).await.expect("sent");
    let mut bytes = vec![];
    loop {
        match client.next::<serde_json::Value>().await.expect("a reply") {
            Next::Event(StreamEvent::Output(output)) => bytes.extend(output.data.into_bytes().expect("bytes")),
            Next::Event(_) => {}
            Next::End(_) => break,
        }
    }
    assert_eq!(bytes.len(), 8000, "its thousand numbers");
    bytes.chunks(8).map(|c| Duration::from_nanos(u64::from_le_bytes(c.try_into().expect("8 bytes")))).collect()
}

async fn used(client: &mut Client, name: &str) -> f64 {
    let inspection: Inspection = client.request(&["inspect", name]).await.expect("it is known");
    Duration::from_micros(inspection.instance.cpu_us.expect("it runs")).as_secs_f64()
}

/// CPU seconds of each in a period.
async fn used_in(client: &mut Client, names: &[String], period: Duration) -> Vec<f64> {
    let mut before = vec![];
    for name in names {
        before.push(used(client, name).await);
    }
    tokio::time::sleep(period).await;
    let mut all = vec![];
    for (name, before) in names.iter().zip(before) {
        all.push(used(client, name).await - before);
    }
    all
}

async fn spinners(client: &mut Client, names: &[String], flags: &[&str]) {
    for name in names {
        client.run(&[&["--name", name], flags, &["spin"]].concat()).await.expect("accepted");
    }
}

async fn shares() {
    let names = |prefix: &str, n: usize| (0..n).map(|i| format!("{prefix}{i}")).collect::<Vec<_>>();
    println!("\n{:44} {:>12} {:>12}", "shares", "figure", "goal");
    {
        let daemon = Daemon::start(Queue::Fair);
        let mut client = daemon.client().await;
        let all = names("s", 200);
        spinners(&mut client, &all, &[]).await;
        tokio::time::sleep(Duration::from_secs(8)).await;
        let used = used_in(&mut client, &all, Duration::from_secs(30)).await;
        let (least, most) = used.iter().fold((f64::MAX, 0.0f64), |(l, m), u| (l.min(*u), m.max(*u)));
        let mean = used.iter().sum::<f64>() / used.len() as f64;
        println!(
            "{:44} {:>10.1} % {:>12}",
            "200 equal, 30 s: (most - least) / mean",
            (most - least) / mean * 100.0,
            "< 5 %"
        );
        println!("{:44} {:>10.2} s", "the same: all their CPU time, of 60 s", used.iter().sum::<f64>());
    }
    {
        let daemon = Daemon::start(Queue::Fair);
        let mut client = daemon.client().await;
        let (light, heavy) = (names("l", 20), names("h", 20));
        spinners(&mut client, &light, &["--cpu-weight", "100"]).await;
        spinners(&mut client, &heavy, &["--cpu-weight", "300"]).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let used = used_in(&mut client, &[light, heavy].concat(), Duration::from_secs(20)).await;
        let ratio = used[20..].iter().sum::<f64>() / used[..20].iter().sum::<f64>();
        println!("{:44} {ratio:>12.3} {:>12}", "20 of weight 100, 20 of 300: ratio, 20 s", "3 ± 0.3");
    }
    for others in [0, 3] {
        let daemon = Daemon::start(Queue::Fair);
        let mut client = daemon.client().await;
        spinners(&mut client, &names("s", others), &[]).await;
        let limited = names("quarter", 1);
        spinners(&mut client, &limited, &["--cpus", "0.25"]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let used = used_in(&mut client, &limited, Duration::from_secs(60)).await;
        println!(
            "{:44} {:>10.2} s {:>12}",
            format!("--cpus 0.25 beside {others} spinning, 60 s"),
            used[0],
            "15 ± 0.5 s"
        );
    }
}

/// What the queue costs where nobody competes: the same with the runtime's own queue, in turns.
async fn alone() {
    println!("\n{:44} {:>12} {:>12} {:>12}", "nobody competes", "plain", "fair", "fair/plain");
    let daemons = [Daemon::start(Queue::Plain), Daemon::start(Queue::Fair)];
    for clients in [1, 8, 32] {
        let mut rates = [vec![], vec![]];
        for _ in 0..5 {
            for (daemon, rates) in daemons.iter().zip(&mut rates) {
                rates.push(throughput(daemon, clients).await);
            }
        }
        let [plain, fair] = rates.map(median);
        println!(
            "{:44} {plain:>10.0}/s {fair:>10.0}/s {:>12.3}",
            format!("run hello, wait: {clients} clients"),
            fair / plain
        );
    }
    for guests in [1, 2] {
        let mut rates = [vec![], vec![]];
        for _ in 0..5 {
            for (daemon, rates) in daemons.iter().zip(&mut rates) {
                let begun = Instant::now();
                let mut tasks = tokio::task::JoinSet::new();
                for i in 0..guests {
                    let mut client = daemon.client().await;
                    tasks.spawn(async move {
                        let name = format!("c{i}");
                        client.run(&["--name", &name, "compute"]).await.expect("accepted");
                        client.request::<InstanceView>(&["wait", &name]).await.expect("its end");
                    });
                }
                tasks.join_all().await;
                rates.push(1.0 / begun.elapsed().as_secs_f64());
            }
        }
        let [plain, fair] = rates.map(median);
        println!("{:44} {plain:>10.3}/s {fair:>10.3}/s {:>12.3}", format!("compute, {guests} at a time"), fair / plain);
    }
}

async fn throughput(daemon: &Daemon, clients: usize) -> f64 {
    let period = Duration::from_secs(2);
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..clients {
        let mut client = daemon.client().await;
        tasks.spawn(async move {
            let (name, begun, mut runs) = (format!("t{i}"), Instant::now(), 0u32);
            while begun.elapsed() < period {
                client.run(&["--name", &name, "hello"]).await.expect("accepted");
                client.request::<InstanceView>(&["wait", &name]).await.expect("its end");
                runs += 1;
            }
            runs
        });
    }
    f64::from(tasks.join_all().await.iter().sum::<u32>()) / period.as_secs_f64()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

async fn idle() {
    let daemon = Daemon::start(Queue::Fair);
    let mut client = daemon.client().await;
    hello(&mut client).await;
    for i in 0..100 {
        client.run(&["--name", &format!("sleep{i}"), "sleep"]).await.expect("accepted");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = daemon.cpu();
    tokio::time::sleep(Duration::from_secs(20)).await;
    println!("\nCPU time of a daemon with 100 that sleep, in 20 s: {:?}", daemon.cpu() - before);
}
