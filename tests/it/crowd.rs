//! Crowds of clients, and what they may cost: memory and descriptors of the real binary, as Linux tells of them. Each bound that
//! is asserted is a constant.

use crate::support::{Cli, Foreground, PATIENCE, Raw, cannot_try, guests, soon};
use coracle::client::Client;
use coracle::config::fixed::FILE_CALLS_EACH;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

/// What a connection may cost that is idle, or waits for its peer, with what allocators keep for the next one.
const CONNECTION_BYTES_MAX: u64 = 64 << 10;
/// What a connection may cost in the middle of a long reply: a page of records, a piece of text twice, a record's own.
const REPLY_BYTES_MAX: u64 = 1 << 20;
/// What the daemon may gain and keep whatever happens: what is loaded at the first use, what lies about in allocators.
const SLACK: u64 = 16 << 20;
/// Descriptors that it may gain, however many clients there were: the store opens files when it first needs them.
const FEW: usize = 4;

/// A daemon of the binary, and what it takes.
struct Watched {
    daemon: Foreground,
    address: SocketAddr,
}

impl Watched {
    fn start(cli: &mut Cli, words: &[&str]) -> Watched {
        let listen = ["--listen", "127.0.0.1:0", "--modules", guests().to_str().unwrap()];
        let daemon = Foreground::start(cli, &[&listen[..], words].concat());
        cli.address = daemon.address();
        Watched { address: daemon.address(), daemon }
    }

