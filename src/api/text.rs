//! The line protocol: read a request, call the supervisor, write the reply. `docs/protocol.md` specifies it.

use super::ahead::Ahead;
use super::connection::{self, Closed, Incoming, Outgoing};
use super::guard::Guard;
use super::several::Gone;
use super::streams::event_line;
use crate::config::{Limits, fixed};
use crate::daemon::{Attachment, Compiling, Supervisor};
use crate::engine::{self, StdinPipe};
use crate::error::{Error, Result};
use crate::model::escape;
use crate::model::filter::{Filter, parse_labels};
use crate::model::frame;
use crate::model::instance::{RunSpec, Share};
use crate::model::mount::{self, Mount};
use crate::model::name::Name;
use crate::model::reply::{self, Hello, Input, Reply, StreamEvent, json_error, plain_error};
use crate::model::request::{
    self, Condition, Parsed, PruneArgs, PutArgs, Request, RmArgs, RunArgs, StopArgs, WaitArgs, WireFormat,
};
use crate::model::run_args::ARGUMENTS_MAX;
use crate::transport::Stream;
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::watch;

/// The version of the protocol, for `hello`.
pub const PROTOCOL: u32 = 1;

/// What this daemon can do, for `hello`.
const FEATURES: [&str; 12] =
    ["run", "attach", "stdin", "put", "get", "logs-follow", "json", "restart", "events", "limits", "auth", "stats"];

/// What came of a request, for the connection.
pub(super) enum Outcome {
    /// Go on with the next one.
    Next,
    /// The peer is gone, or the protocol is out of step: close.
    Close,
    /// Close when the daemon is gone.
    UntilTheEnd,
}

pub(super) struct Connection {
    pub(super) supervisor: Supervisor,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    pub(super) format: WireFormat,
    guard: Guard,
    /// Refusals in a row that were about the form of requests.
    pub(super) refusals: u32,
}

impl Connection {
    pub(super) fn new(stream: Stream, supervisor: Supervisor, limits: &Limits, guard: Guard) -> Connection {
        let (incoming, mut outgoing) = connection::split(stream, limits);
        outgoing.until = guard.until();
        Connection { supervisor, incoming, outgoing, format: WireFormat::Plain, guard, refusals: 0 }
    }

    pub(super) async fn serve(mut self) {
        let mut ahead = Ahead::default();
        loop {
            match ahead.watch(self.one()).await {
                Ok(Outcome::Next) if self.refusals < fixed::REFUSALS_MAX => ahead.breathe().await,
                Ok(Outcome::Next | Outcome::Close) => break,
                // The close is what tells that the state directory is free again.
                Ok(Outcome::UntilTheEnd) => {
                    return self.supervisor.clone().keep(Box::new((self.incoming, self.outgoing)));
                }
                Err(error) => return self.refuse(&error).await,
            }
        }
        self.outgoing.finish().await;
        self.incoming.linger().await;
    }

    /// Waits for a request, and answers it. An error closes the connection.
    async fn one(&mut self) -> Result<Outcome> {
        // Programs end their lines; for them silence is only a slow network.
        let silence = self.format == WireFormat::Plain;
        let line = tokio::select! {
            biased;
            // First: one that goes on asking what it may ask is not to stay for ever.
            error = self.guard.too_late() => Err(Closed::Refused(error)),
            line = self.incoming.line(silence) => line,
            () = self.supervisor.shutdown_requested() => return Ok(Outcome::Close),
        };
        let line = match line {
            Ok(line) => line,
            Err(Closed::Peer) => return Ok(Outcome::Close),
            Err(Closed::Refused(error)) => return Err(error),
        };
        let words = match self.words(&line)? {
            // A blank line, or a comment: no request, and not the first one.
            Ok(words) if words.is_empty() => return Ok(Outcome::Next),
            words => {
                self.incoming.begin();
                self.guard.request()?;
                words
            }
        };
        let parsed = words.and_then(|words| request::parse(&words));
        Ok(match parsed {
            Ok(Parsed::Help(text)) => self.reply(Ok(Reply::Help(text))).await,
            Ok(Parsed::Request(request)) => self.request(request).await,
            Err(error) => {
                self.supervisor.metrics().bad_request();
                self.reply(Err(error)).await
            }
        })
    }

