//! What a worker is: the part that the user of this crate writes.

use std::time::Duration;

use crate::job::Job;

/// Where a worker sits. It is told when it is built, on its own thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The worker's index, from 0.
    pub worker: usize,
    /// The processor that it was meant for.
    pub processor: usize,
    /// Whether its thread is bound to that processor. Not so without the right, or where the processor is
    /// not there for us: the thread then runs wherever the process may.
    pub pinned: bool,
}

/// The state of one pinned thread, and what it does with a job.
///
/// It never leaves its thread, so it need not be `Send`.
pub trait Worker {
    /// What is asked of it.
    type Op: Send + 'static;
    /// What it answers.
    type Reply: Send + 'static;

    /// Does a job, and answers through its responder. Long work may keep the responder, go on in
    /// [`Worker::background`], and answer later.
    ///
    /// A panic ends this worker for good (see the [crate's documentation](crate)).
    fn run(&mut self, job: Job<Self::Op, Self::Reply>);

    /// One bounded piece of work that nobody has asked for just now. It is called after each batch and
    /// before the thread parks; jobs that came meanwhile are done before it is called again.
    fn background(&mut self) -> Background;
}

/// When a worker wants to be called again although no job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// There is nothing to do until the next job: park.
    Idle,
    /// There is more to do now: look into the mailbox, then call again.
    Again,
    /// There is more to do later: park, but not longer than this.
    After(Duration),
}
