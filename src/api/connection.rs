//! The two halves of a client's socket: bytes in, with the rules of framing and of time; bytes out, with a limit on stalling.

use crate::config::{Limits, fixed};
use crate::error::{Error, Result};
use crate::model::frame;
use crate::transport::{ReadHalf, Stream, WriteHalf};
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// Bytes that are asked of the socket at a time.
const READ_BYTES: usize = 8 * 1024;
/// Bytes that a client may send ahead while an earlier request is still being served; more stay in the kernel's buffers.
const AHEAD_BYTES_MAX: usize = 64 * 1024;
/// After a refusal that closes: how much, and for how long, is still read and thrown away, so that the refusal arrives.
/// Closing a socket with unread bytes resets it, and the peer may lose what it had not read yet (RFC 1122, 4.2.2.13).
const LINGER_BYTES_MAX: usize = 1024 * 1024;
const LINGER: Duration = Duration::from_millis(500);

/// Why there is no next line.
#[derive(Debug)]
pub(super) enum Closed {
    /// The peer is done, or gone.
    Peer,
    /// The bytes or their absence broke a rule: say so, and close.
    Refused(Error),
}

/// What comes in.
pub(super) struct Incoming {
    half: ReadHalf,
    buffer: BytesMut,
    eof: bool,
    /// Whether a first request has come; until then time is short.
    began: bool,
    opened: Instant,
    first_request: Duration,
    stall: Duration,
}

/// What goes out.
pub(super) struct Outgoing {
    half: WriteHalf,
    stall: Duration,
    /// Nothing is sent behind that: the peer is to have shown who it is by then.
    pub(super) until: Option<Instant>,
}

/// The two halves of an accepted connection.
pub(super) fn split(stream: Stream, limits: &Limits) -> (Incoming, Outgoing) {
    if let Some(tcp) = stream.tcp() {
        // A reply is one write; waiting for more to send would only delay it.
        if let Err(e) = tcp.set_nodelay(true) {
            tracing::debug!("TCP_NODELAY: {e}");
        }
        keep_alive(tcp);
    }
    let (read, write) = stream.into_split();
    let incoming = Incoming {
        half: read,
        buffer: BytesMut::new(),
        eof: false,
        began: false,
        opened: Instant::now(),
        first_request: limits.first_request,
        stall: limits.stall,
    };
    (incoming, Outgoing { half: write, stall: limits.stall, until: None })
}

/// Lets the kernel find out about peers that are gone while we have nothing to send to them (tcp(7)).
fn keep_alive(stream: &TcpStream) {
    #[cfg(unix)]
    {
        use rustix::net::sockopt;
        let set = sockopt::set_socket_keepalive(stream, true);
        #[cfg(not(any(target_os = "openbsd", target_os = "macos")))]
        let set = set
            .and_then(|()| sockopt::set_tcp_keepidle(stream, Duration::from_secs(30)))
            .and_then(|()| sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10)));
        if let Err(e) = set {
            tracing::debug!("SO_KEEPALIVE: {e}");
        }
    }
    #[cfg(not(unix))]
    let _ = stream;
}

impl Incoming {
    /// The next line, without its end. `silence`: a short request without a line end is complete after a moment of silence,
    /// as the original client needs it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: bytes that were read stay in the buffer.
    pub(super) async fn line(&mut self, silence: bool) -> Result<Bytes, Closed> {
        let mut line_deadline = None;
        loop {
            if let Some(line) = frame::take_line(&mut self.buffer).map_err(Closed::Refused)? {
                return Ok(line);
            }
            if self.eof {
                // Half-closed: what is left is a request too.
                return frame::take_last(&mut self.buffer).ok_or(Closed::Peer);
            }
            if !self.began && Instant::now() >= self.first_deadline() {
                // A socket that always has something to read lets no time run out below.
                return Err(Closed::Refused(self.no_first_request()));
            }
            if self.buffer.is_empty() {
                let read = match self.began {
                    true => self.fill().await,
                    false => match timeout_at(self.first_deadline(), self.fill()).await {
                        Ok(read) => read,
                        Err(_) => return Err(Closed::Refused(self.no_first_request())),
                    },
                };
                read.map_err(|_| Closed::Peer)?;
                continue;
            }
            let mut deadline = *line_deadline.get_or_insert_with(|| Instant::now() + self.stall);
            if !self.began {
                deadline = deadline.min(self.first_deadline());
            }
            let short = silence && self.buffer.len() <= frame::SILENT_BYTES_MAX;
            let wait = if short { deadline.min(Instant::now() + fixed::SILENCE) } else { deadline };
            match timeout_at(wait, self.fill()).await {
                Ok(read) => read.map_err(|_| Closed::Peer)?,
                Err(_) if short => {
                    if let Some(line) = frame::take_silent(&mut self.buffer) {
                        return Ok(line);
                    }
                }
                Err(_) if !self.began && deadline == self.first_deadline() => {
                    return Err(Closed::Refused(self.no_first_request()));
                }
                Err(_) => return Err(Closed::Refused(self.too_slow("the rest of a line", "--stall"))),
            }
        }
    }

