//! Some instances of one kind: started, brought so far, stopped, looked for, and their names used again.

use super::daemon::{Daemon, soon};
use super::kinds::{Kind, Ready};
use coracle::client::{Client, ClientError, Next};
use coracle::error::Code;
use coracle::model::reply::StreamEvent;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// How long nothing must happen after the stops. The long one is longer than a pause before a third run, and than the kernel
/// lets a writer wait for the disk.
const WINDOW: Duration = Duration::from_millis(100);
const WINDOW_LONG: Duration = Duration::from_millis(600);
/// How long after the reply a write may begin: one that the guest had asked for may be in a queue of the daemon still.
const WRITE_LATE: Duration = Duration::from_secs(10);
/// Memory of all greedy instances together, in MiB, and the most of one.
const GREEDY_MIB: usize = 1024;
const GREEDY_MIB_EACH: usize = 256;
/// What the process may have more after a round of greedy ones than before, in bytes: heaps are not given back at once.
const MEMORY_SLACK: u64 = 64 << 20;
/// Entries of all huge directories together.
const ENTRIES: usize = 5_000;

/// At how many moments of a start it is stopped, a request's time apart.
const MOMENTS: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// One after the other, while those that are left go on.
    InTurn,
    /// All at the same time, each by a client of its own.
    AtOnce,
}

impl How {
    pub fn as_str(self) -> &'static str {
        match self {
            How::InTurn => "in turn",
            How::AtOnce => "at once",
        }
    }
}

pub struct Round<'a> {
    daemon: &'a Daemon,
    kind: &'a Kind,
    how: How,
    names: Vec<String>,
    /// Which round of all, so that no two compile the same.
    number: usize,
}

