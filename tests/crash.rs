//! A daemon that is killed at random, again and again, with clients at work: nothing that it acknowledged is lost,
//! nothing is there twice, and nothing that died with it passes for running (THREATS 30).
//!
//! Each client owns names and does one thing at a time to them, so that what can have become of a name is known
//! ([`worlds`]); a few names belong to everybody. After each death the next daemon is asked for its instances, modules
//! and events, and they are held against all that was answered before ([`model`]).
//!
//! `CORACLE_CRASH_CYCLES` says how many lives the daemon has, `CORACLE_CRASH_SEED` which requests are sent and when it
//! dies; how they interleave is the machine's.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test that meets what cannot be fails, as it should")]
#![expect(unreachable_pub, reason = "one binary of modules; there is no outside")]

#[path = "crash/model.rs"]
mod model;
#[path = "crash/worlds.rs"]
mod worlds;

use coracle::client::{Client, ClientError};
use model::{Action, Model, views};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use worlds::{Check, Launch, Op, Outcome, Policy, View};

/// Clients at work at the same time.
const CLIENTS: usize = 6;
/// Names that everybody uses.
const SHARED: [&str; 3] = ["shared-a", "shared-b", "shared-c"];
/// Modules of different contents that are put: each leaves with this code and its index.
const CODE_FIRST: u64 = 20;
const CONTENTS: u64 = 6;
/// Kinds of requests that are counted.
const KINDS: usize = 13;
/// How long what has a restart policy may take to come back.
const COMEBACK: Duration = Duration::from_secs(30);
/// How long `list` and `events` may take to agree while guests go on ending and beginning.
const AGREEMENT: Duration = Duration::from_secs(10);
/// How long an orderly end may take.
const ORDERLY: Duration = Duration::from_secs(10);
/// How long a start may take, but for one of fifty; and how long that one.
const START: Duration = Duration::from_secs(2);
const START_MAX: Duration = Duration::from_secs(10);
/// How long anything else may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()].clone()
    }
}

