//! The daemon, or whatever it is measured beside, in a process of its own; and lines that go to it.

use coracle::client::Client;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: SocketAddr,
    directory: tempfile::TempDir,
    words: Vec<String>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It goes with this program, however that ends.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The first line that a child prints, and where it listens by that.
fn address(child: &mut Child) -> SocketAddr {
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("its first line");
    line.trim().rsplit(' ').next().expect("a word").parse().expect("an address")
}

impl Daemon {
    /// The real one, with its defaults but for `words`; the tests' guests are its modules.
    pub(crate) fn start(words: &[&str]) -> Daemon {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        let (child, address) = spawn(directory.path().to_owned(), &words);
        Daemon { child, address, directory, words }
    }

    /// The tutorial's: this program once more.
    pub(crate) fn dictionary() -> Daemon {
        let this = std::env::current_exe().expect("this program has a path");
        let mut child = Command::new(this).arg("dictionary").stdout(Stdio::piped()).spawn().expect("it starts");
        let address = address(&mut child);
        Daemon { child, address, directory: tempfile::tempdir().expect("a temporary directory"), words: vec![] }
    }

    /// Ends in order, and begins with what is there.
    pub(crate) async fn again(&mut self) {
        self.end().await;
        self.begin().await;
    }

    /// Begins with what is there, when it has ended.
    pub(crate) async fn begin(&mut self) {
        let _reaped = self.child.wait();
        (self.child, self.address) = spawn(self.directory.path().to_owned(), &self.words);
        Line::connect(self.address).await.exchange("ping\n", 1).await;
    }

    pub(crate) async fn end(&self) {
        Client::connect(self.address).await.expect("a connection").shut_down().await.expect("an orderly end");
    }

    /// Runs so many, each with a name and a directory of its own, by a few connections. How many were accepted: there may be
    /// room for fewer.
    pub(crate) async fn fill(&self, many: usize, module: &'static str) -> usize {
        self.fill_more(0, many, module).await
    }

    /// As [`Daemon::fill`], if there are so many already.
    pub(crate) async fn fill_more(&self, there: usize, many: usize, module: &'static str) -> usize {
        const CONNECTIONS: usize = 8;
        let mut tasks = tokio::task::JoinSet::new();
        for c in 0..CONNECTIONS {
            let mut line = Line::connect(self.address).await;
            tasks.spawn(async move {
                let mut accepted = 0;
                for i in (there + c..many).step_by(CONNECTIONS) {
                    let reply = line.exchange(&format!("run --name i{i} {module}\n"), 1).await;
                    accepted += usize::from(reply.contains("created"));
                }
                accepted
            });
        }
        tasks.join_all().await.iter().sum()
    }

    /// Returns when so many run.
    pub(crate) async fn until_run(&self, line: &mut Line, many: usize) {
        while line.exchange("list\n", 1).await.matches(" - running'").count() < many {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stores so many small modules, each of another content, and has them compiled.
    pub(crate) async fn store_modules(&self, many: usize) {
        let mut client = Client::connect(self.address).await.expect("a connection");
        for i in 0..many {
            let text = format!("(module (func (export \"_start\") i32.const {i} drop))");
            let sha256: String =
                <sha2::Sha256 as sha2::Digest>::digest(&text).iter().map(|b| format!("{b:02x}")).collect();
            client.put(&format!("m{i}"), text.as_bytes(), &sha256, true, |_| ()).await.expect("it is stored");
        }
    }

    /// Why no more can be run.
    pub(crate) async fn limit(&self, line: &mut Line) -> String {
        let reply = line.exchange("run --name one-more sleep\n", 1).await;
        reply.trim_end().rsplit('(').next().unwrap_or_default().trim_end_matches(')').to_owned()
    }

    /// User and system time of the whole process.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        // proc_pid_stat(5): behind the name in brackets utime is the 12th field, stime the 13th, in hundredths of a second.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields.get(11..13).unwrap_or_default().iter().filter_map(|f| f.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// `VmRSS` of proc_pid_status(5), in KiB; 0 where there is no /proc.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Memory of the kernel's that says where the process's is, in KiB.
    pub(crate) fn page_tables_kib(&self) -> u64 {
        self.status_kib("VmPTE:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("0");
        line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// Entries of the process's memory map.
    pub(crate) fn entries(&self) -> usize {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).unwrap_or_default();
        maps.lines().count()
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }
}

fn spawn(directory: PathBuf, words: &[String]) -> (Child, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_coracle"))
        .args(["daemon", "--listen", "127.0.0.1:0", "--modules"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests"))
        .arg("--state-dir")
        .arg(directory.join("state"))
        .arg("--root")
        .arg(directory.join("root"))
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon starts");
    let address = address(&mut child);
    (child, address)
}

/// A connection of a client that knows how many lines it will get.
pub(crate) struct Line(tokio::io::BufReader<TcpStream>);

impl Line {
    pub(crate) async fn connect(address: SocketAddr) -> Line {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Line(tokio::io::BufReader::with_capacity(64 << 10, stream))
    }

    /// Sends requests and takes so many lines, which are returned together.
    pub(crate) async fn exchange(&mut self, requests: &str, lines: usize) -> String {
        self.0.write_all(requests.as_bytes()).await.expect("sent");
        let mut replies = String::new();
        for _ in 0..lines {
            assert!(self.0.read_line(&mut replies).await.expect("a reply") > 0, "the daemon is gone");
        }
        replies
    }

    /// Bytes that a guest has printed, kept or not.
    pub(crate) async fn inspect_printed(&mut self, name: &str) -> f64 {
        self.exchange("format json\n", 1).await;
        self.0.write_all(format!("[\"logs\",\"{name}\"]\n").as_bytes()).await.expect("sent");
        let mut printed = 0.0;
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.expect("a reply");
            let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            if let Some(ok) = value.get("ok") {
                return printed + ok["dropped_bytes"].as_f64().expect("a number");
            }
            printed += value["event"]["text"].as_str().map_or(0.0, |text| text.len() as f64);
        }
    }
}

/// Milliseconds at a thousandth; times are sorted.
pub(crate) fn at(times: &[Duration], per_mille: usize) -> f64 {
    times[(times.len() * per_mille / 1000).min(times.len() - 1)].as_secs_f64() * 1e3
}