impl<'a> Round<'a> {
    pub fn new(daemon: &'a Daemon, kind: &'a Kind, how: How, instances: usize, number: usize) -> Round<'a> {
        let names = (0..instances).map(|i| format!("{}-{i}", kind.name)).collect();
        Round { daemon, kind, how, names, number }
    }

    /// From request to reply of each stop, and how long the daemon was busy behind the last.
    pub async fn run(self) -> (Vec<Duration>, Duration) {
        let mut client = self.daemon.client().await;
        self.prepare(&mut client).await;
        let memory_before = self.daemon.memory_bytes();
        let mut attached = vec![];
        for (i, name) in self.names.iter().enumerate() {
            attached.extend(self.start(&mut client, name, i).await);
        }
        for name in &self.names {
            self.wait_until_ready(&mut client, name).await;
        }
        let stops = match self.how {
            How::InTurn => self.stop_in_turn().await,
            How::AtOnce => self.stop_at_once().await,
        };
        let (logged, replied) = (self.daemon.log_bytes(), self.daemon.file_clock());
        let (times, views): (Vec<Vec<Duration>>, Vec<Value>) = stops.into_iter().unzip();
        for (name, view) in self.names.iter().zip(&views) {
            self.check(name, view);
        }
        self.release(attached, &views).await;
        // By turns at once, and after it was seen that nothing goes on.
        let at_once = self.number.is_multiple_of(2);
        if at_once {
            self.use_again(&mut client).await;
        }
        let long = self.kind.ready == Ready::Restarted || self.kind.writes_file();
        let window = if long { WINDOW_LONG } else { WINDOW };
        let busy = self.daemon.quiet(window, self.kind.name, || self.written()).await;
        assert!(self.daemon.log_bytes() <= logged, "{}: output after the reply", self.kind.name);
        for (_, modified) in self.written().1.into_iter().flatten() {
            assert!(modified <= replied + WRITE_LATE, "{}: it writes on", self.kind.name);
        }
        if !at_once {
            self.still_as_told(&mut client, &views).await;
            self.use_again(&mut client).await;
        }
        if self.kind.greedy {
            let more = self.daemon.memory_bytes().saturating_sub(memory_before);
            assert!(more <= MEMORY_SLACK, "{}: {} MiB are not given back", self.kind.name, more >> 20);
        }
        self.remove(&mut client).await;
        (times.into_iter().flatten().collect(), busy)
    }

    async fn prepare(&self, client: &mut Client) {
        if !self.kind.lists_directory() {
            return;
        }
        // The daemon lends no directory that it has not made.
        self.use_again(client).await;
        for name in &self.names {
            let directory = self.daemon.directory_of(name);
            for i in 0..ENTRIES / self.names.len() {
                std::fs::write(directory.join(format!("an-entry-of-a-huge-directory-{i}")), "").unwrap();
            }
        }
    }

    /// The client of an attached run, if it is one.
    async fn start(&self, client: &mut Client, name: &str, index: usize) -> Option<Client> {
        let module = match self.kind.ready {
            Ready::Compiling => self.own_module(index),
            _ => self.kind.module.to_owned(),
        };
        let memory = format!("{}m", (GREEDY_MIB / self.names.len()).clamp(1, GREEDY_MIB_EACH));
        let mut words = vec!["--name", name];
        words.extend(self.kind.options);
        if self.kind.greedy {
            words.extend(["-m", &memory]);
        }
        match self.kind.ready {
            Ready::Attached | Ready::Compiling => {
                let mut attached = self.daemon.client().await;
                attached.send(&[&["run", "--attach", "-i"], &words[..], &[&module]].concat()).await.unwrap();
                loop {
                    let next = soon("an event", attached.next::<Value>()).await.unwrap();
                    match (self.kind.ready, &next) {
                        (Ready::Compiling, Next::Event(StreamEvent::Compiling { .. })) => break,
                        (Ready::Attached, Next::Event(StreamEvent::Created(_))) => break,
                        (Ready::Attached, Next::Event(StreamEvent::Compiling { .. })) => {}
                        _ => panic!("{name}: {next:?}"),
                    }
                }
                return Some(attached);
            }
            // Begun by whoever stops it.
            Ready::Starting => {}
            _ => {
                words.push(&module);
                client.run(&words).await.unwrap();
            }
        }
        None
    }

    /// A module that takes a while to compile and then computes for ever; no two are the same.
    fn own_module(&self, index: usize) -> String {
        let name = format!("large-{}-{index}", self.number);
        let mut bytes = large_module().to_vec();
        // A custom section (id 0) named `n`.
        let content = [&[1, b'n'], name.as_bytes()].concat();
        bytes.extend([0, u8::try_from(content.len()).unwrap()]);
        bytes.extend(content);
        std::fs::write(self.daemon.modules().join(format!("{name}.wasm")), bytes).unwrap();
        name
    }

    async fn wait_until_ready(&self, client: &mut Client, name: &str) {
        let what = format!("{name}: {:?}", self.kind.ready);
        match self.kind.ready {
            Ready::Running | Ready::Attached => {
                let _running: Value =
                    soon(&what, client.request(&["wait", "--condition", "running", name])).await.unwrap();
            }
            Ready::Output => {
                let mut follower = self.daemon.client().await;
                follower.send(&["logs", "-f", name]).await.unwrap();
                let printed = soon(&what, follower.next::<Value>()).await.unwrap();
                assert!(matches!(printed, Next::Event(StreamEvent::Output(_))), "{name}: {printed:?}");
            }
            Ready::Ended => {
                let _ended: Value = soon(&what, client.request(&["wait", name])).await.unwrap();
            }
            Ready::Restarted => {
                soon(&what, async {
                    while client.request::<Value>(&["inspect", name]).await.unwrap()["restarts"].as_u64() < Some(2) {
                        tokio::task::yield_now().await;
                    }
                })
                .await;
            }
            Ready::Compiling | Ready::Starting => {}
        }
    }

    async fn stopper(&self) -> Stopper {
        let runner = match self.kind.ready {
            Ready::Starting => Some((self.daemon.client().await, self.kind.module)),
            _ => None,
        };
        Stopper { client: self.daemon.client().await, runner, stops: self.number }
    }

    async fn stop_in_turn(&self) -> Vec<(Vec<Duration>, Value)> {
        let mut stoppers = vec![];
        for _ in 0..self.kind.clients {
            stoppers.push(self.stopper().await);
        }
        let mut all = vec![];
        for name in &self.names {
            let stops = stoppers.drain(..).map(|stopper| (stopper, name.clone()));
            let (mut times, mut told) = (vec![], vec![]);
            for (stopper, time, view) in at_once(stops.collect()).await {
                stoppers.push(stopper);
                times.push(time);
                told.push(view);
            }
            told.dedup();
            assert_eq!(told.len(), 1, "all who stop '{name}' are told the same: {told:?}");
            all.push((times, told.remove(0)));
        }
        all
    }

    async fn stop_at_once(&self) -> Vec<(Vec<Duration>, Value)> {
        let mut stops = vec![];
        for name in &self.names {
            stops.push((self.stopper().await, name.clone()));
        }
        at_once(stops).await.into_iter().map(|(_, time, view)| (vec![time], view)).collect()
    }

    /// What a stop answered is one of the ends that it may have, and whole.
    fn check(&self, name: &str, view: &Value) {
        let state = view["state"].as_str().unwrap();
        assert!(self.kind.ends.contains(&state), "{view}");
        assert_eq!(view["name"], name);
        let exit_code = match state {
            "never-started" => return,
            "stopped" => {
                assert_eq!((&view["reason"], &view["stop_requested"]), (&json!("stop"), &json!(true)), "{view}");
                143
            }
            _ => 134,
        };
        assert_eq!(view["exit_code"], exit_code, "{view}");
        assert!(view["ended_at"].is_string(), "{view}");
    }

    /// Clients of attached runs are told the same, and let go.
    async fn release(&self, attached: Vec<Client>, views: &[Value]) {
        let prevented = views.iter().filter(|view| view["state"] == "never-started").count();
        if self.kind.ready == Ready::Compiling {
            assert!(prevented > 0, "{}: each was compiled before its stop came", self.kind.name);
        }
        for (mut client, view) in attached.into_iter().zip(views) {
            let last = loop {
                match soon("the end of an attached run", client.next::<Value>()).await {
                    Ok(Next::Event(_)) => {}
                    Ok(Next::End(last)) => break Some(last),
                    Err(ClientError::Refused(refusal)) if refusal.code == Code::Busy => break None,
                    Err(e) => panic!("{}: {e}", self.kind.name),
                }
            };
            match last {
                Some(last) => assert_eq!(&last, view),
                None => assert_eq!(view["state"], "never-started"),
            }
        }
    }

    /// What can be seen of the files that guests write.
    fn written(&self) -> (u64, Vec<Option<(u64, SystemTime)>>) {
        let file = |name: &String| {
            let metadata = std::fs::metadata(self.daemon.directory_of(name).join("data")).ok()?;
            Some((metadata.len(), metadata.modified().unwrap()))
        };
        (self.daemon.log_bytes(), self.names.iter().map(file).collect())
    }

    /// `list` shows what the stops have answered, and nothing else.
    async fn still_as_told(&self, client: &mut Client, views: &[Value]) {
        let list: Value = client.request(&["list"]).await.unwrap();
        let recorded = |view: &&Value| view["state"] != "never-started";
        let by_name = |views: Vec<&Value>| -> BTreeMap<String, Value> {
            views.into_iter().map(|view| (view["name"].to_string(), view.clone())).collect()
        };
        let listed = by_name(list["instances"].as_array().unwrap().iter().collect());
        assert_eq!(listed, by_name(views.iter().filter(recorded).collect()));
    }

    /// Each name can be run under at once, and what is run lives and ends by itself.
    async fn use_again(&self, client: &mut Client) {
        for name in &self.names {
            client.run(&["--name", name, "exit_7"]).await.unwrap();
        }
        for name in &self.names {
            let view: Value = soon("the next run", client.request(&["wait", name])).await.unwrap();
            assert_eq!((&view["state"], &view["exit_code"]), (&json!("exited"), &json!(7)), "{view}");
        }
    }

    /// Leaves nothing to the next round.
    async fn remove(&self, client: &mut Client) {
        for removed in client.each::<Value>(&["rm", "-v"], &self.names).await.unwrap() {
            removed.unwrap();
        }
        let list: Value = client.request(&["list"]).await.unwrap();
        assert_eq!(list, json!({ "instances": [] }));
        for module in std::fs::read_dir(self.daemon.modules()).unwrap() {
            std::fs::remove_file(module.unwrap().path()).unwrap();
        }
        if self.kind.lists_directory() {
            self.daemon.quiet(WINDOW, "the removal of huge directories", || ()).await;
        }
    }
}

