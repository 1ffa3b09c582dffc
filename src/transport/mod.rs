//! A connection between a client and a daemon, whatever carries it: TCP, a Unix socket, or TLS over TCP. Both ends use it.
//!
//! It moves bytes and knows who is at the other end, as far as the kernel tells (`peer`); it knows nothing of requests.

pub mod peer;
pub mod tls;
pub mod token;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::{TcpStream, tcp};
#[cfg(unix)]
use tokio::net::{UnixStream, unix};
use tokio_rustls::TlsStream;

/// How often a half-closed Unix socket is looked at: there is no event that tells it from a closed one.
#[cfg(unix)]
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The socket beside the TCP port, in the state directory, which is the user's alone.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join("coracle.sock")
}

/// A connection.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Its incoming half.
pub enum ReadHalf {
    /// Of TCP.
    Tcp(tcp::OwnedReadHalf),
    /// Of a Unix socket.
    #[cfg(unix)]
    Unix(unix::OwnedReadHalf),
    /// Of TLS.
    Tls(tokio::io::ReadHalf<Box<TlsStream<TcpStream>>>),
}

/// Its outgoing half.
pub enum WriteHalf {
    /// Of TCP.
    Tcp(tcp::OwnedWriteHalf),
    /// Of a Unix socket.
    #[cfg(unix)]
    Unix(unix::OwnedWriteHalf),
    /// Of TLS.
    Tls(tokio::io::WriteHalf<Box<TlsStream<TcpStream>>>),
}

impl Stream {
    /// The TCP connection below it, if there is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(stream) => Some(stream),
            #[cfg(unix)]
            Stream::Unix(_) => None,
            Stream::Tls(stream) => Some(stream.get_ref().0),
        }
    }

    /// What both ends of this connection know and those of no other do, so that an answer to a challenge is worth nothing on
    /// another connection: keys derived from those of TLS (RFC 5705), or where the daemon listens. `daemon`: which end we are.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub fn channel(&self, daemon: bool) -> io::Result<Vec<u8>> {
        let address = |stream: &TcpStream| -> io::Result<SocketAddr> {
            if daemon { stream.local_addr() } else { stream.peer_addr() }
        };
        Ok(match self {
            Stream::Tcp(stream) => format!("tcp {}", address(stream)?).into_bytes(),
            #[cfg(unix)]
            Stream::Unix(_) => b"unix".to_vec(),
            Stream::Tls(stream) => {
                let label = b"EXPORTER-coracle-auth-1";
                let keys = match &**stream {
                    TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], label, None),
                    TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], label, None),
                };
                keys.map_err(io::Error::other)?.to_vec()
            }
        })
    }

    /// The two directions, to be used side by side.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        match self {
            Stream::Tcp(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Tcp(read), WriteHalf::Tcp(write))
            }
            #[cfg(unix)]
            Stream::Unix(stream) => {
                let (read, write) = stream.into_split();
                (ReadHalf::Unix(read), WriteHalf::Unix(write))
            }
            Stream::Tls(stream) => {
                let (read, write) = tokio::io::split(stream);
                (ReadHalf::Tls(read), WriteHalf::Tls(write))
            }
        }
    }
}

impl ReadHalf {
    /// Returns when a peer does not listen any more, as far as that can be told without reading: TCP tells it by a reset, and a
    /// Unix socket when it is closed on both sides. With TLS whoever has said that it sends no more (`ended`) is gone; of
    /// others nothing is known.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn gone(&self, ended: bool) {
        match self {
            ReadHalf::Tcp(half) => loop {
                match half.ready(Interest::ERROR).await {
                    Ok(ready) if !ready.is_error() => {}
                    _ => return,
                }
            },
            #[cfg(unix)]
            ReadHalf::Unix(half) => {
                use rustix::event::{PollFd, PollFlags, Timespec, poll};
                let now = Timespec { tv_sec: 0, tv_nsec: 0 };
                loop {
                    let mut look = [PollFd::new(half.as_ref(), PollFlags::empty())];
                    match poll(&mut look, Some(&now)) {
                        Ok(0) => tokio::time::sleep(LOOK_EVERY).await,
                        Ok(_) | Err(_) => return,
                    }
                }
            }
            ReadHalf::Tls(_) if ended => {}
            ReadHalf::Tls(_) => std::future::pending().await,
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ReadHalf::Tcp(half) => Pin::new(half).poll_read(cx, buf),
            #[cfg(unix)]
            ReadHalf::Unix(half) => Pin::new(half).poll_read(cx, buf),
            ReadHalf::Tls(half) => Pin::new(half).poll_read(cx, buf),
        }
    }
}

impl WriteHalf {
    /// Hands bytes to the system, all of them: TLS would keep the last of them until somebody writes or flushes again.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: a part may have been sent.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            WriteHalf::Tcp(half) => half.write_all(bytes).await,
            #[cfg(unix)]
            WriteHalf::Unix(half) => half.write_all(bytes).await,
            WriteHalf::Tls(half) => {
                half.write_all(bytes).await?;
                half.flush().await
            }
        }
    }

    /// Says that nothing more will come. With TLS that is a message, for which a peer that reads nothing leaves no room.
    ///
    /// # Errors
    ///
    /// The connection is gone.
    pub async fn finish(&mut self) -> io::Result<()> {
        match self {
            WriteHalf::Tcp(half) => half.shutdown().await,
            #[cfg(unix)]
            WriteHalf::Unix(half) => half.shutdown().await,
            WriteHalf::Tls(half) => half.shutdown().await,
        }
    }
}
