//! Streams of a file: what is written is charged before it is handed on, and a file stays charged while a stream holds it.

use super::Pin;
use bytes::Bytes;
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

/// The most that one write takes, in bytes: what `check-write` allows.
const PERMIT_BYTES_MAX: usize = 64 * 1024;

/// wasmtime-wasi's stream of a file, which writes at its place or at the end.
pub(super) struct Output {
    inner: DynOutputStream,
    pin: Pin,
    /// Where the next bytes go. `None`: at the end, wherever that is by then.
    at: Option<u64>,
    /// Bytes of the write under way.
    writing: Option<u64>,
}

impl Output {
    pub(super) fn new(inner: DynOutputStream, pin: Pin, at: Option<u64>) -> Output {
        Output { inner, pin, at, writing: None }
    }

    /// Charges `bytes`. What does not fit is refused whole and changes nothing, so unlike after other failures the stream
    /// stays open: there may be room later.
    fn charge(&mut self, bytes: usize) -> StreamResult<()> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.pin.write(self.at, bytes).map_err(|over| StreamError::LastOperationFailed(over.into()))?;
        self.writing = Some(bytes);
        Ok(())
    }

    /// The write that was under way is over. If it failed, the inner stream is closed, and the place no longer matters.
    fn written(&mut self) {
        if let Some(bytes) = self.writing.take() {
            self.at = self.at.map(|at| at.saturating_add(bytes));
            self.pin.changed();
        }
    }
}

#[async_trait::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        self.inner.ready().await;
        self.written();
    }
}

#[async_trait::async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.writing.is_some() {
            // Not permitted now; the inner stream has the words for it.
            return self.inner.write(bytes);
        }
        // The inner stream does not compare: it would keep whatever it is given in memory until a thread has written it.
        if bytes.len() > PERMIT_BYTES_MAX {
            return Err(StreamError::trap("more was written than check-write allows"));
        }
        self.charge(bytes.len())?;
        self.inner.write(bytes).inspect_err(|_| self.written())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.inner.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.inner.check_write()
    }

    /// As the inner one: without it each write would go through a task of its own.
    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.ready().await;
        self.charge(bytes.len())?;
        let written = self.inner.blocking_write_and_flush(bytes).await;
        self.written();
        written
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
        self.written();
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // With a write under way only when the whole store goes.
        self.written();
    }
}

/// wasmtime-wasi's stream of a file that is read.
pub(super) struct Input {
    inner: DynInputStream,
    _pin: Pin,
}

impl Input {
    pub(super) fn new(inner: DynInputStream, pin: Pin) -> Input {
        Input { inner, _pin: pin }
    }
}

#[async_trait::async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        self.inner.ready().await;
    }
}

#[async_trait::async_trait]
impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.inner.read(size)
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.inner.blocking_read(size).await
    }

    fn skip(&mut self, nelem: usize) -> StreamResult<usize> {
        self.inner.skip(nelem)
    }

    async fn blocking_skip(&mut self, nelem: usize) -> StreamResult<usize> {
        self.inner.blocking_skip(nelem).await
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}
