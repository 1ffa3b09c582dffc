//! Speaks the protocol from the far side: the command line, the tests and the benches all use it.

use crate::error::Code;
use crate::model::auth::{Speaker, Token};
use crate::model::reply::{
    ContentView, Created, Input, InstanceView, Line, ModuleView, Refusal, StreamEvent, json_line,
};
use crate::model::stats::Sample;
use crate::model::{escape, hex};
use crate::transport::peer::{self, Owner, Owners, Uid};
use crate::transport::{ReadHalf, Stream, WriteHalf, tls, token};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::TcpStream;

/// The longest line that is taken from a daemon: a list of the most instances that there can be.
const LINE_BYTES_MAX: u64 = 1 << 30;
/// How long a daemon may take to answer a connection.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How often it is looked whether what listens has accepted.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Bytes of names in one request, which has to fit the daemon's longest line with quotes and all.
const NAMES_BYTES: usize = 6000;
/// Bytes of input in one line: base64 and its envelope keep the line within the daemon's limit.
const INPUT_BYTES: usize = 4096;

/// What went wrong between us and a daemon.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("no daemon answers on {to}")]
    Connect {
        /// Where.
        to: Target,
        /// Why.
        source: std::io::Error,
    },
    /// It is somebody else's, and has not shown that it has our token.
    #[error("what answers on {to} is not yours: it belongs to the user with the number {uid}")]
    Foreign {
        /// Where.
        to: Target,
        /// Whose it is.
        uid: u32,
    },
    /// It is of somebody whom our user namespace does not know, and has not shown that it has our token.
    #[error("what answers on {to} is not yours: it belongs to a user who is not known here")]
    Unmapped {
        /// Where.
        to: Target,
    },
    /// One side has not shown the other that it has the token.
    #[error("{0}")]
    Unproved(String),
    /// A file that is needed to connect.
    #[error("{0}")]
    Credentials(crate::Error),
    /// The daemon said no.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The connection broke.
    #[error("the connection to the daemon broke")]
    Broken(#[from] std::io::Error),
    /// Whoever answered does not speak the protocol.
    #[error("this is no coracle daemon, or one of another version: {0}")]
    Protocol(String),
}

impl ClientError {
    /// The daemon's code, if it was the daemon that said no.
    pub fn code(&self) -> Option<Code> {
        match self {
            ClientError::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }
}

/// `Result` with [`ClientError`].
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// Where a daemon is, and what shows it who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    at: At,
    token: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(PathBuf),
    /// The socket of the user's own daemon; where there is none, the address.
    #[cfg(unix)]
    Own(PathBuf, SocketAddr),
    Tls {
        name: String,
        address: SocketAddr,
        authorities: PathBuf,
    },
}

impl Target {
    /// A port of this machine.
    pub fn tcp(address: SocketAddr) -> Target {
        Target { at: At::Tcp(address), token: None }
    }

    /// A Unix socket.
    #[cfg(unix)]
    pub fn unix(path: impl Into<PathBuf>) -> Target {
        Target { at: At::Unix(path.into()), token: None }
    }

    /// The user's own daemon: by its socket, or else at this address.
    #[cfg(unix)]
    pub fn own(socket: impl Into<PathBuf>, address: SocketAddr) -> Target {
        Target { at: At::Own(socket.into(), address), token: None }
    }

    /// A port of any machine, whose certificate is for `name` and one of the authorities (a PEM file) vouches for.
    pub fn tls(name: &str, address: SocketAddr, authorities: impl Into<PathBuf>) -> Target {
        Target { at: At::Tls { name: name.to_owned(), address, authorities: authorities.into() }, token: None }
    }

    /// With the token in this file, where one is wanted.
    #[must_use]
    pub fn with_token(self, file: Option<PathBuf>) -> Target {
        Target { token: file, ..self }
    }

    /// The address of a daemon that could be started there.
    pub fn to_start(&self) -> Option<SocketAddr> {
        match &self.at {
            At::Tcp(address) if address.ip().is_loopback() => Some(*address),
            #[cfg(unix)]
            At::Own(_, address) => Some(*address),
            _ => None,
        }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Target {
        Target::tcp(address)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            At::Tcp(address) => address.fmt(f),
            #[cfg(unix)]
            At::Own(_, address) => address.fmt(f),
            #[cfg(unix)]
            At::Unix(path) => write!(f, "unix:{}", path.display()),
            At::Tls { name, address, .. } => write!(f, "tls://{name}:{}", address.port()),
        }
    }
}

