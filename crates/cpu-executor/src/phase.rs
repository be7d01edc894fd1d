//! The race for a queued job: its worker against its deadline and its ticket's drop. One wins.
//!
//! ```text
//!            begin (the worker's turn)
//!  QUEUED ──────────────────────────────► RUNNING
//!     │ cancel (deadline, on either side; the ticket's drop)
//!     └─────────────────────────────────► CANCELLED
//! ```

use crate::sync::{AtomicU8, Ordering};

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const CANCELLED: u8 = 2;

/// Where a job is. It leaves *queued* once, and no arrow leads on from the other two.
#[derive(Debug)]
pub(crate) struct Phase(AtomicU8);

impl Phase {
    pub(crate) fn queued() -> Phase {
        Phase(AtomicU8::new(QUEUED))
    }

    /// The worker's turn: true if the job is to be run, false if it was cancelled.
    pub(crate) fn begin(&self) -> bool {
        self.leave_queued(RUNNING)
    }

    /// True if this has decided that the job will never run; false if it runs or has run, or was cancelled before.
    pub(crate) fn cancel(&self) -> bool {
        self.leave_queued(CANCELLED)
    }

    fn leave_queued(&self, to: u8) -> bool {
        // P1, its own partner: `begin` and `cancel` meet here and nowhere else. Relaxed, because only who wins counts,
        // and the changes of one location have one order anyway. The job goes over by the mailbox and the answer by its
        // channel, which order everything else; a canceller reads nothing that the worker wrote.
        self.0.compare_exchange(QUEUED, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests;
