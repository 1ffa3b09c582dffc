//! What the daemon does in a second, how long it takes for one, and what it holds: `cargo bench --bench load`.
//!
//! The real daemon in a process of its own and its clients on the same machine, in one table. Machines differ and are noisy, so
//! each figure stands beside one of the same run that anybody can place: a server that writes the name into a dictionary and
//! runs nothing, plain wasmtime in this process, a program that the system starts. Takes about six minutes; `load PART` is a
//! part of it: rate, latency, list, stop, logs, density, growth, cold, dense. The last has CORACLE_BENCH_DENSE instances, 100,000
//! unless that is set.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

#[path = "load/baselines.rs"]
mod baselines;
#[path = "load/daemon.rs"]
mod daemon;

use daemon::{Daemon, Line, at};
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const PERIOD: Duration = Duration::from_secs(3);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    if let [mode] = args.as_slice()
        && mode == "dictionary"
    {
        return runtime.block_on(baselines::dictionary());
    }
    let wanted = |part: &str| args.is_empty() || args.iter().any(|a| a == part);
    println!("{:58} {:>12} {:>26}", "", "figure", "beside");
    runtime.block_on(async {
        if wanted("rate") {
            rate().await;
        }
        if wanted("latency") {
            latency().await;
            half().await;
        }
        if wanted("list") {
            list().await;
        }
        if wanted("stop") {
            stop().await;
        }
        if wanted("logs") {
            logs().await;
        }
        if wanted("density") {
            density().await;
        }
        if wanted("growth") {
            growth().await;
        }
        if wanted("cold") {
            cold().await;
        }
        if wanted("dense") {
            dense().await;
            back(&[], "").await;
            back(&["--dense"], ", dense").await;
        }
    });
}

fn row(what: &str, figure: String, beside: impl std::fmt::Display) {
    println!("{what:58} {figure:>12} {beside:>26}");
}

fn ms(time: f64) -> String {
    format!("{time:.3} ms")
}

/// Requests that are done in a second, by so many connections with so many ahead each.
async fn per_second(address: SocketAddr, connections: usize, ahead: usize, run: fn(&str) -> (String, usize)) -> f64 {
    let mut tasks = JoinSet::new();
    for i in 0..connections {
        let mut line = Line::connect(address).await;
        tasks.spawn(async move {
            // With several ahead each has a name of its own, or one would find the other alive.
            let (mut text, mut replies) = (String::new(), 0);
            for j in 0..ahead {
                let (request, lines) = run(&format!("c{i}-{j}"));
                text.push_str(&request);
                replies += lines;
            }
            line.exchange(&text, replies).await;
            let (begun, mut done) = (Instant::now(), 0);
            while begun.elapsed() < PERIOD {
                line.exchange(&text, replies).await;
                done += ahead;
            }
            done as f64 / begun.elapsed().as_secs_f64()
        });
    }
    tasks.join_all().await.iter().sum()
}

fn to_its_end(name: &str) -> (String, usize) {
    (format!("run --name {name} hello\nwait {name}\n"), 2)
}

fn into_the_dictionary(name: &str) -> (String, usize) {
    (format!("run {name}\n"), 1)
}

async fn rate() {
    let dictionary = Daemon::dictionary();
    let daemon = Daemon::start(&[]);
    let in_process = baselines::in_process(PERIOD);
    let mut against = 0.0;
    for (connections, ahead) in [(1, 1), (8, 1), (32, 1), (64, 1), (4, 16)] {
        let ours = per_second(daemon.address, connections, ahead, to_its_end).await;
        let its = per_second(dictionary.address, connections, ahead, into_the_dictionary).await;
        let how = if ahead > 1 { format!(", {ahead} requests ahead") } else { String::new() };
        row(
            &format!("run hello to its end over TCP: {connections} connections{how}"),
            format!("{ours:.0}/s"),
            format!("{:.3} of the dictionary's", ours / its),
        );
        if (connections, ahead) == (32, 1) {
            against = ours;
        }
    }
    row("the same in process, plain wasmtime, all processors", format!("{in_process:.0}/s"), "1");
    row("with 32 connections, of that", format!("{:.3}", against / in_process), "goal 0.4");
    let spawned = baselines::spawned(PERIOD / 2);
    row(
        "a native program that does nothing, started",
        format!("{spawned:.0}/s"),
        format!("{:.1} times", against / spawned),
    );
    match baselines::wasmtime_run(PERIOD / 2) {
        Some(started) => {
            row("wasmtime run hello", format!("{started:.0}/s"), format!("{:.1} times, goal 200", against / started));
        }
        None => row("wasmtime run hello", "skipped".to_owned(), "not on the path"),
    }
}

