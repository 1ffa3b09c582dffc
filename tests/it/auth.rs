//! Who may speak: the kernel's word, the token, TLS; and what becomes of everybody else.

use crate::support::{Cli, Harness, Raw, cannot_try, soon};
use coracle::client::{Client, ClientError, Next, Target};
use coracle::config::{Config, TcpAuth};
use coracle::model::auth::{Speaker, Token};
use coracle::model::hex;
use coracle::model::reply::StreamEvent;
use coracle::transport::token;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A user that is neither we nor root, and has nothing.
const STRANGER: u32 = 54_321;

/// Becoming somebody else takes root.
#[cfg(unix)]
fn may_be_others() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        cannot_try("another user: that takes root");
    }
    root
}

/// What a stranger hears who sends this through `nc`.
#[cfg(unix)]
async fn stranger_hears(nc: &[&str], says: &str) -> String {
    use std::os::unix::process::CommandExt;
    let mut command = Command::new("nc");
    command.args(nc).uid(STRANGER).current_dir("/");
    let cli = Cli::alone();
    cli.finish(
        {
            command.stdin(std::process::Stdio::piped());
            command
        },
        says.as_bytes(),
    )
    .await
    .1
}

fn with_token(config: &mut Config) {
    config.tcp_auth = Some(TcpAuth::Token);
}

fn token_of(daemon: &Harness) -> PathBuf {
    token::path(&daemon.state)
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn another_user_may_ask_who_is_there_and_nothing_else() {
    if !may_be_others() {
        return;
    }
    let daemon = Harness::start().await;
    let port = daemon.address.port().to_string();
    for verb in [
        "list",
        "run hello",
        "stop x",
        "logs x",
        "inspect x",
        "put x --size 1",
        "modules",
        "limits",
        "events",
        "shutdown",
        "format json",
        "wait x",
        "rm x",
        "prune",
        "kill x",
        "restart x",
        "forget x",
    ] {
        let heard = stranger_hears(&["-N", "127.0.0.1", &port], &format!("{verb}\nping\n")).await;
        let lines: Vec<&str> = heard.lines().collect();
        assert!(lines[0].starts_with("ERR auth "), "{verb}: {heard}");
        assert_eq!(lines[1..], ["pong"], "{verb}: {heard}");
    }
    let heard = stranger_hears(&["-N", "127.0.0.1", &port], "hello\nping\nhelp ping\n").await;
    assert!(heard.starts_with("coracle ") && heard.contains("\npong\n"), "{heard}");
    assert_eq!(daemon.raw().await.ask("list").await, "Available containers: []");
}

/// What is for everybody is little: it takes work to answer.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_shown_who_it_is_asks_a_few_things_and_no_more() {
    let daemon = Harness::with(with_token).await;
    let mut raw = daemon.raw().await;
    raw.send(&"ping\n".repeat(20)).await;
    let heard = String::from_utf8(raw.rest().await).unwrap();
    let lines: Vec<&str> = heard.lines().collect();
    assert_eq!(lines[..16], ["pong"; 16]);
    assert_eq!(lines[16..], ["ERR limit the number of requests before it is shown who asks is limited to 16 (auth)"]);
    // Who has shown it asks as much as it likes.
    let mut client = Client::connect(daemon.target()).await.unwrap();
    for _ in 0..40 {
        client.request::<serde_json::Value>(&["ping"]).await.unwrap();
    }
}

