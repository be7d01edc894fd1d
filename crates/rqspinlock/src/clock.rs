//! Time, as the lock sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where a [`Cpu`](crate::Cpu) gets the time from.
///
/// It is asked only by the head of a queue, once a round, by those who overtake a queue, with the lock held, every some
/// microseconds, and for the sake of a deadline; never on the uncontended path. It may itself take locks with the same `Cpu`.
/// It must not go backwards and must not panic: a waiter that unwound out of the queue would leave
/// everyone behind it waiting for ever, so a panic here aborts the process.
pub trait Clock: Send + Sync + 'static {
    /// The present.
    fn now(&self) -> Instant;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Instant {
        (**self).now()
    }
}

/// The monotonic clock of the system: what every [`Cpu`](crate::Cpu) uses unless told otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// A clock that stands still until it is told to advance. For tests.
///
/// Share it through an [`Arc`]:
/// ```
/// use std::{sync::Arc, time::Duration};
/// use rqspinlock::{Clock, Cpu, ManualClock};
///
/// let clock = Arc::new(ManualClock::new());
/// let cpu = Cpu::builder().clock(Arc::clone(&clock)).register()?;
/// let before = clock.now();
/// clock.advance(Duration::from_millis(250));
/// assert_eq!(clock.now() - before, Duration::from_millis(250));
/// # drop(cpu);
/// # Ok::<(), rqspinlock::RegisterError>(())
/// ```
#[derive(Debug)]
pub struct ManualClock {
    base: Instant,
    offset_ns: AtomicU64,
}

impl ManualClock {
    /// A clock that stands at the moment of its making.
    pub fn new() -> Self {
        ManualClock { base: Instant::now(), offset_ns: AtomicU64::new(0) }
    }

    /// Moves the clock forward, for every thread that shares it. Who sees the new time also sees what
    /// this thread has done before.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        // Release, and Acquire in `now`: who sees the new time sees what was done before it came.
        let _ = self.offset_ns.fetch_update(Ordering::Release, Ordering::Relaxed, |now| Some(now.saturating_add(by)));
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        let offset = Duration::from_nanos(self.offset_ns.load(Ordering::Acquire));
        // An Instant can be at the end of its range only after centuries of `advance`.
        self.base.checked_add(offset).unwrap_or(self.base)
    }
}
