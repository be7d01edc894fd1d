//! Memory that readers may still see is freed after a grace period: crossbeam's epochs, plus a count of what waits.
//!
//! ```text
//!  retired ─► the thread's bag ── 64 are in it, or the thread tidies up ─► the queue of all threads ── two epochs later ─► freed
//!              only the thread itself can empty it                         first in, first out; by whoever looks into it
//! ```
//!
//! A thread looks into the queue at every 128th pin, be it a reader's, and when it tidies up. It takes out 8 bags at most, so a
//! reader frees 512 objects at a time, however many wait. What a reader's own bag holds is the queue's own memory, 64 pieces of
//! 2 KiB at most: only a thread with a [`Context`](crate::Context) retires, and it tidies up before it sleeps for good.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// Retired by anyone, ever.
static RETIRED: Tally = Tally::new();
/// Freed by anyone, ever.
static FREED: Tally = Tally::new();

/// How many threads count each for itself; more of them share.
const SHARES: usize = 16;

/// A count in shares, each in a line of its own: every update adds to two of these, and threads that change different values would meet
/// here alone.
struct Tally([CachePadded<AtomicU64>; SHARES]);

impl Tally {
    const fn new() -> Tally {
        Tally([const { CachePadded::new(AtomicU64::new(0)) }; SHARES])
    }

    fn add_one(&self, order: Ordering) {
        self.0[SHARE.with(|share| *share)].fetch_add(1, order);
    }

    /// What was counted before is in it; of what is counted meanwhile, some.
    fn sum(&self, order: Ordering) -> u64 {
        self.0.iter().map(|share| share.load(order)).sum()
    }
}

thread_local! {
    /// Which share is this thread's.
    static SHARE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        // Relaxed: they are spread, that is all.
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARES
    };
    /// Retired by this thread, ever.
    static RETIRED_HERE: Cell<u64> = const { Cell::new(0) };
}

/// Something that was taken out of sight. Dropping it begins its grace period, after which it is freed; that may free other
/// things on the way, so it happens after the locks are released.
#[must_use = "it is dropped after the locks"]
pub(crate) struct Retired<T> {
    object: NonNull<T>,
    free: unsafe fn(NonNull<T>),
}

impl<T> Retired<T> {
    /// # Safety
    /// `object` can be reached by readers that are pinned now and by nobody else; `free` may be called with it on any thread,
    /// and touches nothing that is not owned by what it frees.
    pub(crate) unsafe fn new(object: NonNull<T>, free: unsafe fn(NonNull<T>)) -> Retired<T> {
        // Relaxed: a count. Whoever sees it among the freed has got this from us, through the epoch.
        RETIRED.add_one(Ordering::Relaxed);
        RETIRED_HERE.set(RETIRED_HERE.get() + 1);
        Retired { object, free }
    }
}

impl<T> Drop for Retired<T> {
    fn drop(&mut self) {
        let (object, free) = (self.object, self.free);
        let guard = crossbeam_epoch::pin();
        // SAFETY: whoever made `self` promised that only readers pinned by then could reach the object; the closure runs
        // after all of them, once, and may run on any thread.
        unsafe {
            guard.defer_unchecked(move || {
                free(object);
                // Release: pairs with `waiting`.
                FREED.add_one(Ordering::Release);
            });
        }
    }
}

/// How many objects wait for a grace period, in the whole process.
pub fn waiting() -> u64 {
    // FREED first, and Acquire: what is counted there is in the RETIRED that is read afterwards, whatever shares the two are in.
    let freed = FREED.sum(Ordering::Acquire);
    RETIRED.sum(Ordering::Relaxed).saturating_sub(freed)
}

/// Helps reclamation on: hands this thread's retired objects over and frees what has waited long enough, 512 objects at most.
/// Each call can end one epoch at most, and an object needs two.
pub fn collect() {
    crossbeam_epoch::pin().flush();
}

/// How far something is that ends with a grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tidy {
    /// It has ended.
    Done,
    /// There is more to free before it: call again soon, other work may run in between.
    More,
    /// Nothing to do but wait for a reader, or for what may still be retired in a moment. Call again in a moment.
    Waiting,
}

/// A grace period that has begun. It ends when no reader has any more what was out of sight by then; what this thread had
/// retired by then is freed before, since the queue is worked off in its order.
pub(crate) struct Grace(Arc<AtomicBool>);

impl Grace {
    pub(crate) fn begin() -> Grace {
        let over = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&over);
        // Release: pairs with the load in `help`.
        crossbeam_epoch::pin().defer(move || mark.store(true, Ordering::Release));
        Grace(over)
    }

    /// Helps it to its end. Bounded: it frees some 1,000 objects at most.
    pub(crate) fn help(&self) -> Tidy {
        // Relaxed: a hint, whoever has freed them: each of them was before us in the queue.
        let freed = FREED.sum(Ordering::Relaxed);
        for _epoch in 0..2 {
            collect();
            // Acquire: the readers of the time before are behind us.
            if self.0.load(Ordering::Acquire) {
                return Tidy::Done;
            }
        }
        match FREED.sum(Ordering::Relaxed) == freed {
            true => Tidy::Waiting,
            false => Tidy::More,
        }
    }
}

/// What one thread has retired, and how far it is with it.
#[derive(Default)]
pub(crate) struct Leftover {
    /// Of all that this thread has retired, so much was there when it last looked,
    seen: u64,
    /// and so much is freed.
    freed: u64,
    /// The end of what was seen.
    grace: Option<Grace>,
}

impl Leftover {
    /// One piece of tidying up.
    pub(crate) fn tidy(&mut self) -> Tidy {
        let retired = RETIRED_HERE.get();
        if retired == self.freed {
            return Tidy::Done;
        }
        if retired != self.seen {
            // More may follow in a moment, and one grace period does for all of it. But what can be freed goes now, here between
            // two operations: else every 128th pin frees it, in the middle of one.
            *self = Leftover { seen: retired, freed: self.freed, grace: None };
            collect();
            return Tidy::Waiting;
        }
        let tidy = self.grace.get_or_insert_with(Grace::begin).help();
        if tidy == Tidy::Done {
            *self = Leftover { seen: retired, freed: retired, grace: None };
        }
        tidy
    }
}
