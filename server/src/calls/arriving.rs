//! A request's message on its way in, and by when it must be here.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

/// A body that fails with `late` where it makes its reader wait beyond `deadline`.
pub(super) struct Arriving {
    body: Incoming,
    deadline: Instant,
    late: fn() -> Status,
    /// Most messages are here when they are asked for: those need no timer.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Arriving {
    pub(super) fn new(body: Incoming, deadline: Instant, late: fn() -> Status) -> Self {
        Self { body, deadline, late, timer: None }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = tonic::codegen::StdError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = self.deadline;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // tonic looks for a Status in the errors of bodies, and refuses the call with it.
        timer.as_mut().poll(cx).map(|()| Some(Err((self.late)().into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
