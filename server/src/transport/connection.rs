//! One connection, from its first byte to its end. The states are drawn in the module above.

use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep_until};

use super::streams::{self, Queue, Sliced, Streams};
use super::{Config, Handler, MAX_HEADER_LIST, MAX_PENDING_RESETS, MAX_STREAMS, Shared};
use crate::authorize::Caller;

/// The length of what every HTTP/2 client says first (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
/// "Never", as a timer needs it.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Serving,
    Leaving,
}

/// Serves a connection to its end.
pub(super) async fn serve<H: Handler>(stream: Stream, caller: Caller, handler: H, shared: &Shared) {
    let config = &shared.config;
    let greeted = Arc::new(AtomicBool::new(false));
    let io = Greeted { stream, left: PREFACE_BYTES, greeted: Arc::clone(&greeted) };
    let service = {
        let caller = caller.clone();
        let transfer_timeout = config.transfer_timeout;
        service_fn(move |request: Request<Incoming>| {
            let is_stream = H::is_stream(request.uri().path());
            // In a box: hyper moves it several times before it is polled. (An async block around it would have room for it twice.)
            Box::pin(handler.clone().answer(caller.clone(), request)).map(move |answer| {
                if !is_stream {
                    streams::answered(transfer_timeout);
                }
                Ok::<_, Infallible>(answer.map(Sliced::new))
            })
        })
    };
    let calls = Queue::default();
    let connection = builder(calls.clone(), config).serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(Streams::new(calls, connection));
    let mut state = State::Greeting;
    let opened = Instant::now();
    let mut timer = pin!(sleep_until(opened + config.handshake_timeout));
    loop {
        // Relaxed: the flag is set by the same task, in polling the connection.
        let silent = || !greeted.load(Ordering::Relaxed);
        tokio::select! {
            ended = connection.as_mut() => {
                match ended {
                    Ok(()) => tracing::debug!(%caller, "connection closed"),
                    Err(error) => tracing::debug!(%caller, %error, "connection failed"),
                }
                return;
            }
            () = timer.as_mut() => match state {
                State::Greeting if silent() => {
                    tracing::debug!(%caller, "connection cut: it did not speak HTTP/2 in time");
                    return;
                }
                State::Greeting => {
                    state = State::Serving;
                    timer.as_mut().reset(opened + config.max_age.map_or(FAR, jittered));
                }
                State::Serving => {
                    tracing::debug!(%caller, "connection is old: told to go away");
                    state = State::Leaving;
                    connection.as_mut().connection().graceful_shutdown();
                    timer.as_mut().reset(Instant::now() + config.leave_grace);
                }
                State::Leaving => {
                    tracing::debug!(%caller, "connection cut: it did not leave in time");
                    return;
                }
            },
            () = shared.leave.cancelled(), if state != State::Leaving => {
                if silent() {
                    return;
                }
                state = State::Leaving;
                connection.as_mut().connection().graceful_shutdown();
                timer.as_mut().reset(Instant::now() + FAR);
            }
            () = shared.cut.cancelled() => return,
        }
    }
}

fn builder(calls: Queue, config: &Config) -> http2::Builder<Queue> {
    let mut builder = http2::Builder::new(calls);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .keep_alive_interval(config.keep_alive_interval)
        .keep_alive_timeout(config.keep_alive_timeout);
    builder
}

/// Give or take a tenth, so that connections that began together do not end together.
fn jittered(age: Duration) -> Duration {
    // Every RandomState has other keys: the hash of anything is a random number.
    let random = RandomState::new().hash_one(0) % 1000;
    age.mul_f64(0.9 + random as f64 / 5000.0)
}

/// A connection that no runtime watches yet.
pub(super) enum Unwatched {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Unwatched {
    /// Lets the calling task's runtime watch it.
    pub(super) fn register(self) -> io::Result<Stream> {
        Ok(match self {
            Unwatched::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            Unwatched::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        })
    }
}

/// The bytes of a connection, of either sort of socket.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A stream that notes when the client has said as much as a greeting is long.
struct Greeted {
    stream: Stream,
    /// Bytes that are still missing.
    left: usize,
    greeted: Arc<AtomicBool>,
}

impl AsyncRead for Greeted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if self.left > 0 {
            self.left = self.left.saturating_sub(buf.filled().len() - before);
            if self.left == 0 {
                // Relaxed: read by the task that polls this.
                self.greeted.store(true, Ordering::Relaxed);
            }
        }
        polled
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
