//! Sockets as the connections see them: what moved, what waits, and who left.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// A plain or encrypted byte stream over TCP.
pub enum Stream {
    /// Cleartext.
    Plain(TcpStream),
    /// We are the TLS server.
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// We are the TLS client.
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

impl Stream {
    /// The TCP socket underneath.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Server(tls) => tls.get_ref().0,
            Self::Client(tls) => tls.get_ref().0,
        }
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self {
            Stream::Plain($stream) => $call,
            Stream::Server($stream) => $call,
            Stream::Client($stream) => $call,
        }
    };
}

/// What a connection's task, its timer and its requests share about one socket.
///
/// hyper owns the [`Io`]; this side answers questions about it without going through hyper.
pub struct Wire {
    stream: RefCell<Stream>,
    /// Bytes read since the connection began.
    pub read: Cell<u64>,
    /// Bytes written since the connection began.
    pub written: Cell<u64>,
    /// The last read found nothing, so the reader is waiting and will itself see a peer that leaves.
    reader_waits: Cell<bool>,
    /// Since when the peer takes less than we have, and `written` at that moment.
    stalled: Cell<Option<(Instant, u64)>>,
    /// The peer sent FIN and it was read.
    finished: Cell<bool>,
    /// Status lines of interim answers seen in what was read, for an upstream that sends them for ever.
    interim: Cell<u32>,
}

/// Writes up to this size are gathered, bytes.
const GATHER: usize = 1 << 10;
/// Interim (1xx) answers an upstream may send before its final one.
pub const MAX_INTERIM: u32 = 16;

impl Wire {
    /// Since when the peer takes less than is pending, and the bytes it had taken then.
    pub fn stalled(&self) -> Option<(Instant, u64)> {
        self.stalled.get()
    }

    /// True once the peer's FIN was read.
    pub fn is_finished(&self) -> bool {
        self.finished.get()
    }

    /// Begins a new period of observation of a peer that took enough in the last one.
    pub fn stall_again(&self, now: Instant) {
        self.stalled.set(Some((now, self.written.get())));
    }

    /// True while nobody reads the socket, so that a peer that leaves is noticed only by [`Wire::watch`].
    pub fn unwatched(&self) -> bool {
        !self.reader_waits.get()
    }

    /// Duplicates the socket to wait for the peer's FIN or reset without reading.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub fn watch(&self) -> io::Result<Departure> {
        let fd: OwnedFd = self.stream.borrow().tcp().as_fd().try_clone_to_owned()?;
        TcpStream::from_std(std::net::TcpStream::from(fd)).map(Departure)
    }

    /// True when the peer has already closed or reset an idle connection, or sent something unasked.
    pub fn stale(&self) -> bool {
        let mut byte = [0u8; 1];
        let stream = self.stream.borrow();
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        match rustix::net::recv(stream.tcp(), &mut byte, flags) {
            Err(e) if e == rustix::io::Errno::AGAIN => false,
            _ => !matches!(*stream, Stream::Client(_)) || self.tls_closed(&stream),
        }
    }

    /// On TLS, bytes of an idle connection may be session tickets: only an end of file is stale.
    fn tls_closed(&self, stream: &Stream) -> bool {
        let mut byte = [0u8; 1];
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        !matches!(rustix::net::recv(stream.tcp(), &mut byte, flags), Ok((_, n)) if n > 0)
    }

    /// Makes the close of this socket a reset, so that a cut close-delimited answer does not look complete.
    pub fn reset_on_close(&self) {
        let _ = self.stream.borrow().tcp().set_zero_linger();
    }

    /// Resets the connection now, whatever waits to be written: nobody wants the rest.
    pub fn abort(&self) {
        self.reset_on_close();
        let stream = self.stream.borrow();
        let _ = socket2::SockRef::from(stream.tcp()).shutdown(Shutdown::Both);
    }

    /// Writes a last bare answer as far as the socket takes it at once, cleartext only.
    pub fn last_words(&self, bytes: &[u8]) {
        if let Stream::Plain(tcp) = &*self.stream.borrow() {
            let _ = tcp.try_write(bytes);
        }
    }

    /// Shuts the sending side down.
    pub fn shutdown_write(&self) {
        let stream = self.stream.borrow();
        let _ = socket2::SockRef::from(stream.tcp()).shutdown(Shutdown::Write);
    }

    /// A new request begins.
    pub fn forget_interim(&self) {
        self.interim.set(0);
    }

    /// True when the upstream sent more interim answers than allowed.
    pub fn too_many_interim(&self) -> bool {
        self.interim.get() > MAX_INTERIM
    }
}

/// Resolves when the peer of a socket sends FIN or a reset.
pub struct Departure(TcpStream);

impl Departure {
    /// Waits for the peer to leave; reads nothing. Cancel-safe.
    pub async fn wait(&self) {
        // The mask of PRIORITY includes a closed reading side. Urgent data, which no HTTP client sends, is
        // never cleared: it counts as leaving.
        let _ = self.0.ready(Interest::PRIORITY).await;
    }
}

/// The half that hyper owns.
pub struct Io {
    wire: Rc<Wire>,
    /// Bytes read while the protocol was found out.
    prefix: Bytes,
    /// Upstream side: watch what is read for interim answers.
    count_interim: bool,
}

