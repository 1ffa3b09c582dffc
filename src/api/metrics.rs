//! Numbers for Prometheus over HTTP: `GET /metrics`, and nothing else. One request a connection, each with a bound on its length,
//! its time and how many there are at once.
//!
//! A page in a browser can have it send requests here, and cannot read the answer: nothing allows it to (no CORS), and one that
//! comes under a name of its own (DNS rebinding) says so in `Host`.

use crate::config::MetricsReaders;
use crate::daemon::{Supervisor, blocking};
use crate::transport::peer::{self, Owners};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Who reads at the same time; further ones are closed without a word.
const READERS_MAX: usize = 8;
/// Those who may not, and are told so, have places of their own: they keep nobody away who may.
const STRANGERS_MAX: usize = 2;
/// Bytes of a request, with all its headers.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Time for a request, the answer and the close together.
const TIME_MAX: Duration = Duration::from_secs(10);
/// What is still read behind an answer, so that closing does not take it back (RFC 1122, 4.2.2.13), and for how long.
const LINGER_BYTES_MAX: u64 = 64 * 1024;
const LINGER: Duration = Duration::from_millis(500);
/// After an accept that failed, as for want of descriptors.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Where numbers are told.
pub struct MetricsDoor {
    /// Listens, on a loopback address.
    pub listener: TcpListener,
    /// To whom.
    pub readers: MetricsReaders,
}

impl MetricsDoor {
    /// Answers until the daemon ends.
    pub async fn serve(self, supervisor: Supervisor, tracker: TaskTracker) {
        let owners = Owners::new();
        let (readers, strangers) = (Semaphore::new(READERS_MAX), Semaphore::new(STRANGERS_MAX));
        let (readers, strangers) = (Arc::new(readers), Arc::new(strangers));
        // One at a time looks at files: where they hang, the others run out of time.
        let looking = Arc::new(Mutex::new(()));
        loop {
            let accepted = tokio::select! {
                biased;
                () = supervisor.shutdown_requested() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    tracing::warn!("cannot accept a reader of metrics: {e}");
                    tokio::time::sleep(BACK_OFF).await;
                    continue;
                }
            };
            let allowed = self.admits(&owners, &stream, from);
            let places = if allowed { &readers } else { &strangers };
            let Ok(place) = Arc::clone(places).try_acquire_owned() else { continue };
            let (supervisor, looking) = (supervisor.clone(), Arc::clone(&looking));
            tracker.spawn(async move {
                let exchange = exchange(stream, allowed, || numbers(supervisor.clone(), looking));
                tokio::select! {
                    biased;
                    () = supervisor.shutdown_requested() => {}
                    // Whatever comes of it, the connection is closed.
                    _ended = timeout(TIME_MAX, exchange) => {}
                }
                drop(place);
            });
        }
    }

    fn admits(&self, owners: &Owners, stream: &TcpStream, from: SocketAddr) -> bool {
        from.ip().to_canonical().is_loopback()
            && match self.readers {
                MetricsReaders::All => true,
                MetricsReaders::Own => owners.of_tcp(stream).is_some_and(peer::Uid::is_ours_or_root),
            }
    }
}

async fn numbers(supervisor: Supervisor, looking: Arc<Mutex<()>>) -> String {
    let turn = looking.lock_owned().await;
    blocking(move || {
        let text = supervisor.metrics_text();
        drop(turn);
        text
    })
    .await
}

/// What is answered instead of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    BadRequest,
    Forbidden,
    NotFound,
    Method,
    TooLarge,
    Misdirected,
}

impl Refusal {
    fn status(self) -> (&'static str, &'static str) {
        match self {
            Refusal::BadRequest => ("400 Bad Request", "this is no request of HTTP/1.1 with a Host and without a body"),
            Refusal::Forbidden => ("403 Forbidden", "these numbers are for the daemon's user; see --metrics-readers"),
            Refusal::NotFound => ("404 Not Found", "there is only /metrics"),
            Refusal::Method => ("405 Method Not Allowed", "there is only GET"),
            Refusal::TooLarge => ("431 Request Header Fields Too Large", "the request is too long"),
            Refusal::Misdirected => ("421 Misdirected Request", "ask for a loopback address, or for localhost"),
        }
    }
}

async fn exchange<F: Future<Output = String>>(
    mut stream: TcpStream,
    allowed: bool,
    numbers: impl FnOnce() -> F,
) -> std::io::Result<()> {
    let answer = match head(&mut stream).await? {
        Some(head) => judge(&head),
        None => Err(Refusal::TooLarge),
    };
    let answer = if allowed { answer } else { Err(Refusal::Forbidden) };
    let response = match answer {
        Ok(()) => response("200 OK", "text/plain; version=0.0.4; charset=utf-8", &numbers().await),
        Err(refusal) => {
            let (status, why) = refusal.status();
            response(status, "text/plain; charset=utf-8", &format!("{why}\n"))
        }
    };
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await?;
    let mut rest = stream.take(LINGER_BYTES_MAX);
    // Both outcomes end in the close.
    let _read = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    Ok(())
}