    /// Says why, and closes; nothing that came after is interpreted.
    pub(super) async fn refuse(mut self, error: &Error) {
        tracing::debug!("a connection was refused: {error}");
        if let Outcome::Next = self.reply(Err(error.clone())).await {
            self.outgoing.finish().await;
            self.incoming.linger().await;
        }
    }

    /// The outer error closes the connection: these bytes are nobody's request.
    fn words(&self, line: &[u8]) -> Result<Result<Vec<String>>> {
        // Only who asked for JSON in words may send arrays; so no browser does, and what is in them is the guest's affair.
        if self.format == WireFormat::Json && line.starts_with(b"[") {
            let words = serde_json::from_str::<Vec<String>>(frame::text(line)?);
            let usage = |why: &dyn std::fmt::Display| {
                Error::Usage(format!("a line that begins with [ is a JSON array of words: {why}"))
            };
            return Ok(match words {
                Ok(words) if words.is_empty() => Err(usage(&"it is empty")),
                Ok(words) => Ok(words),
                Err(e) => Err(usage(&e)),
            });
        }
        Ok(request::split(frame::request_text(line)?))
    }

    pub(super) async fn reply(&mut self, result: Result<Reply>) -> Outcome {
        match &result {
            Ok(_) => self.refusals = 0,
            Err(Error::UnknownVerb(_) | Error::MissingArgument(_) | Error::Usage(_)) => self.refusals += 1,
            Err(_) => {}
        }
        let text = match (&result, self.format) {
            (Ok(reply), WireFormat::Plain) => reply.plain(),
            (Ok(reply), WireFormat::Json) => reply.json(),
            (Err(error), WireFormat::Plain) => plain_error(error),
            (Err(error), WireFormat::Json) => json_error(error),
        };
        self.deliver(&text).await
    }

    /// Sends a piece of a reply.
    pub(super) async fn deliver(&mut self, text: &str) -> Outcome {
        match self.outgoing.send(text).await {
            Ok(()) => Outcome::Next,
            Err(e) => {
                tracing::debug!("a reply did not arrive: {e}");
                Outcome::Close
            }
        }
    }

    async fn event(&mut self, event: StreamEvent) -> std::io::Result<()> {
        self.outgoing.stream(&event_line(event)).await
    }

    /// Sends lines of a stream. What they say may be many times as long as what they are made of: no more of it is put into
    /// words than is sent at a time.
    pub(super) async fn stream(&mut self, lines: impl IntoIterator<Item = String>) -> std::io::Result<()> {
        let mut text = String::new();
        for line in lines {
            text.push_str(&line);
            if text.len() >= fixed::REPLY_PIECE_BYTES {
                self.outgoing.stream(&text).await?;
                text.clear();
            }
        }
        match text.is_empty() {
            true => Ok(()),
            false => self.outgoing.stream(&text).await,
        }
    }

    /// The whole surface: one arm a verb.
    async fn request(&mut self, request: Request) -> Outcome {
        self.supervisor.metrics().request(&request);
        if !self.guard.is_open() && !request.is_for_everybody() {
            return self.not_for_you(Error::Unproved).await;
        }
        let supervisor = self.supervisor.clone();
        if let Some(names) = request.names()
            && let Err(error) = request::distinct(names)
        {
            return self.reply(Err(error)).await;
        }
        let result = match request {
            Request::Run(args) => return self.run(*args).await,
            Request::Stop(args) => {
                let ask = |supervisor: &Supervisor, name: &Name| supervisor.stop(name, args.time);
                return self.end_each(&args.names, ask, Reply::Stopped).await;
            }
            Request::Kill(names) => return self.end_each(&names.names, Supervisor::kill, Reply::Killed).await,
            Request::Wait(args) => return self.wait(args).await,
            Request::Restart(args) => return self.restart(args).await,
            Request::Logs(args) => return self.logs(&args).await,
            Request::Events(args) => return self.events(&args).await,
            Request::Put(args) => return self.put(args).await,
            Request::Get(args) => return self.get(&args.name).await,
            Request::Rm(args) => return self.remove(args).await,
            Request::Prune(args) => self.prune(&args).await,
            Request::List(args) => return self.list(&args).await,
            Request::Stats(args) => return self.stats(&args).await,
            Request::Inspect(args) => return self.inspect(&args.names).await,
            Request::Limits(_) => Ok(Reply::Limits(supervisor.limit_views())),
            Request::Modules(_) => Ok(Reply::Modules(supervisor.modules().await)),
            Request::Forget(names) => return self.forget(&names.names).await,
            Request::Auth(args) => match self.guard.auth(&args) {
                Err(error @ Error::NotProved(_)) => return self.not_for_you(error).await,
                answer => {
                    self.outgoing.until = self.guard.until();
                    answer
                }
            },
            Request::Hello => Ok(Reply::Hello(hello())),
            Request::Ping => Ok(Reply::Pong),
            Request::Format { format } => {
                self.format = format;
                Ok(Reply::Format(format))
            }
            Request::Help { .. } => Err(Error::Internal("help is answered by the grammar".into())),
            Request::Shutdown => {
                // Said or not, it is done.
                let _said = self.reply(Ok(Reply::ShuttingDown)).await;
                supervisor.shut_down();
                return Outcome::UntilTheEnd;
            }
        };
        self.reply(result).await
    }

