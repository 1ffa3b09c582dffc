//! The harness: a daemon on a free port with a state directory of its own, clients that speak raw bytes, and guests.

use coracle::client::{Client, Target};
use coracle::config::{Config, Limits};
use coracle::daemon::{Query, Supervisor};
use coracle::model::reply::InstanceView;
use coracle::server;
use coracle::transport::token;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// How long a test waits for what has to happen, on a slow machine with other tests beside it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Fails the test if something does not happen.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// Every test guest as a core module (`NAME.wat`) and as a component (`NAME-p2.wasm`), made once.
pub fn guests() -> &'static Path {
    static DIRECTORY: OnceLock<TempDir> = OnceLock::new();
    DIRECTORY
        .get_or_init(|| {
            let directory = tempfile::tempdir().unwrap();
            for entry in std::fs::read_dir(source().join("tests/guests")).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_stem().unwrap().to_str().unwrap();
                std::fs::copy(&path, directory.path().join(format!("{name}.wat"))).unwrap();
                std::fs::write(directory.path().join(format!("{name}-p2.wasm")), component(&path)).unwrap();
            }
            directory
        })
        .path()
}

/// A preview 1 module as a preview 2 component.
fn component(path: &Path) -> Vec<u8> {
    use wasi_preview1_component_adapter_provider::{
        WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    };
    let module = wat::parse_file(path).unwrap();
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .unwrap()
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)
        .unwrap()
        .encode()
        .unwrap_or_else(|e| panic!("{}: {e:#}", path.display()))
}

/// The project's top level.
pub fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

async fn serve(config: Config) -> (SocketAddr, Option<SocketAddr>, Supervisor, JoinHandle<()>) {
    let server = server::start(config).await.unwrap();
    let (address, metrics, supervisor) = (server.address(), server.metrics(), server.supervisor().clone());
    #[expect(clippy::disallowed_methods, reason = "its handle is awaited in `end`")]
    let ended = tokio::spawn(server.ended());
    (address, metrics, supervisor, ended)
}