/// A connection in `format json`.
pub struct Client {
    read: BufReader<ReadHalf>,
    write: WriteHalf,
}

/// A reply with one entry for each name that was given.
#[derive(Debug, Deserialize)]
struct Each<T> {
    each: Vec<Line<T>>,
}

/// What `list` answers.
#[derive(Debug, Deserialize)]
struct Instances {
    instances: Vec<InstanceView>,
}

/// What `modules` answers.
#[derive(Debug, Deserialize)]
struct Modules {
    modules: Vec<ModuleView>,
}

/// How a `put` goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutProgress {
    /// This many more bytes went.
    Sent(usize),
    /// All went, and the daemon compiles the module, for so long already.
    Compiling(Duration),
    /// All went, and the module waits to be compiled; 1 is next.
    Queued(usize),
}

/// The next line of a stream.
#[derive(Debug)]
pub enum Next<T> {
    /// There is more to come.
    Event(StreamEvent),
    /// It is over.
    End(T),
}

impl Client {
    /// Connects, shows who we are and sees who it is where that is wanted, and asks for JSON.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`] if nobody listens; [`ClientError::Foreign`] and its kin if it is not the daemon
    /// that we want, or does not want us: nothing but the proof was said then. Others if what listens is no daemon, or does not
    /// answer.
    pub async fn connect(target: impl Into<Target>) -> Result<Client> {
        let target = target.into();
        match tokio::time::timeout(HANDSHAKE, Client::shake_hands(&target)).await {
            Ok(result) => result,
            Err(_) => {
                let limit = humantime::format_duration(HANDSHAKE);
                Err(ClientError::Protocol(format!("what listens on {target} has not answered for {limit}")))
            }
        }
    }

    async fn shake_hands(target: &Target) -> Result<Client> {
        let stream = open(target).await?;
        let connect = |source| ClientError::Connect { to: target.clone(), source };
        let file = target.token.as_deref().filter(|file| file.exists());
        let mut whose = owner(&stream);
        // Only who accepts shows whose it is. Before that whatever is said waits for anybody; a token makes up for it.
        while whose == Owner::Nobody && file.is_none() {
            tokio::time::sleep(LOOK_EVERY).await;
            whose = owner(&stream);
        }
        let channel = stream.channel(false).map_err(connect)?;
        let (read, write) = stream.into_split();
        let mut client = Client { read: BufReader::new(read), write };
        match (whose, file) {
            // The kernel vouches for it.
            (Owner::Is(uid), _) if uid.is_ours_or_root() => {}
            // Whoever else may be there has to show first that it has the token.
            (_, Some(file)) => client.prove(file, &channel).await?,
            (Owner::Is(Uid(uid)), None) => return Err(ClientError::Foreign { to: target.clone(), uid }),
            (Owner::Unmapped | Owner::Nobody, None) => return Err(ClientError::Unmapped { to: target.clone() }),
            // The system does not tell, and there is no token to compare with.
            (Owner::Unknown, None) => {}
        }
        if !client.ask_for_json().await? {
            let file = target.token.as_deref().ok_or_else(|| {
                ClientError::Unproved(format!("the daemon on {target} wants its token (--token-file)"))
            })?;
            client.prove(file, &channel).await?;
            if !client.ask_for_json().await? {
                return Err(ClientError::Protocol("it has taken the token, and does not listen".to_owned()));
            }
        }
        Ok(client)
    }

    /// False: it wants to know first who we are.
    async fn ask_for_json(&mut self) -> Result<bool> {
        // Until this is answered the connection speaks plain, and words go as words.
        let line = self.ask_plainly("format json").await?;
        match serde_json::from_str(&line) {
            Ok(Line::Ok(serde_json::Value::Object(_))) => Ok(true),
            _ if line.starts_with("ERR auth ") => Ok(false),
            _ => Err(refused_plainly(&line).unwrap_or_else(|| ClientError::Protocol(escape::short(&line, 200)))),
        }
    }

