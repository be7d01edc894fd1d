//! What can go wrong at the border.

use std::time::Duration;

/// Why a job has no reply. Except for `Dropped`, nothing has happened, and nothing will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// The worker's mailbox is full. Try again after a pause.
    #[error("the worker's mailbox is full")]
    Overloaded,
    /// The deadline passed while the job was queued.
    #[error("the deadline passed before the job's turn came")]
    DeadlinePassed,
    /// The worker has stopped, is stopping, has panicked, or was never there.
    #[error("the worker has stopped")]
    Stopped,
    /// The job was begun and has no answer: its worker has lost it, or panicked, or was stopped before long work
    /// was done. What it did is unknown.
    #[error("the worker has lost the job")]
    Dropped,
}

/// Why the threads did not start. Those that did have been stopped again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A setting is out of its range.
    #[error("{setting} is {value}: expected {expected}")]
    Config {
        /// The field of [`Config`](crate::Config).
        setting: &'static str,
        /// What it was.
        value: String,
        /// What would do.
        expected: String,
    },
    /// The system gave no thread.
    #[error("cannot start thread {name}: {problem}")]
    Thread {
        /// Its name.
        name: String,
        /// What the system said.
        problem: String,
    },
    /// A worker could not be built.
    #[error("worker {worker} cannot start: {problem}")]
    Worker {
        /// Its number.
        worker: usize,
        /// What it said.
        problem: String,
    },
    /// A worker was not built in time.
    #[error("only {up} of {wanted} workers were ready within {} s", waited.as_secs())]
    TimedOut {
        /// How many were ready.
        up: usize,
        /// How many there should have been.
        wanted: usize,
        /// How long they had.
        waited: Duration,
    },
}

/// Threads that did not end in time. They are left to themselves: each ends after the job that it is in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("workers {stuck:?} were still busy after the grace period of {} ms", grace.as_millis())]
pub struct StopError {
    /// Their numbers, in order.
    pub stuck: Vec<usize>,
    /// How long they had.
    pub grace: Duration,
}