/// A daemon within the test.
pub struct Harness {
    pub address: SocketAddr,
    /// Where it tells its numbers, if it was asked to.
    pub metrics: Option<SocketAddr>,
    pub supervisor: Supervisor,
    pub root: PathBuf,
    pub state: PathBuf,
    config: Config,
    ended: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Harness {
    pub async fn start() -> Harness {
        Harness::with(|_| ()).await
    }

    pub async fn with_limits(change: fn(&mut Limits)) -> Harness {
        Harness::with(move |config| change(&mut config.limits)).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Harness {
        let directory = tempfile::tempdir().unwrap();
        let (state, root) = (directory.path().join("state"), directory.path().join("root"));
        let mut config = Config::new(([127, 0, 0, 1], 0).into(), state.clone(), root.clone());
        config.module_dirs.push(guests().to_owned());
        config.program = Some(env!("CARGO_BIN_EXE_coracle").into());
        change(&mut config);
        let (address, metrics, supervisor, ended) = serve(config.clone()).await;
        Harness { address, metrics, supervisor, root, state, config, ended: Some(ended), _directory: directory }
    }

    /// Ends the daemon in order, and starts the next one with the same directories.
    pub async fn restart(&mut self) {
        self.end().await;
        self.begin().await;
    }

    /// Starts the next daemon with the same directories.
    pub async fn begin(&mut self) {
        let (address, metrics, supervisor, ended) = serve(self.config.clone()).await;
        (self.address, self.metrics, self.supervisor, self.ended) = (address, metrics, supervisor, Some(ended));
    }

    /// This daemon, with its token where it wants one.
    pub fn target(&self) -> Target {
        Target::tcp(self.address).with_token(Some(token::path(&self.state)))
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.target()).await.unwrap()
    }

    pub fn limits(&self) -> &Limits {
        self.supervisor.limits()
    }

    pub async fn raw(&self) -> Raw {
        Raw::connect(self.address).await
    }

    /// Runs to the end, and says how it ended.
    pub async fn run_to_end(&self, words: &[&str]) -> InstanceView {
        let mut client = self.client().await;
        let created = client.run(words).await.unwrap();
        soon("the end of the run", client.request(&["wait", created.name.as_str()])).await.unwrap()
    }

    /// What `name` printed so far.
    pub async fn log(&self, name: &str) -> String {
        let mut raw = self.raw().await;
        raw.send(&format!("logs {name}\n")).await;
        raw.dotted().await.iter().map(|l| format!("{l}\n")).collect()
    }

    /// Waits until `name` is in the state.
    pub async fn wait_for_state(&self, name: &str, state: &str) -> InstanceView {
        self.wait_for(name, &format!("is {state}"), |view| view.state == state).await
    }

    /// Waits until something is true of `name`.
    pub async fn wait_for(&self, name: &str, what: &str, is: impl Fn(&InstanceView) -> bool) -> InstanceView {
        let mut client = self.client().await;
        soon(&format!("'{name}' {what}"), async {
            loop {
                let list = client.list().await.unwrap();
                if let Some(view) = list.into_iter().find(|view| view.name.as_str() == name && is(view)) {
                    return view;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    /// Waits until `name` has printed something.
    pub async fn wait_for_output(&self, name: &str) {
        soon("output", async {
            loop {
                if let Ok(log) = self.supervisor.log(&name.parse().unwrap()) {
                    let mut reader = log.reader(Query::default());
                    while reader.next().await.unwrap().outputs.is_empty() {
                        if !reader.grown().await {
                            return;
                        }
                    }
                    return;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Waits until one more connection is served.
    pub async fn wait_for_place(&self) {
        soon("a free place", async {
            while self.raw().await.ask("ping").await != "pong" {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Ends the daemon in order.
    pub async fn end(&mut self) {
        self.supervisor.shut_down();
        soon("the daemon's end", self.ended.take().unwrap()).await.unwrap();
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.supervisor.shut_down();
    }
}

/// A client that sends what it is told to.
pub struct Raw {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Raw {
        Raw { stream: TcpStream::connect(address).await.unwrap(), buffer: vec![] }
    }

    pub async fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes()).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// A line without its end; the empty string where the connection was closed.
    pub async fn line(&mut self) -> String {
        soon("a line", async {
            loop {
                if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                    let line: Vec<u8> = self.buffer.drain(..=end).collect();
                    return String::from_utf8(line[..end].to_vec()).unwrap();
                }
                if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                    return String::from_utf8(std::mem::take(&mut self.buffer)).unwrap();
                }
            }
        })
        .await
    }

    pub async fn ask(&mut self, request: &str) -> String {
        self.send(&format!("{request}\n")).await;
        self.line().await
    }

    /// A reply of several lines, without the dot at its end.
    pub async fn dotted(&mut self) -> Vec<String> {
        let mut lines = vec![];
        loop {
            match self.line().await {
                end if end == "." => return lines,
                line => lines.push(line.strip_prefix('.').map_or(line.clone(), str::to_owned)),
            }
        }
    }

    /// All that comes until the daemon closes.
    pub async fn rest(mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.buffer);
        soon("the close", async {
            // A reset after the last byte is a close too.
            while self.stream.read_buf(&mut all).await.unwrap_or(0) > 0 {}
        })
        .await;
        all
    }
}

/// The binary, with a daemon address and directories of its own; nothing of the tester's environment is used.
pub struct Cli {
    pub address: SocketAddr,
    pub directory: TempDir,
}

impl Cli {
    /// For a daemon that is there.
    pub fn of(harness: &Harness) -> Cli {
        Cli { address: harness.address, directory: tempfile::tempdir().unwrap() }
    }

    /// For a free port where nobody listens.
    pub fn alone() -> Cli {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Cli { address: listener.local_addr().unwrap(), directory: tempfile::tempdir().unwrap() }
    }

    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coracle"));
        self.dress(command.args(words));
        command
    }

    /// A line for a shell, to which the program is `coracle`.
    pub fn shell(&self, line: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_coracle"));
        let mut path = program.parent().unwrap().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new("sh");
        self.dress(command.arg("-c").arg(line).env("PATH", path));
        command
    }

    /// This one's address and directories, and nothing of the tester's.
    fn dress(&self, command: &mut Command) {
        command
            .env("CORACLE_HOST", format!("tcp://{}", self.address))
            .env("CORACLE_STATE_DIR", self.directory.path().join("state"))
            .env("CORACLE_ROOT", self.directory.path().join("root"))
            .env_remove("CORACLE_LOG")
            .stdin(Stdio::null());
    }

    /// Runs to the end: exit code, standard output, standard error.
    pub async fn run(&self, words: &[&str]) -> (i32, String, String) {
        let command = self.command(words);
        self.finish(command, b"").await
    }

    /// As [`Cli::run`], with standard input.
    pub async fn run_with_input(&self, words: &[&str], input: &[u8]) -> (i32, String, String) {
        let mut command = self.command(words);
        command.stdin(Stdio::piped());
        self.finish(command, input).await
    }

    pub async fn finish(&self, mut command: Command, input: &[u8]) -> (i32, String, String) {
        let input = input.to_vec();
        let run = tokio::task::spawn_blocking(move || {
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let stdin = child.stdin.take();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    if let Some(mut stdin) = stdin {
                        // A child that ended does not read on.
                        let _closed = std::io::Write::write_all(&mut stdin, &input);
                    }
                });
                child.wait_with_output().unwrap()
            })
        });
        let output = soon("the end of the command", run).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
    }
}

/// Something that is no daemon of ours: agrees to speak JSON, and answers whatever comes next with these lines.
pub struct Impostor {
    pub cli: Cli,
    serving: JoinHandle<()>,
}

impl Impostor {
    pub async fn saying(lines: &[serde_json::Value]) -> Impostor {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        Impostor::answering(text.into_bytes()).await
    }

    pub async fn answering(answer: Vec<u8>) -> Impostor {
        Impostor::agreeing(b"{\"ok\":{\"format\":\"json\"}}\n".to_vec(), answer).await
    }

    /// One that answers this to `format json`, and that to everything else.
    pub async fn agreeing(agreed: Vec<u8>, answer: Vec<u8>) -> Impostor {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut cli = Cli::alone();
        cli.address = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "aborted with its owner")]
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (read, mut write) = stream.into_split();
                let mut lines = tokio::io::BufReader::new(read).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let answer = if line == "format json" { &agreed } else { &answer };
                    if write.write_all(answer).await.is_err() {
                        break;
                    }
                }
            }
        });
        Impostor { cli, serving }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A foreground daemon of the binary.
pub struct Foreground {
    pub child: Child,
    first_line: String,
}

impl Foreground {
    pub fn start(cli: &Cli, words: &[&str]) -> Foreground {
        Foreground::spawn(cli.command(&[&["daemon"], words].concat()))
    }

    /// As the last command of a shell that did something before.
    #[cfg(unix)]
    pub fn start_in_shell(cli: &Cli, before: &str, words: &[&str]) -> Foreground {
        let script = format!("{before}; exec \"$0\" daemon \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_coracle")]).args(words);
        cli.dress(&mut command);
        Foreground::spawn(command)
    }