    async fn ask_plainly(&mut self, request: &str) -> Result<String> {
        const REPLY_BYTES_MAX: u64 = 4096;
        self.write.send(format!("{request}\n").as_bytes()).await?;
        let mut line = String::new();
        let read = (&mut self.read).take(REPLY_BYTES_MAX).read_line(&mut line).await;
        match read {
            Ok(0) => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into()),
            Ok(_) => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Err(ClientError::Protocol("bytes".to_owned())),
            Err(e) => Err(e.into()),
        }
    }

    /// Both sides show that they have the token, and neither says it; the grammar is [`crate::model::auth`]'s.
    async fn prove(&mut self, file: &Path, channel: &[u8]) -> Result<()> {
        let token: Token = token::read(file).map_err(ClientError::Credentials)?;
        let said = |line: &str| ClientError::Unproved(format!("the token is not taken: {}", escape::short(line, 200)));
        let line = self.ask_plainly("auth").await?;
        let challenge = line.strip_prefix("challenge ").and_then(hex::decode_32).ok_or_else(|| said(&line))?;
        let mut number = [0; 32];
        getrandom::fill(&mut number).map_err(|e| ClientError::Unproved(format!("no random bytes: {e}")))?;
        let answer = token.answer(Speaker::Client, channel, &challenge, &number);
        let line = self.ask_plainly(&format!("auth {} {}", hex::encode(&number), hex::encode(&answer))).await?;
        let back = line.strip_prefix("proved ").and_then(hex::decode_32).ok_or_else(|| said(&line))?;
        match token.is_answer(&back, Speaker::Daemon, channel, &challenge, &number) {
            true => Ok(()),
            false => Err(ClientError::Unproved("what answers there does not have the token".to_owned())),
        }
    }

    /// Sends words as a request.
    ///
    /// # Errors
    ///
    /// [`ClientError::Broken`].
    pub async fn send<S: AsRef<str>>(&mut self, words: &[S]) -> Result<()> {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        self.write.send(json_line(&words).as_bytes()).await?;
        Ok(())
    }

    /// Sends a request and takes its reply.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] and the rest.
    pub async fn request<T: DeserializeOwned>(&mut self, words: &[&str]) -> Result<T> {
        self.send(words).await?;
        match self.next().await? {
            Next::End(value) => Ok(value),
            Next::Event(event) => Err(ClientError::Protocol(format!("an event was not expected: {event:?}"))),
        }
    }

    /// The next line of a reply.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] and the rest.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a part of a line may be lost. [`Client::split`] gives halves to use side by side.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Next<T>> {
        next_line(&mut self.read).await
    }

    /// `list`.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn list(&mut self) -> Result<Vec<InstanceView>> {
        self.list_filtered(&[]).await
    }

    /// `list --filter …`.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn list_filtered(&mut self, filters: &[String]) -> Result<Vec<InstanceView>> {
        let filters: Vec<String> = filters.iter().map(|filter| format!("--filter={filter}")).collect();
        let words: Vec<&str> = ["list"].into_iter().chain(filters.iter().map(String::as_str)).collect();
        Ok(self.request::<Instances>(&words).await?.instances)
    }

    /// `stats`, of these, of all that are alive, or with `ended` of all.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn stats(&mut self, names: &[String], ended: bool) -> Result<Sample> {
        let all = ended.then_some("--all");
        let words: Vec<&str> = ["stats"].into_iter().chain(all).chain(names.iter().map(String::as_str)).collect();
        self.request(&words).await
    }

    /// `modules`.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn modules(&mut self) -> Result<Vec<ModuleView>> {
        Ok(self.request::<Modules>(&["modules"]).await?.modules)
    }

    /// `run`, detached.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn run(&mut self, words: &[&str]) -> Result<Created> {
        self.request(&[&["run"], words].concat()).await
    }

    /// A verb with names, answered for each of them in their order.
    ///
    /// # Errors
    ///
    /// As [`Client::request`]; a refusal of one name is in its place.
    pub async fn each<T: DeserializeOwned>(&mut self, words: &[&str], names: &[String]) -> Result<Vec<Result<T>>> {
        let mut all = Vec::with_capacity(names.len());
        let mut rest = names;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fit = rest.iter().take_while(|name| {
                bytes += name.len() + 3;
                bytes <= NAMES_BYTES
            });
            let (now, later) = rest.split_at(fit.count().max(1));
            all.extend(self.each_of_few(words, now).await?);
            rest = later;
        }
        Ok(all)
    }

    async fn each_of_few<T: DeserializeOwned>(&mut self, words: &[&str], names: &[String]) -> Result<Vec<Result<T>>> {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let words = [words, &names].concat();
        if names.len() == 1 {
            return match self.request(&words).await {
                Err(ClientError::Refused(refusal)) => Ok(vec![Err(ClientError::Refused(refusal))]),
                other => other.map(|one| vec![Ok(one)]),
            };
        }
        let Each { each } = self.request(&words).await?;
        let result = |line| match line {
            Line::Ok(value) => Ok(value),
            Line::Error(refusal) => Err(ClientError::Refused(refusal)),
            Line::Event(event) => Err(ClientError::Protocol(format!("an event was not expected: {event:?}"))),
        };
        Ok(each.into_iter().map(result).collect())
    }

    /// `put`: sends a module unless the daemon has it. `progress` hears how it goes on.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn put(
        &mut self,
        name: &str,
        bytes: &[u8],
        sha256: &str,
        text: bool,
        mut progress: impl FnMut(PutProgress),
    ) -> Result<ModuleView> {
        const CHUNK: usize = 64 * 1024;
        let size = bytes.len().to_string();
        let mut words = vec!["put", "--size", &size, "--sha256", sha256];
        if text {
            words.push("--wat");
        }
        words.push(name);
        self.send(&words).await?;
        loop {
            match self.next().await? {
                Next::End(view) => return Ok(view),
                Next::Event(StreamEvent::Ready { .. }) => {
                    for chunk in bytes.chunks(CHUNK) {
                        self.write.send(chunk).await?;
                        progress(PutProgress::Sent(chunk.len()));
                    }
                }
                Next::Event(StreamEvent::Compiling { queued: Some(place), .. }) => progress(PutProgress::Queued(place)),
                Next::Event(StreamEvent::Compiling { elapsed_ms, .. }) => {
                    progress(PutProgress::Compiling(Duration::from_millis(elapsed_ms)));
                }
                Next::Event(_) => {}
            }
        }
    }

    /// `get`: the bytes of a module, and what they are. At most `bytes_max` are taken.
    ///
    /// # Errors
    ///
    /// As [`Client::request`]; [`ClientError::Protocol`] for what is longer, or is not what the daemon says it is.
    pub async fn get(&mut self, name: &str, bytes_max: usize) -> Result<(Vec<u8>, ContentView)> {
        use base64::Engine as _;
        self.send(&["get", name]).await?;
        let mut bytes = Vec::new();
        loop {
            match self.next().await? {
                Next::Event(StreamEvent::Content { base64 }) => {
                    let piece = base64::engine::general_purpose::STANDARD.decode(base64);
                    bytes.extend(piece.map_err(|e| ClientError::Protocol(format!("a piece of a module: {e}")))?);
                    if bytes.len() > bytes_max {
                        return Err(ClientError::Protocol(format!("a module of more than {bytes_max} bytes")));
                    }
                }
                Next::Event(event) => {
                    return Err(ClientError::Protocol(format!("an event was not expected: {event:?}")));
                }
                Next::End::<ContentView>(view) if u64::try_from(bytes.len()).ok() == Some(view.bytes) => {
                    return Ok((bytes, view));
                }
                Next::End(_) => return Err(ClientError::Protocol("a module that came in part".to_owned())),
            }
        }
    }

    /// `shutdown`, and waits until the daemon is gone: then its address and its state directory are free again.
    ///
    /// # Errors
    ///
    /// As [`Client::request`].
    pub async fn shut_down(mut self) -> Result<()> {
        self.request::<serde_json::Value>(&["shutdown"]).await?;
        let mut rest = Vec::new();
        // It says no more; how the connection closes does not matter.
        let _closed = self.read.read_to_end(&mut rest).await;
        Ok(())
    }

    /// The two directions, for a run whose input and output go on at the same time.
    pub fn split(self) -> (Receiver, Sender) {
        (Receiver { read: self.read }, Sender { write: self.write })
    }
}

