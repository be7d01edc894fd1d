//! The one place that knows whether the threads and atomics are real or loom's.
//!
//! Everything that takes part in the protocol is imported from here. The event counters are not:
//! nothing is decided by them, and a model would only pay for their interleavings.

#[cfg(not(loom))]
mod real {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
    pub(crate) use std::thread::yield_now;

    use std::time::Duration;

    /// Tests of a value, one pause instruction apart, before a waiter gives the processor away:
    /// a few microseconds, less than a context switch costs.
    pub(crate) const SPINS: u32 = 100;

    /// Rounds (100 spins and a yield each) that the head lets thieves pass before it claims.
    pub(crate) const ROUNDS_BEFORE_CLAIM: u32 = 3;

    /// Locks that one table of held locks can name; with its count it fills four cache lines.
    pub(crate) const HELD_MAX: usize = 31;

    /// Cpus that can be registered: 14 bits of the word, and 0 there means "no queue".
    pub(crate) const CPU_MAX: usize = 16_383;

    /// Sleeps for a moment: for a thread that has yielded often and still sees no progress.
    #[expect(clippy::disallowed_methods, reason = "between looks at a value: its writer needs this processor")]
    pub(crate) fn doze() {
        std::thread::sleep(Duration::from_micros(50));
    }

    /// The end of a round of the head: the processor goes to somebody else.
    pub(crate) fn end_round(_round: u32) {
        yield_now();
    }

    /// Nothing: only the models watch who touches what.
    pub(crate) struct Witness;

    impl Witness {
        pub(crate) const fn new() -> Self {
            Witness
        }

        #[inline(always)]
        pub(crate) fn touch(&self) {}

        #[inline(always)]
        pub(crate) fn look(&self) {}
    }
}

#[cfg(loom)]
mod model {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
    pub(crate) use loom::thread::yield_now;

    // Every repetition of the same test multiplies the schedules and adds no new one.
    pub(crate) const SPINS: u32 = 1;
    pub(crate) const ROUNDS_BEFORE_CLAIM: u32 = 1;
    pub(crate) const HELD_MAX: usize = 3;
    pub(crate) const CPU_MAX: usize = 4;

    /// Nothing: the loops that call it are bounded, and a thread that yields to loom runs again
    /// only after another one has made a step, which would keep a waiter from getting anywhere
    /// while the holder does nothing.
    pub(crate) fn spin_loop() {}

    pub(crate) fn doze() {
        yield_now();
    }

    /// The head's loop is not bounded, so it has to yield, but not before it has had the rounds in
    /// which it claims and looks at the clock.
    pub(crate) fn end_round(round: u32) {
        if round.is_multiple_of(3) {
            yield_now();
        }
    }

    /// A cell that stands for what the protocol says belongs to one thread at a time.
    ///
    /// loom fails a model in which a touch is not ordered, by happens-before, with every other touch
    /// and look. So a touch by everyone who takes himself for the owner proves that there is one at
    /// a time, and that each sees what the one before it did.
    pub(crate) struct Witness(loom::cell::UnsafeCell<()>);

    // SAFETY: the cell holds no data, and loom checks every access to it; a data race on it is the
    // failure that the models look for.
    unsafe impl Sync for Witness {}

    impl Witness {
        pub(crate) fn new() -> Self {
            Witness(loom::cell::UnsafeCell::new(()))
        }

        pub(crate) fn touch(&self) {
            self.0.with_mut(|_| ());
        }

        pub(crate) fn look(&self) {
            self.0.with(|_| ());
        }
    }
}

#[cfg(loom)]
pub(crate) use model::*;
#[cfg(not(loom))]
pub(crate) use real::*;

/// Waiting for another thread's next step: spin, then yield, and doze if told that it may be long.
pub(crate) struct Backoff {
    spins: u32,
    yields: u32,
}

impl Backoff {
    /// Yields before [`Backoff::wait_long`] starts to sleep.
    const YIELDS: u32 = 64;

    pub(crate) fn new() -> Self {
        Backoff { spins: 0, yields: 0 }
    }

    /// One step of waiting; true if it gave the processor away.
    #[inline]
    pub(crate) fn wait(&mut self) -> bool {
        if self.spins < SPINS {
            self.spins += 1;
            spin_loop();
            return false;
        }
        yield_now();
        true
    }

    /// One step of waiting for a thread that may have been preempted between two instructions.
    #[inline]
    pub(crate) fn wait_long(&mut self) {
        if self.yields >= Self::YIELDS {
            doze();
        } else if self.wait() {
            self.yields += 1;
        }
    }
}