async fn latency() {
    let daemon = Daemon::start(&[]);
    let dictionary = Daemon::dictionary();
    let mut of = vec![];
    for (address, run) in [
        (daemon.address, to_its_end as fn(&str) -> (String, usize)),
        (dictionary.address, into_the_dictionary as fn(&str) -> (String, usize)),
    ] {
        let mut line = Line::connect(address).await;
        let (text, replies) = run("one");
        let mut times = vec![];
        for i in 0..11_000 {
            let begun = Instant::now();
            line.exchange(&text, replies).await;
            if i >= 1000 {
                times.push(begun.elapsed());
            }
        }
        times.sort_unstable();
        of.push(times);
    }
    for (name, per_mille) in [("p50", 500), ("p99", 990), ("p99.9", 999)] {
        let (ours, its) = (at(&of[0], per_mille), at(&of[1], per_mille));
        row(&format!("run hello to its end, one after the other: {name}"), ms(ours), format!("dictionary {}", ms(its)));
    }
}

/// How long runs take that come in time, half as many as there could be: from when each was to begin, so that one that is held
/// up makes those behind it late too. By threads, which sleep to a twentieth of a millisecond; tokio's timers wake within one.
async fn half() {
    const CONNECTIONS: u32 = 32;
    let daemon = Daemon::start(&[]);
    let most = per_second(daemon.address, CONNECTIONS as usize, 1, to_its_end).await;
    let each = Duration::from_secs_f64(f64::from(CONNECTIONS) / (most / 2.0));
    let first = Instant::now() + Duration::from_millis(100);
    let client = move |i: u32, address: SocketAddr| {
        let stream = std::net::TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        let mut replies_of = std::io::BufReader::new(stream.try_clone().expect("a descriptor"));
        let mut stream = stream;
        let (text, replies) = to_its_end(&format!("h{i}"));
        let mut times = vec![];
        // Not all of them at the same moment.
        let mut due = first + each * i / CONNECTIONS;
        while due < first + 2 * PERIOD {
            #[expect(clippy::disallowed_methods, reason = "it is to begin then")]
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            stream.write_all(text.as_bytes()).expect("sent");
            for _ in 0..replies {
                let mut line = String::new();
                assert!(replies_of.read_line(&mut line).expect("a reply") > 0, "the daemon is gone");
            }
            times.push(due.elapsed());
            due += each;
        }
        times
    };
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|i| {
            let address = daemon.address;
            std::thread::spawn(move || client(i, address))
        })
        .collect();
    let mut times: Vec<Duration> = clients.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect();
    times.sort_unstable();
    let rate = times.len() as f64 / (2 * PERIOD).as_secs_f64();
    row(
        &format!("run hello to its end at {rate:.0}/s, half of the most: p50, p99"),
        format!("{:.2}, {:.2}", at(&times, 500), at(&times, 990)),
        "ms; goal p99 1",
    );
}

