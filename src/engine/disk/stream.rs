//! Streams of a file: threads read and write while the guest goes on. What is written is charged before, and a file stays
//! charged while a stream holds it.
//!
//! wasmtime-wasi's own streams give the threads that all guests share as much to do as the guest has handles, and keep whatever
//! they are given to write. These take a place for each read and write until it is over, of which a store has few; who gets none
//! waits. They behave the same otherwise.

use super::{Change, Pin};
use bytes::{Bytes, BytesMut};
use std::fs::File;
use std::io::Result;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

/// The most that one read or write takes, in bytes: what `check-write` allows.
const PERMIT_BYTES_MAX: usize = 64 * 1024;
/// What is read for a guest that waits and has not said how much it wants, in bytes.
const READ_BYTES: usize = 4096;

/// Has a thread do it, through the gate. If what is returned is dropped, it is done only if that has begun.
fn start<T: Send + 'static>(
    pin: &Pin,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> AbortOnDropHandle<Result<T>> {
    let gate = &pin.account.gate;
    let at_work = |turn| {
        AbortOnDropHandle::new(tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        }))
    };
    match gate.try_enter() {
        Some(turn) => at_work(turn),
        None => {
            let gate = Arc::clone(gate);
            #[expect(clippy::disallowed_methods, reason = "whoever has the handle waits for it, or ends it")]
            AbortOnDropHandle::new(tokio::spawn(async move {
                at_work(gate.enter().await).await.unwrap_or_else(|e| Err(std::io::Error::other(e)))
            }))
        }
    }
}

/// Writes at its place or at the end.
pub(super) struct Output {
    pin: Arc<Pin>,
    /// Where the next bytes go. `None`: at the end, wherever that is by then.
    at: Option<u64>,
    state: Writing,
}

enum Writing {
    Idle,
    /// Charged, and waits for a place.
    Parked(Bytes, Change),
    /// Says where the next bytes go. If it is dropped, it may still be written, or not.
    Busy(AbortOnDropHandle<Result<Option<u64>>>),
    Failed(std::io::Error),
    Closed,
}

impl Output {
    pub(super) fn new(pin: Arc<Pin>, at: Option<u64>) -> Output {
        Output { pin, at, state: Writing::Idle }
    }

    fn begin(&mut self, place: OwnedSemaphorePermit) {
        self.state = match std::mem::replace(&mut self.state, Writing::Closed) {
            Writing::Parked(bytes, change) => {
                let at = self.at;
                Writing::Busy(start(&self.pin, move || {
                    let written = write(change.pin.file(), &bytes, at);
                    // The account is set right before another one has the place, and before anybody sees that it is over.
                    drop((change, place));
                    written
                }))
            }
            state => state,
        };
    }

    /// What failed is told once, and then the stream is closed.
    fn failed(&mut self) -> StreamResult<()> {
        if matches!(self.state, Writing::Failed(_))
            && let Writing::Failed(e) = std::mem::replace(&mut self.state, Writing::Closed)
        {
            return Err(StreamError::LastOperationFailed(e.into()));
        }
        if let Writing::Closed = self.state { Err(StreamError::Closed) } else { Ok(()) }
    }
}

#[async_trait::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        if let Writing::Idle | Writing::Parked(..) = self.state
            && let Ok(place) = self.pin.places().acquire_owned().await
        {
            self.begin(place);
        }
        if let Writing::Busy(work) = &mut self.state {
            self.state = match work.await.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
                Ok(at) => {
                    self.at = at;
                    Writing::Idle
                }
                Err(e) => Writing::Failed(e),
            };
        }
    }
}

#[async_trait::async_trait]
impl OutputStream for Output {
    /// What does not fit the budget is refused whole and changes nothing, so unlike after other failures the stream stays open:
    /// there may be room later.
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        match self.state {
            Writing::Idle => {}
            Writing::Closed => return Err(StreamError::Closed),
            _ => return Err(StreamError::trap("written before check-write allowed it")),
        }
        if bytes.len() > PERMIT_BYTES_MAX {
            return Err(StreamError::trap("more was written than check-write allows"));
        }
        let charge = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let charged = self.pin.write(self.at, charge);
        let change = charged.map_err(|over| StreamError::LastOperationFailed(over.into()))?;
        self.state = Writing::Parked(bytes, change);
        // Another stream may have the place that there was when this one was asked.
        if let Ok(place) = self.pin.places().try_acquire_owned() {
            self.begin(place);
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.failed()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.failed()?;
        let permitted = matches!(self.state, Writing::Idle) && self.pin.places().available_permits() > 0;
        Ok(if permitted { PERMIT_BYTES_MAX } else { 0 })
    }