/// Who has closed its end is nobody any more; the kernel would say that it is root's.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn who_sends_and_leaves_at_once_is_not_taken_for_somebody_else() {
    use std::os::unix::process::CommandExt;
    if !may_be_others() {
        return;
    }
    let daemon = Harness::start().await;
    let script = format!(
        "for i in $(seq 200); do exec 3<>/dev/tcp/127.0.0.1/{}; echo 'run --name evil hello' >&3; exec 3>&-; done",
        daemon.address.port()
    );
    let status = tokio::task::spawn_blocking(move || {
        Command::new("bash").args(["-c", &script]).uid(STRANGER).current_dir("/").status().unwrap()
    });
    assert!(soon("the stranger", status).await.unwrap().success());
    // Behind all of them.
    daemon.wait_for_place().await;
    assert_eq!(daemon.run_to_end(&["hello"]).await.exit_code, Some(0));
    assert_eq!(daemon.raw().await.ask("list").await, "Available containers: ['hello - exited (0)']");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_for_its_user_even_if_its_directory_were_open() {
    use std::os::unix::fs::PermissionsExt;
    if !may_be_others() {
        return;
    }
    let daemon = Harness::start().await;
    let socket = coracle::server::socket_path(&daemon.state);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(&daemon.state)), (0o600, 0o700));
    let path = socket.to_str().unwrap();
    assert_eq!(stranger_hears(&["-N", "-U", path], "list\n").await, "");
    for open in [daemon.state.parent().unwrap(), &daemon.state, &socket] {
        std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let heard = stranger_hears(&["-N", "-U", path], "list\nping\n").await;
    assert!(heard.starts_with("ERR auth ") && heard.ends_with("pong\n"), "{heard}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_comes_in_by_the_socket() {
    // By TCP nobody would get in: there is no token.
    let daemon = Harness::with(with_token).await;
    std::fs::rename(token_of(&daemon), daemon.state.join("elsewhere")).unwrap();
    let cli = Cli::of(&daemon);
    let socket = coracle::server::socket_path(&daemon.state);
    for host in [None, Some(format!("unix:{}", socket.display()))] {
        let mut command = cli.command(&["run", "hello"]);
        command.env("CORACLE_STATE_DIR", &daemon.state).env_remove("CORACLE_HOST");
        if let Some(host) = host {
            command.args(["--host", &host]);
            command = {
                let mut other = cli.command(&["--host", &host, "run", "hello"]);
                other.env("CORACLE_STATE_DIR", &daemon.state);
                other
            };
        }
        assert_eq!(cli.finish(command, b"").await, (0, "Hello from Coracle!\n".into(), String::new()));
    }
    let (code, _, says) = cli.run(&["list"]).await;
    assert_eq!(code, 125);
    assert!(says.contains("--token-file"), "{says}");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_half_closed_is_answered_and_one_that_is_closed_is_not_waited_for() {
    let daemon = Harness::start().await;
    let path = coracle::server::socket_path(&daemon.state);
    daemon.client().await.run(&["spin"]).await.unwrap();
    let mut half = tokio::net::UnixStream::connect(&path).await.unwrap();
    half.write_all(b"wait spin\n").await.unwrap();
    half.shutdown().await.unwrap();
    let mut gone = tokio::net::UnixStream::connect(&path).await.unwrap();
    gone.write_all(b"wait spin\n").await.unwrap();
    let places = daemon.supervisor.connections();
    soon("two places", async {
        while places.available_permits() > daemon.limits().connections_max - 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(gone);
    soon("one place again", async {
        while places.available_permits() < daemon.limits().connections_max - 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    daemon.raw().await.ask("stop spin").await;
    let mut heard = String::new();
    soon("the answer", half.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "143\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_opens_every_verb_and_is_never_sent() {
    let daemon = Harness::with(with_token).await;
    let file = token_of(&daemon);
    let target = Target::tcp(daemon.address).with_token(Some(file.clone()));
    let mut client = Client::connect(target).await.unwrap();
    assert!(client.list().await.unwrap().is_empty());
    // By hand, as the protocol describes it.
    let token = Token::parse(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let mut raw = daemon.raw().await;
    let challenge = challenge(&mut raw).await;
    let channel = format!("tcp {}", daemon.address);
    let answer = token.answer(Speaker::Client, channel.as_bytes(), &challenge, &[9; 32]);
    let said = format!("auth {} {}", hex::encode(&[9; 32]), hex::encode(&answer));
    let back = raw.ask(&said).await;
    let back = hex::decode_32(back.strip_prefix("proved ").unwrap()).unwrap();
    assert!(token.is_answer(&back, Speaker::Daemon, channel.as_bytes(), &challenge, &[9; 32]));
    assert_eq!(raw.ask("list").await, "Available containers: []");
    // A number is answered once, and on its own connection.
    assert!(raw.ask(&said).await.starts_with("ERR auth ask for a number"));
    let mut other = daemon.raw().await;
    self::challenge(&mut other).await;
    assert!(other.ask(&said).await.starts_with("ERR auth that is not the answer"));
    // Its digits are nowhere but in their file.
    let digits = std::fs::read_to_string(&file).unwrap();
    for entry in std::fs::read_dir(&daemon.state).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path != file {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(64).any(|w| w == digits.trim().as_bytes()), "{}", path.display());
        }
    }
}

async fn challenge(raw: &mut Raw) -> [u8; 32] {
    let line = raw.ask("auth").await;
    hex::decode_32(line.strip_prefix("challenge ").expect(&line)).expect(&line)
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_for_who_asks_take_longer_and_longer_and_then_close() {
    let daemon = Harness::with(with_token).await;
    let mut raw = daemon.raw().await;
    let begun = Instant::now();
    let wrong = format!("auth {} {}", "0".repeat(64), "0".repeat(64));
    for request in ["list", "auth", &wrong, "run hello", "auth 1 2", "auth"] {
        let line = raw.ask(request).await;
        let fine = request == "auth" && line.starts_with("challenge ");
        assert!(fine || line.starts_with("ERR auth "), "{request}: {line}");
    }
    assert!(raw.ask("stop x").await.starts_with("ERR auth "));
    // 1 + 2 + 3 + 4 + 5 times the first delay, less what timers may be early.
    assert!(begun.elapsed() >= Duration::from_millis(2900), "{:?}", begun.elapsed());
    assert_eq!(raw.rest().await, b"", "closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_have_few_places_and_little_time_and_leave_room_for_others() {
    let daemon = Harness::with(|config| {
        with_token(config);
        config.limits.unproved_max = 2;
        config.limits.prove = Duration::from_millis(400);
    })
    .await;
    let mut known = Client::connect(daemon.target()).await.unwrap();
    let begun = Instant::now();
    let (mut first, mut second) = (daemon.raw().await, daemon.raw().await);
    assert_eq!((first.ask("ping").await, second.ask("ping").await), ("pong".into(), "pong".into()));
    let mut third = daemon.raw().await;
    let line = third.line().await;
    assert!(line.starts_with("ERR limit ") && line.contains("--unproved"), "{line}");
    known.list().await.unwrap();
    // Asking for what everybody may ask for gains no time.
    soon("the end of the first", async {
        loop {
            let line = first.ask("ping").await;
            if line != "pong" {
                assert!(line.starts_with("ERR limit who you are") && line.contains("--prove"), "{line}");
                return;
            }
            // It may not ask often either.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(second.line().await.contains("--prove"));
    assert!(begun.elapsed() >= Duration::from_millis(390), "{:?}", begun.elapsed());
    // Who shows who it is has all the time there is.
    tokio::time::sleep(Duration::from_millis(500)).await;
    known.list().await.unwrap();
    Client::connect(Target::tcp(daemon.address).with_token(Some(token_of(&daemon)))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_told_from_a_missing_one() {
    let daemon = Harness::with(with_token).await;
    let other = Harness::with(with_token).await;
    let connect = |file: Option<PathBuf>| Client::connect(Target::tcp(daemon.address).with_token(file));
    let says = |result: Result<Client, ClientError>| result.err().unwrap().to_string();
    assert!(says(connect(Some(token_of(&other))).await).contains("the token is not taken"));
    assert!(says(connect(None).await).contains("--token-file"));
    assert!(says(connect(Some("nowhere".into())).await).contains("cannot read the token nowhere"));
}

/// Somebody in between passes everything on, both ways.
async fn between(to: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut daemon = TcpStream::connect(to).await.unwrap();
            let _ended = tokio::io::copy_bidirectional(&mut client, &mut daemon).await;
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_worth_nothing_to_who_passes_it_on() {
    let daemon = Harness::with(with_token).await;
    let target = Target::tcp(between(daemon.address).await).with_token(Some(token_of(&daemon)));
    let error = Client::connect(target).await.err().unwrap().to_string();
    assert!(error.contains("that is not the answer"), "{error}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_somebody_elses_hears_no_secret() {
    use std::os::unix::process::CommandExt;
    if !may_be_others() {
        return;
    }
    let mut cli = Cli::alone();
    // Below those that the system hands out: a test beside this one would have been given it before nc listens.
    cli.address.set_port(20_000 + u16::try_from(std::process::id() % 10_000).unwrap());
    let tokens = tempfile::tempdir().unwrap();
    let file = tokens.path().join("token");
    std::fs::write(&file, "ab".repeat(32)).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let missing = tokens.path().join("missing");
    for (token, hears) in [(&missing, ""), (&file, "auth\n")] {
        let mut nc = Command::new("nc");
        nc.args(["-l", "127.0.0.1", &cli.address.port().to_string()]).uid(STRANGER).current_dir("/");
        let mut listening =
            nc.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        soon("a listener", async {
            // The connection would be the one that it serves: its table is looked at instead.
            while !std::fs::read_to_string("/proc/net/tcp")
                .unwrap()
                .contains(&format!(":{:04X} 00000000:0000 0A", cli.address.port()))
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
        // What it says, if it is asked for its number.
        std::io::Write::write_all(
            listening.stdin.as_mut().unwrap(),
            format!("challenge {}\n", "0".repeat(63)).as_bytes(),
        )
        .unwrap();
        let token = token.to_str().unwrap();
        let (code, _, says) =
            cli.run(&["--token-file", token, "run", "--no-autostart", "-e", "SECRET=hunter2", "hello"]).await;
        assert_eq!(code, 125, "{says}");
        assert!(says.contains("is not yours") || says.contains("token"), "{says}");
        let heard = crate::support::exit_code(listening).await.1;
        // All of it or nothing: the command line leaves with a reset, which takes along what nc has not read by then.
        assert!(heard.is_empty() || heard == hears, "it heard {heard}: {says}");
    }
}

/// Until it has accepted, whose it is cannot be told; what was said before would be there for whoever accepts in the end.
#[tokio::test(flavor = "multi_thread")]
#[cfg(target_os = "linux")]
async fn what_has_not_accepted_hears_nothing() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let cli = Cli::alone();
    let listener = std::net::TcpListener::bind(cli.address).unwrap();
    let missing = cli.directory.path().join("token");
    let words = ["--token-file", missing.to_str().unwrap(), "run", "--no-autostart", "-e", "SECRET=hunter2", "hello"];
    let command = cli.command(&words);
    let asking = cli.finish(command, b"");
    let listening = tokio::task::spawn_blocking(move || {
        let wait = Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&listener, PollFlags::IN)], Some(&wait)), Ok(1), "it connects");
        std::thread::park_timeout(Duration::from_millis(200));
        // proc_pid_net(5): our end of the connection, and what has come in for whoever reads there.
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let ours = format!(":{:04X}", listener.local_addr().unwrap().port());
        let ends: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let end = ends.iter().find(|end| end[1].ends_with(&ours) && end[3] == "01").expect("the connection");
        assert_eq!(end[4].split(':').nth(1), Some("00000000"), "it has said nothing");
        // It is ours, as it turns out.
        let (stream, _) = listener.accept().unwrap();
        let mut heard = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut heard).unwrap();
        heard
    });
    let (heard, (code, _, says)) = tokio::join!(listening, asking);
    assert_eq!((heard.unwrap().as_str(), code), ("format json\n", 125), "{says}");
}

/// Bytes of output in a reply to `logs`.
async fn printed(client: &mut Client) -> usize {
    let mut bytes = 0;
    loop {
        match soon("the rest of the log", client.next::<serde_json::Value>()).await.unwrap() {
            Next::Event(StreamEvent::Output(output)) => bytes += output.data.into_bytes().unwrap().len(),
            Next::Event(_) => {}
            Next::End(_) => return bytes,
        }
    }
}

/// A certificate for 127.0.0.1 that signs itself, and its key.
fn certificate(directory: &Path) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    (certificate, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_there_is_tls_and_the_token_or_nothing() {
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(files.path());
    let (cert, private) = (certificate.clone(), key.clone());
    let daemon = Harness::with(move |config| {
        config.listen = ([0, 0, 0, 0], 0).into();
        (config.tls_cert, config.tls_key) = (Some(cert), Some(private));
    })
    .await;
    let address = ([127, 0, 0, 1], daemon.address.port()).into();
    let target = |ca: &Path| Target::tls("127.0.0.1", address, ca);
    let mut client = Client::connect(target(&certificate).with_token(Some(token_of(&daemon)))).await.unwrap();
    let created = client.run(&["hello"]).await.unwrap();
    assert_eq!(created.name.as_str(), "hello");
    // The kernel's word counts for nothing there.
    let refused = Client::connect(target(&certificate)).await.err().unwrap().to_string();
    assert!(refused.contains("--token-file"), "{refused}");
    let other = tempfile::tempdir().unwrap();
    let (foreign, _) = self::certificate(other.path());
    let refused = Client::connect(target(&foreign).with_token(Some(token_of(&daemon)))).await.err().unwrap();
    assert!(matches!(refused, ClientError::Connect { .. }), "{refused}");
    // The last of what is long does not stay behind: more than the sockets hold, while nobody reads; and as much to be sent.
    let mut kept = 0;
    while kept <= 4 << 20 {
        client.run(&["--name", "long", "--timeout", "300ms", "flood"]).await.unwrap();
        client.request::<serde_json::Value>(&["wait", "long"]).await.unwrap();
        client.send(&["logs", "long"]).await.unwrap();
        kept = printed(&mut client).await;
    }
    let mut slow = Client::connect(target(&certificate).with_token(Some(token_of(&daemon)))).await.unwrap();
    slow.send(&["logs", "long"]).await.unwrap();
    client.list().await.unwrap();
    assert_eq!(printed(&mut slow).await, kept);
    let mut module = wat::parse_str("(module (memory (export \"memory\") 1) (func (export \"_start\")))").unwrap();
    // A custom section of twenty megabytes: id 0, its size, an empty name.
    module.extend([0, 0x80, 0x80, 0x80, 0x0a]);
    module.resize(module.len() + (20 << 20), 0);
    let sha256 = hex::encode(&<sha2::Sha256 as sha2::Digest>::digest(&module));
    let stored = soon("a large module", slow.put("large", &module, &sha256, false, |_| ())).await.unwrap();
    assert_eq!(stored.bytes, module.len() as u64);
    // The same over the command line.
    let cli = Cli::of(&daemon);
    let host = format!("tls://127.0.0.1:{}", daemon.address.port());
    let (ca, token) = (certificate.to_str().unwrap().to_owned(), token_of(&daemon));
    let words =
        ["--host", &host, "--tls-ca", &ca, "--token-file", token.to_str().unwrap(), "run", "--name", "again", "hello"];
    assert_eq!(cli.run(&words).await, (0, "Hello from Coracle!\n".into(), String::new()));
    // Who does not speak TLS is not understood.
    let mut raw = Raw::connect(address).await;
    raw.send("list\n").await;
    let rest = raw.rest().await;
    assert!(!rest.windows(9).any(|w| w == b"Available"), "{rest:?}");
}

/// The end of TLS is a message, for which a client that reads nothing leaves no room: its place comes back all the same.
#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_over_tls_does_not_keep_its_place() {
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(files.path());
    let cert = certificate.clone();
    let daemon = Harness::with(move |config| {
        (config.tls_cert, config.tls_key) = (Some(cert), Some(key));
        config.limits.connections_max = 1;
        config.limits.stall = Duration::from_secs(1);
    })
    .await;
    let connect = || {
        let target = Target::tls("127.0.0.1", daemon.address, &certificate);
        Client::connect(target.with_token(Some(token_of(&daemon))))
    };
    let mut reads_nothing = connect().await.unwrap();
    reads_nothing.run(&["--name", "long", "exit_7", &"x".repeat(7500)]).await.unwrap();
    // More than the sockets hold, so that what is sent stalls, and then the end of it.
    let asking = async {
        for _ in 0..5000 {
            if reads_nothing.send(&["inspect", "long"]).await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let served = async {
        loop {
            match connect().await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let mut next = tokio::select! {
        () = asking => unreachable!("it stays"),
        next = soon("the only place for somebody else", served) => next,
    };
    assert_eq!(next.list().await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dangerous_door_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(directory.path());
    let cli = Cli::alone();
    let (cert, key_path) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let refused = |words: Vec<&'static str>| {
        let cli = &cli;
        async move { cli.run(&[&["daemon"], &words[..]].concat()).await }
    };
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0", "[::ffff:127.0.0.1]:0"] {
        let (code, _, says) = cli.run(&["daemon", "--listen", listen]).await;
        assert!(code == 125 && says.contains("--tls-cert"), "{listen}: {says}");
    }
    let (code, _, says) = refused(vec!["--listen", "localhost:8080"]).await;
    assert!(code == 125 && says.contains("invalid"), "{says}");
    let (code, _, says) = cli.run(&["daemon", "--listen", "127.0.0.1:0", "--tls-cert", cert]).await;
    assert!(code == 125 && says.contains("--tls-key"), "{says}");
    let tls = ["--tls-cert", cert, "--tls-key", key_path];
    let (code, _, says) =
        cli.run(&[&["daemon", "--listen", "127.0.0.1:0", "--tcp-auth", "none"], &tls[..]].concat()).await;
    assert!(code == 125 && says.contains("--tcp-auth none"), "{says}");
    let (code, _, says) =
        cli.run(&["daemon", "--listen", "0.0.0.0:0", "--tls-cert", key_path, "--tls-key", key_path]).await;
    assert!(code == 125 && says.contains("no certificate"), "{says}");
    #[cfg(unix)]
    {
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let (code, _, says) = cli.run(&[&["daemon", "--listen", "0.0.0.0:0"], &tls[..]].concat()).await;
        assert!(code == 125 && says.contains("everybody can read"), "{says}");
    }
}
