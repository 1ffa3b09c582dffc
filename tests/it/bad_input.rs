//! One clear line for whatever a stranger sends, nothing lost, and the daemon as before.

#[cfg(unix)]
use crate::support::{Cli, Foreground, Raw};
use crate::support::{Harness, soon};
use coracle::config::fixed;
use std::time::{Duration, Instant};

/// All that a peer hears who speaks HTTP.
const HTTP: &str = "ERR denied this port speaks the coracle line protocol, not HTTP\n";

async fn unharmed(daemon: &Harness) {
    let mut raw = daemon.raw().await;
    assert_eq!(raw.ask("list").await, "Available containers: ['witness - running']");
}

async fn with_witness() -> Harness {
    let daemon = Harness::start().await;
    daemon.client().await.run(&["--name", "witness", "sleep"]).await.unwrap();
    daemon.wait_for_state("witness", "running").await;
    daemon
}

/// Sends, and takes all that comes until the daemon closes.
async fn send_and_read(daemon: &Harness, bytes: &[u8]) -> String {
    let mut raw = daemon.raw().await;
    // The daemon may close before all was sent.
    let _cut_short = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, bytes).await;
    String::from_utf8(raw.rest().await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_browser_sends_is_refused_and_nothing_after_it_is_read() {
    let daemon = with_witness().await;
    for request in [
        &b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\nlist\nstop witness\n"[..],
        b"POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\nstop witness\nrun spin\nlist\n",
        b"Host: x\nstop witness\n",
        b"OPTIONS * HTTP/1.0\nlist\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 list\n",
        b"run spin HTTP/1.1\nlist\n",
        b"GET / HTTP/1.1 \t\r\nlist\nstop witness\n",
        b"x_csrf_token: list\nstop witness\n",
    ] {
        let said = send_and_read(&daemon, request).await;
        assert!(said == HTTP || said == HTTP.replace("HTTP", "TLS"), "one fixed refusal, no listing: {said}");
        unharmed(&daemon).await;
    }
}

/// What a page can make a browser send whole, to a name that leads here by now: its origin, its cookies, a body of our requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_had_its_name_lead_here_learns_and_does_nothing() {
    let daemon = with_witness().await;
    let body = "list\nstop witness\nformat json\n[\"stop\",\"witness\"]\nshutdown\n";
    let (length, address) = (body.len(), daemon.address);
    let headers = format!(
        "Host: rebound.example:{port}\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0\r\n\
         Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\nContent-Length: {length}\r\n\
         Origin: http://rebound.example:{port}\r\nConnection: keep-alive\r\nReferer: http://rebound.example:{port}/\r\n\
         Cookie: list=list; stop=witness\r\nSec-Fetch-Site: same-origin\r\nPriority: u=4\r\n",
        port = address.port()
    );
    for first in [
        "GET / HTTP/1.1".to_owned(),
        "GET /list HTTP/1.1".to_owned(),
        "POST /%0Astop%20witness%0A HTTP/1.1".to_owned(),
        "PUT /x?list HTTP/1.0".to_owned(),
        format!("POST http://{address}/ HTTP/1.1"),
        format!("CONNECT {address} HTTP/1.1"),
    ] {
        for kind in ["text/plain;charset=UTF-8", "multipart/form-data; boundary=list", "application/json"] {
            let request = format!("{first}\r\n{headers}Content-Type: {kind}\r\n\r\n{body}");
            assert_eq!(send_and_read(&daemon, request.as_bytes()).await, HTTP, "{first} {kind}");
        }
    }
    // More than a line of ours may have: the address is the page's to choose.
    let long = format!("GET /{} HTTP/1.1\r\n{headers}\r\n{body}", "x".repeat(9000));
    assert_eq!(send_and_read(&daemon, long.as_bytes()).await, "ERR too-long a request is at most 8192 bytes long\n");
    unharmed(&daemon).await;
}

