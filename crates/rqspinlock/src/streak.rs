//! How long a thief may go on: the part of fairness that is the thief's own business.
//!
//! ```text
//!   first theft past a queue                TURN                     + GRACE
//!     │──── steals as it likes ──────────────│── steals, if it still can ──│── queues like everybody else
//!                                            └ wakes the head
//! ```
//!
//! A thread that runs takes a free lock again at once, and faster than any sleeper can wake: that is what makes the lock
//! fast with more threads than processors, and would starve the others. So each thief has a turn. At its end it wakes the
//! head of the queue, which claims the next release while the thief still works; whatever keeps the head from it (it may
//! be waiting for this very processor), a moment later the thief leaves the lock alone and goes to the end of the queue.
//!
//! A streak belongs to a Cpu and not to a lock: it counts what the thread takes from others, wherever.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::cpu::Cpu;
use crate::lock::RawRqSpinLock;

/// How long a thief may go on.
const TURN: Duration = Duration::from_micros(500);
/// How much longer, while the head that it has woken has not come.
const GRACE: Duration = Duration::from_micros(50);
/// Thefts between two looks at the clock.
const THEFTS_UNWATCHED: u32 = 32;

/// See the module.
#[derive(Default)]
pub(crate) struct Streak {
    /// Locks taken past a queue since this Cpu was last in one.
    thefts: Cell<u32>,
    /// The time of the first of them.
    since: Cell<Option<Instant>>,
    over: Cell<bool>,
}

impl Streak {
    /// Whether it must queue.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// It has taken `lock` past a queue.
    #[inline]
    pub(crate) fn overtook(&self, lock: &RawRqSpinLock, cpu: &Cpu) {
        let thefts = self.thefts.get();
        self.thefts.set(thefts.wrapping_add(1));
        // A look at the clock costs as much as several thefts.
        if thefts.is_multiple_of(THEFTS_UNWATCHED) {
            self.look(lock, cpu);
        }
    }

    #[cold]
    #[inline(never)]
    fn look(&self, lock: &RawRqSpinLock, cpu: &Cpu) {
        let now = cpu.now();
        let Some(since) = self.since.get() else {
            return self.since.set(Some(now));
        };
        let lasted = now.saturating_duration_since(since);
        self.over.set(lasted >= TURN + GRACE);
        if lasted >= TURN {
            lock.word.wake();
        }
    }

    /// It queues.
    pub(crate) fn end(&self) {
        self.thefts.set(0);
        self.since.set(None);
        self.over.set(false);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{GRACE, THEFTS_UNWATCHED, TURN};
    use crate::{Clock, Cpu, ManualClock, RawRqSpinLock};

    struct Shared(Arc<ManualClock>);

    impl Clock for Shared {
        fn now(&self) -> Instant {
            self.0.now()
        }
    }

    #[test]
    fn a_turn_ends_by_time_and_anew_with_every_queue() {
        let (time, lock) = (Arc::new(ManualClock::new()), RawRqSpinLock::new());
        let cpu = Cpu::builder().clock(Shared(Arc::clone(&time))).register().unwrap();
        let steal = || (0..THEFTS_UNWATCHED).for_each(|_| cpu.streak.overtook(&lock, &cpu));
        for _ in 0..2 {
            steal();
            time.advance(TURN + GRACE - Duration::from_nanos(1));
            steal();
            assert!(!cpu.streak.is_over());
            time.advance(Duration::from_nanos(1));
            steal();
            assert!(cpu.streak.is_over(), "it has to queue now");
            cpu.streak.end();
            assert!(!cpu.streak.is_over());
        }
    }
}
