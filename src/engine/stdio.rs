//! The guest's standard streams, as wasmtime-wasi sees them: no task and no copy of its own for a stream.

use crate::config::fixed::STDIN_BYTES_MAX;
use crate::model::request::StdStream;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

/// Where a guest's output goes.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// How many bytes may be written now; 0 makes the guest wait for [`Sink::ready`].
    fn room(&self) -> usize;

    /// Returns once there is room.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: it only waits.
    async fn ready(&self);

    /// Takes bytes: at most what [`Sink::room`] said on each of the guest's handles.
    fn write(&self, stream: StdStream, bytes: Bytes);
}

/// The most that one write takes, in bytes. A guest can hold a permit for it on each of its handles.
const PERMIT_BYTES_MAX: usize = 64 * 1024;

/// The guest's end of a [`Sink`].
pub(super) struct Stdout {
    sink: Arc<dyn Sink>,
    stream: StdStream,
    /// What `check-write` last allowed on this handle and was not written yet.
    permit: usize,
}

impl Stdout {
    pub(super) fn new(sink: Arc<dyn Sink>, stream: StdStream) -> Stdout {
        Stdout { sink, stream, permit: 0 }
    }
}

impl IsTerminal for Stdout {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Stdout {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Stdout::new(Arc::clone(&self.sink), self.stream))
    }

    /// Only preview 3 asks for this, and preview 3 is off.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl Pollable for Stdout {
    async fn ready(&mut self) {
        self.sink.ready().await;
    }
}

impl OutputStream for Stdout {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let Some(rest) = self.permit.checked_sub(bytes.len()) else {
            return Err(StreamError::trap("more was written than check-write allowed"));
        };
        self.permit = rest;
        self.sink.write(self.stream, bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.permit = self.sink.room().min(PERMIT_BYTES_MAX);
        Ok(self.permit)
    }
}

/// A bounded pipe into a guest's stdin. Clones are the same pipe.
#[derive(Clone, Default)]
pub struct StdinPipe(Arc<Pipe>);

#[derive(Default)]
struct Pipe {
    state: Mutex<PipeState>,
    changed: Notify,
}

#[derive(Default)]
struct PipeState {
    bytes: BytesMut,
    closed: bool,
}

impl StdinPipe {
    fn lock(&self) -> MutexGuard<'_, PipeState> {
        // The state is plain data, whole after each statement; a panic elsewhere does not spoil it.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the guest as many of these bytes as fit now. After [`StdinPipe::close`] all are dropped, as by a pipe without
    /// a reader.
    pub fn push(&self, bytes: &mut Bytes) {
        let mut state = self.lock();
        if state.closed {
            bytes.clear();
            return;
        }
        let room = STDIN_BYTES_MAX.saturating_sub(state.bytes.len());
        let piece = bytes.split_to(room.min(bytes.len()));
        state.bytes.extend_from_slice(&piece);
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// Returns once [`StdinPipe::push`] would take something.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: it only waits.
    pub async fn writable(&self) {
        self.until(|state| state.closed || state.bytes.len() < STDIN_BYTES_MAX).await;
    }

    /// Ends the input: the guest reads what is there, then end of file.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_waiters();
    }

    async fn until(&self, condition: impl Fn(&PipeState) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.0.changed.notified());
            // Listen before looking, or a change in between would be missed.
            changed.as_mut().enable();
            if condition(&self.lock()) {
                return;
            }
            changed.await;
        }
    }
}

impl IsTerminal for StdinPipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for StdinPipe {
    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }

    /// Only preview 3 asks for this, and preview 3 is off.
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(Empty)
    }
}

struct Empty;

impl AsyncRead for Empty {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[async_trait]
impl Pollable for StdinPipe {
    async fn ready(&mut self) {
        self.until(|state| state.closed || !state.bytes.is_empty()).await;
    }
}

impl InputStream for StdinPipe {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut state = self.lock();
        if state.bytes.is_empty() {
            return if state.closed { Err(StreamError::Closed) } else { Ok(Bytes::new()) };
        }
        let size = size.min(state.bytes.len());
        let bytes = state.bytes.split_to(size).freeze();
        drop(state);
        self.0.changed.notify_waiters();
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pipe_holds_a_bounded_amount_and_ends_when_closed() {
        let mut pipe = StdinPipe::default();
        let mut bytes = Bytes::from(vec![7; STDIN_BYTES_MAX + 10]);
        pipe.push(&mut bytes);
        assert_eq!(bytes.len(), 10, "the pipe took more than it may hold");
        let writer = pipe.clone();
        let mut writable = std::pin::pin!(writer.writable());
        tokio::select! {
            biased;
            () = &mut writable => panic!("a full pipe is not writable"),
            () = pipe.ready() => {}
        }
        assert_eq!(pipe.read(usize::MAX).unwrap().len(), STDIN_BYTES_MAX);
        writable.await;
        pipe.push(&mut bytes);
        assert_eq!(pipe.read(usize::MAX).unwrap().len(), 10);
        assert!(pipe.read(1).unwrap().is_empty());
        pipe.close();
        let mut late = Bytes::from_static(b"late");
        pipe.push(&mut late);
        assert!(late.is_empty());
        assert!(matches!(pipe.read(1), Err(StreamError::Closed)));
    }
}
