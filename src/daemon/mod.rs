//! The shell around the pure half: tasks, files, time. [`start`] brings a daemon up, [`Daemon::ended`] takes it down in order.

pub mod clock;
mod instance_task;
mod logs;
mod modules;
mod store;
mod supervisor;
mod workspace;

pub use logs::{Cursor, Log, Read};
pub use modules::Upload;
pub use supervisor::{Attachment, Done, Started, Supervisor};

use crate::api;
use crate::config::{Config, fixed};
use crate::engine::Engine;
use crate::error::{Error, Result};
use modules::Modules;
use std::net::SocketAddr;
use std::sync::Arc;
use store::Store;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;
use workspace::Workspaces;

/// A daemon that serves. Dropping it without [`Daemon::ended`] leaves its guests to the runtime's end.
pub struct Daemon {
    address: SocketAddr,
    supervisor: Supervisor,
    tracker: TaskTracker,
    guests: Option<Runtime>,
}

/// Starts a daemon on the current runtime; guests get one of their own, so that none of them can hold up an answer.
///
/// # Errors
///
/// What makes it impossible to serve: the address, the state directory, the root, a limit of the machine.
pub async fn start(config: Config) -> Result<Daemon> {
    if !config.listen.ip().is_loopback() {
        return Err(Error::Denied(format!(
            "--listen {}: only loopback addresses can be listened on, such as 127.0.0.1:{}",
            config.listen,
            config.listen.port()
        )));
    }
    let state_dir =
        config.state_dir().ok_or_else(|| Error::Denied("there is no home directory: give --state-dir DIR".into()))?;
    let store = Arc::new(Store::open(&state_dir)?);
    let listener = TcpListener::bind(config.listen).await.map_err(|e| listen_error(config.listen, &e))?;
    let address = listener.local_addr().map_err(|e| Error::io("the listening socket has no address", &e))?;
    raise_descriptor_limit();
    let guests = guest_runtime()?;
    let engine = Arc::new(Engine::new()?);
    let tracker = TaskTracker::new();
    let workspaces = Workspaces::new(&config.root, Arc::clone(&store))?;
    let limits = config.limits.clone();
    let modules = Modules::open(Arc::clone(&engine), store, &config.module_dirs, limits.clone(), tracker.clone())?;
    let supervisor =
        Supervisor::new(engine, modules, workspaces, limits.clone(), tracker.clone(), guests.handle().clone());
    tracker.spawn(api::text::serve(listener, supervisor.clone(), limits, tracker.clone()));
    tracing::info!(%address, state_dir = %state_dir.display(), root = %config.root.display(), "serving");
    Ok(Daemon { address, supervisor, tracker, guests: Some(guests) })
}

fn listen_error(address: SocketAddr, e: &std::io::Error) -> Error {
    if e.kind() == std::io::ErrorKind::AddrInUse {
        return Error::Denied(format!(
            "{address} is in use, perhaps by another daemon; give another address with --listen (port 0 picks a free one)"
        ));
    }
    Error::io(format!("cannot listen on {address}"), e)
}

impl Daemon {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The handle that everything is done through.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Runs until somebody asks for the end ([`Supervisor::shut_down`]), then takes everything down in order: no new
    /// work, guests ended, their ends recorded, answers sent. At most [`fixed::DRAIN`] for the guests, and as long for the rest.
    pub async fn ended(mut self) {
        self.supervisor.shutdown_requested().await;
        tracing::info!(live = self.supervisor.live(), "shutting down");
        if tokio::time::timeout(fixed::DRAIN, self.supervisor.drain()).await.is_err() {
            tracing::warn!(live = self.supervisor.live(), "some guests did not end in time");
        }
        self.tracker.close();
        if tokio::time::timeout(fixed::DRAIN, self.tracker.wait()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        if let Some(guests) = self.guests.take() {
            // A file operation that hangs in the kernel must not hang the daemon: its thread is left behind.
            guests.shutdown_background();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(guests) = self.guests.take() {
            guests.shutdown_background();
        }
    }
}

/// Where guests run. They yield at each tick, yet on a shared runtime an answer would wait behind them all.
fn guest_runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("guest")
        .enable_all()
        // New and woken guests come from the global queue; look there at each turn, not at each 61st.
        .global_queue_interval(1)
        .event_interval(1)
        .on_thread_start(lower_priority)
        .build()
        .map_err(|e| Error::io("cannot start the threads for guests", &e))
}

/// On Linux a thread has a nice value of its own (setpriority(2), "C library/kernel differences"): guests step back behind
/// the threads that answer.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        const NICE: i32 = 10;
        if let Err(e) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
            tracing::debug!("guest threads keep their priority: {e}");
        }
    }
}

/// Each instance and each connection holds descriptors; the soft limit is for programs that use select(2).
fn raise_descriptor_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        if let Err(e) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!("the limit of open files stays as it is: {e}");
        }
    }
}