    /// A line was a request, and not a blank or a comment: from now on there is as much time as the peer likes.
    pub(super) fn begin(&mut self) {
        self.began = true;
    }

    fn first_deadline(&self) -> Instant {
        self.opened + self.first_request
    }

    fn no_first_request(&self) -> Error {
        self.too_slow("the first request", "--first-request")
    }

    fn too_slow(&self, what: &'static str, name: &'static str) -> Error {
        let limit = if name == "--stall" { self.stall } else { self.first_request };
        Error::TooSlow { what, limit: humantime::format_duration(limit).to_string(), name }
    }

    async fn fill(&mut self) -> std::io::Result<()> {
        self.buffer.reserve(READ_BYTES);
        // `read_buf` takes what fits the buffer's capacity, which the line above bounds.
        if self.half.read_buf(&mut self.buffer).await? == 0 {
            self.eof = true;
        }
        Ok(())
    }

    /// When a transfer of this size that begins now is to be over.
    pub(super) fn transfer_until(&self, size: u64) -> Instant {
        let stalls = u32::try_from(size / fixed::TRANSFER_BYTES_MIN + 1).unwrap_or(u32::MAX);
        let now = Instant::now();
        now.checked_add(self.stall.saturating_mul(stalls)).unwrap_or(now + self.stall)
    }

    /// The next bytes of a transfer, at most `max`.
    ///
    /// # Errors
    ///
    /// [`Closed`] if the peer goes away, stalls, or is not done in time.
    pub(super) async fn bytes(&mut self, max: u64, until: Instant) -> Result<Bytes, Closed> {
        if self.buffer.is_empty() && !self.eof {
            self.buffer.reserve(AHEAD_BYTES_MAX);
            match timeout_at(until.min(Instant::now() + self.stall), self.fill()).await {
                Ok(read) => read.map_err(|_| Closed::Peer)?,
                Err(_) => return Err(Closed::Refused(self.too_slow("the rest of a transfer", "--stall"))),
            }
        }
        if self.buffer.is_empty() {
            return Err(Closed::Peer);
        }
        let take = self.buffer.len().min(usize::try_from(max).unwrap_or(usize::MAX));
        Ok(self.buffer.split_to(take).freeze())
    }

    /// Returns when the peer is gone for good. Meanwhile it may send requests ahead, or close its side and go on listening.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: bytes that were read stay in the buffer.
    pub(super) async fn gone(&mut self) {
        while !self.eof && self.buffer.len() < AHEAD_BYTES_MAX {
            if self.fill().await.is_err() {
                return;
            }
        }
        // Half-closed, or with enough to do: bytes no longer tell whether anybody listens.
        self.half.gone(self.eof).await;
    }

    /// Reads and forgets, for a moment, so that a last reply is not lost to a reset.
    pub(super) async fn linger(mut self) {
        let drain = async {
            let mut left = LINGER_BYTES_MAX;
            while left > 0 && !self.eof {
                self.buffer.clear();
                if self.fill().await.is_err() {
                    return;
                }
                left = left.saturating_sub(self.buffer.len());
            }
        };
        // Both outcomes end in the close.
        let _timed_out = timeout(LINGER, drain).await;
    }
}

impl Outgoing {
    /// Sends a reply whole; a peer that takes none of it for too long is given up.
    pub(super) async fn send(&mut self, text: &str) -> std::io::Result<()> {
        for chunk in text.as_bytes().chunks(AHEAD_BYTES_MAX) {
            let stalled = Instant::now() + self.stall;
            let until = self.until.map_or(stalled, |until| until.min(stalled));
            timeout_at(until, self.half.send(chunk)).await.map_err(std::io::Error::from)??;
        }
        Ok(())
    }

    /// Sends a piece of a stream, to a reader that may pause for as long as it likes (a pager): only its own guest waits.
    pub(super) async fn stream(&mut self, text: &str) -> std::io::Result<()> {
        self.half.send(text.as_bytes()).await
    }

    /// Says that nothing more will come.
    pub(super) async fn finish(mut self) {
        // Both outcomes end in the close; a peer that reads nothing would be waited for for ever.
        let _timed_out = timeout(LINGER, self.half.finish()).await;
    }
}
