//! A daemon in the background, for a `run` that finds none.

use super::failure::Failure;
use super::say;
use crate::client::{Client, ClientError, Target};
use crate::config;
use crate::state_dir;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a daemon may take to start.
const START: Duration = Duration::from_secs(20);

/// Connects, and starts a daemon first if nobody listens there.
pub(super) async fn connect_or_start(target: &Target) -> Result<Client, Failure> {
    let connected = Client::connect(target.clone()).await;
    let address = match (&connected, target.to_start()) {
        (Err(ClientError::Connect { .. }), Some(address)) => address,
        _ => return Ok(connected?),
    };
    let said = tokio::task::spawn_blocking(move || start(address))
        .await
        .map_err(|e| Failure::new("cannot start a daemon").cause(e))??;
    // Somebody else's `run` may have been faster: then ours failed, and theirs is as good.
    match Client::connect(target.clone()).await {
        Ok(client) => {
            if said.starts_with("listening on ") {
                say(&format!("started a daemon on {address} in the background (`coracle shutdown` ends it)"));
            }
            Ok(client)
        }
        Err(ClientError::Connect { .. }) => Err(Failure::new("the daemon did not start").cause(said)),
        Err(e) => Err(e.into()),
    }
}

/// Starts it and waits for its first line: where it listens, or why not.
fn start(address: SocketAddr) -> Result<String, Failure> {
    let failed =
        |what: &str, e: &dyn std::fmt::Display| Failure::new(format!("cannot start a daemon: {what}")).cause(e);
    let program = std::env::current_exe().map_err(|e| failed("its program", &e))?;
    // It outlives us, so it must not hold our open files (a lock, the end of a pipe) or a directory that somebody unmounts.
    #[cfg(unix)]
    close_fds::set_fds_cloexec(3, &[]);
    let mut command = Command::new(program);
    #[cfg(unix)]
    command.current_dir("/");
    for name in ["CORACLE_STATE_DIR", "CORACLE_ROOT"] {
        if let Some(path) = std::env::var_os(name) {
            command.env(name, std::path::absolute(path).map_err(|e| failed(name, &e))?);
        }
    }
    let mut child = command
        .args(["daemon", "--background", "--listen", &address.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file().map_or_else(Stdio::null, Stdio::from))
        .spawn()
        .map_err(|e| failed("spawn", &e))?;
    let stdout = child.stdout.take().ok_or_else(|| Failure::new("a daemon without standard output"))?;
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        // The receiver may have given up; then nobody wants to know.
        let _unheard = send.send(read.map(|_| line));
    });
    match receive.recv_timeout(START) {
        Ok(Ok(line)) if !line.trim().is_empty() => Ok(line.trim().to_owned()),
        Ok(_) => Err(Failure::new("the daemon ended without a word")
            .hint("`coracle daemon` in the foreground says why; so may daemon.log in the state directory")),
        Err(_) => Err(Failure::new(format!("the daemon did not start within {}", humantime::format_duration(START)))),
    }
}

/// A log that is larger than this is begun anew, so that it stays small.
const LOG_BYTES_MAX: u64 = 1024 * 1024;

/// Where a daemon in the background writes its log. None where somebody else could have put what is there.
fn log_file() -> Option<std::fs::File> {
    let directory = std::env::var_os("CORACLE_STATE_DIR").map(Into::into).or_else(config::state_dir_default)?;
    state_dir::make(&directory).ok()?;
    let file = state_dir::append(&directory, "daemon.log").ok()?;
    if file.metadata().ok()?.len() > LOG_BYTES_MAX {
        file.set_len(0).ok()?;
    }
    Some(file)
}