    fn status(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.daemon.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Bytes that are resident now.
    fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Bytes that were resident at most.
    fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// User and system time.
    fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.daemon.child.id())).unwrap();
        // proc_pid_stat(5): behind the name in brackets utime is the 12th field and stime the 13th, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        Duration::from_millis(fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>() * 10)
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.daemon.child.id())).unwrap().count()
    }

    /// Waits until it has as few descriptors as once before, but for [`FEW`].
    async fn wait_for_descriptors(&self, before: usize) {
        let until = Instant::now() + PATIENCE;
        while self.descriptors() > before + FEW {
            assert!(Instant::now() < until, "{} descriptors, {before} before", self.descriptors());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn raw(&self) -> Raw {
        Raw::connect(self.address).await
    }

    /// A first life of everything that is made once: a module, a log, threads, what a sync opens. Then what it takes is what
    /// clients take.
    async fn warm_up(&self) {
        let mut raw = self.raw().await;
        raw.ask("run --name warm exit_7").await;
        assert_eq!(raw.ask("wait warm").await, "7");
        assert_eq!(raw.ask("rm warm").await, "Container 'warm' removed");
    }

    /// A client that takes no more into its own buffers than it has to.
    async fn narrow(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// A client that has asked for something and then for a ping, and reads nothing more once the reply has begun.
    async fn reader(&self, request: &str) -> BufReader<TcpStream> {
        let mut reader = BufReader::new(self.narrow().await);
        reader.write_all(format!("format json\n{request}\nping\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        soon("the format", reader.read_line(&mut line)).await.unwrap();
        soon("the reply", reader.fill_buf()).await.unwrap();
        reader
    }

    async fn end(mut self, cli: &Cli) {
        assert_eq!(cli.run(&["shutdown"]).await.0, 0);
        soon("the daemon's end", tokio::task::spawn_blocking(move || self.daemon.child.wait().unwrap())).await.unwrap();
    }
}

/// A state with this many ended instances, each of some kilobytes: one real one, and copies of its rows.
async fn with_records(cli: &mut Cli, records: usize, bytes: usize) {
    let daemon = Watched::start(cli, &[]);
    let mut raw = daemon.raw().await;
    assert!(raw.ask(&format!("run --name copy-0 exit_7 {}", "x".repeat(bytes))).await.contains("created"));
    assert_eq!(raw.ask("wait copy-0").await, "7");
    daemon.end(cli).await;
    let db = rusqlite::Connection::open(cli.directory.path().join("state/state.db")).unwrap();
    let last = records - 1;
    db.execute_batch(&format!(
        "BEGIN;
         CREATE TEMP TABLE n AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {last}) SELECT i FROM n;
         CREATE TEMP TABLE one AS SELECT * FROM instance;
         CREATE TEMP TABLE its AS SELECT * FROM run;
         INSERT INTO instance SELECT id + i, 'copy-' || i, run, restarts, stop_requested, restarting, ended_order + i, env
            FROM one, n;
         INSERT INTO run SELECT instance + i, run, state, exit_code, reason, message, created_at, started_at, ended_at, launch,
            cpu_us, stopped FROM its, n;
         COMMIT;"
    ))
    .unwrap();
}

/// Three thousand records are nine megabytes of reply, and twenty clients that ask and do not read hold a page each. What
/// changes meanwhile is in the list or not, and nothing is in it twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_nobody_reads_is_not_in_memory() {
    const RECORDS: usize = 3000;
    const READERS: usize = 20;
    let mut cli = Cli::alone();
    with_records(&mut cli, RECORDS, 2500).await;
    // Nobody is to be given up for being slow.
    let daemon = Watched::start(&mut cli, &["--stall", "1h"]);
    daemon.warm_up().await;
    let names = || (0..RECORDS).map(|i| format!("copy-{i}"));
    let mut raw = daemon.raw().await;
    let expected: Vec<String> = names().map(|name| format!("'{name} - exited (7)'")).collect();
    assert!(
        raw.ask("list").await == format!("Available containers: [{}]", expected.join(", ")),
        "in order, to the letter"
    );
    raw.send("list -q\n").await;
    assert_eq!(raw.dotted().await, names().collect::<Vec<_>>());
    raw.send("list -q -f name=copy-29\n").await;
    assert_eq!(raw.dotted().await.len(), 111, "filters reach into every page");
    let mut witness = Client::connect(daemon.address).await.unwrap();
    assert_eq!(witness.list().await.unwrap().len(), RECORDS);

    let (before, descriptors) = (daemon.memory(), daemon.descriptors());
    let mut readers = vec![];
    for _ in 0..READERS {
        readers.push(daemon.reader("list").await);
    }
    assert_eq!(soon("another's list", witness.list()).await.unwrap().len(), RECORDS);
    let last = format!("copy-{}", RECORDS - 1);
    witness.request::<Value>(&["rm", &last]).await.unwrap();
    witness.run(&["--name", &last, "exit_7"]).await.unwrap();
    witness.request::<Value>(&["wait", &last]).await.unwrap();
    assert_eq!(witness.list().await.unwrap().len(), RECORDS, "whoever asks now sees it");
    let bound = READERS as u64 * REPLY_BYTES_MAX + SLACK;
    let grown = daemon.peak().saturating_sub(before);
    assert!(grown < bound, "{grown} bytes more than {before}");

    for (i, reader) in readers.iter_mut().enumerate() {
        let mut line = Vec::new();
        soon("the rest of the list", reader.read_until(b'\n', &mut line)).await.unwrap();
        assert!(line.len() > RECORDS * 2500, "{} bytes", line.len());
        if i == 0 {
            let list: Value = serde_json::from_slice(&line).unwrap();
            let listed = list["ok"]["instances"].as_array().unwrap().iter().map(|view| view["name"].as_str().unwrap());
            assert!(listed.eq(names().take(RECORDS - 1)), "the last was removed, and is another one now");
        }
        line.clear();
        soon("the next reply", reader.read_until(b'\n', &mut line)).await.unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), "{\"ok\":{\"pong\":true}}\n");
    }
    let grown = daemon.peak().saturating_sub(before);
    assert!(grown < bound, "{grown} bytes more than {before}");
    drop(readers);
    daemon.wait_for_descriptors(descriptors).await;
}

