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
//! head of the queue, which claims the next release while the thief still works, and the thief goes to the end of the queue
//! as soon as it finds the lock taken. Whatever keeps the head from it (it may be waiting for this very processor), a moment
//! later the thief leaves the lock alone; who queues beside a free lock wakes the head once more, since nobody else would.
//!
//! A streak belongs to a Cpu and not to a lock: it counts what the thread takes from others, wherever, and the time between, too.
//! `try_lock` does not queue, and so heeds none of this: it is the head's claim that bounds it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::cpu::Cpu;
use crate::lock::RawRqSpinLock;

/// How long a thief may go on.
const TURN: Duration = Duration::from_micros(500);
/// How much longer, while the head that it has woken has not come.
const GRACE: Duration = Duration::from_micros(50);
/// About how long it steals between two looks at the clock, each of which costs as much as several thefts.
const LOOK: Duration = Duration::from_micros(10);
/// Thefts between two looks at most.
const UNWATCHED_MAX: u32 = 127;

/// See the module.
#[derive(Default)]
pub(crate) struct Streak {
    /// Thefts until the next look at the clock.
    left: Cell<u32>,
    /// Thefts between the last two looks, as many as took about `LOOK`.
    unwatched: Cell<u32>,
    /// The times of the first theft since this Cpu was last in a queue, and of the last look.
    times: Cell<Option<(Instant, Instant)>>,
    /// The head has been woken, to end it.
    ending: Cell<bool>,
    over: Cell<bool>,
}

impl Streak {
    /// Whether it must queue.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// Whether it must queue as soon as the lock is taken by somebody else.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// It has taken `lock` past a queue.
    #[inline]
    pub(crate) fn overtook(&self, lock: &RawRqSpinLock, cpu: &Cpu) {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => self.look(lock, cpu),
        }
    }

    #[cold]
    #[inline(never)]
    fn look(&self, lock: &RawRqSpinLock, cpu: &Cpu) {
        // The clock may be somebody's code that steals, too: that is no reason for another look.
        self.left.set(UNWATCHED_MAX);
        let now = cpu.now();
        let Some((since, looked)) = self.times.get() else {
            self.left.set(0);
            return self.times.set(Some((now, now)));
        };
        self.times.set(Some((since, now)));
        let took = now.saturating_duration_since(looked);
        let unwatched = self.unwatched.get();
        self.unwatched.set(match took {
            _ if took < LOOK / 2 => (2 * unwatched + 1).min(UNWATCHED_MAX),
            _ if took > LOOK => unwatched / 2,
            _ => unwatched,
        });
        self.left.set(self.unwatched.get());
        let lasted = now.saturating_duration_since(since);
        let ending = lasted >= TURN;
        self.over.set(lasted >= TURN + GRACE);
        if ending && !self.ending.replace(true) {
            lock.word.wake();
        }
    }

    /// It queues.
    pub(crate) fn end(&self) {
        self.left.set(0);
        self.unwatched.set(0);
        self.times.set(None);
        self.ending.set(false);
        self.over.set(false);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{GRACE, TURN, UNWATCHED_MAX};
    use crate::{Clock, Cpu, ManualClock, RawRqSpinLock};

    /// Thefts, each after `every`, until the turn is over.
    fn steal(time: &ManualClock, lock: &RawRqSpinLock, cpu: &Cpu, every: Duration) -> Duration {
        let began = time.now();
        while !cpu.streak.is_over() {
            assert!(time.now() - began < Duration::from_secs(1), "a turn ends");
            cpu.streak.overtook(lock, cpu);
            time.advance(every);
        }
        time.now() - began
    }

    #[test]
    fn a_turn_ends_by_time_and_anew_with_every_queue() {
        let (time, lock) = (Arc::new(ManualClock::new()), RawRqSpinLock::new());
        let cpu = Cpu::builder().clock(Arc::clone(&time)).register().unwrap();
        for every in [10, 100, 1_000, 10_000, 100_000, 20].map(Duration::from_nanos) {
            cpu.streak.end();
            assert!(!cpu.streak.is_ending() && !cpu.streak.is_over());
            let lasted = steal(&time, &lock, &cpu, every);
            let ought = TURN + GRACE;
            assert!(
                lasted > ought && lasted < ought + Duration::from_micros(20).max(2 * every),
                "{lasted:?} by {every:?}"
            );
            assert!(cpu.streak.is_ending(), "it has woken the head before");
            assert!(cpu.streak.unwatched.get() <= UNWATCHED_MAX);
        }
    }
}
