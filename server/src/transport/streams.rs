//! The answers of one connection: how much of each waits for the client at a time, and for how long.
//!
//! A client opens its window for an answer as it reads. hyper hands h2 whatever frame the body gives as soon as the window
//! is not shut, however small the window and however large the frame, and then forgets the call; and it does not ask the
//! body for anything while the window is shut. So neither hyper nor the body would notice a client that reads no further.
//! Hence two halves: [`Sliced`] gives frames of [`SLICE`] bytes at most, so that the rest of a long answer waits in a call
//! that is still alive, and [`Streams`] runs the calls and ends those that are.
//!
//! What may wait for good, as long as the connection gives signs of life, is the last slice of each of its answers.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;

/// Bytes of a frame of an answer.
const SLICE: usize = 16 * 1024;

tokio::task_local! {
    /// How long the client may take over the answer of the call that this task runs; none: it has no answer yet, or one
    /// that takes as long as it takes.
    static PATIENCE: Cell<Option<Duration>>;
}

/// Says, from within a call that has its answer, how long that may take.
pub(super) fn answered(patience: Duration) {
    PATIENCE.with(|cell| cell.set(Some(patience)));
}

/// Runs the calls of a connection, each as a task. One whose answer is not taken in time is dropped, which resets its stream.
#[derive(Clone, Copy)]
pub(super) struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, call: F) {
        tokio::spawn(PATIENCE.scope(Cell::new(None), async move {
            let mut call = pin!(call);
            let mut timer = pin!(None::<Sleep>);
            poll_fn(|cx| {
                if call.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if timer.is_none() {
                    // Only here: nearly all answers are gone with the poll that made them, and need no clock.
                    timer.set(PATIENCE.with(Cell::get).map(|patience| sleep_until(Instant::now() + patience)));
                }
                let Some(timer) = timer.as_mut().as_pin_mut() else { return Poll::Pending };
                timer.poll(cx).map(|()| tracing::debug!("call cut: its answer was not taken in time"))
            })
            .await;
        }));
    }
}

/// A body whose frames are not long.
pub(super) struct Sliced {
    body: Body,
    /// What is left of its last frame.
    rest: Bytes,
}

impl Sliced {
    pub(super) fn new(body: Body) -> Self {
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