/// One line asks for nine hundred records, which are seven megabytes of reply, or twice as much.
#[tokio::test(flavor = "multi_thread")]
async fn many_names_that_nobody_reads_of_are_not_in_memory() {
    const NAMES: usize = 900;
    const BYTES: usize = 7500;
    const READERS: usize = 20;
    let mut cli = Cli::alone();
    with_records(&mut cli, NAMES, BYTES).await;
    let daemon = Watched::start(&mut cli, &["--stall", "1h"]);
    daemon.warm_up().await;
    let names: String = (0..NAMES).map(|i| format!(" copy-{i}")).collect();
    let mut raw = daemon.raw().await;
    raw.send(&format!("wait{names}\n")).await;
    assert_eq!(raw.dotted().await, vec!["7"; NAMES]);
    let (before, descriptors) = (daemon.memory(), daemon.descriptors());
    let mut readers = vec![];
    for i in 0..READERS {
        readers.push(daemon.reader(&format!("{}{names}", ["inspect", "wait"][i % 2])).await);
    }
    assert_eq!(raw.ask("ping").await, "pong");
    for (i, reader) in readers.iter_mut().enumerate() {
        let mut line = Vec::new();
        soon("the rest of the reply", reader.read_until(b'\n', &mut line)).await.unwrap();
        if i < 2 {
            let reply: Value = serde_json::from_slice(&line).unwrap();
            let each = reply["ok"]["each"].as_array().unwrap();
            let told = each.iter().map(|one| one["ok"]["name"].as_str().unwrap().to_owned());
            assert!(told.eq((0..NAMES).map(|i| format!("copy-{i}"))), "in the order that was asked for");
        }
        assert!(line.len() > NAMES * BYTES, "{} bytes", line.len());
        line.clear();
        soon("the next reply", reader.read_until(b'\n', &mut line)).await.unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), "{\"ok\":{\"pong\":true}}\n");
    }
    let grown = daemon.peak().saturating_sub(before);
    assert!(grown < READERS as u64 * REPLY_BYTES_MAX + SLACK, "{grown} bytes more than {before}");
    drop(readers);
    daemon.wait_for_descriptors(descriptors).await;
}

/// A thousand events are many megabytes where labels are long and have to be escaped, and a client that follows them may
/// pause for as long as it likes.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_nobody_reads_are_not_in_memory() {
    const RUNS: usize = 200;
    const READERS: usize = 20;
    let mut cli = Cli::alone();
    let daemon = Watched::start(&mut cli, &[]);
    daemon.warm_up().await;
    let mut raw = daemon.raw().await;
    let labels: String = (0..7).map(|i| format!(" -l k{i}={}", "\u{e0041}".repeat(250))).collect();
    for i in 0..RUNS {
        assert!(raw.ask(&format!("run --name r{i}{labels} exit_7")).await.contains("created"));
        assert_eq!(raw.ask(&format!("wait r{i}")).await, "7");
    }
    let (before, descriptors) = (daemon.memory(), daemon.descriptors());
    let mut readers = vec![];
    for _ in 0..READERS {
        readers.push(daemon.reader("events --since 1 --until 600").await);
    }
    assert_eq!(raw.ask("ping").await, "pong");
    for reader in &mut readers {
        let (mut line, mut bytes) = (String::new(), 0);
        while line != "{\"ok\":{\"pong\":true}}\n" {
            line.clear();
            bytes += soon("the rest of the events", reader.read_line(&mut line)).await.unwrap();
        }
        assert!(bytes > 8 << 20, "{bytes}");
    }
    let grown = daemon.peak().saturating_sub(before);
    assert!(grown < READERS as u64 * 2 * REPLY_BYTES_MAX + SLACK, "{grown} bytes more than {before}");
    drop(readers);
    daemon.wait_for_descriptors(descriptors).await;
}