    /// Refuses because of who asks: later each time, and not for ever.
    async fn not_for_you(&mut self, error: Error) -> Outcome {
        self.supervisor.metrics().not_for_you();
        let again = self.guard.failed().await;
        match self.reply(Err(error)).await {
            Outcome::Next if again => Outcome::Next,
            _ => Outcome::Close,
        }
    }

    async fn run(&mut self, args: RunArgs) -> Outcome {
        let attach = args.attach;
        let spec = match self.run_spec(args.clone()) {
            Ok(spec) => spec,
            Err(error) => return self.reply(Err(error)).await,
        };
        let module = spec.module.clone();
        let supervisor = self.supervisor.clone();
        let progress = watch::Sender::new(None);
        let run = supervisor.run(spec, attach, |compiling| {
            progress.send_replace(Some(compiling));
        });
        let started = if attach {
            match self.while_compiling(&module, progress.subscribe(), run).await {
                Some(started) => started,
                None => return Outcome::Close,
            }
        } else {
            // A client that only sends `run` and leaves gets what it asked for.
            run.await
        };
        match started {
            Ok(started) => match started.attachment {
                Some(attachment) => self.attached(started.created, attachment).await,
                None => self.reply(Ok(Reply::Created(started.created))).await,
            },
            Err(error) => self.reply(Err(error)).await,
        }
    }

