//! Memory that readers may still see is freed after a grace period: crossbeam's epochs, plus a count of what waits.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// Retired by anyone, ever.
static RETIRED: CachePadded<AtomicU64> = CachePadded::new(AtomicU64::new(0));
/// Freed by anyone, ever. A line of its own: the two are written by different threads.
static FREED: CachePadded<AtomicU64> = CachePadded::new(AtomicU64::new(0));

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
        // Relaxed: a count, read by people and by tests that also wait for what they count.
        RETIRED.fetch_add(1, Ordering::Relaxed);
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
                FREED.fetch_add(1, Ordering::Relaxed);
            });
        }
    }
}

/// How many objects wait for a grace period, in the whole process.
pub fn waiting() -> u64 {
    // FREED first: it never overtakes a RETIRED that is read later.
    let freed = FREED.load(Ordering::Relaxed);
    RETIRED.load(Ordering::Relaxed).saturating_sub(freed)
}

/// Helps reclamation on: hands this thread's retired objects over and frees what has waited long enough. Bounded.
/// A thread that goes idle calls it until [`waiting`] is 0 or nothing moves; each call can end one epoch at most, and an
/// object needs two.
pub fn collect() {
    crossbeam_epoch::pin().flush();
}
