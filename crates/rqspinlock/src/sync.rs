//! The one place that knows whether the threads and atomics are real, loom's (`--cfg loom`) or
//! shuttle's (`--cfg loom --cfg shuttle`: the same models' world, with another checker).
//!
//! Everything that takes part in the protocol is imported from here. The event counters are not:
//! nothing is decided by them, and a model would only pay for their interleavings.

#[cfg(not(loom))]
mod real {
    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
    pub(crate) use std::thread::yield_now;

    use std::ops::Deref;
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::thread::futex::{self, Timespec};

    /// Tests of its own node, one pause instruction apart, before a waiter goes to sleep: a few
    /// microseconds, less than a context switch costs.
    pub(crate) const SPINS: u32 = 100;

    /// Looks at the word before queueing, each after twice the pause of the one before: 62 pause instructions, a few
    /// microseconds. Every look takes the word's cache line away from whoever works with it.
    pub(crate) const LOOKS: u32 = 6;

    /// Looks in a round at a word whose next release is ours, and the pause instructions between them.
    pub(crate) const LOOKS_CLAIMING: u32 = 6;
    pub(crate) const CLAIMING_PAUSE: u32 = 8;

    /// Pause instructions between the wake by a release and the look whether a thief was quicker: it has made a system call.
    pub(crate) const COURTESY: u32 = 48;

    /// Attempts of the head to fall asleep on a word that changes.
    pub(crate) const NAPS: u32 = 16;

    /// Rounds that the head lets thieves pass before it claims.
    pub(crate) const ROUNDS_BEFORE_CLAIM: u32 = 3;

    /// Rounds, from the claim on, in which it stays awake.
    pub(crate) const ROUNDS_CLAIMING: u32 = 8;

    /// Locks that one table of held locks can name; with its count it fills four cache lines.
    pub(crate) const HELD_MAX: usize = 31;

    /// Cpus that can be registered: 14 bits of the word, and 0 there means "no queue".
    pub(crate) const CPU_MAX: usize = 16_383;

    /// A word to sleep on.
    #[repr(transparent)]
    pub(crate) struct Futex(AtomicU32);

    impl Futex {
        pub(crate) const fn new(value: u32) -> Self {
            Futex(AtomicU32::new(value))
        }

        /// Sleeps until it is woken or the time is up; not at all, and false, if the word is not `expected`. It may return for
        /// no reason, so whoever sleeps looks again.
        pub(crate) fn sleep(&self, expected: u32, timeout: Duration) -> bool {
            let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
            futex::wait(&self.0, futex::Flags::PRIVATE, expected, Some(&timeout)) != Err(Errno::AGAIN)
        }

        /// Wakes whoever sleeps.
        pub(crate) fn wake(&self) {
            // It fails only where nobody can sleep.
            let _ = futex::wake(&self.0, futex::Flags::PRIVATE, 1);
        }
    }

    impl Deref for Futex {
        type Target = AtomicU32;

        #[inline(always)]
        fn deref(&self) -> &AtomicU32 {
            &self.0
        }
    }

    /// Sleeps for a moment: for a thread that has yielded often and still sees no progress.
    #[expect(clippy::disallowed_methods, reason = "between looks at a value: its writer needs this processor")]
    pub(crate) fn doze() {
        std::thread::sleep(Duration::from_micros(50));
    }

    /// The end of a round of the head: the processor goes to somebody else.
    pub(crate) fn end_round(_round: u32) {
        yield_now();
    }

    pub(crate) use super::blind::Witness;
}

#[cfg(any(not(loom), shuttle))]
mod blind {
    /// Nothing: only loom watches who touches what.
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
    #[cfg(not(shuttle))]
    pub(crate) use loom as checker;
    #[cfg(shuttle)]
    pub(crate) use shuttle as checker;

    pub(crate) use checker::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
    pub(crate) use checker::thread::yield_now;

    use std::cell::Cell;
    use std::ops::Deref;
    use std::time::Duration;

    use checker::sync::{Condvar, Mutex};