/// As many as there are places stay, idle or not; the others hear why, or are closed, and cost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_leave_everybody_else_alone() {
    const CROWD: usize = 10_000;
    const PLACES: usize = 1024;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|most| most < CROWD as u64 + 2000) {
        return cannot_try("ten thousand connections, which need as many descriptors (ulimit -Hn)");
    }
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let mut cli = Cli::alone();
    let daemon = Watched::start(&mut cli, &["--first-request", "1h"]);
    daemon.warm_up().await;
    let mut witness = daemon.raw().await;
    assert_eq!(witness.ask("ping").await, "pong");
    let (before, descriptors) = (daemon.memory(), daemon.descriptors());
    let mut crowd = vec![];
    for i in 0..CROWD {
        crowd.push(soon("a connection", daemon.raw()).await);
        if i % 100 == 0 {
            assert_eq!(witness.ask("ping").await, "pong");
        }
    }
    // One place is the witness's.
    let turned_away = crowd.split_off(PLACES - 1);
    let (mut told, mut closed) = (0, 0);
    for raw in turned_away {
        match String::from_utf8(raw.rest().await).unwrap().as_str() {
            "ERR limit connections is limited to 1024 (--connections)\n" => told += 1,
            "" => closed += 1,
            other => panic!("{other}"),
        }
    }
    assert!(told >= 64 && told + closed == CROWD - PLACES + 1, "{told} were told, {closed} closed");
    assert_eq!(witness.ask("run --name busy exit_7").await.split(' ').nth(2), Some("created"));
    assert_eq!(witness.ask("wait busy").await, "7");
    for raw in crowd.iter_mut().step_by(100) {
        assert_eq!(raw.ask("ping").await, "pong", "who has a place keeps it");
    }
    let grown = daemon.peak().saturating_sub(before);
    assert!(grown < PLACES as u64 * CONNECTION_BYTES_MAX + SLACK, "{grown} bytes more than {before}");
    assert!(daemon.descriptors() < descriptors + PLACES + 64 + 16, "{}", daemon.descriptors());
    drop(crowd);
    daemon.wait_for_descriptors(descriptors).await;
    assert_eq!(witness.ask("ping").await, "pong");
}

/// A byte at a time from many at once: those that come to an end of their line in time are answered, those that do not are not.
#[tokio::test(flavor = "multi_thread")]
async fn many_that_write_slowly_are_served_or_sent_away() {
    const WRITERS: usize = 300;
    let mut cli = Cli::alone();
    let daemon = Watched::start(&mut cli, &["--stall", "5s"]);
    daemon.warm_up().await;
    let mut witness = daemon.raw().await;
    let (before, descriptors) = (daemon.memory(), daemon.descriptors());
    let mut writers = vec![];
    for _ in 0..WRITERS {
        let mut raw = daemon.raw().await;
        assert_eq!(raw.ask("format json").await, "{\"ok\":{\"format\":\"json\"}}");
        raw.stream.set_nodelay(true).unwrap();
        writers.push(raw);
    }
    for byte in b"[\"ping\"]\n" {
        for raw in &mut writers {
            raw.send_bytes(&[*byte]).await;
        }
        assert_eq!(witness.ask("ping").await, "pong");
    }
    for raw in &mut writers {
        assert_eq!(raw.line().await, "{\"ok\":{\"pong\":true}}");
    }
    // And now without an end, but never without a next byte.
    let begun = Instant::now();
    let mut open = writers;
    let mut refused = 0;
    while !open.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{} are still there", open.len());
        let mut still = vec![];
        for mut raw in open {
            let mut peeked = [0];
            let closed = raw.stream.write_all(b"x").await.is_err();
            if closed || raw.stream.try_read(&mut peeked).is_ok() {
                refused += 1;
            } else {
                still.push(raw);
            }
        }
        open = still;
        assert_eq!(witness.ask("ping").await, "pong");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(refused == WRITERS && begun.elapsed() >= Duration::from_secs(5), "{refused} after {:?}", begun.elapsed());
    let grown = daemon.peak().saturating_sub(before);
    assert!(grown < WRITERS as u64 * CONNECTION_BYTES_MAX + SLACK, "{grown} bytes more than {before}");
    daemon.wait_for_descriptors(descriptors).await;
}

