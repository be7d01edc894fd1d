//! A worker that sleeps, against whoever has put something into its mailbox.
//!
//! ```text
//!  submitter                      worker
//!  put the job into the queue     say that it is going to sleep
//!  fence B1                       fence B2
//!  does it sleep? wake it         is there a job? then do not sleep
//! ```
//!
//! Whichever fence is first, one of the two sees what the other has done. A worker that is awake costs a submitter one look
//! at a flag that seldom changes, and no system call.

use std::sync::OnceLock;
use std::time::Duration;

use crate::sync::{AtomicBool, Ordering, fence, thread};

/// What wakes one worker.
#[derive(Debug)]
pub(crate) struct Bell {
    asleep: AtomicBool,
    worker: OnceLock<thread::Thread>,
}

impl Bell {
    /// Whose it is follows, before anybody can submit.
    pub(crate) fn new() -> Bell {
        Bell { asleep: AtomicBool::new(false), worker: OnceLock::new() }
    }

    /// It is this thread's.
    pub(crate) fn hang(&self) {
        let _ = self.worker.set(thread::current());
    }

    /// The submitter's side, after it has put a job.
    pub(crate) fn ring(&self) {
        // B1, partner B2. SeqCst, because each side writes one thing and then reads the other's: nothing weaker keeps both
        // from missing each other.
        fence(Ordering::SeqCst);
        // Relaxed, both: the fences order it, and the job goes over by the queue. The exchange lets one of many submitters make
        // the system call, and writes nothing for the others.
        let relaxed = Ordering::Relaxed;
        if self.asleep.load(relaxed) && self.asleep.compare_exchange(true, false, relaxed, relaxed).is_ok() {
            self.worker.get().expect("hung before the first job").unpark();
        }
    }

    /// The worker's side: sleeps until somebody rings, or for `limit`, unless there is a job. It may end for nothing.
    pub(crate) fn sleep(&self, limit: Option<Duration>, there_is_a_job: impl FnOnce() -> bool) {
        self.asleep.store(true, Ordering::Relaxed);
        // B2, partner B1: if B1 comes first, the look below finds what was put before it.
        fence(Ordering::SeqCst);
        if !there_is_a_job() {
            match limit {
                Some(limit) => thread::park_timeout(limit),
                None => thread::park(),
            }
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
impl Bell {
    pub(crate) fn pretend_asleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, loom))]
mod loom;
