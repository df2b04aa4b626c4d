//! How much a connection may bring that is nothing of an answer: interim responses, a head that
//! never ends, framing without data.
//!
//! A gate counts what is read from its connection, and begins at zero whenever something of an
//! answer has been taken: its head, or a piece of its body. hyper reads ahead of whoever takes it
//! by two of its buffers at most, which the bound leaves room for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

/// The most bytes in a row that are nothing of an answer.
pub const WITHOUT_ANSWER_BYTES: usize = 256 << 10;
/// The most bytes of one read.
const READ_BYTES: usize = 16 << 10;

/// More than [`WITHOUT_ANSWER_BYTES`] came.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("more than {WITHOUT_ANSWER_BYTES} bytes came without anything of an answer")]
pub(super) struct Flood;

/// Counts what one connection brings.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicUsize);

impl Gate {
    /// Something of an answer has been taken.
    pub(super) fn answered(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Whether so many bytes more may come.
    fn admits(&self, bytes: usize) -> bool {
        self.0.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= WITHOUT_ANSWER_BYTES
    }
}

/// What a connection needs of its transport.
pub(super) trait Transport: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Transport for T {}

/// A connection behind its gate.
pub(super) struct Gated {
    transport: Box<dyn Transport>,
    gate: Arc<Gate>,
    piece: Box<[u8]>,
    is_proxied: bool,
}

impl Gated {
    /// `is_proxied`: requests are to name the whole URL.
    pub(super) fn new(transport: impl Transport + 'static, is_proxied: bool) -> Self {
        let piece = vec![0; READ_BYTES].into_boxed_slice();
        Self { transport: Box::new(transport), gate: Arc::default(), piece, is_proxied }
    }
}

impl Connection for Gated {
    fn connected(&self) -> Connected {
        // Every answer of the connection has it among its extensions.
        Connected::new().proxy(self.is_proxied).extra(Arc::clone(&self.gate))
    }
}

impl Read for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { transport, gate, piece, .. } = &mut *self;
        let wanted = into.remaining().min(READ_BYTES);
        let mut read = ReadBuf::new(&mut piece[..wanted]);
        ready!(Pin::new(transport).poll_read(cx, read.unfilled()))?;
        let read = read.filled();
        if !gate.admits(read.len()) {
            return Poll::Ready(Err(io::Error::other(Flood)));
        }
        into.put_slice(read);
        Poll::Ready(Ok(()))
    }
}

impl Write for Gated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write_vectored(cx, pieces)
    }
}
