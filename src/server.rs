//! A daemon with its doors: what `coracle daemon` runs, and the tests boot.

use crate::api::door::{Door, Hall};
use crate::api::metrics::MetricsDoor;
use crate::config::{Config, MetricsReaders, TcpAuth};
use crate::daemon::{Daemon, Supervisor};
use crate::error::{Error, Result};
pub use crate::transport::socket_path;
use crate::transport::tls;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;

/// A daemon that serves.
pub struct Server {
    address: SocketAddr,
    socket: Option<PathBuf>,
    metrics: Option<SocketAddr>,
    daemon: Daemon,
}

/// Starts a daemon on the current runtime, which answers; guests get threads of their own.
///
/// # Errors
///
/// What makes it impossible to serve, or dangerous: the address, the state directory, the root, a limit of the machine.
pub async fn start(config: Config) -> Result<Server> {
    let tls = match (&config.tls_cert, &config.tls_key) {
        (Some(certificate), Some(key)) => Some(tls::acceptor(certificate, key)?),
        _ => None,
    };
    let auth = config.tcp_auth.unwrap_or_default();
    check_exposure(config.listen, auth, tls.is_some())?;
    let listener = TcpListener::bind(config.listen).await.map_err(|e| listen_error(config.listen, &e))?;
    let no_address = |e| Error::io("the listening socket has no address", &e);
    let address = listener.local_addr().map_err(no_address)?;
    let metrics = listen_for_metrics(&config).await?;
    let metrics_address = metrics.as_ref().map(|door| door.listener.local_addr()).transpose().map_err(no_address)?;
    let daemon = Daemon::open(&config).await?;
    let (supervisor, tracker) = (daemon.supervisor().clone(), daemon.tracker());
    let hall = Hall::new(supervisor, config.limits, tracker.clone(), daemon.token().clone());
    // The state directory is held by now, so a socket at that path is nobody's any more.
    #[cfg(unix)]
    let socket = match listen_unix(&socket_path(daemon.state_dir())) {
        Ok((listener, path)) => {
            tracker.spawn(hall.clone().serve(Door::Unix(listener)));
            Some(path)
        }
        Err(e) => {
            tracing::warn!("no socket in the state directory, so clients come over TCP: {e}");
            None
        }
    };
    #[cfg(not(unix))]
    let socket = None;
    if auth == TcpAuth::None {
        tracing::warn!(%address, "--tcp-auth none: every user of this machine may do everything through the TCP port");
    }
    tracker.spawn(hall.serve(Door::Tcp { listener, auth, tls }));
    if let (Some(door), Some(address)) = (metrics, metrics_address) {
        tracing::info!(%address, "serving metrics");
        tracker.spawn(door.serve(daemon.supervisor().clone(), tracker.clone()));
    }
    tracing::info!(%address, "serving");
    Ok(Server { address, socket, metrics: metrics_address, daemon })
}

/// Where there is no name of anything and no secret, but how much goes on here.
async fn listen_for_metrics(config: &Config) -> Result<Option<MetricsDoor>> {
    let Some(address) = config.metrics else { return Ok(None) };
    if !address.ip().is_loopback() {
        return Err(Error::Denied(format!(
            "--metrics {address} can be reached from other machines: give a loopback address such as 127.0.0.1:{}",
            address.port()
        )));
    }
    let readers = match config.metrics_readers {
        Some(MetricsReaders::Own) | None if !cfg!(target_os = "linux") => {
            let why = "this system does not tell whose a connection is: give --metrics-readers all, or no --metrics";
            return Err(Error::Denied(why.to_owned()));
        }
        readers => readers.unwrap_or(MetricsReaders::Own),
    };
    let listener = TcpListener::bind(address).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => {
            Error::Denied(format!("--metrics {address} is in use; port 0 picks a free one"))
        }
        _ => Error::io(format!("cannot listen on {address}"), &e),
    })?;
    Ok(Some(MetricsDoor { listener, readers }))
}

/// A door that leads outside needs a lock.
fn check_exposure(listen: SocketAddr, auth: TcpAuth, tls: bool) -> Result<()> {
    if !listen.ip().is_loopback() && !tls {
        return Err(Error::Denied(format!(
            "--listen {listen} can be reached from other machines: give --tls-cert and --tls-key, or a loopback address such as \
             127.0.0.1:{}",
            listen.port()
        )));
    }
    if tls && auth == TcpAuth::None {
        return Err(Error::Denied("--tcp-auth none goes with a loopback address without TLS only".into()));
    }
    Ok(())
}

#[cfg(unix)]
fn listen_unix(path: &Path) -> std::io::Result<(tokio::net::UnixListener, PathBuf)> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    match path.symlink_metadata() {
        // What a daemon left that was killed.
        Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(path)?,
        // The bind says so of anything else that is there.
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(path)?;
    // Its directory is closed to others already.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok((listener, path.to_owned()))
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

    /// Where it listens besides, if it does.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Where it tells its numbers, if it does.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The handle that everything is done through.
    pub fn supervisor(&self) -> &Supervisor {
        self.daemon.supervisor()
    }

    /// Serves until somebody asks for the end, then takes everything down in order.
    pub async fn ended(self) {
        self.daemon.shutdown_requested().await;
        if let Some(socket) = &self.socket
            && let Err(e) = std::fs::remove_file(socket)
        {
            tracing::debug!("the socket stays: {e}");
        }
        self.daemon.ended().await;
    }
}