/// Who stops, and if it is to be in the middle of a start, who starts what.
struct Stopper {
    client: Client,
    runner: Option<(Client, &'static str)>,
    /// How many there were.
    stops: usize,
}

impl Stopper {
    /// From the request that was not too early to its reply, and what that says.
    async fn stop(&mut self, name: &str) -> (Duration, Value) {
        if let Some((runner, module)) = &mut self.runner {
            runner.send(&["run", "--name", name, module]).await.unwrap();
            // At another moment of the start each time.
            for _ in 0..self.stops % MOMENTS {
                let _pong: Value = self.client.request(&["ping"]).await.unwrap();
            }
        }
        self.stops += 1;
        let (time, view) = loop {
            let asked = Instant::now();
            match soon("the stop", self.client.request::<Value>(&["stop", name])).await {
                Ok(view) => break (asked.elapsed(), view),
                Err(e) if self.runner.is_some() && e.code() == Some(Code::NotFound) => {}
                Err(e) => panic!("stop {name}: {e}"),
            }
        };
        if let Some((runner, _)) = &mut self.runner {
            match soon("the answer to the run", runner.next::<Value>()).await {
                Ok(_) => assert_eq!(view["state"], "stopped", "it was said to run"),
                Err(e) => assert_eq!((e.code(), &view["state"]), (Some(Code::Busy), &json!("never-started")), "{e}"),
            }
        }
        (time, view)
    }
}

/// All stops at the same time, in their order.
async fn at_once(stops: Vec<(Stopper, String)>) -> Vec<(Stopper, Duration, Value)> {
    let barrier = Arc::new(Barrier::new(stops.len()));
    let mut tasks = JoinSet::new();
    for (i, (mut stopper, name)) in stops.into_iter().enumerate() {
        let barrier = Arc::clone(&barrier);
        tasks.spawn(async move {
            barrier.wait().await;
            let (time, view) = stopper.stop(&name).await;
            (i, (stopper, time, view))
        });
    }
    let mut done = tasks.join_all().await;
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, stopped)| stopped).collect()
}

/// Some tenths of a second of compiling, and then an endless loop.
fn large_module() -> &'static [u8] {
    static MODULE: OnceLock<Vec<u8>> = OnceLock::new();
    MODULE.get_or_init(|| {
        let body = "(local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 12345)) (i32.const 777)))".repeat(50);
        let functions = format!("(func (param i32) (result i32) {body} (local.get 0))").repeat(1000);
        let start = "(func (export \"_start\") (loop $again (br $again)))";
        wat::parse_str(format!("(module (memory (export \"memory\") 1) {functions} {start})")).unwrap()
    })
}