/// Who asks and asks and takes nothing of it costs a reply, and is given up.
#[tokio::test(flavor = "multi_thread")]
async fn many_that_read_nothing_are_given_up() {
    const READERS: usize = 60;
    let mut cli = Cli::alone();
    let daemon = Watched::start(&mut cli, &["--stall", "2s"]);
    daemon.warm_up().await;
    let mut witness = daemon.raw().await;
    // Long answers, so that what the sockets take is soon full.
    for name in ["a", "b", "c"] {
        witness.ask(&format!("run --name {name} exit_7 {}", "x".repeat(7500))).await;
        assert_eq!(witness.ask(&format!("wait {name}")).await, "7");
    }
    let (before, descriptors) = (daemon.memory(), daemon.descriptors());
    let mut asking = tokio::task::JoinSet::new();
    for i in 0..READERS {
        let mut stream = daemon.narrow().await;
        let request = "format json\n".to_owned() + &["list\n", "inspect a b c\n"][i % 2].repeat(1000);
        asking.spawn(async move {
            // Until the daemon has closed.
            while stream.write_all(request.as_bytes()).await.is_ok() {}
        });
    }
    soon("the last one is given up", async {
        while !asking.is_empty() {
            tokio::select! {
                Some(done) = asking.join_next() => done.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
            assert_eq!(witness.ask("ping").await, "pong");
        }
    })
    .await;
    let grown = daemon.peak().saturating_sub(before);
    // What they sent ahead is bounded too, and counts.
    assert!(grown < READERS as u64 * 3 * CONNECTION_BYTES_MAX + SLACK, "{grown} bytes more than {before}");
    daemon.wait_for_descriptors(descriptors).await;
}

/// A hundred thousand requests ahead: answered in their order, and never all in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_requests_ahead_are_answered_in_order() {
    const REQUESTS: usize = 100_000;
    let mut cli = Cli::alone();
    let daemon = Watched::start(&mut cli, &[]);
    daemon.warm_up().await;
    let (before, descriptors) = (daemon.memory(), daemon.descriptors());
    let (read, mut write) = daemon.raw().await.stream.into_split();
    // Every hundredth says which it is.
    let request = |i: usize| if i.is_multiple_of(100) { format!("inspect n{i}\n") } else { "ping\n".to_owned() };
    let sent: String = "format json\n".to_owned() + &(0..REQUESTS).map(request).collect::<String>();
    let writing = async {
        write.write_all(sent.as_bytes()).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let reading = async {
        let mut lines = BufReader::new(read).lines();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "{\"ok\":{\"format\":\"json\"}}");
        for i in 0..REQUESTS {
            let line = lines.next_line().await.unwrap().unwrap();
            let expected = match i.is_multiple_of(100) {
                true => format!("{{\"error\":{{\"code\":\"not-found\",\"message\":\"no instance named 'n{i}'\"}}}}"),
                false => "{\"ok\":{\"pong\":true}}".to_owned(),
            };
            assert_eq!(line, expected, "{i}");
        }
        assert_eq!(lines.next_line().await.unwrap(), None);
    };
    soon("all answers", async { tokio::join!(writing, reading) }).await;
    let grown = daemon.peak().saturating_sub(before);
    assert!(grown < SLACK, "{grown} bytes more than {before}");
    daemon.wait_for_descriptors(descriptors).await;
}