    /// Without it each write would go through a task of its own.
    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.ready().await;
        self.failed()?;
        self.write(bytes)?;
        self.ready().await;
        self.failed()
    }

    async fn cancel(&mut self) {
        if let Writing::Busy(work) = std::mem::replace(&mut self.state, Writing::Closed) {
            let _ended = work.await;
        }
    }
}

/// Reads from its place on.
pub(super) struct Input {
    pin: Arc<Pin>,
    at: u64,
    state: Reading,
}

enum Reading {
    Idle,
    Busy(AbortOnDropHandle<Result<Bytes>>),
    Some(Bytes),
    Failed(std::io::Error),
    Closed,
}

impl Input {
    pub(super) fn new(pin: Arc<Pin>, at: u64) -> Input {
        Input { pin, at, state: Reading::Idle }
    }

    fn begin(&mut self, size: usize, place: OwnedSemaphorePermit) {
        let (pin, at) = (Arc::clone(&self.pin), self.at);
        self.state = Reading::Busy(start(&self.pin, move || {
            let mut bytes = BytesMut::zeroed(size.min(PERMIT_BYTES_MAX));
            let read = read(pin.file(), &mut bytes, at);
            drop((pin, place));
            bytes.truncate(read?);
            Ok(bytes.freeze())
        }));
    }

    async fn over(&mut self) {
        if let Reading::Busy(work) = &mut self.state {
            self.state = match work.await.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
                Ok(bytes) if bytes.is_empty() => Reading::Closed,
                Ok(bytes) => Reading::Some(bytes),
                Err(e) => Reading::Failed(e),
            };
        }
    }

    async fn ready_to_read(&mut self, size: usize) {
        if let Reading::Idle = self.state
            && let Ok(place) = self.pin.places().acquire_owned().await
        {
            self.begin(size, place);
        }
        self.over().await;
    }
}

#[async_trait::async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        self.ready_to_read(READ_BYTES).await;
    }
}

#[async_trait::async_trait]
impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        match std::mem::replace(&mut self.state, Reading::Closed) {
            Reading::Idle => {
                self.state = Reading::Idle;
                if size > 0
                    && let Ok(place) = self.pin.places().try_acquire_owned()
                {
                    self.begin(size, place);
                }
                Ok(Bytes::new())
            }
            Reading::Some(mut bytes) => {
                let piece = bytes.split_to(size.min(bytes.len()));
                self.state = if bytes.is_empty() { Reading::Idle } else { Reading::Some(bytes) };
                self.at = self.at.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                Ok(piece)
            }
            busy @ Reading::Busy(_) => {
                self.state = busy;
                Ok(Bytes::new())
            }
            Reading::Failed(e) => Err(StreamError::LastOperationFailed(e.into())),
            Reading::Closed => Err(StreamError::Closed),
        }
    }

    /// Without it each read would go through a task of its own.
    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.over().await;
        if size > 0 {
            self.ready_to_read(size).await;
        }
        self.read(size)
    }

    async fn cancel(&mut self) {
        if let Reading::Busy(work) = std::mem::replace(&mut self.state, Reading::Closed) {
            let _ended = work.await;
        }
    }
}

/// Returns what is behind the bytes that were written.
#[cfg(unix)]
fn write(file: &File, mut bytes: &[u8], at: Option<u64>) -> Result<Option<u64>> {
    use std::os::unix::fs::FileExt;
    if let Some(at) = at {
        file.write_all_at(bytes, at)?;
        return Ok(Some(at.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX))));
    }
    while !bytes.is_empty() {
        bytes = &bytes[append(file, bytes)?..];
    }
    Ok(None)
}

#[cfg(unix)]
fn append(file: &File, bytes: &[u8]) -> Result<usize> {
    #[cfg(target_os = "linux")]
    {
        use rustix::io::{Errno, ReadWriteFlags, pwritev2};
        match pwritev2(file, &[std::io::IoSlice::new(bytes)], 0, ReadWriteFlags::APPEND) {
            // A kernel or a file system that does not know the flag (preadv2(2)).
            Err(Errno::NOSYS | Errno::NOTSUP) => {}
            appended => return Ok(appended?),
        }
    }
    std::os::unix::fs::FileExt::write_at(file, bytes, file.metadata()?.len())
}

#[cfg(unix)]
fn read(file: &File, bytes: &mut [u8], at: u64) -> Result<usize> {
    loop {
        match std::os::unix::fs::FileExt::read_at(file, bytes, at) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// No guest gets a file there yet.
#[cfg(not(unix))]
fn write(_: &File, _: &[u8], _: Option<u64>) -> Result<Option<u64>> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
fn read(_: &File, _: &mut [u8], _: u64) -> Result<usize> {
    Err(std::io::ErrorKind::Unsupported.into())
}
