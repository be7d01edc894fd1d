//! The caller's end of a job, as a future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::time::{Sleep, sleep_until};

use crate::error::Refused;
use crate::slot::Pending;

/// Waits for a job's answer. Dropping it cancels the job if it is still queued, and never one that runs.
///
/// # Panics
/// With a deadline, when it is polled outside of a tokio runtime with timers.
#[must_use = "dropping it cancels the job"]
#[derive(Debug)]
pub struct Ticket<Reply> {
    pending: Pending<Reply>,
    /// Taken once it has passed.
    deadline: Option<Instant>,
    /// Made when the first poll has to wait.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<Reply> Ticket<Reply> {
    pub(crate) fn new(pending: Pending<Reply>, deadline: Option<Instant>) -> Self {
        Ticket { pending, deadline, timer: None }
    }
}

impl<Reply> Future for Ticket<Reply> {
    type Output = Result<Reply, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(answer) = this.pending.poll(cx) {
            return Poll::Ready(answer);
        }
        if let Some(deadline) = this.deadline {
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
            if timer.as_mut().poll(cx).is_ready() {
                if this.pending.cancel() {
                    return Poll::Ready(Err(Refused::DeadlinePassed));
                }
                // It runs: what it does counts, so it is awaited. The poll above has left our waker with it.
                (this.deadline, this.timer) = (None, None);
            }
        }
        Poll::Pending
    }
}
