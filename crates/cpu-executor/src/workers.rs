//! The owner's side: the threads, and their end.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use crate::error::StopError;
use crate::mailbox::Door;
use crate::thread::{Ended, Stop};

/// How long [`Workers`] waits for its threads when it is dropped.
const DROP_GRACE: Duration = Duration::from_secs(1);
/// No grace is longer: it keeps sums of times in range.
const MAX_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// The threads of an executor. Dropping it stops them as [`Workers::stop`] does, within a second; what does
/// not end by then is left to itself.
#[must_use = "dropping it stops the workers"]
pub struct Workers {
    stop: Arc<Stop>,
    has_ended: Receiver<Ended>,
    threads: Vec<Thread>,
}

struct Thread {
    handle: JoinHandle<()>,
    door: Arc<dyn Door>,
}

/// How a stop went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopReport {
    /// The indices of the workers that had ended by a panic, in the order of their end.
    pub panicked: Vec<usize>,
}

impl Workers {
    pub(crate) fn new(stop: Arc<Stop>, has_ended: Receiver<Ended>) -> Self {
        Workers { stop, has_ended, threads: Vec::new() }
    }

    pub(crate) fn push(&mut self, handle: JoinHandle<()>, door: Arc<dyn Door>) {
        self.threads.push(Thread { handle, door });
    }

    /// Ends the workers. Blocks for at most `grace` (a day, if it is more).
    ///
    /// - What is submitted from now on is refused with [`Refused::Stopped`](crate::Refused::Stopped).
    /// - Each worker ends the job that it is running. What is queued behind is not run, but answered
    ///   [`Refused::Stopped`](crate::Refused::Stopped): whoever wants queued work done waits for it before
    ///   the stop.
    /// - Long work, whose responder is kept, goes on by [`Worker::background`](crate::Worker::background) until it
    ///   is answered, for at most half of `grace`; then it is dropped.
    /// - The worker is dropped on its thread, and the thread is joined.
    ///
    /// A worker that is not done with its job by then is named in the error, and left to itself.
    pub fn stop(mut self, grace: Duration) -> Result<StopReport, StopError> {
        self.halt(grace)
    }

    fn halt(&mut self, grace: Duration) -> Result<StopReport, StopError> {
        let grace = grace.min(MAX_GRACE);
        let now = Instant::now();
        let until = now + grace;
        self.stop.say(now + grace / 2);
        let mut threads: Vec<_> = mem::take(&mut self.threads).into_iter().map(Some).collect();
        // First those who are ready to listen, so that one whose mailbox is full does not hold up the others.
        let full: Vec<_> = threads.iter().flatten().filter(|thread| !thread.door.wake(now)).collect();
        for thread in full {
            thread.door.wake(until);
        }

        let mut report = StopReport::default();
        // At the latest when all have ended it is disconnected.
        while let Ok(Ended { worker, panicked }) = self.has_ended.recv_deadline(until) {
            if panicked {
                report.panicked.push(worker);
            }
            if let Some(thread) = threads[worker].take() {
                // All that is left of the thread is to return; its panics were caught.
                let _ = thread.handle.join();
            }
        }
        let still_running: Vec<_> = (0..threads.len()).filter(|&worker| threads[worker].is_some()).collect();
        if still_running.is_empty() { Ok(report) } else { Err(StopError { still_running, grace }) }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if !self.threads.is_empty()
            && let Err(error) = self.halt(DROP_GRACE)
        {
            tracing::warn!(%error, "workers were left behind");
        }
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("threads", &self.threads.len()).finish_non_exhaustive()
    }
}