    fn spawn(mut command: Command) -> Foreground {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut first_line = String::new();
        // No byte more: the lines behind it are somebody else's.
        BufReader::with_capacity(1, child.stdout.as_mut().unwrap()).read_line(&mut first_line).unwrap();
        Foreground { child, first_line: first_line.trim_end().to_owned() }
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.first_line.strip_prefix("listening on ").expect(&self.first_line).parse().unwrap()
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        signal_child(&self.child, signal);
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // It may have ended, as it should.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[cfg(unix)]
pub fn signal_child(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Waits for a child without blocking the test's runtime.
pub async fn exit_code(mut child: Child) -> (i32, String, String) {
    let wait = tokio::task::spawn_blocking(move || {
        let (mut out, mut err) = (String::new(), String::new());
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_string(&mut out).unwrap();
        }
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut err).unwrap();
        }
        (child.wait().unwrap().code().unwrap_or(-1), out, err)
    });
    soon("the end of the command", wait).await.unwrap()
}

/// A directory with `large.wasm`, a module that takes a while to compile and then does nothing.
pub fn large_module(functions: usize) -> TempDir {
    let body = "(local.set 0 (i32.mul (i32.add (local.get 0) (i32.const 12345)) (i32.const 777)))".repeat(50);
    let functions: String =
        (0..functions).map(|_| format!("(func (param i32) (result i32) {body} (local.get 0))")).collect();
    let text = format!("(module (memory (export \"memory\") 1) {functions} (func (export \"_start\")))");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("large.wasm"), wat::parse_str(&text).unwrap()).unwrap();
    directory
}

/// Says in one line what a machine lacks. In CI that is a failure: there everything has to be tried.
pub fn cannot_try(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "in CI nothing may be left out: {what}");
    // Past the capture of the test's output, so that a person sees it.
    use std::io::Write;
    let _printed = writeln!(std::io::stderr(), "not tried here: {what}");
}
