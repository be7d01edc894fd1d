//! The two ends of a job that somebody waits for: the mailbox holds one, the caller the other.
//!
//! The [`Phase`] between them says who decides. The answer goes through a oneshot channel; if that is closed without one,
//! the job went down with its mailbox, which means [`Refused::Stopped`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::error::Refused;
use crate::phase::Phase;

/// Takes the answer of a job that runs.
pub(crate) type Answer<Reply> = oneshot::Sender<Result<Reply, Refused>>;

pub(crate) fn slot<Reply>() -> (Queued<Reply>, Pending<Reply>) {
    let phase = Arc::new(Phase::queued());
    let (answer, answered) = oneshot::channel();
    (Queued { phase: Arc::clone(&phase), answer }, Pending { phase, answered })
}

/// The end in the mailbox.
pub(crate) struct Queued<Reply> {
    phase: Arc<Phase>,
    answer: Answer<Reply>,
}

impl<Reply> Queued<Reply> {
    /// The worker's turn: None if the job was cancelled.
    pub(crate) fn begin(self) -> Option<Answer<Reply>> {
        self.phase.begin().then_some(self.answer)
    }

    /// The worker has seen that the deadline has passed.
    pub(crate) fn expire(self) {
        if self.phase.cancel() {
            // Nobody listens if the ticket is being dropped.
            let _ = self.answer.send(Err(Refused::DeadlinePassed));
        }
    }
}

/// The caller's end. Dropping it cancels the job if it is still queued.
#[derive(Debug)]
pub(crate) struct Pending<Reply> {
    phase: Arc<Phase>,
    answered: oneshot::Receiver<Result<Reply, Refused>>,
}

impl<Reply> Pending<Reply> {
    /// True if the job will never run. If not, it runs or was refused, and the answer comes.
    pub(crate) fn cancel(&self) -> bool {
        self.phase.cancel()
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply, Refused>> {
        Pin::new(&mut self.answered).poll(cx).map(|answer| answer.unwrap_or(Err(Refused::Stopped)))
    }

    /// Waits on a plain thread; not longer than to the deadline if the job is still queued then.
    pub(crate) fn wait(mut self, mut deadline: Option<Instant>) -> Result<Reply, Refused> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(answer) = self.poll(&mut cx) {
                return answer;
            }
            let Some(limit) = deadline else {
                thread::park();
                continue;
            };
            let left = limit.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::park_timeout(left);
            } else if self.cancel() {
                return Err(Refused::DeadlinePassed);
            } else {
                deadline = None;
            }
        }
    }
}

impl<Reply> Drop for Pending<Reply> {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// Wakes a thread that has parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