async fn list() {
    for many in [10, 10_000] {
        let daemon = Daemon::start(&["--keep", "20000"]);
        daemon.fill(many, "exit_7").await;
        let mut line = Line::connect(daemon.address).await;
        let mut times = vec![];
        for _ in 0..if many > 100 { 200 } else { 5000 } {
            let begun = Instant::now();
            line.exchange("list\n", 1).await;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        let mut pings = vec![];
        for _ in 0..5000 {
            let begun = Instant::now();
            line.exchange("ping\n", 1).await;
            pings.push(begun.elapsed());
        }
        pings.sort_unstable();
        row(
            &format!("list of {many}: p50, p99"),
            format!("{:.2}, {:.2}", at(&times, 500), at(&times, 990)),
            format!("ping {}", ms(at(&pings, 500))),
        );
    }
}

async fn stop() {
    for others in [0, 100] {
        let daemon = Daemon::start(&[]);
        let mut line = Line::connect(daemon.address).await;
        for i in 0..others {
            line.exchange(&format!("run --name o{i} spin\n"), 1).await;
        }
        let mut times = vec![];
        for _ in 0..500 {
            line.exchange("run spin\nwait --condition running spin\n", 2).await;
            let begun = Instant::now();
            line.exchange("stop spin\n", 1).await;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        row(
            &format!("stop of an endless loop, {others} others computing: p50, p99"),
            format!("{:.2}, {:.2}", at(&times, 500), at(&times, 990)),
            "goal p99 10 ms",
        );
    }
}

async fn logs() {
    let daemon = Daemon::start(&["--log-rate", "4g", "--log", "64m"]);
    let mut line = Line::connect(daemon.address).await;
    line.exchange("run --timeout 3s flood\nwait flood\n", 2).await;
    let bytes = line.inspect_printed("flood").await;
    let plain = baselines::disk_per_second();
    row(
        "a guest that prints 64 KiB at a time",
        format!("{:.0} MiB/s", bytes / 3.0 / f64::from(1 << 20)),
        format!("write(2) alone {plain:.0} MiB/s"),
    );
}

async fn density() {
    const MANY: usize = 9_000;
    let daemon = Daemon::start(&["--instances", "100000"]);
    let (idle_kib, cpu) = (daemon.resident_kib(), daemon.cpu());
    tokio::time::sleep(Duration::from_secs(5)).await;
    row("resident memory of a daemon that has done nothing", format!("{} MiB", idle_kib >> 10), "goal 30 MiB");
    row("its processor time in 5 s", format!("{:?}", daemon.cpu() - cpu), "goal 0");
    let begun = Instant::now();
    let alive = daemon.fill(MANY, "sleep").await;
    let each = (daemon.resident_kib() - idle_kib) as f64 / alive as f64;
    row(
        &format!("{alive} that sleep, each with its directory: begun in"),
        format!("{:.2} s", begun.elapsed().as_secs_f64()),
        format!("{:.1} KiB each, goal 40", each),
    );
    let mut line = Line::connect(daemon.address).await;
    let mut times = vec![];
    for _ in 0..500 {
        let begun = Instant::now();
        line.exchange("run hello\nwait hello\n", 2).await;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    row("run hello to its end among them: p50, p99", format!("{:.2}, {:.2}", at(&times, 500), at(&times, 990)), "ms");
    let cpu = daemon.cpu();
    tokio::time::sleep(Duration::from_secs(5)).await;
    row("processor time of all in 5 s", format!("{:?}", daemon.cpu() - cpu), "goal 0");
    let begun = Instant::now();
    daemon.end().await;
    row("to end them all, and the daemon", format!("{:.2} s", begun.elapsed().as_secs_f64()), "at most 10 s");
}

/// What one costs among so many that sleep: how cost grows with them.
async fn growth() {
    let daemon = Daemon::start(&["--instances", "100000"]);
    let mut line = Line::connect(daemon.address).await;
    let mut alive = 0;
    for many in [1, 10, 100, 1_000, 10_000, 100_000] {
        let (begun, before) = (Instant::now(), alive);
        alive += daemon.fill_more(alive, many, "sleep").await;
        let start = begun.elapsed().as_secs_f64() * 1e6 / (alive - before).max(1) as f64;
        if alive < many {
            // Whatever else is asked for there is refused at once.
            row(&format!("{alive} that sleep, and no more"), "a limit".to_owned(), daemon.limit(&mut line).await);
            break;
        }
        let (mut lists, mut runs, mut stops) = (vec![], vec![], vec![]);
        for _ in 0..if many > 1_000 { 50 } else { 200 } {
            lists.push(timed(&mut line, "list\n", 1).await);
            runs.push(timed(&mut line, "run hello\nwait hello\n", 2).await);
            line.exchange("run --name stopped sleep\n", 1).await;
            stops.push(timed(&mut line, "stop stopped\n", 1).await);
        }
        for times in [&mut lists, &mut runs, &mut stops] {
            times.sort_unstable();
        }
        row(
            &format!("{alive} that sleep: list, run hello to its end, stop, p50"),
            format!("{:.2}, {:.2}, {:.2}", at(&lists, 500), at(&runs, 500), at(&stops, 500)),
            format!("{start:.0} us to start one, {:.1} KiB", daemon.resident_kib() as f64 / alive as f64),
        );
    }
}

async fn timed(line: &mut Line, requests: &str, replies: usize) -> Duration {
    let begun = Instant::now();
    line.exchange(requests, replies).await;
    begun.elapsed()
}

async fn cold() {
    const MODULES: usize = 100;
    let mut daemon = Daemon::start(&["--stored-modules", "1000"]);
    daemon.store_modules(MODULES).await;
    let begun = Instant::now();
    daemon.again().await;
    let serving = begun.elapsed();
    let mut line = Line::connect(daemon.address).await;
    let begun = Instant::now();
    line.exchange("run m7\nwait m7\n", 2).await;
    row(
        &format!("a daemon with {MODULES} compiled modules, to its first answer"),
        format!("{:.0} ms", serving.as_secs_f64() * 1e3),
        format!("first run of one {:.1} ms", begun.elapsed().as_secs_f64() * 1e3),
    );
}

/// As many as there may be with `--dense`, alive at the same time.
async fn dense() {
    let many = std::env::var("CORACLE_BENCH_DENSE").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    // And some beside them.
    let daemon = Daemon::start(&["--dense", "--instances", &(many + 10).to_string()]);
    let (idle_kib, begun) = (daemon.resident_kib(), Instant::now());
    let alive = daemon.fill(many, "sleep").await;
    let mut line = Line::connect(daemon.address).await;
    daemon.until_run(&mut line, alive).await;
    let took = begun.elapsed().as_secs_f64();
    row(&format!("{alive} that sleep, dense: begun in"), format!("{took:.1} s"), {
        let each = |kib: u64| kib as f64 / alive.max(1) as f64;
        let (resident, tables) = (each(daemon.resident_kib() - idle_kib), each(daemon.page_tables_kib()));
        format!("{resident:.1} KiB each, page tables {tables:.1}")
    });
    row(
        "entries of its map, and its descriptors",
        format!("{}, {}", daemon.entries(), daemon.descriptors()),
        "of 65530",
    );
    let (mut lists, mut runs, mut stops) = (vec![], vec![], vec![]);
    for _ in 0..50 {
        lists.push(timed(&mut line, "list\n", 1).await);
        runs.push(timed(&mut line, "run hello\nwait hello\n", 2).await);
        let reply = line.exchange("run --name stopped sleep\n", 1).await;
        assert!(reply.contains("created"), "{reply}");
        stops.push(timed(&mut line, "stop stopped\n", 1).await);
    }
    for (what, times) in [("list", &mut lists), ("run hello to its end", &mut runs), ("stop", &mut stops)] {
        times.sort_unstable();
        row(&format!("{what} among them: p50, p99"), format!("{:.2}, {:.2}", at(times, 500), at(times, 990)), "ms");
    }
    let cpu = daemon.cpu();
    tokio::time::sleep(Duration::from_secs(5)).await;
    row("processor time of all in 5 s", format!("{:?}", daemon.cpu() - cpu), "goal 0");
    let begun = Instant::now();
    daemon.end().await;
    row("to end them all, and the daemon", format!("{:.1} s", begun.elapsed().as_secs_f64()), "at most 35 s");
}

/// Those that run again when a daemon starts.
async fn back(words: &[&str], what: &str) {
    const MANY: usize = 10_000;
    let mut daemon = Daemon::start(&[words, &["--instances", "20000"]].concat());
    let alive = daemon.fill(MANY, "--restart always sleep").await;
    daemon.end().await;
    let begun = Instant::now();
    daemon.begin().await;
    let serving = begun.elapsed();
    let mut line = Line::connect(daemon.address).await;
    daemon.until_run(&mut line, alive).await;
    row(
        &format!("a daemon with {alive} to run again{what}: to its first answer"),
        format!("{:.0} ms", serving.as_secs_f64() * 1e3),
        format!("until all run {:.2} s", begun.elapsed().as_secs_f64()),
    );
    daemon.end().await;
}