/// What can be put, by digest: its bytes and its exit code.
fn contents() -> BTreeMap<String, (Vec<u8>, u64)> {
    let content = |code: u64| {
        let bytes = wat::parse_str(format!(
            "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
               (memory (export \"memory\") 1) (func (export \"_start\") (call $exit (i32.const {code}))))"
        ))
        .unwrap();
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        (digest, (bytes, code))
    };
    (CODE_FIRST..CODE_FIRST + CONTENTS).map(content).collect()
}

/// A life of the daemon, which ends with this at the latest.
struct Daemon(Child);

impl Daemon {
    fn spawn(directory: &Path) -> Daemon {
        let path = |name: &str| directory.join(name);
        let log = std::fs::File::options().append(true).create(true).open(path("stderr")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        command.args(["daemon", "--listen", "127.0.0.1:0", "--keep", "100000"]);
        command.arg("--state-dir").arg(path("state")).arg("--root").arg(path("root"));
        command.arg("--modules").arg(path("modules"));
        for variable in ["CORACLE_LOG", "CORACLE_STATE_DIR", "CORACLE_ROOT", "CORACLE_HOST"] {
            command.env_remove(variable);
        }
        Daemon(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().unwrap())
    }

    /// Where it listens, once it does. The pipe stays open until the daemon is gone.
    async fn address(&mut self) -> Check<(SocketAddr, BufReader<std::process::ChildStdout>)> {
        let mut stdout = BufReader::new(self.0.stdout.take().unwrap());
        let read = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            stdout.read_line(&mut line).map(|_| (line, stdout))
        });
        let read = timeout(PATIENCE, read).await.map_err(|_| "the daemon does not begin to listen".to_owned())?;
        let (line, stdout) = read.unwrap().unwrap();
        let address = line.trim_end().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        Ok((address.ok_or_else(|| format!("the daemon's first line is {line:?}"))?, stdout))
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    async fn end_in_order(mut self) -> Check {
        kill_process(Pid::from_raw(self.0.id().try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
        let asked = Instant::now();
        loop {
            match self.0.try_wait().unwrap() {
                Some(status) if status.code() == Some(0) => return Ok(()),
                Some(status) => return Err(format!("the daemon's orderly end: {status}")),
                None if asked.elapsed() > ORDERLY => return Err(format!("no orderly end within {ORDERLY:?}")),
                None => sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already, unless the test fails.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// What the clients and the test have in common.
struct Common {
    model: Mutex<Model>,
    /// Digest to bytes and exit code.
    contents: BTreeMap<String, (Vec<u8>, u64)>,
    /// Set before the daemon is told to go: from then on connections may break.
    over: AtomicBool,
}

impl Common {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    /// Sends a request, and tells the model what came of it.
    async fn ask(&self, client: &mut Client, action: Action) -> Check<Outcome> {
        let start = self.model().begin(&action);
        let result = match &action {
            Action::On(name, op) => client.request(&op.words(name)).await,
            Action::Put { name, digest } => {
                let put = client.put(name, &self.contents[digest].0, digest, false, |_| ()).await;
                put.map(|module| json!(module))
            }
            Action::Forget(name) => client.request(&["forget", name]).await,
            Action::List => client.request(&["list"]).await,
            Action::Prune => client.request(&["prune"]).await,
        };
        let outcome = match result {
            Ok(reply) => Outcome::Done(reply),
            Err(ClientError::Refused(refusal)) => Outcome::Refused(refusal.code.to_string()),
            Err(_) if self.over.load(Ordering::SeqCst) => Outcome::Unknown,
            Err(e) => return Err(format!("{action:?} under a daemon that lives: {e}")),
        };
        self.model().finish(&action, start, &outcome)?;
        Ok(outcome)
    }
}

/// A client's own names and what it does next.
struct Worker {
    me: usize,
    random: Random,
    common: Arc<Common>,
    /// The newest names that were used once, and how many there were.
    fresh: Vec<String>,
    count: u64,
}

impl Worker {
    /// Works until the daemon is gone.
    async fn work(mut self, address: SocketAddr) -> Check<Worker> {
        let mut client = match Client::connect(address).await {
            Ok(client) => client,
            Err(_) if self.common.over.load(Ordering::SeqCst) => return Ok(self),
            Err(e) => return Err(format!("a daemon that lives does not take a connection: {e}")),
        };
        loop {
            let action = self.choose();
            match self.common.ask(&mut client, action).await? {
                Outcome::Unknown => return Ok(self),
                Outcome::Refused(code) if code == "shutting-down" => return Ok(self),
                _ => {}
            }
        }
    }

    fn own(&mut self) -> String {
        format!("t{}-{}", self.me, self.random.below(4))
    }

    fn fresh(&mut self, letter: char) -> String {
        self.count += 1;
        let name = format!("{letter}{}-{}", self.me, self.count);
        self.fresh.push(name.clone());
        // Older ones are left to `prune`.
        let surplus = self.fresh.len().saturating_sub(6);
        self.fresh.drain(..surplus);
        name
    }

    /// A name that everybody uses; names are unique ignoring case.
    fn shared(&mut self) -> String {
        let name = self.random.pick(&SHARED);
        if self.random.below(4) == 0 { name.to_uppercase() } else { name.to_owned() }
    }

    fn any(&mut self) -> String {
        match self.random.below(10) {
            0..4 => self.own(),
            4..6 => format!("p{}", self.me),
            6 => self.shared(),
            _ if self.fresh.is_empty() => self.own(),
            _ => self.random.pick(&self.fresh),
        }
    }

    fn choose(&mut self) -> Action {
        match self.random.below(1000) {
            0..300 => {
                let name = match self.random.below(3) {
                    0 => self.own(),
                    1 => self.fresh('f'),
                    _ => self.shared(),
                };
                let modules = ["hello", "hello", "hello", "exit_7", "exit_7", "spin", "spin", "clock"];
                Action::On(name, Op::Run(Launch::of(self.random.pick(&modules), Policy::No)))
            }
            300..370 => {
                let policy = self.random.pick(&[Policy::Always, Policy::UnlessStopped, Policy::OnFailure]);
                let module = self.random.pick(&["spin", "exit_7", "clock"]);
                Action::On(format!("p{}", self.me), Op::Run(Launch::of(module, policy)))
            }
            370..420 => Action::On(self.fresh('r'), Op::Run(Launch::of("hello", Policy::Remove))),
            420..540 => Action::On(self.any(), Op::Stop),
            540..600 => Action::On(self.any(), Op::Kill),
            600..650 => match self.random.below(3) {
                0 => Action::On(format!("p{}", self.me), Op::Restart),
                1 => Action::On(self.shared(), Op::Restart),
                _ => Action::On(self.own(), Op::Restart),
            },
            650..780 => {
                let name = self.any();
                let short = self.common.model().instances.get(&name).is_some_and(|i| i.ends_by_itself());
                Action::On(name, if short { Op::Wait } else { Op::Inspect })
            }
            780..860 => {
                let (force, volumes) = self.random.pick(&[(false, false), (true, false), (false, true), (true, true)]);
                Action::On(self.any(), Op::Rm { force, volumes })
            }
            860..960 => self.about_modules(),
            960..996 => Action::List,
            _ => Action::Prune,
        }
    }

    fn about_modules(&mut self) -> Action {
        let name = format!("m{}-{}", self.me, self.random.below(2));
        let stored = self.common.model().modules.get(&name).and_then(|module| match module.contents.as_slice() {
            [Some(digest)] => Some(digest.clone()),
            _ => None,
        });
        match (stored, self.random.below(10)) {
            (_, 0) => Action::Forget(name),
            (Some(digest), 1..7) => {
                let launch = Launch { module: name, code: Some(self.common.contents[&digest].1), policy: Policy::No };
                Action::On(self.fresh('u'), Op::Run(launch))
            }
            _ => {
                let digests: Vec<String> = self.common.contents.keys().cloned().collect();
                Action::Put { name, digest: self.random.pick(&digests) }
            }
        }
    }
}

/// Reads `events` from `since` on into the model: until now, or until the daemon is gone. The newest, if there is one.
async fn read_events(common: &Common, address: SocketAddr, since: u64, follow: bool) -> Check<Option<u64>> {
    let io = |e: std::io::Error| format!("events: {e}");
    let mut stream = TcpStream::connect(address).await.map_err(io)?;
    let (mut words, since) = (vec!["events", "--since"], since.to_string());
    words.push(&since);
    if !follow {
        words.extend(["--until", "0s"]);
    }
    stream.write_all(format!("format json\n{}\n", json!(words)).as_bytes()).await.map_err(io)?;
    let mut lines = tokio::io::BufReader::new(stream).lines();
    lines.next_line().await.map_err(io)?;
    let mut previous = None;
    loop {
        let line = lines.next_line().await.map_err(io)?.ok_or("events: closed before the end")?;
        let line: Value = serde_json::from_str(&line).map_err(|e| format!("events: {e} in {line:?}"))?;
        match line["event"]["type"].as_str() {
            Some("registry") => previous = Some(common.model().events.see(&line["event"]["event"], previous)?),
            // A follower may be too slow; the next start tells the rest.
            Some("lost") if follow => previous = None,
            None if line["ok"].is_object() => return Ok(previous),
            _ => return Err(format!("events: {line}")),
        }
    }
}

/// How a life of the daemon goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Life {
    /// It is killed before anybody has asked it for anything, perhaps before it listens.
    InRecovery,
    /// Clients are at work at once, while it may still bring back what has a restart policy.
    Unseen,
    /// It is looked at first.
    Seen,
    /// As before, and then it is told to end.
    Orderly,
    /// It is looked at and told to end.
    Last,
}

struct Test {
    random: Random,
    directory: TempDir,
    common: Arc<Common>,
    workers: Vec<Worker>,
    starts: Vec<Duration>,
}

impl Test {
    fn new(seed: u64) -> Test {
        let directory = tempfile::tempdir().unwrap();
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests");
        std::fs::create_dir(directory.path().join("modules")).unwrap();
        std::fs::copy(guests.join("exit_7.wat"), directory.path().join("modules/exit_7.wat")).unwrap();
        let model = Mutex::new(Model::new(&SHARED));
        let common = Arc::new(Common { model, contents: contents(), over: AtomicBool::new(false) });
        let mut random = Random(seed);
        let worker =
            |me| Worker { me, random: Random(random.next()), common: Arc::clone(&common), fresh: vec![], count: 0 };
        let workers = (0..CLIENTS).map(worker).collect();
        Test { random, directory, common, workers, starts: vec![] }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    async fn live(&mut self, life: Life) -> Check {
        let began = Instant::now();
        self.common.over.store(false, Ordering::SeqCst);
        let mut daemon = Daemon::spawn(self.directory.path());
        if life == Life::InRecovery {
            let usual = self.starts.last().map_or(30, |start| u64::try_from(start.as_millis()).unwrap());
            sleep(self.random.millis(0, usual * 3 / 2)).await;
            daemon.kill();
            self.common.model().die();
            return Ok(());
        }
        let (address, _stdout) = daemon.address().await?;
        let mut client = Client::connect(address).await.map_err(|e| e.to_string())?;
        client.request::<Value>(&["ping"]).await.map_err(|e| e.to_string())?;
        self.starts.push(began.elapsed());
        if life != Life::Unseen {
            let verified = timeout(PATIENCE, self.verify(&mut client, address)).await;
            verified.map_err(|_| "the daemon does not answer".to_owned())??;
        }
        let mut clients = JoinSet::new();
        if life != Life::Last {
            for worker in self.workers.drain(..) {
                clients.spawn(worker.work(address));
            }
        }
        let (common, since) = (Arc::clone(&self.common), self.common.model().events.newest());
        let mut follower = JoinSet::new();
        follower.spawn(async move {
            match read_events(&common, address, since, true).await {
                // A line may have been cut off.
                Err(e) if e.starts_with("events:") && common.over.load(Ordering::SeqCst) => Ok(()),
                other => other.map(|_| ()),
            }
        });
        sleep(self.random.millis(2, 250)).await;
        if matches!(life, Life::Orderly | Life::Last) {
            self.common.model().end_in_order();
            self.common.over.store(true, Ordering::SeqCst);
            daemon.end_in_order().await?;
        } else {
            self.common.over.store(true, Ordering::SeqCst);
            daemon.kill();
        }
        let hung = |_| "a client is not let go by a daemon that is gone".to_owned();
        let workers = timeout(PATIENCE, clients.join_all()).await.map_err(hung)?;
        self.workers.extend(workers.into_iter().collect::<Check<Vec<Worker>>>()?);
        timeout(PATIENCE, follower.join_all()).await.map_err(hung)?.into_iter().collect::<Check>()?;
        self.common.model().die();
        Ok(())
    }

    /// Holds what a daemon shows that has just started against all that is known.
    async fn verify(&self, client: &mut Client, address: SocketAddr) -> Check {
        let (began, mut pending) = (Instant::now(), self.common.model().names());
        loop {
            let views = list(client).await?;
            self.common.model().settle(&views, &mut pending)?;
            let Some(name) = pending.first() else { break };
            if began.elapsed() > COMEBACK {
                return Err(self.common.model().unsettled(name, views.get(name)));
            }
            sleep(Duration::from_millis(10)).await;
        }
        let modules = client.request::<Value>(&["modules"]).await.map_err(|e| e.to_string())?;
        self.common.model().settle_modules(&modules)?;
        let views = list(client).await?;
        self.common.model().check_directories(&self.root(), &views)?;
        self.agree(client, address).await
    }

    /// The events and the list tell the same; each name at some moment, for some go on changing.
    async fn agree(&self, client: &mut Client, address: SocketAddr) -> Check {
        let (began, mut pending) = (Instant::now(), None);
        loop {
            let views = list(client).await?;
            // Some that are known, too: they have to be as they were.
            let known = self.common.model().events.newest();
            let newest = read_events(&self.common, address, known.saturating_sub(20), false).await?;
            if newest.unwrap_or(0) < known {
                return Err(format!("events up to {known} were shown before, and now only up to {newest:?}"));
            }
            let Some(contradiction) = self.contradiction(&views, &mut pending)? else { return Ok(()) };
            if began.elapsed() > AGREEMENT {
                return Err(contradiction);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// What list and events tell differently, of names that are `pending`; those that agree go.
    fn contradiction(
        &self,
        views: &BTreeMap<String, View>,
        pending: &mut Option<BTreeSet<String>>,
    ) -> Check<Option<String>> {
        let events = &mut self.common.model().events;
        events.apply()?;
        let shown: BTreeMap<&str, &View> = views.values().map(|view| (view.name.as_str(), view)).collect();
        let all = || events.names().into_iter().chain(shown.keys().map(|name| (*name).to_owned())).collect();
        let pending = pending.get_or_insert_with(all);
        let contradiction = |name: &str| events.contradiction(name, shown.get(name).copied());
        pending.retain(|name| contradiction(name).is_some());
        Ok(pending.first().map(|name| format!("'{name}': {}", contradiction(name).unwrap_or_default())))
    }

    /// How long starts took, and what was tried.
    fn report(&mut self, cycles: u64) -> Check {
        self.starts.sort();
        let slow = self.starts.iter().filter(|start| **start > START).count();
        let (median, max) = (self.starts[self.starts.len() / 2], *self.starts.last().unwrap());
        say(&format!("from spawn to ping: median {median:?}, at most {max:?}, of {} starts", self.starts.len()));
        let model = self.common.model();
        let rows =
            model.tally.iter().map(|(kind, [done, refused, unknown])| format!("{kind} {done}/{refused}/{unknown}"));
        say(&format!("done/refused/not answered: {}", rows.collect::<Vec<_>>().join(", ")));
        say(&format!("{} events", model.events.newest()));
        if max > START_MAX || slow > (self.starts.len() / 50).max(1) {
            return Err(format!("{slow} starts took more than {START:?}, one of them {max:?}"));
        }
        // A test that tries nothing finds nothing.
        let untried = model.tally.iter().find(|(_, [done, _, _])| *done == 0);
        let unanswered: u64 = model.tally.values().map(|counts| counts[2]).sum();
        if cycles >= 100 && (model.tally.len() < KINDS || untried.is_some() || unanswered == 0) {
            return Err(format!("not everything was tried: {:?}", model.tally));
        }
        Ok(())
    }
}

async fn list(client: &mut Client) -> Check<BTreeMap<String, View>> {
    views(&client.request::<Value>(&["list"]).await.map_err(|e| format!("list: {e}"))?)
}

/// Past the capture of the test's output, so that a person sees it.
fn say(what: &str) {
    let _printed = writeln!(std::io::stderr(), "crash: {what}");
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost() {
    #[expect(clippy::disallowed_methods, reason = "each run tries something else")]
    let clock = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    let seed = number("CORACLE_CRASH_SEED").unwrap_or_else(|| u64::try_from(clock()).unwrap());
    let cycles = number("CORACLE_CRASH_CYCLES").unwrap_or(200);
    say(&format!("CORACLE_CRASH_SEED={seed} CORACLE_CRASH_CYCLES={cycles}"));
    let mut test = Test::new(seed);
    for cycle in 0..=cycles {
        let life = match test.random.below(40) {
            _ if cycle == cycles => Life::Last,
            0..2 => Life::Orderly,
            2..7 => Life::InRecovery,
            7..15 => Life::Unseen,
            _ => Life::Seen,
        };
        test.common.model().cycle = cycle;
        if let Err(why) = test.live(life).await {
            fail(test, seed, &format!("cycle {cycle} ({life:?}): {why}"));
        }
    }
    if let Err(why) = test.report(cycles) {
        fail(test, seed, &why);
    }
}

fn fail(test: Test, seed: u64, why: &str) -> ! {
    let log = std::fs::read(test.directory.path().join("stderr")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log[log.len().saturating_sub(8192)..]).into_owned();
    let kept = test.directory.keep();
    panic!("CORACLE_CRASH_SEED={seed}, {why}\nthe daemon's log ends:\n{log}\neverything is left in {}", kept.display());
}