    // Every repetition of the same test multiplies the schedules and adds no new one.
    pub(crate) const SPINS: u32 = 1;
    pub(crate) const LOOKS: u32 = 1;
    pub(crate) const LOOKS_CLAIMING: u32 = 1;
    pub(crate) const CLAIMING_PAUSE: u32 = 1;
    pub(crate) const COURTESY: u32 = 1;
    pub(crate) const NAPS: u32 = 1;
    // One, in which it parks, and in which a thief can be quicker than who was woken.
    pub(crate) const ROUNDS_BEFORE_CLAIM: u32 = 2;
    pub(crate) const ROUNDS_CLAIMING: u32 = 3;
    pub(crate) const HELD_MAX: usize = 3;
    pub(crate) const CPU_MAX: usize = 4;

    /// Nothing: the loops that call it are bounded, and a thread that yields to loom runs again
    /// only after another one has made a step, which would keep a waiter from getting anywhere
    /// while the holder does nothing.
    pub(crate) fn spin_loop() {}

    pub(crate) fn doze() {
        yield_now();
    }

    std::thread_local! {
        /// Whether sleeps end by being woken only. Models run all their threads on one.
        static FOR_GOOD: Cell<bool> = const { Cell::new(false) };
    }

    /// Says whether a sleep of the model that begins ends by being woken only, so that loom sees a deadlock where a wake is
    /// lost. Otherwise a sleep is a moment, as if its time were up.
    #[cfg(test)]
    pub(crate) fn sleep_for_good(for_good: bool) {
        FOR_GOOD.set(for_good);
    }

    /// As the kernel does it: the look at the word and the way to sleep are one step for those who wake.
    pub(crate) struct Futex {
        word: AtomicU32,
        bed: Mutex<()>,
        woken: Condvar,
    }

    impl Futex {
        pub(crate) fn new(value: u32) -> Self {
            Futex { word: AtomicU32::new(value), bed: Mutex::new(()), woken: Condvar::new() }
        }

        pub(crate) fn sleep(&self, expected: u32, _timeout: Duration) -> bool {
            if !FOR_GOOD.get() {
                yield_now();
                return true;
            }
            let bed = self.bed.lock().unwrap();
            let sleeps = self.word.load(Ordering::Relaxed) == expected;
            if sleeps {
                drop(self.woken.wait(bed).unwrap());
            }
            sleeps
        }

        pub(crate) fn wake(&self) {
            if FOR_GOOD.get() {
                let _bed = self.bed.lock().unwrap();
                self.woken.notify_one();
            }
        }
    }

    impl Deref for Futex {
        type Target = AtomicU32;

        fn deref(&self) -> &AtomicU32 {
            &self.word
        }
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
    #[cfg(not(shuttle))]
    pub(crate) struct Witness(loom::cell::UnsafeCell<()>);

    // SAFETY: the cell holds no data, and loom checks every access to it; a data race on it is the
    // failure that the models look for.
    #[cfg(not(shuttle))]
    unsafe impl Sync for Witness {}

    #[cfg(not(shuttle))]
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

    /// shuttle knows one order of all steps, and so no races.
    #[cfg(shuttle)]
    pub(crate) use super::blind::Witness;
}

/// So many pause instructions.
#[inline]
pub(crate) fn pause(times: u32) {
    for _ in 0..times {
        spin_loop();
    }
}

#[cfg(loom)]
pub(crate) use model::*;
#[cfg(not(loom))]
pub(crate) use real::*;

/// Waiting for another thread's next step, which may have been preempted between two instructions: spin, then yield,
/// then doze.
pub(crate) struct Backoff {
    steps: u32,
}

impl Backoff {
    /// Yields before it dozes.
    const YIELDS: u32 = 64;

    pub(crate) fn new() -> Self {
        Backoff { steps: 0 }
    }

    /// One step of waiting.
    #[inline]
    pub(crate) fn wait(&mut self) {
        if self.steps >= SPINS + Self::YIELDS {
            return doze();
        }
        self.steps += 1;
        if self.steps <= SPINS { spin_loop() } else { yield_now() }
    }
}
