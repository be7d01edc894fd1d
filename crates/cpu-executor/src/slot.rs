//! The two ends of a job that somebody waits for: the mailbox holds one, the caller the other.
//!
//! The [`Race`] between them says who decides; the answer itself goes through a oneshot channel.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::error::Refused;
use crate::race::Race;

/// Takes the answer of a running job.
pub(crate) type Reply<R> = oneshot::Sender<Result<R, Refused>>;

pub(crate) fn slot<R>() -> (Queued<R>, Pending<R>) {
    let race = Arc::new(Race::new());
    let (reply, answer) = oneshot::channel();
    (Queued { race: Arc::clone(&race), reply: Some(reply) }, Pending { race, answer })
}

/// The end in the mailbox. Dropping it answers [`Refused::Stopped`].
pub(crate) struct Queued<R> {
    race: Arc<Race>,
    /// None when the job has been started or refused.
    reply: Option<Reply<R>>,
}

impl<R> Queued<R> {
    /// The worker takes the job; None if it was cancelled.
    pub(crate) fn start(mut self) -> Option<Reply<R>> {
        let reply = self.reply.take();
        reply.filter(|_| self.race.start())
    }

    pub(crate) fn refuse(mut self, why: Refused) {
        self.answer(why);
    }

    fn answer(&mut self, why: Refused) {
        if let Some(reply) = self.reply.take()
            && self.race.cancel()
        {
            // Nobody listens if the ticket was dropped, which is as good as an answer.
            let _ = reply.send(Err(why));
        }
    }
}

impl<R> Drop for Queued<R> {
    fn drop(&mut self) {
        self.answer(Refused::Stopped);
    }
}

/// The caller's end. Dropping it cancels the job if it is still queued.
pub(crate) struct Pending<R> {
    race: Arc<Race>,
    answer: oneshot::Receiver<Result<R, Refused>>,
}

impl<R> Pending<R> {
    /// True if the job will never run. If not, it is running or refused: its answer will come.
    pub(crate) fn cancel(&self) -> bool {
        self.race.cancel()
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<R, Refused>> {
        // A responder answers whatever happens to it, so a closed channel cannot be, but would be a lost reply.
        Pin::new(&mut self.answer).poll(cx).map(|answer| answer.unwrap_or(Err(Refused::Dropped)))
    }

    /// Waits on a plain thread, until the deadline if the job is still queued then.
    pub(crate) fn wait(mut self, mut deadline: Option<Instant>) -> Result<R, Refused> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(answer) = self.poll(&mut cx) {
                return answer;
            }
            let Some(until) = deadline else {
                thread::park();
                continue;
            };
            let left = until.saturating_duration_since(Instant::now());
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

impl<R> Drop for Pending<R> {
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
