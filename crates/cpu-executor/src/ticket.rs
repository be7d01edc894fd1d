//! The caller's end of a job.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep_until};

use crate::job::Refused;
use crate::phase::Phase;

/// Waits for a job's answer. Dropping it cancels the job if it is still queued, and never one that runs.
#[must_use = "dropping it cancels the job"]
#[derive(Debug)]
pub struct Ticket<Reply> {
    pub(crate) phase: Arc<Phase>,
    pub(crate) answer: oneshot::Receiver<Result<Reply, Refused>>,
    /// Taken once it has passed.
    pub(crate) deadline: Option<Instant>,
    /// Made when the first poll has to wait.
    pub(crate) timer: Option<Pin<Box<Sleep>>>,
}

impl<Reply> Future for Ticket<Reply> {
    type Output = Result<Reply, Refused>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Poll::Ready(answer) = Pin::new(&mut this.answer).poll(cx) {
            // Closed without an answer: dropped in the mailbox of a worker that is gone.
            return Poll::Ready(answer.unwrap_or(Err(Refused::Stopped)));
        }
        if let Some(deadline) = this.deadline {
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
            if timer.as_mut().poll(cx).is_ready() {
                (this.deadline, this.timer) = (None, None);
                if this.phase.cancel() {
                    return Poll::Ready(Err(Refused::DeadlinePassed));
                }
                // It runs: what it does counts, so it is awaited.
            }
        }
        Poll::Pending
    }
}

impl<Reply> Drop for Ticket<Reply> {
    fn drop(&mut self) {
        self.phase.cancel();
    }
}
