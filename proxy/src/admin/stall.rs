//! A connection whose peer must keep reading.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What must be taken in each period while something is pending, in bytes.
const PROGRESS: usize = 16 << 10;

pin_project! {
    /// Ends with [`io::ErrorKind::TimedOut`] when the peer takes neither all that is pending nor 16 KiB in a period.
    pub(super) struct Stalling<S> {
        #[pin]
        inner: S,
        period: Duration,
        // Bytes taken since the clock was started; `None`: nothing is pending.
        taken: Option<usize>,
        #[pin]
        clock: Sleep,
    }
}

impl<S> Stalling<S> {
    pub(super) fn new(inner: S, period: Duration) -> Self {
        Self {
            inner,
            period,
            taken: None,
            clock: sleep_until(Instant::now()),
        }
    }
}

impl<S: AsyncWrite> Stalling<S> {
    fn watch<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> Option<usize>,
    ) -> Poll<io::Result<T>> {
        let mut this = self.project();
        match write(this.inner, cx) {
            Poll::Ready(result) => {
                if let Ok(done) = &result {
                    // All is out, or enough: the clock starts anew with the next wait.
                    *this.taken = match (*this.taken, bytes(done)) {
                        (Some(taken), Some(more)) if taken + more < PROGRESS => Some(taken + more),
                        _ => None,
                    };
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                if this.taken.is_none() {
                    *this.taken = Some(0);
                    this.clock.as_mut().reset(Instant::now() + *this.period);
                }
                ready!(this.clock.poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead> AsyncRead for Stalling<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().inner.poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite> AsyncWrite for Stalling<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.watch(cx, |inner, cx| inner.poll_write(cx, bytes), |&n| Some(n))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.watch(
            cx,
            |inner, cx| inner.poll_write_vectored(cx, parts),
            |&n| Some(n),
        )
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch(cx, |inner, cx| inner.poll_flush(cx), |()| None)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch(cx, |inner, cx| inner.poll_shutdown(cx), |()| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_cut() {
        let (near, _far) = tokio::io::duplex(1024);
        let mut near = Box::pin(Stalling::new(near, Duration::from_secs(10)));
        let began = Instant::now();
        let error = near.write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_trickles_is_cut_and_a_steady_one_is_not() {
        for (portion, served) in [(1, false), (4096, true)] {
            let (near, mut far) = tokio::io::duplex(1024);
            let mut near = Box::pin(Stalling::new(near, Duration::from_secs(10)));
            let reading = tokio::spawn(async move {
                let mut buffer = vec![0; portion];
                while far.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
            let written = near.write_all(&[0; 256 << 10]).await;
            assert_eq!(written.is_ok(), served);
            drop(near);
            reading.await.unwrap();
        }
    }
}
