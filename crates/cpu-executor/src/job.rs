//! What goes over the border: a job there, an answer back.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::info::Counters;
use crate::phase::Phase;

/// Why a job was not run, or its answer is lost. Except for `Dropped`, nothing has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The worker's mailbox is full.
    #[error("the worker's mailbox is full")]
    Overloaded,
    /// The deadline passed while the job was queued.
    #[error("the deadline passed before the job's turn came")]
    DeadlinePassed,
    /// The worker has stopped or is stopping.
    #[error("the worker has stopped")]
    Stopped,
    /// The job was begun and then forgotten: a bug of the worker. What it did is unknown.
    #[error("the worker has lost the job")]
    Dropped,
}

/// A job that is to be run.
#[derive(Debug)]
pub struct Job<Op, Reply> {
    /// What to do.
    pub op: Op,
    /// Where the answer goes, now or later.
    pub responder: Responder<Reply>,
    /// When the caller stops waiting for it to begin; it may bound waits on the way, too.
    pub deadline: Option<Instant>,
    /// When it was queued.
    pub enqueued_at: Instant,
    /// The caller's span.
    pub span: tracing::Span,
}

/// The other end of a [`Ticket`](crate::Ticket). It wants to be used: dropped without an answer, it counts that, and
/// the caller gets [`Refused::Dropped`].
#[must_use = "a job is answered by `send`"]
pub struct Responder<Reply> {
    answer: Option<oneshot::Sender<Result<Reply, Refused>>>,
    counters: Arc<Counters>,
}

impl<Reply> Responder<Reply> {
    /// Answers. A caller that is gone does not get it, and that is all.
    pub fn send(mut self, reply: Reply) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.send(Ok(reply));
        }
    }
}

impl<Reply> Drop for Responder<Reply> {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take() {
            self.counters.dropped.add(1);
            let _ = answer.send(Err(Refused::Dropped));
        }
    }
}

impl<Reply> fmt::Debug for Responder<Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

/// A job in a mailbox. Dropped there, it leaves its ticket with a closed channel, which means [`Refused::Stopped`].
pub(crate) struct Envelope<Op, Reply> {
    pub(crate) op: Op,
    pub(crate) phase: Arc<Phase>,
    pub(crate) answer: oneshot::Sender<Result<Reply, Refused>>,
    pub(crate) deadline: Option<Instant>,
    pub(crate) enqueued_at: Instant,
    pub(crate) span: tracing::Span,
}

impl<Op, Reply> Envelope<Op, Reply> {
    pub(crate) fn new(op: Op, deadline: Option<Instant>) -> (Self, oneshot::Receiver<Result<Reply, Refused>>) {
        let (answer, receiver) = oneshot::channel();
        let phase = Arc::new(Phase::queued());
        let span = tracing::Span::current();
        (Envelope { op, phase, answer, deadline, enqueued_at: Instant::now(), span }, receiver)
    }

    /// The worker's turn: the job, unless it is not to be run.
    pub(crate) fn open(self, now: Instant, counters: &Arc<Counters>) -> Option<Job<Op, Reply>> {
        if !self.phase.begin() {
            counters.cancelled.add(1);
            return None;
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            counters.expired.add(1);
            let _ = self.answer.send(Err(Refused::DeadlinePassed));
            return None;
        }
        let responder = Responder { answer: Some(self.answer), counters: Arc::clone(counters) };
        let Envelope { op, deadline, enqueued_at, span, .. } = self;
        Some(Job { op, responder, deadline, enqueued_at, span })
    }

    /// The worker's turn when it has stopped.
    pub(crate) fn refuse(self) {
        if self.phase.begin() {
            let _ = self.answer.send(Err(Refused::Stopped));
        }
    }
}
