//! The calls of one connection, and their answers.
//!
//! # Where they run
//!
//! A connection polls its calls itself, in its own task ([`Streams`]). A task for each, which is what hyper makes of them
//! by default, is stolen by other threads, so that a connection is woken and writes for every few answers; kept together
//! they are answered together, and a write takes all of them (`cargo xtask bench service`). The price: a call that does
//! not return from its poll holds up its connection, pings included. So nothing in a handler may block.
//!
//! ```text
//!   socket ──► hyper ──execute──► Streams: queue ──► running ──┐
//!     ▲          ▲                                             │ until nothing moves
//!     └──flush───┴─────────────── answers ◄────────────────────┘
//! ```
//!
//! # How much of an answer waits for the client at a time, and for how long
//!
//! A client opens its window for an answer as it reads. hyper hands h2 whatever frame the body gives as soon as the window
//! is not shut, however small the window and however large the frame, and then forgets the call; and it does not ask the
//! body for anything while the window is shut. So neither hyper nor the body would notice a client that reads no further.
//! Hence two halves: [`Sliced`] gives frames of [`SLICE`] bytes at most, so that the rest of a long answer waits in a call
//! that is still alive, and the executor ends those that are.
//!
//! What may wait for good, as long as the connection gives signs of life, is the last slice of each of its answers.

use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use engine::cpu_executor;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::rt::Executor;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;

use crate::status::said;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Bytes of a frame of an answer.
const SLICE: usize = 16 * 1024;

thread_local! {
    /// How long the client may take over the answer of the call that is being polled; none: it has none that is new, or one
    /// that takes as long as it takes.
    static PATIENCE: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Says, from within a call that has its answer, how long that may take.
pub(super) fn answered(patience: Duration) {
    PATIENCE.set(Some(patience));
}

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the calls of a connection from hyper, for its [`Streams`].
#[derive(Clone, Default)]
pub(super) struct Queue(Arc<Mutex<Vec<Call>>>);

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        // Never waited for: only the connection's own task uses it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Executor<F> for Queue
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.lock().push(Box::pin(Patient { call, timer: None }));
    }
}

pin_project! {
    /// A call that is dropped, which resets its stream, if its answer is not taken in time.
    struct Patient<F> {
        #[pin]
        call: F,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

impl<F: Future<Output = ()>> Future for Patient<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // It is dropped after a panic, as it would be as a task of its own: the other calls of the connection go on.
        let polled = catch_unwind(AssertUnwindSafe(|| this.call.poll(cx)));
        let patience = PATIENCE.take();
        match polled {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(())) => return Poll::Ready(()),
            Err(panic) => {
                tracing::error!("call cut: its answer panicked: {}", said(&*panic));
                return Poll::Ready(());
            }
        }
        // Only here: nearly all answers are gone with the poll that made them, and need no clock.
        if let Some(patience) = patience {
            *this.timer = Some(Box::pin(sleep_until(Instant::now() + patience)));
        }
        let Some(timer) = this.timer else { return Poll::Pending };
        timer.as_mut().poll(cx).map(|()| tracing::debug!("call cut: its answer was not taken in time"))
    }
}

pin_project! {
    /// A connection of hyper's together with its calls.
    pub(super) struct Streams<C> {
        #[pin]
        connection: C,
        queue: Queue,
        running: FuturesUnordered<Call>,
    }
}

impl<C: Future> Streams<C> {
    /// A connection that gives its calls to `queue`.
    pub(super) fn new(queue: Queue, connection: C) -> Self {
        Self { connection, queue, running: FuturesUnordered::new() }
    }

    /// The connection itself.
    pub(super) fn connection(self: Pin<&mut Self>) -> Pin<&mut C> {
        self.project().connection
    }
}

impl<C: Future> Future for Streams<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        // All that comes with one poll is put into the workers' mailboxes before they are woken.
        cpu_executor::together(|| self.poll_all(cx))
    }
}

impl<C: Future> Streams<C> {
    fn poll_all(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let mut this = self.project();
        // It ends: tokio's budget stops the connection's reading, and `running` gives way after as many polls as it has calls.
        loop {
            if let Poll::Ready(ended) = this.connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            this.running.extend(this.queue.lock().drain(..));
            let mut answered = false;
            while let Poll::Ready(Some(())) = this.running.poll_next_unpin(cx) {
                answered = true;
            }
            if !answered {
                return Poll::Pending;
            }
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub enum Answer {
    /// Of a call that went well: what is left of its one frame; none: all that is left to say is that it went well.
    Message(Option<Bytes>),
    /// Nothing is left.
    Said,
    /// Whatever it is.
    Other(Body),
}

impl Answer {
    /// An answer that consists of one frame, and is fine.
    pub fn message(frame: Bytes) -> Response<Answer> {
        Self::begun(Answer::Message(Some(frame)))
    }

    /// An answer that is fine so far, with all that comes of it.
    pub fn stream(body: Body) -> Response<Answer> {
        Self::begun(Answer::Other(body))
    }

    fn begun(answer: Answer) -> Response<Answer> {
        let mut response = Response::new(answer);
        // hyper adds the date.
        response.headers_mut().reserve(2);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        response
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match &mut *self {
            Self::Message(frame) => Poll::Ready(Some(Ok(match frame.take() {
                Some(frame) => Frame::data(frame),
                None => {
                    *self = Self::Said;
                    Frame::trailers(HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]))
                }
            }))),
            Self::Said => Poll::Ready(None),
            Self::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Message(_) => false,
            Self::Said => true,
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Message(_) | Self::Said => SizeHint::default(),
            Self::Other(body) => body.size_hint(),
        }
    }
}

/// A body whose frames are not long.
pub(super) struct Sliced {
    body: Answer,
    /// What is left of its last frame.
    rest: Bytes,
}

impl Sliced {
    pub(super) fn new(body: Answer) -> Self {
        Self { body, rest: Bytes::new() }
    }
}

impl HttpBody for Sliced {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.len() > SLICE => self.rest = data,
                    Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                other => return Poll::Ready(other),
            }
        }
        let slice = SLICE.min(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(slice)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.size_hint();
        let rest = self.rest.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper().and_then(|upper| upper.checked_add(rest)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_call_that_panics_takes_no_other_with_it() {
        let queue = Queue::default();
        let mut streams = Box::pin(Streams::new(queue.clone(), pending::<()>()));
        let answered = Arc::new(AtomicBool::new(false));
        queue.execute(async { panic!("no luck today") });
        let other = Arc::clone(&answered);
        queue.execute(async move { other.store(true, Ordering::Relaxed) });
        queue.execute(ready(()));
        assert!(streams.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
        assert!(answered.load(Ordering::Relaxed));
        assert!(streams.running.is_empty(), "both are over");
    }
}