fn response(status: &str, kind: &str, body: &str) -> String {
    let allow = if status.starts_with("405") { "Allow: GET\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nCross-Origin-Resource-Policy: same-origin\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// The request up to its empty line. `None`: it is too long.
async fn head(stream: &mut TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(1024);
    loop {
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            head.truncate(end);
            return Ok(Some(head));
        }
        if head.len() >= REQUEST_BYTES_MAX {
            return Ok(None);
        }
        let room = REQUEST_BYTES_MAX - head.len();
        if (&mut *stream).take(room as u64).read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Whether a request, without its last empty line, is one for the numbers (RFC 9112).
fn judge(head: &[u8]) -> Result<(), Refusal> {
    let text = std::str::from_utf8(head).ok().filter(|text| text.is_ascii()).ok_or(Refusal::BadRequest)?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(path), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::BadRequest);
    };
    let mut host = None;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(Refusal::BadRequest)?;
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let value = value.trim_matches([' ', '\t']);
        if name.is_empty() || !name.chars().all(is_token) || value.contains(|c: char| c.is_control() && c != '\t') {
            return Err(Refusal::BadRequest);
        }
        match name.to_ascii_lowercase().as_str() {
            // Two of them may mean one thing here and another elsewhere.
            "host" if host.replace(value).is_some() => return Err(Refusal::BadRequest),
            "content-length" if value != "0" => return Err(Refusal::BadRequest),
            "transfer-encoding" => return Err(Refusal::BadRequest),
            // Only browsers say from where.
            "origin" => return Err(Refusal::Misdirected),
            _ => {}
        }
    }
    if !is_here(host.ok_or(Refusal::BadRequest)?) {
        return Err(Refusal::Misdirected);
    }
    match (method, path) {
        ("GET", "/metrics") => Ok(()),
        ("GET", _) => Err(Refusal::NotFound),
        _ => Err(Refusal::Method),
    }
}

/// Whether the value of a `Host` header is a loopback address or `localhost`, with or without a port.
fn is_here(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, port)) if port.is_empty() || is_port(port) => name,
        Some(_) => return false,
        None => match host.find(':') {
            Some(at) if is_port(&host[at..]) => &host[..at],
            Some(_) => return false,
            None => host,
        },
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// `:9464`.
fn is_port(text: &str) -> bool {
    text.strip_prefix(':')
        .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_plain_question_for_the_numbers_is_one() {
        let refused = |head: &str| judge(head.as_bytes()).err();
        assert_eq!(refused("GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9464\r\nAccept: */*"), None);
        assert_eq!(refused("GET /metrics HTTP/1.0\r\nhost:localhost"), None);
        assert_eq!(refused("GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0"), Some(Refusal::Misdirected));
        for (head, refusal) in [
            ("GET /metrics HTTP/1.1", Refusal::BadRequest),
            ("GET /metrics HTTP/2\r\nHost: localhost", Refusal::BadRequest),
            ("GET  /metrics HTTP/1.1\r\nHost: localhost", Refusal::BadRequest),
            ("GET /metrics\r\nHost: localhost", Refusal::BadRequest),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: localhost", Refusal::BadRequest),
            ("GET /metrics HTTP/1.1\r\nHost : localhost", Refusal::BadRequest),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\n folded: x", Refusal::BadRequest),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\nX: y", Refusal::BadRequest),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5", Refusal::BadRequest),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked", Refusal::BadRequest),
            ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost", Refusal::Misdirected),
            ("GET /metrics HTTP/1.1\r\nHost: evil.example:9464", Refusal::Misdirected),
            ("GET / HTTP/1.1\r\nHost: localhost", Refusal::NotFound),
            ("GET /metrics?x HTTP/1.1\r\nHost: localhost", Refusal::NotFound),
            ("POST /metrics HTTP/1.1\r\nHost: localhost", Refusal::Method),
            ("HEAD /metrics HTTP/1.1\r\nHost: localhost", Refusal::Method),
            ("", Refusal::BadRequest),
        ] {
            assert_eq!(refused(head), Some(refusal), "{head:?}");
        }
    }

    #[test]
    fn only_what_is_here_is_a_host() {
        for here in
            ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:65535", "[::1]", "[::1]:9464", "[::ffff:127.0.0.1]"]
        {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in [
            "",
            ":",
            "localhost.",
            "localhost.evil.example",
            "evil.example",
            "10.0.0.1",
            "[::2]",
            "[::1]x",
            "[::1",
            "127.1",
            "localhost:",
            "localhost:+1",
            "localhost:65536",
            "localhost:1:2",
            "127.0.0.1@evil.example",
            "0.0.0.0",
        ] {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
    }

    proptest! {
        #[test]
        fn no_request_makes_it_panic(head in "(GET /metrics HTTP/1.1\r\n)?(Host: \\PC{0,20}\r\n)?\\PC{0,60}") {
            let _judged = judge(head.as_bytes());
            let _here = is_here(&head);
        }
    }
}
