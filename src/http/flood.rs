//! Limits the bytes that a connection receives without making progress on a response: interim
//! responses, endless headers, chunk framing without data.
//!
//! A counter adds up the bytes read from its connection and is reset when the caller receives the
//! response headers or a piece of the body. hyper reads ahead by at most two of its buffers, which
//! is below the limit.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

/// The most bytes that a connection may receive between two pieces of a response.
pub const MAX_BYTES_WITHOUT_ANSWER: usize = 256 << 10;
/// The most bytes of one read.
const MAX_READ_BYTES: usize = 16 << 10;

/// More than [`MAX_BYTES_WITHOUT_ANSWER`] were received.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("received more than {MAX_BYTES_WITHOUT_ANSWER} bytes that are not part of a response")]
pub(super) struct Flood;

/// Counts the bytes received since the last piece of a response.
#[derive(Debug, Default)]
pub(super) struct FloodCounter(AtomicUsize);

impl FloodCounter {
    /// Starts again at zero: the caller received a piece of a response.
    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Adds `bytes`. Returns false if the sum exceeds the limit.
    fn add(&self, bytes: usize) -> bool {
        self.0.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= MAX_BYTES_WITHOUT_ANSWER
    }
}

/// The traits that a connection needs of its transport.
pub(super) trait Transport: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> Transport for T {}

/// A connection that fails with [`Flood`] when its counter exceeds the limit.
pub(super) struct LimitedStream {
    transport: Box<dyn Transport>,
    counter: Arc<FloodCounter>,
    piece: Box<[u8]>,
    is_proxied: bool,
}

impl LimitedStream {
    /// With `is_proxied`, requests contain the whole URL instead of the path.
    pub(super) fn new(transport: impl Transport + 'static, is_proxied: bool) -> Self {
        let piece = vec![0; MAX_READ_BYTES].into_boxed_slice();
        Self { transport: Box::new(transport), counter: Arc::default(), piece, is_proxied }
    }
}

impl Connection for LimitedStream {
    fn connected(&self) -> Connected {
        // hyper puts it into the extensions of every response of this connection.
        Connected::new().proxy(self.is_proxied).extra(Arc::clone(&self.counter))
    }
}

impl Read for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { transport, counter, piece, .. } = &mut *self;
        let wanted = into.remaining().min(MAX_READ_BYTES);
        let mut read = ReadBuf::new(&mut piece[..wanted]);
        ready!(Pin::new(transport).poll_read(cx, read.unfilled()))?;
        let read = read.filled();
        if !counter.add(read.len()) {
            return Poll::Ready(Err(io::Error::other(Flood)));
        }
        into.put_slice(read);
        Poll::Ready(Ok(()))
    }
}

impl Write for LimitedStream {
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
