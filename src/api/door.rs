//! The doors: who connects, whether there is room, and who it is. What is asked is [`super::text`]'s.
//!
//! ```text
//! accept ──► whose is the other end? ──► ours: a place of all ─────────────────► requests
//!                                   └──► not known: a place of the few, some time ──► auth ──► requests
//! ```

use super::guard::{Guard, Wanted};
use super::text::Connection;
use crate::config::{Limits, TcpAuth};
use crate::daemon::{Supervisor, Turned, Way};
use crate::error::Error;
use crate::model::auth::Token;
use crate::transport::Stream;
use crate::transport::peer::{self, Owners};
use crate::transport::tls::TlsAcceptor;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

/// Connections over a limit that are told so at a time; each takes half a second at most.
const FAREWELLS_MAX: usize = 64;

/// Running out of descriptors passes when others close; spinning would not help them to (accept(2)).
const BACK_OFF: Duration = Duration::from_millis(50);

/// Where clients come in.
pub enum Door {
    /// Over TCP.
    Tcp {
        /// Listens.
        listener: TcpListener,
        /// Who may come in.
        auth: TcpAuth,
        /// What encrypts, if the door is one that leads outside.
        tls: Option<TlsAcceptor>,
    },
    /// Over a socket in a directory of the daemon's user.
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
}

/// What all doors of a daemon have in common.
#[derive(Clone)]
pub struct Hall {
    supervisor: Supervisor,
    limits: Limits,
    tracker: TaskTracker,
    token: Arc<Token>,
    places: Arc<Semaphore>,
    /// Places for clients that have not shown who they are.
    unproved: Arc<Semaphore>,
    farewells: Arc<Semaphore>,
}

/// A connection as it comes in.
enum Accepted {
    Plain(Stream),
    Tls(TcpStream, TlsAcceptor),
}

impl Hall {
    /// For a daemon.
    pub fn new(supervisor: Supervisor, limits: Limits, tracker: TaskTracker, token: Token) -> Hall {
        let unproved = Arc::new(Semaphore::new(limits.unproved_max));
        Hall {
            places: supervisor.connections(),
            farewells: Arc::new(Semaphore::new(FAREWELLS_MAX)),
            token: Arc::new(token),
            supervisor,
            limits,
            tracker,
            unproved,
        }
    }

    /// Accepts clients until the daemon ends. Running out of descriptors pauses it; nothing else ends it.
    pub async fn serve(self, door: Door) {
        let owners = Owners::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.supervisor.shutdown_requested() => return,
                accepted = door.accept(&owners) => accepted,
            };
            match accepted {
                Ok(Some((stream, proved))) => {
                    self.supervisor.metrics().accepted(door.way());
                    self.welcome(stream, proved);
                }
                Ok(None) => self.supervisor.metrics().turned(Turned::NotLocal),
                Err(e) => {
                    tracing::warn!("cannot accept: {e}");
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }

    fn welcome(&self, accepted: Accepted, proved: bool) {
        let hall = self.clone();
        // One who is not known takes a place of the few first, so that all of them together leave room for those who are.
        let wanted = match proved {
            true => Ok(None),
            false => match Arc::clone(&self.unproved).try_acquire_owned() {
                Ok(permit) => Ok(Some(Wanted::new(permit, Instant::now() + self.limits.prove, self.limits.prove))),
                Err(_) => Err((
                    self.limits.unproved_max,
                    "connections of clients that have not shown who they are",
                    "--unproved",
                )),
            },
        };
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| (self.limits.connections_max, "connections", "--connections"));
        match wanted.and_then(|wanted| place.map(|place| (wanted, place))) {
            Ok((wanted, place)) => {
                self.tracker.spawn(async move {
                    if let Some(connection) = hall.connection(accepted, wanted).await {
                        connection.serve().await;
                    }
                    drop(place);
                });
            }
            Err((limit, what, name)) => {
                let why = if name == "--unproved" { Turned::Unproved } else { Turned::Connections };
                self.supervisor.metrics().turned(why);
                // Beyond what may be told why, connections are closed without a word.
                if let Ok(permit) = Arc::clone(&self.farewells).try_acquire_owned() {
                    self.tracker.spawn(async move {
                        hall.refuse(accepted, &Error::Limit { what, limit: limit.to_string(), name }, permit).await;
                    });
                }
            }
        }
    }

    async fn connection(&self, accepted: Accepted, wanted: Option<Wanted>) -> Option<Connection> {
        let stream = match accepted {
            Accepted::Plain(stream) => stream,
            Accepted::Tls(stream, acceptor) => match timeout(self.limits.prove, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => Stream::Tls(Box::new(stream.into())),
                outcome => {
                    tracing::debug!("no TLS: {:?}", outcome.map(|outcome| outcome.map(drop)));
                    self.supervisor.metrics().turned(Turned::Tls);
                    return None;
                }
            },
        };
        let channel = stream.channel(true).ok()?;
        let guard = Guard::new(Arc::clone(&self.token), channel, wanted);
        Some(Connection::new(stream, self.supervisor.clone(), &self.limits, guard))
    }

    async fn refuse(&self, accepted: Accepted, error: &Error, _permit: OwnedSemaphorePermit) {
        // One that wants TLS first is not worth the work of it.
        let Accepted::Plain(stream) = accepted else { return };
        let guard = Guard::new(Arc::clone(&self.token), vec![], None);
        Connection::new(stream, self.supervisor.clone(), &self.limits, guard).refuse(error).await;
    }
}

impl Door {
    fn way(&self) -> Way {
        match self {
            Door::Tcp { tls: None, .. } => Way::Tcp,
            Door::Tcp { tls: Some(_), .. } => Way::Tls,
            #[cfg(unix)]
            Door::Unix(_) => Way::Unix,
        }
    }

    /// The next connection, and whether it has to show nothing. `None`: it was nobody's business here.
    async fn accept(&self, owners: &Owners) -> std::io::Result<Option<(Accepted, bool)>> {
        match self {
            Door::Tcp { listener, auth, tls } => {
                let (stream, from) = listener.accept().await?;
                if let Some(tls) = tls {
                    return Ok(Some((Accepted::Tls(stream, tls.clone()), false)));
                }
                if !from.ip().to_canonical().is_loopback() {
                    tracing::warn!(peer = %from, "a connection that is not from this machine was refused");
                    return Ok(None);
                }
                let proved = match auth {
                    TcpAuth::None => true,
                    TcpAuth::Token => false,
                    TcpAuth::Uid => owners.of_tcp(&stream).is_some_and(peer::Uid::is_ours_or_root),
                };
                Ok(Some((Accepted::Plain(Stream::Tcp(stream)), proved)))
            }
            #[cfg(unix)]
            Door::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                // Its directory lets in nobody else; root may hand the socket on.
                let proved = peer::of_unix(&stream).is_some_and(peer::Uid::is_ours_or_root);
                Ok(Some((Accepted::Plain(Stream::Unix(stream)), proved)))
            }
        }
    }
}
