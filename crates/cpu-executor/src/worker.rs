//! What a worker is: the part that the user of this crate writes.

use std::time::Duration;

use crate::job::Job;

/// What a worker is told when it is built, on its own thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Its number, from 0.
    pub worker: usize,
    /// The processor that it is meant for; workers of one processor share it.
    pub processor: usize,
    /// Whether its thread runs there only.
    pub pinned: bool,
}

/// Runs jobs. Lives and dies on its own thread, so it need not be `Send`.
pub trait Worker: 'static {
    /// What it is asked to do.
    type Op: Send + 'static;
    /// What it answers.
    type Reply: Send + 'static;

    /// Runs a job and answers through its responder, or keeps the responder, goes on in [`Worker::background`] and
    /// answers later.
    ///
    /// A panic ends this worker for good (see the [crate's documentation](crate)).
    fn run(&mut self, job: Job<Self::Op, Self::Reply>);

    /// One bounded piece of whatever else there is to do. Called after each batch, and before going to sleep; jobs that
    /// have come meanwhile go before the next call.
    fn background(&mut self) -> Background;
}

/// What a worker wants between two batches. The smaller one is the sooner one, so that of several wishes the minimum counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Background {
    /// Another turn, as soon as the mailbox was looked at.
    Again,
    /// Another turn after the next batch, or after this time without a job.
    After(Duration),
    /// Nothing: sleep until there is a job.
    Idle,
}
