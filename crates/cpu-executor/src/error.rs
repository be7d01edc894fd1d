//! What can go wrong at the border.

use std::error::Error;
use std::io;
use std::time::Duration;

/// Why a job has no reply.
///
/// All but [`Refused::Dropped`] mean that the job was not run and never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// The worker's mailbox is full. Try again after a pause.
    #[error("the worker's mailbox is full")]
    Overloaded,
    /// The deadline passed before the job was started.
    #[error("the deadline passed before the work was started")]
    DeadlinePassed,
    /// The executor is stopping, or the worker has ended after a panic, or there is no worker of that index.
    #[error("the worker has stopped")]
    Stopped,
    /// The job was started, and ended without a reply: its worker has lost the responder, panicked, or was
    /// stopped before long work was done. How much of it has happened is not known.
    #[error("the work was started, but its reply was lost")]
    Dropped,
}

/// Why an executor did not start. No thread of it is left behind, but one that does not come back from
/// building its worker.
#[derive(Debug, thiserror::Error)]
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
    #[error("cannot start the thread of worker {worker}: {source}")]
    Thread {
        /// The worker's index.
        worker: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The worker could not be built on its thread.
    #[error("cannot build worker {worker}: {source}")]
    Build {
        /// The worker's index.
        worker: usize,
        /// What its builder said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A worker was not built in time.
    #[error("{up} of {wanted} workers were up within {} s: building the others takes too long", waited.as_secs())]
    Slow {
        /// How many were up.
        up: usize,
        /// How many there should be.
        wanted: usize,
        /// How long they had.
        waited: Duration,
    },
}

/// Why a stop was not clean: some threads go on with the job that they were running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("workers {still_running:?} did not end within {} ms: they are still in a job", grace.as_millis())]
pub struct StopError {
    /// The indices of the workers that have not ended. Each will end after its job, and answer what is
    /// left in its mailbox with [`Refused::Stopped`].
    pub still_running: Vec<usize>,
    /// How long they had.
    pub grace: Duration,
}
