//! What goes over the border: a job there, an answer back.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tracing::Span;
use tracing::level_filters::LevelFilter;

use crate::error::Refused;
use crate::info::Meters;
use crate::slot::{Answer, Queued};

/// A job that is to be run.
#[derive(Debug)]
pub struct Job<Op, Reply> {
    /// What to do.
    pub op: Op,
    /// Where the answer goes, now or later.
    pub responder: Responder<Reply>,
    /// When the caller stops waiting for it to begin, still ahead when the worker took the job; it may bound waits on
    /// the way, too.
    pub deadline: Option<Instant>,
    /// When it was queued.
    pub enqueued_at: Instant,
    /// The caller's span; disabled where nothing is traced.
    pub span: Span,
}

/// The other end of a [`Ticket`](crate::Ticket). It wants to be used: dropped without an answer, it counts that
/// ([`Counters::dropped`](crate::Counters::dropped)), and the caller gets [`Refused::Dropped`].
#[must_use = "a job is answered by `send`"]
pub struct Responder<Reply> {
    to: To<Reply>,
    meters: Arc<Meters>,
}

enum To<Reply> {
    Caller(Answer<Reply>),
    /// The job was detached: the answer is thrown away, but its loss counts all the same.
    Nobody,
    Answered,
}

impl<Reply> Responder<Reply> {
    /// Answers. A caller that is gone does not get it, and that is all.
    pub fn send(mut self, reply: Reply) {
        if let To::Caller(answer) = std::mem::replace(&mut self.to, To::Answered) {
            answer.send(Ok(reply));
        }
    }
}

impl<Reply> Drop for Responder<Reply> {
    fn drop(&mut self) {
        let to = std::mem::replace(&mut self.to, To::Answered);
        if !matches!(to, To::Answered) {
            self.meters.dropped.add(1);
        }
        if let To::Caller(answer) = to {
            answer.send(Err(Refused::Dropped));
        }
    }
}

impl<Reply> fmt::Debug for Responder<Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

/// A job in a mailbox.
pub(crate) struct Envelope<Op, Reply> {
    op: Op,
    /// None if nobody waits for the answer; then nobody can cancel the job either.
    queued: Option<Queued<Reply>>,
    deadline: Option<Instant>,
    enqueued_at: Instant,
    /// As how many jobs it counts.
    pub(crate) count: usize,
    span: Span,
}

impl<Op, Reply> Envelope<Op, Reply> {
    pub(crate) fn new(op: Op, queued: Option<Queued<Reply>>, deadline: Option<Instant>, enqueued_at: Instant) -> Self {
        // One load where nothing is traced, and a look at the thread's subscriber where something is.
        let traced = LevelFilter::current() != LevelFilter::OFF;
        let span = if traced { Span::current() } else { Span::none() };
        Envelope { op, queued, deadline, enqueued_at, count: 1, span }
    }

    /// The same, counted as so many.
    pub(crate) fn counted(self, count: usize) -> Self {
        Envelope { count, ..self }
    }

    /// The worker's turn: the job, unless it was cancelled or its deadline has passed.
    pub(crate) fn open(self, meters: &Arc<Meters>) -> Option<Job<Op, Reply>> {
        let Envelope { op, queued, deadline, enqueued_at, span, .. } = self;
        let to = match queued {
            Some(queued) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                queued.expire();
                return None;
            }
            Some(queued) => To::Caller(queued.begin()?),
            None => To::Nobody,
        };
        let responder = Responder { to, meters: Arc::clone(meters) };
        Some(Job { op, responder, deadline, enqueued_at, span })
    }
}