/// The connection is reset behind each byte that is sent, and behind each that is read: the run is there as a whole or not at
/// all, there for sure once it was answered, and nothing of the client stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_at_any_point_leaves_the_whole_or_nothing() {
    let mut cli = Cli::alone();
    let daemon = Watched::start(&mut cli, &["--keep", "1000"]);
    daemon.warm_up().await;
    let mut witness = daemon.raw().await;
    assert_eq!(witness.ask("ping").await, "pong");
    let descriptors = daemon.descriptors();
    let request = |name: &str| format!("run --name {name} exit_7\nwait {name}\nlist -q\n");
    let whole = request("reset-000").len();
    for sent in 0..=whole {
        let mut raw = daemon.raw().await;
        raw.stream.set_zero_linger().unwrap();
        raw.send(&request(&format!("reset-{sent:03}"))[..sent]).await;
    }
    let mut acknowledged = vec![];
    let mut reply = usize::MAX;
    let mut read = 0;
    while read < reply {
        let name = format!("taken-{read:03}");
        let mut raw = daemon.raw().await;
        raw.stream.set_zero_linger().unwrap();
        raw.send(&request(&name)).await;
        if reply == usize::MAX {
            // How long the first two lines are, and the first of the third.
            reply = raw.line().await.len() + raw.line().await.len() + 2 + 7;
        } else {
            soon("a part of the reply", raw.stream.read_exact(&mut vec![0; read])).await.unwrap();
        }
        if read > 0 {
            acknowledged.push(name);
        }
        read += 1;
    }
    let mut client = Client::connect(daemon.address).await.unwrap();
    let list = soon("an end of all that began", async {
        loop {
            let list = client.list().await.unwrap();
            if list.iter().all(|view| !view.is_live()) {
                return list;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for view in &list {
        assert_eq!((view.status().as_str(), view.run), ("exited (7)", 1), "{}", view.name);
    }
    for name in acknowledged {
        assert!(list.iter().any(|view| view.name.as_str() == name), "{name} was answered");
    }
    drop(client);
    daemon.wait_for_descriptors(descriptors).await;
    assert_eq!(witness.ask("ping").await, "pong");
}

/// Who never waits for an answer would have a whole processor, at the priority of those who answer.
#[tokio::test(flavor = "multi_thread")]
async fn who_sends_ahead_without_end_has_a_part_of_a_processor() {
    const FLOOD: Duration = Duration::from_secs(2);
    let mut cli = Cli::alone();
    let daemon = Watched::start(&mut cli, &[]);
    daemon.warm_up().await;
    let (mut read, mut write) = daemon.raw().await.stream.into_split();
    let pings = "ping\n".repeat(10_000);
    let writing = async {
        loop {
            write.write_all(pings.as_bytes()).await.unwrap();
        }
    };
    let reading = async {
        let (mut buffer, mut answered) = (vec![0; 64 << 10], 0);
        let (begun, before) = (Instant::now(), daemon.processor_time());
        while begun.elapsed() < FLOOD {
            answered += read.read(&mut buffer).await.unwrap();
        }
        (answered, (daemon.processor_time() - before).as_secs_f64() / begun.elapsed().as_secs_f64())
    };
    let (answered, part) = tokio::select! {
        read = reading => read,
        () = writing => unreachable!("it has no end"),
    };
    // It is answered all the time, and the pauses are four times as long as the work.
    assert!(answered > 5 * 1000 && part < 0.6, "{answered} bytes, {part} of a processor");
    daemon.end(&cli).await;
}

/// Calls on files are done by threads that may block, of which there can be hundreds. As long as none of them does block, few
/// are at it: those of fifty guests that do nothing else would have whoever answers wait behind all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_guests_that_list_directories_keeps_few_threads_busy() {
    const GUESTS: usize = 50;
    const ENTRIES: usize = 200;
    let mut cli = Cli::alone();
    let daemon = Watched::start(&mut cli, &["--instances", "100"]);
    daemon.warm_up().await;
    let listing = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torture/guests/huge_directory.wat");
    assert_eq!(cli.run(&["put", "--name", "lists", listing]).await.0, 0);
    // proc_pid_stat(5): the state stands behind the name in parentheses.
    let at_work = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.daemon.child.id())).unwrap();
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
        stats.filter(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" R"))).count()
    };
    let mut raw = daemon.raw().await;
    for i in 0..GUESTS {
        let name = format!("lists-{i}");
        assert!(raw.ask(&format!("run --name {name} exit_7")).await.contains("created"));
        assert_eq!(raw.ask(&format!("wait {name}")).await, "7");
        for entry in 0..ENTRIES {
            std::fs::write(cli.directory.path().join("root").join(&name).join(entry.to_string()), "").unwrap();
        }
    }
    for i in 0..GUESTS {
        assert!(raw.ask(&format!("run --name lists-{i} lists")).await.contains("created"));
    }
    let mut samples = vec![];
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        samples.push(at_work());
    }
    let mean = samples.iter().sum::<usize>() / samples.len();
    let places = std::thread::available_parallelism().map_or(1, usize::from) * FILE_CALLS_EACH;
    // With the threads that guests and answers have, and those whose call took long on a slow machine and no longer count. Without
    // places it is all guests, and more: what is done and not yet taken away.
    assert!(mean <= places + GUESTS / 3, "{mean} threads run, for {places} places");
    daemon.end(&cli).await;
}