    /// Does `work`, and tells the client how far it is when it has to wait for a compilation. `None`: the client is gone, and
    /// nobody would see what comes of the work; it is given up.
    async fn while_compiling<T>(
        &mut self,
        module: &Name,
        mut progress: watch::Receiver<Option<Compiling>>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Some(done),
                Ok(()) = progress.changed() => {
                    let now = *progress.borrow_and_update();
                    if let Some(compiling) = now {
                        self.event(compiling_event(module, compiling)).await.ok()?;
                    }
                }
                () = self.incoming.gone() => return None,
            }
        }
    }

    fn run_spec(&self, args: RunArgs) -> Result<RunSpec> {
        if args.attach && self.format != WireFormat::Json {
            return Err(Error::Usage("--attach streams events, which needs `format json` first".into()));
        }
        if args.interactive && !args.attach {
            return Err(Error::Usage(
                "-i needs a client that stays attached: `coracle run -i`, or --attach on the wire".into(),
            ));
        }
        let module: Name = args.module().parse()?;
        let name: Name = match &args.name {
            Some(name) => name.parse()?,
            None => module.clone(),
        };
        if let Some(bad) = args
            .argv0
            .iter()
            .map(String::as_str)
            .chain(args.guest_args().iter().map(String::as_str))
            .find(|a| a.contains('\0'))
        {
            return Err(Error::Usage(format!("an argument cannot hold a NUL: {}", escape::short(bad, 40))));
        }
        if args.guest_args().len() > ARGUMENTS_MAX {
            let limit = ARGUMENTS_MAX.to_string();
            return Err(Error::Limit { what: "the number of arguments", limit, name: "put them into a file" });
        }
        let mounts: Vec<Mount> = args.mounts().cloned().collect();
        mount::check_together(&mounts).map_err(Error::Usage)?;
        let limits = self.supervisor.limits();
        Ok(RunSpec {
            mounts,
            env: args.environment()?,
            args: args.guest_args().to_vec(),
            stdin: args.interactive,
            memory_bytes_max: args.memory.unwrap_or(limits.memory_bytes_max),
            disk_bytes_max: args.disk.unwrap_or(limits.disk_bytes_max),
            files_max: args.files.unwrap_or(limits.files_max),
            timeout: args.timeout.or(limits.timeout.0),
            cpu_time: args.cpu_time.or(limits.cpu_time.0),
            share: Share {
                weight: args.cpu_weight.unwrap_or(limits.cpu_weight),
                cpus_milli: args.cpus.or(limits.cpus_milli.0),
            },
            restart: args.restart.unwrap_or_default(),
            remove: args.rm,
            labels: parse_labels(&args.label)?,
            sha256: args.sha256,
            argv0: args.argv0,
            module,
            name,
        })
    }

    /// Streams a run: output as it comes, input as it is sent, then how it ended. When the client goes, the run goes on.
    async fn attached(&mut self, created: reply::Created, attachment: Attachment) -> Outcome {
        if self.event(StreamEvent::Created(created)).await.is_err() {
            return Outcome::Close;
        }
        let stdin = attachment.stdin();
        let mut open = stdin.is_some();
        let mut waiting = Bytes::new();
        loop {
            let room = async {
                match stdin {
                    Some(stdin) if !waiting.is_empty() => stdin.writable().await,
                    _ => std::future::pending().await,
                }
            };
            let heard = async {
                match (open, waiting.is_empty()) {
                    (true, true) => Heard::Line(self.incoming.line(false).await),
                    // The guest has to take what is there before more is read: the client waits, as behind a pipe.
                    (true, false) => std::future::pending().await,
                    (false, _) => {
                        self.incoming.gone().await;
                        Heard::Gone
                    }
                }
            };
            // In no order: a guest that always prints must not keep its input from it.
            tokio::select! {
                outputs = attachment.next() => match outputs {
                    Some(outputs) => {
                        let lines = outputs.into_iter().map(|output| event_line(StreamEvent::Output(output)));
                        if self.stream(lines).await.is_err() {
                            return Outcome::Close;
                        }
                    }
                    None => break,
                },
                () = room => if let Some(stdin) = stdin {
                    stdin.push(&mut waiting);
                },
                heard = heard => match heard {
                    Heard::Line(Ok(line)) => match parse_input(&line) {
                        Ok(Some(bytes)) => waiting = bytes,
                        Ok(None) => open = end_input(stdin),
                        // What follows cannot be told from a request any more.
                        Err(error) => return self.close_with(error).await,
                    },
                    Heard::Line(Err(Closed::Peer)) => open = end_input(stdin),
                    Heard::Line(Err(Closed::Refused(error))) => return self.close_with(error).await,
                    Heard::Gone => return Outcome::Close,
                },
            }
        }
        let view = attachment.ended().await;
        match self.reply(Ok(Reply::Waited(Box::new(view)))).await {
            // Input may still be on its way, and could be taken for requests.
            Outcome::Next if stdin.is_some() => Outcome::Close,
            outcome => outcome,
        }
    }

    async fn close_with(&mut self, error: Error) -> Outcome {
        // Sent or not, the connection closes.
        let _closing = self.reply(Err(error)).await;
        Outcome::Close
    }

    async fn wait(&mut self, args: WaitArgs) -> Outcome {
        match args.condition {
            Condition::Stopped => {
                self.end_each(&args.names, |supervisor, name| supervisor.wait(name).map(Some), Reply::Waited).await
            }
            Condition::Running => {
                self.one_by_one(&args.names, Gone::Left, |supervisor, name| async move {
                    supervisor.wait_until_running(&name).await.map(|view| Reply::Running(Box::new(view)))
                })
                .await
            }
        }
    }

    async fn restart(&mut self, args: StopArgs) -> Outcome {
        self.one_by_one(&args.names, Gone::Left, |supervisor, name| async move {
            supervisor.restart(&name, args.time).await.map(Reply::Restarted)
        })
        .await
    }

    async fn inspect(&mut self, names: &[String]) -> Outcome {
        self.one_by_one(names, Gone::Left, |supervisor, name| async move {
            supervisor.inspect(&name).await.map(|view| Reply::Inspected(Box::new(view)))
        })
        .await
    }

    async fn remove(&mut self, args: RmArgs) -> Outcome {
        self.one_by_one(&args.names, Gone::Done, |supervisor, name| async move {
            supervisor.remove(&name, args.force, args.volumes).await.map(|()| Reply::Removed(name))
        })
        .await
    }

    async fn prune(&self, args: &PruneArgs) -> Result<Reply> {
        let filter = Filter::of_prune(&args.filter)?;
        self.supervisor.prune(&filter, args.volumes).await.map(Reply::Pruned)
    }

    async fn forget(&mut self, names: &[String]) -> Outcome {
        self.one_by_one(names, Gone::Done, |supervisor, name| async move {
            supervisor.forget(&name).await.map(|()| Reply::Forgotten(name))
        })
        .await
    }

    async fn put(&mut self, args: PutArgs) -> Outcome {
        match self.receive(&args).await {
            Ok(result) => self.reply(result.map(Reply::Stored)).await,
            Err(Closed::Peer) => Outcome::Close,
            Err(Closed::Refused(error)) => self.close_with(error).await,
        }
    }

    /// The outer error closes the connection: bytes that were announced and are not wanted cannot be told from requests.
    async fn receive(&mut self, args: &PutArgs) -> Result<Result<reply::ModuleView>, Closed> {
        let Some(size) = args.size else {
            return Ok(Err(Error::Usage("put on the wire is `put NAME --size BYTES`, and then the bytes".into())));
        };
        // In JSON the client waits to be asked for the bytes; in plain they follow at once, whatever comes of it.
        let refused = |error| match self.format {
            WireFormat::Json => Ok(Err(error)),
            WireFormat::Plain => Err(Closed::Refused(error)),
        };
        let name: Name = match args.name.as_ref().unwrap_or(&args.module).parse() {
            Ok(name) => name,
            Err(error) => return refused(error),
        };
        if let Some(sha256) = &args.sha256
            && self.format == WireFormat::Json
        {
            match self.supervisor.put_known(&name, sha256, args.wat).await {
                Ok(Some(view)) => return Ok(Ok(view)),
                Ok(None) => {}
                Err(error) => return refused(error),
            }
        }
        let mut upload = match self.supervisor.begin_put(&name, size, args.wat) {
            Ok(upload) => upload,
            Err(error) => return refused(error),
        };
        if self.format == WireFormat::Json && self.event(StreamEvent::Ready { bytes: size }).await.is_err() {
            return Err(Closed::Peer);
        }
        let until = self.incoming.transfer_until(size);
        while upload.missing() > 0 {
            let bytes = self.incoming.bytes(upload.missing(), until).await?;
            upload = upload.write(bytes).await.map_err(Closed::Refused)?;
        }
        let progress = watch::Sender::new(None);
        let finish = upload.finish(args.sha256.as_deref(), |compiling| {
            progress.send_replace(Some(compiling));
        });
        match self.format {
            WireFormat::Json => self.while_compiling(&name, progress.subscribe(), finish).await.ok_or(Closed::Peer),
            WireFormat::Plain => Ok(finish.await),
        }
    }
}