/// Wherever the network cuts a line of HTTP, it is one, as long as no piece is kept back for so long that silence ends a request.
#[tokio::test(flavor = "multi_thread")]
async fn http_is_recognised_however_it_is_cut() {
    let daemon = with_witness().await;
    let request = b"POST /run HTTP/1.1\r\nHost: x\r\n\r\nstop witness\nlist\n";
    let line = request.iter().position(|b| *b == b'\n').unwrap();
    let each_byte: Vec<usize> = (1..line).collect();
    let cuts = (1..line).map(|cut| vec![cut]).chain([each_byte]);
    for cuts in cuts {
        soon("a request without a pause", async {
            loop {
                let mut raw = daemon.raw().await;
                raw.stream.set_nodelay(true).unwrap();
                let (mut from, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
                for to in cuts.iter().copied().chain([request.len()]) {
                    // The daemon may have refused already.
                    let _cut_short = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &request[from..to]).await;
                    longest = longest.max(last.elapsed());
                    (from, last) = (to, Instant::now());
                }
                if longest < fixed::SILENCE / 4 {
                    assert_eq!(String::from_utf8(raw.rest().await).unwrap(), HTTP, "{cuts:?}");
                    return;
                }
            }
        })
        .await;
    }
    unharmed(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_are_refused_and_not_echoed() {
    let daemon = with_witness().await;
    for bytes in [
        &b"li\0st\nstop witness\n"[..],
        b"run \x1b[2J\nstop witness\n",
        b"run \xff\xfe\nstop witness\n",
        b"run \xc2\x9b2J\nstop witness\n",
        b"run a\x7f\nstop witness\n",
        b"\x80\n",
    ] {
        let said = send_and_read(&daemon, bytes).await;
        assert!(said.starts_with("ERR bad-byte ") && said.is_ascii() && said.lines().count() == 1, "{said}");
        unharmed(&daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_too_long_is_refused_and_one_that_just_fits_is_not() {
    let daemon = with_witness().await;
    let mut raw = daemon.raw().await;
    let fits = format!("run args_env {}", "x".repeat(8192 - 13));
    assert_eq!(fits.len(), 8192);
    assert!(raw.ask(&fits).await.contains("created"));
    raw.ask("wait args_env").await;
    raw.ask("rm args_env").await;
    for over in [format!("{fits}x\nlist\n").into_bytes(), vec![b'x'; 64 << 20]] {
        let said = send_and_read(&daemon, &over).await;
        // After tens of megabytes the close may come as a reset that takes the line with it.
        let reset = said.is_empty() && over.len() > 1 << 20;
        assert!(reset || said == "ERR too-long a request is at most 8192 bytes long\n", "{said}");
        unharmed(&daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_could_mean_something_else_are_refused() {
    let daemon = with_witness().await;
    let mut raw = daemon.raw().await;
    let (long, huge) = ("x".repeat(64), "x".repeat(7000));
    let files = || std::fs::read_dir(&daemon.root).unwrap().count();
    let before = files();
    for name in [
        "..",
        "../x",
        "a/b",
        "'a\\b'",
        "/etc/passwd",
        "a:b",
        "a*",
        "'a b'",
        "\"a'b\"",
        "\u{1f6f6}",
        ".a",
        "a.",
        "con",
        "NUL.txt",
        "com1",
        "list",
        "ls",
        "PS",
        "daemon",
        "'ping'",
        "''",
        &long,
        &huge,
    ] {
        for request in
            [format!("run {name}"), format!("run --name {name} hello"), format!("inspect {name}"), format!("rm {name}")]
        {
            let reply = raw.ask(&request).await;
            let refused = reply.starts_with("ERR bad-name ") || reply.starts_with("ERR usage ");
            assert!(refused && reply.len() < 1024 && reply.chars().all(|c| !c.is_control()), "{request:.80}: {reply}");
        }
        let reply = raw.ask(&format!("stop {name}")).await;
        assert!(reply.starts_with("ERR bad-name ") || reply.starts_with("ERR usage "), "stop {name:.80}: {reply}");
    }
    for dash in ["run -x", "run --name=-x hello", "stop -x"] {
        assert!(raw.ask(dash).await.starts_with("ERR "), "{dash}");
    }
    assert_eq!(files(), before, "no file was touched");
    unharmed(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_lives_once_and_ignores_case() {
    let daemon = with_witness().await;
    let mut raw = daemon.raw().await;
    assert!(raw.ask("run --name witness hello").await.starts_with("ERR exists 'witness' is already running"));
    assert!(raw.ask("run --name Witness hello").await.starts_with("ERR exists 'Witness' differs only in case"));
    assert_eq!(raw.ask("stop WITNESS").await, "Container not found");
    unharmed(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slips_are_usage_errors_and_start_nothing() {
    let daemon = with_witness().await;
    // Nine in a row a connection; the tenth would close it.
    for request in [
        "run --frob hello",
        "run -m lots hello",
        "run -m 0 hello",
        "run -m -1 hello",
        "run -m 99999999999999999999g hello",
        "run --timeout never hello",
        "run --timeout -5s hello",
        "run -e =x hello",
        "run -e noequals hello",
        "run --env-file /etc/passwd hello",
        "list all",
        "ping ping",
        "stop -t x witness",
        "stop -t -1 witness",
        "format yaml",
        "logs",
        "logs a b",
        "logs -n x witness",
        "logs --stream both witness",
        "run 'open",
        "run hello\\",
        "wait",
        "kill",
        "rm",
        "inspect",
        "put",
        "put x",
        "put x --size -1",
        "put x --size 1e9",
        "forget",
        "help nothing",
        "shutdown now",
        "hello you",
        "run -d -i hello",
        "stop witness witness",
        "inspect x y x",
    ] {
        let mut raw = daemon.raw().await;
        let reply = raw.ask(request).await;
        let usage =
            reply.starts_with("ERR usage ") || reply.starts_with("Usage: ") || reply.starts_with("Unknown command ");
        assert!(usage && reply.len() > 15, "{request}: {reply}");
        assert_eq!(raw.ask("ping").await, "pong", "{request}");
    }
    unharmed(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blank_lines_are_ignored_and_ten_refusals_in_a_row_close() {
    let daemon = with_witness().await;
    let mut raw = daemon.raw().await;
    raw.send("\n\r\n   \n\t\n").await;
    for _ in 0..9 {
        assert!(raw.ask("frobnicate").await.starts_with("Unknown command"));
    }
    assert_eq!(raw.ask("ping").await, "pong", "one good request, and the count begins anew");
    for _ in 0..10 {
        assert!(raw.ask("frobnicate").await.starts_with("Unknown command"));
    }
    assert_eq!(raw.line().await, "", "closed");
    let shown = daemon.raw().await.ask(&"\u{202e}evil ".repeat(100)).await;
    assert!(shown.starts_with("Unknown command \\u{202e}evil") && shown.len() < 100, "{shown}");
    unharmed(&daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_that_cannot_run_are_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).unwrap();
    file("empty.wasm", b"");
    file("text.wasm", b"(module (func (export \"_start\")))");
    file("truncated.wasm", &wat::parse_str("(module (func (export \"_start\")))").unwrap()[..20]);
    file("native.wasm", b"\x7fELF\x02\x01\x01\0\0\0\0\0");
    file("library.wat", b"(module)");
    file("imports.wat", b"(module (import \"env\" \"\\1b[2J\" (func)) (func (export \"_start\")))");
    file("old.wat", b"(module (import \"wasi_unstable\" \"fd_write\" (func)) (func (export \"_start\")))");
    file("broken.wat", b"(module (func");
    std::fs::create_dir(directory.path().join("directory.wasm")).unwrap();
    #[cfg(unix)]
    assert!(std::process::Command::new("mkfifo").arg(directory.path().join("fifo.wasm")).status().unwrap().success());
    let path = directory.path().to_owned();
    let daemon = Harness::with(move |config| config.module_dirs.push(path)).await;
    let mut raw = daemon.raw().await;
    for (name, why) in [
        ("empty", "it is empty"),
        ("text", ".wat"),
        ("truncated", "unexpected end"),
        ("native", "native object"),
        ("library", "_start"),
        ("imports", "env"),
        ("old", "`fd_write` of wasi_unstable (WASI preview 0)"),
        ("broken", "line 1, column"),
        ("directory", "not a regular file"),
        #[cfg(unix)]
        ("fifo", "not a regular file"),
    ] {
        let reply = soon("a refusal", raw.ask(&format!("run {name}"))).await;
        assert!(
            reply.starts_with(&format!("ERR bad-module module '{name}' cannot run: ")) && reply.contains(why),
            "{reply}"
        );
        assert!(!reply.contains('\x1b') && reply.len() < 1024, "{reply}");
    }
    assert_eq!(raw.ask("run helo").await, "ERR no-module no module named 'helo' (did you mean 'hello'?)");
    assert_eq!(
        raw.ask("run zzzz").await,
        "ERR no-module no module named 'zzzz' (`modules` lists those that there are)"
    );
    assert_eq!(raw.ask("list").await, "Available containers: []", "nothing was started, nothing is recorded");
}

/// Random bytes, cut at random places, from a fixed seed.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_harms_nobody() {
    let daemon = with_witness().await;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..next() % 600)
            .map(|_| if next() % 4 == 0 { next() as u8 } else { b' ' + (next() % 95) as u8 })
            .collect();
        let mut raw = daemon.raw().await;
        for piece in bytes.chunks(1 + (next() % 64) as usize) {
            if tokio::io::AsyncWriteExt::write_all(&mut raw.stream, piece).await.is_err() {
                break;
            }
        }
        if next() % 2 == 0 {
            raw.stream.set_zero_linger().unwrap();
        }
    }
    unharmed(&daemon).await;
}

/// The names of a module's functions stand in the message of its trap: wherever that is shown it is short, and does nothing to
/// a terminal.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_module_do_nothing_to_who_reads_them() {
    let modules = tempfile::tempdir().unwrap();
    let hostile = "\u{1b}[2J\u{202e}\n.\r\u{9b}31m\u{2028}\u{0}\u{7f}".repeat(5000);
    let quoted: String = hostile.bytes().map(|byte| format!("\\{byte:02x}")).collect();
    let text = format!("(module (func (@name \"{quoted}\") (export \"_start\") unreachable))");
    std::fs::write(modules.path().join("named.wat"), text).unwrap();
    let mut cli = Cli::alone();
    let (listen, modules) = (cli.address.to_string(), modules.path().display().to_string());
    let to_file = "exec 2>\"$CORACLE_STATE_DIR.stderr\"; export CORACLE_LOG=debug";
    let daemon = Foreground::start_in_shell(&cli, to_file, &["--listen", &listen, "--modules", &modules]);
    cli.address = daemon.address();
    let (code, _, attached) = cli.run(&["run", "named"]).await;
    assert_eq!(code, 134, "{attached}");
    let mut shown = vec![attached];
    for words in [
        &["inspect", "named"][..],
        &["list", "-a"],
        &["logs", "-t", "named"],
        &["events", "--since", "0", "--until", "0s"],
    ] {
        for format in ["table", "json"] {
            let words = if words[0] == "list" { &[words, &["--format", format]].concat() } else { words };
            let (code, out, err) = cli.run(words).await;
            assert_eq!(code, 0, "{words:?}: {err}");
            shown.extend([out, err]);
        }
    }
    let mut raw = Raw::connect(daemon.address()).await;
    for request in ["inspect named", "list", "format json", "inspect named", "list"] {
        raw.send(&format!("{request}\nping\n")).await;
        loop {
            match raw.line().await {
                end if end.contains("pong") => break,
                line => shown.push(line),
            }
        }
    }
    shown.push(std::fs::read_to_string(cli.directory.path().join("state.stderr")).unwrap());
    assert!(shown.last().unwrap().contains("named"), "the log says something: {shown:?}");
    assert!(shown.iter().any(|text| text.contains("\\x1b[2J\\u{202e}\\n.\\r\\x9b31m\\u{2028}\\x00\\x7f")), "{shown:?}");
    for text in shown {
        let printable = text.replace('\n', "");
        assert_eq!(coracle::model::escape::line(&printable), printable);
        assert!(text.lines().all(|line| line.len() < 4096), "{text}");
    }
    let view: serde_json::Value = serde_json::from_str(&cli.run(&["inspect", "named"]).await.1).unwrap();
    assert_eq!(view["reason"], "trap:unreachable");
    assert!(view["message"].as_str().unwrap().len() <= coracle::model::instance::MESSAGE_BYTES_MAX);
}
