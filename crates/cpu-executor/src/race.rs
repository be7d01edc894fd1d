//! Who decides about a queued job: the worker that starts it, or the caller who no longer wants it.
//!
//! ```text
//!            start (worker)
//!   QUEUED ──────────────────► RUNNING
//!      │ cancel (ticket's deadline or drop; worker's deadline or stop)
//!      └─────────────────────► CANCELLED
//! ```
//!
//! Both arrows are one compare-exchange from `QUEUED`, and no arrow leads on from the other two: of all
//! who try, one is told `true`.

use crate::sync::{AtomicU8, Ordering};

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const CANCELLED: u8 = 2;

#[derive(Debug)]
pub(crate) struct Race(AtomicU8);

impl Race {
    pub(crate) fn new() -> Self {
        Race(AtomicU8::new(QUEUED))
    }

    /// The worker takes the job: true if it is to be run.
    pub(crate) fn start(&self) -> bool {
        self.leave_queued(RUNNING)
    }

    /// The job is not wanted any more: true if it will never be run.
    pub(crate) fn cancel(&self) -> bool {
        self.leave_queued(CANCELLED)
    }

    fn leave_queued(&self, to: u8) -> bool {
        // R1, its own partner: `start` and `cancel` meet here and nowhere else. Relaxed is enough, for the
        // cell publishes nothing: the operation travels through the mailbox and the answer through the
        // reply channel, which order what they carry. All that is asked of the cell is that one of the
        // two wins, and the modifications of a single location have one order whatever the ordering.
        self.0.compare_exchange(QUEUED, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests;
