//! The race for a queued job: its worker, its deadline and its ticket's drop, of which one wins.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, Ordering};

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const CANCELLED: u8 = 2;

/// Where a job is. It leaves *queued* once.
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

    /// True if the job will never run, false if it runs or has run, or was cancelled before.
    pub(crate) fn cancel(&self) -> bool {
        self.leave_queued(CANCELLED)
    }

    fn leave_queued(&self, to: u8) -> bool {
        // Relaxed: only who wins counts. The job goes over by the mailbox and the answer by its channel, which order
        // everything else; a canceller reads nothing that the worker wrote.
        self.0.compare_exchange(QUEUED, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// Worker, deadline and drop at once: exactly one of them has the job.
    #[test]
    fn loom_one_leaves_queued() {
        loom::model(|| {
            let phase = Arc::new(Phase::queued());
            let cancel = |phase: &Arc<Phase>| {
                let phase = Arc::clone(phase);
                thread::spawn(move || phase.cancel())
            };
            let (deadline, drop) = (cancel(&phase), cancel(&phase));
            let ran = phase.begin();
            let cancelled = [deadline.join().unwrap(), drop.join().unwrap()];
            assert_eq!(u8::from(ran) + u8::from(cancelled[0]) + u8::from(cancelled[1]), 1);
            assert!(!phase.begin() && !phase.cancel());
        });
    }
}