/// What comes from the daemon.
pub struct Receiver {
    read: BufReader<ReadHalf>,
}

impl Receiver {
    /// The next line of a reply.
    ///
    /// # Errors
    ///
    /// As [`Client::next`].
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Next<T>> {
        next_line(&mut self.read).await
    }
}

/// What goes to the daemon while a run is attached.
pub struct Sender {
    write: WriteHalf,
}

impl Sender {
    /// Bytes for the guest's stdin.
    ///
    /// # Errors
    ///
    /// [`ClientError::Broken`].
    pub async fn input(&mut self, bytes: &[u8]) -> Result<()> {
        use base64::Engine as _;
        for chunk in bytes.chunks(INPUT_BYTES) {
            // Always base64: text may hold control characters that the daemon takes for another protocol's.
            let text = base64::engine::general_purpose::STANDARD.encode(chunk);
            let input = Input { stdin: Some(crate::model::reply::Data::Base64(text)) };
            self.write.send(json_line(&input).as_bytes()).await?;
        }
        Ok(())
    }

    /// The end of the guest's stdin.
    ///
    /// # Errors
    ///
    /// [`ClientError::Broken`].
    pub async fn end_of_input(&mut self) -> Result<()> {
        self.write.send(json_line(&Input { stdin: None }).as_bytes()).await?;
        Ok(())
    }
}

