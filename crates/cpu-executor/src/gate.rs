//! The end of a mailbox: nobody's job may be left in it when its worker is gone.
//!
//! ```text
//!  submitter                      worker, at its end
//!  put the job into the queue     close the gate
//!  fence G1                       fence G2
//!  look at the gate               empty the queue
//! ```
//!
//! Whichever fence is first, one of the two finds the job: the worker as it empties the queue, or the submitter, who sees
//! the gate closed and empties the queue itself.

use crate::sync::{AtomicBool, Ordering, fence};

#[derive(Debug)]
pub(crate) struct Gate {
    closed: AtomicBool,
}

impl Gate {
    pub(crate) fn open() -> Gate {
        Gate { closed: AtomicBool::new(false) }
    }

    /// The worker's side, before it empties the queue.
    pub(crate) fn close(&self) {
        // Relaxed: the fences order it.
        self.closed.store(true, Ordering::Relaxed);
        // G2, partner G1. SeqCst, because each side writes one thing and then reads the other's: nothing weaker keeps
        // both from missing each other. If G1 comes first, what was put before it is seen after this.
        fence(Ordering::SeqCst);
    }

    /// The submitter's side, after it has put a job: true if it has to empty the queue.
    pub(crate) fn was_closed_meanwhile(&self) -> bool {
        // G1, partner G2: if G2 comes first, the look below sees the gate closed.
        fence(Ordering::SeqCst);
        self.closed.load(Ordering::Relaxed)
    }

    /// A first look, to save putting jobs for nothing.
    pub(crate) fn is_closed(&self) -> bool {
        // Relaxed: nothing depends on it, for whoever misses it looks again after the put.
        self.closed.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, loom))]
mod loom;