impl Io {
    /// Wraps a client's connection; `prefix` is read again first.
    pub fn new(stream: Stream, prefix: Bytes) -> (Self, Rc<Wire>) {
        let wire = Rc::new(Wire {
            stream: RefCell::new(stream),
            read: Cell::new(prefix.len() as u64),
            written: Cell::new(0),
            reader_waits: Cell::new(false),
            stalled: Cell::new(None),
            finished: Cell::new(false),
            interim: Cell::new(0),
        });
        (
            Self {
                wire: Rc::clone(&wire),
                prefix,
                count_interim: false,
            },
            wire,
        )
    }

    /// Wraps a connection to an HTTP/1.1 endpoint.
    pub fn upstream(stream: Stream) -> (Self, Rc<Wire>) {
        let (mut io, wire) = Self::new(stream, Bytes::new());
        io.count_interim = true;
        (io, wire)
    }
}

/// Counts status lines `HTTP/1.1 1xx` except 101 that start a block.
fn interim_answers(block: &[u8]) -> u32 {
    let is_interim = |head: &[u8]| {
        head.len() > 12 && head.starts_with(b"HTTP/1.") && head[9] == b'1' && &head[9..12] != b"101"
    };
    if !is_interim(block) {
        return 0;
    }
    let mut count = 1;
    let mut rest = block;
    while let Some(at) = rest.windows(4).position(|w| w == b"\r\n\r\n") {
        rest = &rest[at + 4..];
        if !is_interim(rest) {
            break;
        }
        count += 1;
    }
    count
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.has_remaining() {
            let n = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..n]);
            self.prefix.advance(n);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = {
            let stream = &mut *self.wire.stream.borrow_mut();
            delegate!(stream, s => Pin::new(s).poll_read(cx, buf))
        };
        self.wire.reader_waits.set(polled.is_pending());
        if let Poll::Ready(Ok(())) = &polled {
            let block = &buf.filled()[before..];
            self.wire
                .read
                .set(self.wire.read.get() + block.len() as u64);
            if block.is_empty() {
                self.wire.finished.set(true);
            }
            if self.count_interim && block.len() > 12 && block[0] == b'H' && block[9] == b'1' {
                self.wire
                    .interim
                    .set(self.wire.interim.get() + interim_answers(block));
                if self.wire.too_many_interim() {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "too many interim answers",
                    )));
                }
            }
        }
        polled
    }
}

impl Io {
    fn note_write(&self, offered: usize, polled: &Poll<io::Result<usize>>) {
        match polled {
            Poll::Ready(Ok(n)) => {
                self.wire.written.set(self.wire.written.get() + *n as u64);
                // On TLS what was taken may still be on its way: the flush tells.
                let plain = matches!(*self.wire.stream.borrow(), Stream::Plain(_));
                if *n == offered && plain {
                    self.wire.stalled.set(None);
                }
            }
            Poll::Pending if self.wire.stalled.get().is_none() => {
                self.wire.stall_again(Instant::now())
            }
            _ => {}
        }
    }
}

impl Io {
    fn note_flush(&self, polled: &Poll<io::Result<()>>) {
        match polled {
            Poll::Ready(Ok(())) => self.wire.stalled.set(None),
            Poll::Pending if self.wire.stalled.get().is_none() => {
                self.wire.stall_again(Instant::now());
            }
            _ => {}
        }
    }

    /// Puts bytes back in front of what is read next.
    pub fn unread(&mut self, bytes: Bytes) {
        if self.prefix.is_empty() {
            self.prefix = bytes;
        } else {
            self.prefix = [bytes, std::mem::take(&mut self.prefix)].concat().into();
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = {
            let stream = &mut *self.wire.stream.borrow_mut();
            delegate!(stream, s => Pin::new(s).poll_write(cx, buf))
        };
        self.note_write(buf.len(), &polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let offered = bufs.iter().map(|b| b.len()).sum();
        let polled = {
            let stream = &mut *self.wire.stream.borrow_mut();
            if offered <= GATHER {
                // One send(2) of a small copy costs the kernel less than writev(2) of its parts.
                let mut gathered = [0u8; GATHER];
                let mut end = 0;
                for part in bufs {
                    gathered[end..end + part.len()].copy_from_slice(part);
                    end += part.len();
                }
                delegate!(stream, s => Pin::new(s).poll_write(cx, &gathered[..end]))
            } else {
                delegate!(stream, s => Pin::new(s).poll_write_vectored(cx, bufs))
            }
        };
        self.note_write(offered, &polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        let stream = &*self.wire.stream.borrow();
        delegate!(stream, s => s.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = {
            let stream = &mut *self.wire.stream.borrow_mut();
            delegate!(stream, s => Pin::new(s).poll_flush(cx))
        };
        self.note_flush(&polled);
        polled
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = {
            let stream = &mut *self.wire.stream.borrow_mut();
            delegate!(stream, s => Pin::new(s).poll_shutdown(cx))
        };
        self.note_flush(&polled);
        polled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interim_answers_are_counted_and_final_ones_are_not() {
        assert_eq!(interim_answers(b"HTTP/1.1 200 OK\r\n\r\n"), 0);
        assert_eq!(
            interim_answers(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"),
            0
        );
        assert_eq!(
            interim_answers(
                b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
            ),
            1
        );
        assert_eq!(
            interim_answers(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 P\r\n\r\nHTTP/1.1 1"),
            2
        );
    }
}
