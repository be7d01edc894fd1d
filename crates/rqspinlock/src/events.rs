//! What has happened on a Cpu: counters that cost the fast path one load and one store.

use std::iter::Sum;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The events of one Cpu, or of several added together, since registration.
///
/// Every successful acquisition is exactly one of `fast`, `stolen` and `claimed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Acquisitions of a lock that nobody held and nobody waited for.
    pub fast: u64,
    /// Acquisitions past a queue whose head had not claimed yet, or while spinning before queueing.
    pub stolen: u64,
    /// Times this Cpu has joined a queue.
    pub queued: u64,
    /// Acquisitions as the head of a queue.
    pub claimed: u64,
    /// Waits, in the queue or at its head, in which the waiter went to sleep.
    pub parked: u64,
    /// Acquisitions tried once only, because all queue nodes were in use (nesting).
    pub trylock_fallback: u64,
    /// `Deadlock(Aa)` returned.
    pub aa: u64,
    /// `Deadlock(Abba)` returned.
    pub abba: u64,
    /// `TimedOut` returned to the head of a queue, who flushed it.
    pub timeouts: u64,
    /// `TimedOut` returned to a waiter whose queue was flushed.
    pub flushed: u64,
    /// Unlocks of a lock that was not the last one acquired.
    pub out_of_order: u64,
}

impl Events {
    /// Locks that were acquired, by whatever way.
    pub fn acquisitions(&self) -> u64 {
        self.fast + self.stolen + self.claimed
    }
}

impl AddAssign for Events {
    fn add_assign(&mut self, other: Events) {
        let Events {
            fast,
            stolen,
            queued,
            claimed,
            parked,
            trylock_fallback,
            aa,
            abba,
            timeouts,
            flushed,
            out_of_order,
        } = other;
        self.fast += fast;
        self.stolen += stolen;
        self.queued += queued;
        self.claimed += claimed;
        self.parked += parked;
        self.trylock_fallback += trylock_fallback;
        self.aa += aa;
        self.abba += abba;
        self.timeouts += timeouts;
        self.flushed += flushed;
        self.out_of_order += out_of_order;
    }
}

impl Sum for Events {
    fn sum<I: Iterator<Item = Events>>(events: I) -> Events {
        events.fold(Events::default(), |mut total, one| {
            total += one;
            total
        })
    }
}

/// Reads a Cpu's counters from any thread, and goes on doing so after the Cpu has ended.
#[derive(Clone, Debug)]
pub struct EventsHandle(Arc<Counters>);

impl EventsHandle {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        EventsHandle(counters)
    }

    /// The counters as they are now. Each is exact; between them the Cpu may have moved on.
    pub fn snapshot(&self) -> Events {
        let Counters {
            fast,
            stolen,
            queued,
            claimed,
            parked,
            trylock_fallback,
            aa,
            abba,
            timeouts,
            flushed,
            out_of_order,
        } = &*self.0;
        Events {
            fast: fast.get(),
            stolen: stolen.get(),
            queued: queued.get(),
            claimed: claimed.get(),
            parked: parked.get(),
            trylock_fallback: trylock_fallback.get(),
            aa: aa.get(),
            abba: abba.get(),
            timeouts: timeouts.get(),
            flushed: flushed.get(),
            out_of_order: out_of_order.get(),
        }
    }
}

/// The counters themselves; one field for each of [`Events`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) fast: Counter,
    pub(crate) stolen: Counter,
    pub(crate) queued: Counter,
    pub(crate) claimed: Counter,
    pub(crate) parked: Counter,
    pub(crate) trylock_fallback: Counter,
    pub(crate) aa: Counter,
    pub(crate) abba: Counter,
    pub(crate) timeouts: Counter,
    pub(crate) flushed: Counter,
    pub(crate) out_of_order: Counter,
}

/// Written by the thread that owns the Cpu, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Only the owner of the Cpu may call this: with one writer a load and a store lose nothing,
    /// and cost a twentieth of a read-modify-write.
    #[inline]
    pub(crate) fn bump(&self) {
        // Relaxed: nothing is decided by a counter.
        let next = self.0.load(Ordering::Relaxed).wrapping_add(1);
        self.0.store(next, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