/// What an attached client did.
enum Heard {
    Line(Result<Bytes, Closed>),
    Gone,
}

/// No more input; always false, for whether it is open.
fn end_input(stdin: Option<&StdinPipe>) -> bool {
    if let Some(stdin) = stdin {
        stdin.close();
    }
    false
}

fn compiling_event(module: &Name, compiling: Compiling) -> StreamEvent {
    let (queued, elapsed) = match compiling {
        Compiling::Waiting { place } => (Some(place), Duration::ZERO),
        Compiling::Since(begun) => (None, begun.elapsed()),
    };
    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    StreamEvent::Compiling { module: module.clone(), queued, elapsed_ms }
}

fn hello() -> Hello {
    Hello {
        program: "coracle".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: PROTOCOL,
        engine: engine::VERSION.to_owned(),
        features: FEATURES.map(str::to_owned).to_vec(),
    }
}

/// A line of an attached client: bytes for the guest, or `None` for the end of its input.
fn parse_input(line: &[u8]) -> Result<Option<Bytes>> {
    let bad = |why: String| Error::Usage(format!("while attached with -i, a line is {{\"stdin\":…}}: {why}"));
    let input: Input = serde_json::from_str(frame::text(line)?).map_err(|e| bad(e.to_string()))?;
    match input.stdin {
        None => Ok(None),
        Some(data) => data.into_bytes().map(Some).ok_or_else(|| bad("broken base64".into())),
    }
}
