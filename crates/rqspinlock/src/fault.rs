//! Refusals on demand (feature `fault-injection`): how whoever calls `lock()` finds out what becomes of each `Err`.
//!
//! ```text
//!   cpu.refuse(n, error)    the n-th acquisition from now on that this Cpu asks for, of whatever lock
//!   lock.refuse(n, error)   the n-th that anybody asks of this lock
//!                              │
//!   lock(), lock_until() ──────┼──▶ Err(error)      before anything is pushed or tried:
//!   try_lock() ────────────────┘──▶ none, false     nothing has changed
//! ```
//!
//! A plan refuses once and is gone. To sweep a scenario, run it for n = 1, 2, ... until a plan is left over
//! ([`Cpu::clear_refusal`]): then it asks for fewer locks than that. Without the feature none of this is compiled.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cpu::Cpu;
use crate::error::{LockError, LockId};
use crate::lock::RawRqSpinLock;

/// A countdown to one refusal.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Acquisitions until it is due; never 0.
    left: u64,
    error: LockError,
}

impl Plan {
    fn new(n: u64, error: LockError) -> Self {
        assert!(n > 0, "acquisitions are counted from 1");
        Plan { left: n, error }
    }

    /// Counts an acquisition: the error if this is the one, and otherwise what is left of the plan.
    fn step(self) -> Result<Plan, LockError> {
        match self.left {
            1 => Err(self.error),
            left => Ok(Plan { left: left - 1, ..self }),
        }
    }
}

/// The plan of one Cpu.
#[derive(Debug, Default)]
pub(crate) struct OfCpu(Cell<Option<Plan>>);

/// The plans of locks, by their addresses.
static OF_LOCKS: Mutex<Option<HashMap<LockId, Plan>>> = Mutex::new(None);
/// How many those are. Without any, nobody meets at the mutex: it would order what a stress test wants to collide.
static PLANNED: AtomicUsize = AtomicUsize::new(0);

fn of_locks() -> MutexGuard<'static, Option<HashMap<LockId, Plan>>> {
    OF_LOCKS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cpu {
    /// The `n`-th acquisition from now on that is asked of this Cpu fails with `error`: the next one is the first. In place of
    /// a plan that is there.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn refuse(&self, n: u64, error: LockError) {
        self.plan().0.set(Some(Plan::new(n, error)));
    }

    /// Takes back the plan of this Cpu; true if it has not refused anything yet.
    pub fn clear_refusal(&self) -> bool {
        self.plan().0.take().is_some()
    }
}

impl RawRqSpinLock {
    /// The `n`-th acquisition from now on that anybody asks of this lock fails with `error`.
    ///
    /// # Panics
    /// If `n` is 0.
    pub fn refuse(&self, n: u64, error: LockError) {
        let plan = Plan::new(n, error);
        let mut plans = of_locks();
        let plans = plans.get_or_insert_default();
        plans.insert(self.id(), plan);
        // Relaxed: who is to be refused comes after this call in the order of its own test.
        PLANNED.store(plans.len(), Ordering::Relaxed);
    }

    /// Takes back the plan of this lock; true if it has not refused anything yet.
    pub fn clear_refusal(&self) -> bool {
        of_locks().as_mut().is_some_and(|plans| {
            let cleared = plans.remove(&self.id()).is_some();
            PLANNED.store(plans.len(), Ordering::Relaxed);
            cleared
        })
    }
}

/// What the plans say to this acquisition. Both are counted down, also by one that is refused.
pub(crate) fn check(lock: &RawRqSpinLock, cpu: &Cpu) -> Result<(), LockError> {
    let of_cpu = step(cpu.plan().0.take(), |plan| cpu.plan().0.set(Some(plan)));
    if PLANNED.load(Ordering::Relaxed) == 0 {
        return of_cpu;
    }
    let of_lock = of_locks().as_mut().map_or(Ok(()), |plans| {
        let answer = step(plans.remove(&lock.id()), |plan| _ = plans.insert(lock.id(), plan));
        PLANNED.store(plans.len(), Ordering::Relaxed);
        answer
    });
    of_cpu.and(of_lock)
}

fn step(plan: Option<Plan>, keep: impl FnOnce(Plan)) -> Result<(), LockError> {
    match plan.map(Plan::step) {
        None => Ok(()),
        Some(Ok(plan)) => {
            keep(plan);
            Ok(())
        }
        Some(Err(error)) => Err(error),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use crate::{Cpu, Cycle, LockError, RqSpinLock};

    const ERRORS: [LockError; 2] = [LockError::TimedOut, LockError::Deadlock(Cycle::Nesting)];

    #[test]
    fn the_nth_acquisition_of_a_cpu_is_refused_and_no_other() {
        let cpu = Cpu::register().unwrap();
        let other = Cpu::register().unwrap();
        let locks = [RqSpinLock::new(0), RqSpinLock::new(0)];
        for error in ERRORS {
            for n in 1..=5 {
                cpu.refuse(n, error);
                for asked in 1..=5 {
                    assert!(locks[0].lock(&other).is_ok(), "another Cpu has nothing to do with it");
                    let answer = locks[asked as usize % 2].lock(&cpu).map(drop);
                    assert_eq!(answer, if asked == n { Err(error) } else { Ok(()) });
                }
                assert!(!cpu.clear_refusal(), "it is gone when it has refused");
            }
        }
        assert!(cpu.is_idle() && locks.iter().all(|lock| !lock.raw().is_locked()), "a refusal changes nothing");
    }

    #[test]
    fn the_nth_acquisition_of_a_lock_is_refused_whoever_asks() {
        let cpus = [Cpu::register().unwrap(), Cpu::register().unwrap()];
        let (lock, innocent) = (RqSpinLock::new(0), RqSpinLock::new(0));
        lock.raw().refuse(3, LockError::TimedOut);
        for (asked, cpu) in (1..=4).zip(cpus.iter().cycle()) {
            assert!(innocent.lock(cpu).is_ok());
            assert_eq!(lock.lock(cpu).is_ok(), asked != 3);
        }
        assert!(!lock.raw().clear_refusal());
    }

    #[test]
    fn a_try_is_an_acquisition() {
        let cpu = Cpu::register().unwrap();
        let lock = RqSpinLock::new(0);
        cpu.refuse(1, LockError::TimedOut);
        assert!(lock.try_lock(&cpu).is_none());
        assert!(lock.try_lock(&cpu).is_some());
        assert!(cpu.is_idle());
    }

    #[test]
    fn a_plan_can_be_taken_back() {
        let cpu = Cpu::register().unwrap();
        let lock = RqSpinLock::new(0);
        cpu.refuse(1, LockError::TimedOut);
        lock.raw().refuse(1, LockError::TimedOut);
        assert!(cpu.clear_refusal() && lock.raw().clear_refusal());
        assert!(!cpu.clear_refusal() && !lock.raw().clear_refusal());
        assert!(lock.lock(&cpu).is_ok());
    }
}