/// A daemon that is full says so before any format is agreed on.
fn refused_plainly(line: &str) -> Option<ClientError> {
    let (code, message) = line.strip_prefix("ERR ")?.split_once(' ')?;
    let code = serde_json::from_value(code.into()).ok()?;
    Some(ClientError::Refused(Refusal { code, message: message.to_owned() }))
}

/// Whose the other end is.
fn owner(stream: &Stream) -> Owner {
    match stream {
        Stream::Tcp(stream) => Owners::new().owner_of_tcp(stream),
        #[cfg(unix)]
        Stream::Unix(stream) => peer::of_unix(stream).map_or(Owner::Unknown, Owner::Is),
        Stream::Tls(_) => Owner::Unknown,
    }
}

async fn open(target: &Target) -> Result<Stream> {
    let connect = |source| ClientError::Connect { to: target.clone(), source };
    let address = match &target.at {
        #[cfg(unix)]
        At::Unix(path) => return tokio::net::UnixStream::connect(path).await.map(Stream::Unix).map_err(connect),
        #[cfg(unix)]
        At::Own(path, address) => match tokio::net::UnixStream::connect(path).await {
            Ok(stream) => return Ok(Stream::Unix(stream)),
            // No daemon has this state directory, or it has no socket.
            Err(_) => address,
        },
        At::Tcp(address) | At::Tls { address, .. } => address,
    };
    let stream = TcpStream::connect(address).await.map_err(connect)?;
    stream.set_nodelay(true).map_err(connect)?;
    // To close is to reset: a daemon that streams to us, or prepares a run for us, hears at once that we are gone, also
    // when we are killed. Nothing is lost by it, for each request is awaited (tcp(7), SO_LINGER in socket(7)).
    stream.set_zero_linger().map_err(connect)?;
    let At::Tls { name, authorities, .. } = &target.at else { return Ok(Stream::Tcp(stream)) };
    let connector = tls::connector(authorities).map_err(ClientError::Credentials)?;
    let name = name.clone().try_into().map_err(|e| ClientError::Protocol(format!("{name}: {e}")))?;
    let stream = connector.connect(name, stream).await.map_err(connect)?;
    Ok(Stream::Tls(Box::new(stream.into())))
}

async fn next_line<T: DeserializeOwned>(read: &mut BufReader<ReadHalf>) -> Result<Next<T>> {
    let mut line = Vec::new();
    read.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    match serde_json::from_slice(&line) {
        Ok(Line::Ok(value)) => Ok(Next::End(value)),
        Ok(Line::Event(event)) => Ok(Next::Event(event)),
        Ok(Line::Error(refusal)) => Err(ClientError::Refused(refusal)),
        Err(_) => {
            let said = escape::line_of_bytes(line.get(..200).unwrap_or(&line));
            // A daemon that is full says so before any format is agreed on.
            Err(ClientError::Protocol(said.trim_end_matches("\\n").to_owned()))
        }
    }
}
