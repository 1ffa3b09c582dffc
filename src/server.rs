//! A daemon with its door: what `coracle daemon` runs, and the tests boot.

use crate::api;
use crate::config::Config;
use crate::daemon::{Daemon, Supervisor};
use crate::error::{Error, Result};
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// A daemon that serves.
pub struct Server {
    address: SocketAddr,
    daemon: Daemon,
}

/// Starts a daemon on the current runtime, which answers; guests get threads of their own.
///
/// # Errors
///
/// What makes it impossible to serve: the address, the state directory, the root, a limit of the machine.
pub async fn start(config: Config) -> Result<Server> {
    if !config.listen.ip().is_loopback() {
        return Err(Error::Denied(format!(
            "--listen {}: only loopback addresses can be listened on, such as 127.0.0.1:{}",
            config.listen,
            config.listen.port()
        )));
    }
    let listener = TcpListener::bind(config.listen).await.map_err(|e| listen_error(config.listen, &e))?;
    let address = listener.local_addr().map_err(|e| Error::io("the listening socket has no address", &e))?;
    let daemon = Daemon::open(&config).await?;
    let (supervisor, tracker) = (daemon.supervisor().clone(), daemon.tracker());
    tracker.spawn(api::text::serve(listener, supervisor, config.limits, tracker.clone()));
    tracing::info!(%address, "serving");
    Ok(Server { address, daemon })
}

fn listen_error(address: SocketAddr, e: &std::io::Error) -> Error {
    if e.kind() == std::io::ErrorKind::AddrInUse {
        return Error::Denied(format!(
            "{address} is in use, perhaps by another daemon; give another address with --listen (port 0 picks a free one)"
        ));
    }
    Error::io(format!("cannot listen on {address}"), e)
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The handle that everything is done through.
    pub fn supervisor(&self) -> &Supervisor {
        self.daemon.supervisor()
    }

    /// Serves until somebody asks for the end, then takes everything down in order.
    pub async fn ended(self) {
        self.daemon.ended().await;
    }
}
