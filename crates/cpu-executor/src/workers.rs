//! The threads, and their end.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::error::StopError;
use crate::thread::Stop;

/// How long the threads have when they are stopped by a drop.
const DROP_GRACE: Duration = Duration::from_secs(1);
/// No grace is longer, which keeps the end of it in range.
const MAX_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// The threads. [`Workers::stop`] ends them; dropping this does the same with a grace of one second, and logs what has
/// not ended by then.
#[must_use = "dropping it stops the workers"]
pub struct Workers {
    stop: Arc<Stop>,
    threads: Vec<Running>,
}

/// A thread that was started.
pub(crate) struct Running {
    pub(crate) handle: JoinHandle<()>,
    /// Closed by the thread as it ends; nothing is sent.
    pub(crate) ended: Receiver<()>,
}

impl Workers {
    pub(crate) fn new(stop: Arc<Stop>) -> Self {
        Workers { stop, threads: Vec::new() }
    }

    pub(crate) fn push(&mut self, thread: Running) {
        self.threads.push(thread);
    }

    /// Ends the threads and joins them. Blocks, for `grace` at most (and no longer than a day).
    ///
    /// No new job is taken. A job that runs is run to its end. What is queued is not run but refused with
    /// [`Refused::Stopped`](crate::Refused::Stopped), also on a worker that is stuck, once it is out of its job: whoever
    /// wants queued work done waits for its tickets first. Long work that keeps its responder is dropped with the worker,
    /// and its ticket gets [`Refused::Dropped`](crate::Refused::Dropped).
    pub fn stop(mut self, grace: Duration) -> Result<(), StopError> {
        self.halt(grace)
    }

    fn halt(&mut self, grace: Duration) -> Result<(), StopError> {
        let grace = grace.min(MAX_GRACE);
        let limit = Instant::now() + grace;
        self.stop.say();
        // Also one that is about to sleep: its sleep ends at once.
        self.threads.iter().for_each(|thread| thread.handle.thread().unpark());
        let mut stuck = Vec::new();
        for (worker, Running { handle, ended }) in self.threads.drain(..).enumerate() {
            match ended.recv_deadline(limit) {
                // All that is left of the thread is to return, and its panics were caught.
                Ok(()) | Err(RecvTimeoutError::Disconnected) => drop(handle.join()),
                Err(RecvTimeoutError::Timeout) => stuck.push(worker),
            }
        }
        if stuck.is_empty() { Ok(()) } else { Err(StopError { stuck, grace }) }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Err(error) = self.halt(DROP_GRACE) {
            tracing::warn!(%error, "threads were left behind");
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}
