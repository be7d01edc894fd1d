//! The table of held locks: what one Cpu holds, and what it is waiting for.
//!
//! ```text
//!   count = 3      entries: [ A | B | C | 0 | ... ]
//!                             `---'   `-- top: being acquired, or acquired last
//!                             held
//! ```
//!
//! A stack of lock addresses, written by its owner only and read by everyone who looks for a
//! deadlock. It is a hint for the reader and exact for the owner: a lock that must be waited for is pushed **before**
//! its owner looks at the tables of others, so that two Cpus about to wait for each other cannot both be overlooked, and
//! a lock is removed **before** the word is released, so that a thread that is preempted in
//! between does not show a lock that it no longer holds.
//!
//! A lock that is had at once is pushed after that, and so for a moment is held by nobody's table. Its holder waits for nothing
//! in that moment, so it is part of no cycle. (That way nothing stands in the store buffer when the word is changed, which waits
//! for it to drain: several nanoseconds. Linux pushes first, since an interrupt may come in between and want the same lock.)
//!
//! Past [`HELD_MAX`] locks the count still moves, but the entry is not stored.
//!
//! # Orderings
//! H1: every store of the count is Release and pairs with the reader's Acquire load of it: whoever
//! sees a count sees the entries that were written before it. Entries are Relaxed; a reader that
//! catches a newer one than its count says does not believe it until it has read all of it twice.

use crate::error::LockId;
use crate::sync::{AtomicUsize, HELD_MAX, Ordering, fence};

/// See the module.
pub(crate) struct HeldTable {
    count: AtomicUsize,
    entries: [AtomicUsize; HELD_MAX],
}

/// What a reader saw in somebody else's table: it holds the lock in question and, if it waits for
/// anything, then for `top`.
pub(crate) struct Sighting {
    count: usize,
    position: usize,
    pub(crate) top: LockId,
}

/// No lock has this address.
const EMPTY: usize = 0;

impl HeldTable {
    pub(crate) fn new() -> Self {
        HeldTable { count: AtomicUsize::new(0), entries: std::array::from_fn(|_| AtomicUsize::new(EMPTY)) }
    }

    // ---- for the owner

    /// Locks held or being acquired, stored or not.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        // Relaxed: the owner reads what it wrote.
        self.count.load(Ordering::Relaxed)
    }

    /// A lock is about to be waited for, or has just been acquired.
    #[inline]
    pub(crate) fn push(&self, lock: LockId) {
        let count = self.count();
        if let Some(entry) = self.entries.get(count) {
            entry.store(lock.addr(), Ordering::Relaxed);
        }
        // H1. A Release store and not a read-modify-write: there is one writer.
        self.count.store(count + 1, Ordering::Release);
    }

    /// The acquisition of the top has failed.
    pub(crate) fn withdraw(&self) {
        // H1
        self.count.store(self.count() - 1, Ordering::Release);
    }

    /// A lock is about to be released, which was pushed at `position`. If others above it were acquired later and are still
    /// held, `out_of_order` is told first.
    #[inline]
    pub(crate) fn remove(&self, lock: LockId, position: usize, out_of_order: impl FnOnce()) {
        // What is stored does not depend on what is loaded, so the release need not wait for the loads.
        let top = position + 1 == self.count();
        let same = self.entries.get(position).is_some_and(|entry| entry.load(Ordering::Relaxed) == lock.addr());
        if top && same {
            // H1
            self.count.store(position, Ordering::Release);
        } else {
            self.remove_by_name(lock, out_of_order);
        }
    }

    /// Removes a lock that is not the stored top: those above it move down.
    #[cold]
    fn remove_by_name(&self, lock: LockId, out_of_order: impl FnOnce()) {
        let count = self.count();
        let stored = count.min(HELD_MAX);
        let position = match self.position(stored, lock.addr()) {
            Some(position) => Some(position),
            // Taken when the table was full, so it has no entry to clear, nor can its order be told.
            None if count > HELD_MAX => None,
            // The same, and since then locks below it have left out of order: it is the empty entry.
            None => self.position(stored, EMPTY),
        };
        if let Some(position) = position {
            if position + 1 != count {
                out_of_order();
            }
            // Every value that a reader can catch on the way is a lock that is still held.
            for i in position..stored - 1 {
                let above = self.entries[i + 1].load(Ordering::Relaxed);
                self.entries[i].store(above, Ordering::Relaxed);
            }
            self.entries[stored - 1].store(EMPTY, Ordering::Relaxed);
        }
        // H1
        self.count.store(count - 1, Ordering::Release);
    }

    /// Is `lock` below the top, that is, held? Of the owner's own table, whose top is the lock that
    /// it is acquiring.
    pub(crate) fn holds(&self, lock: LockId) -> bool {
        let below_top = self.count().saturating_sub(1).min(HELD_MAX);
        self.position(below_top, lock.addr()).is_some()
    }

    /// Is anything held beside the lock that is being acquired?
    pub(crate) fn holds_any(&self) -> bool {
        self.count() > 1
    }

    // ---- for everyone else

    /// Does this Cpu hold `lock` below its top?
    pub(crate) fn sight(&self, lock: LockId) -> Option<Sighting> {
        // H1, the Acquire half.
        let count = self.count.load(Ordering::Acquire);
        if !(2..=HELD_MAX).contains(&count) {
            return None;
        }
        let top = LockId::from_addr(self.entries[count - 1].load(Ordering::Relaxed));
        let position = self.position(count - 1, lock.addr())?;
        (top.addr() != EMPTY && top != lock).then_some(Sighting { count, position, top })
    }

    /// Does a second look show the same?
    pub(crate) fn still_shows(&self, lock: LockId, seen: &Sighting) -> bool {
        // H2, Acquire: keeps the second look behind the first, as in a sequence lock; the count
        // plays the sequence number. It can come back to the same value in between; then the same
        // Cpu has taken the same locks again, and the cycle is as real as before.
        fence(Ordering::Acquire);
        self.count.load(Ordering::Acquire) == seen.count
            && self.entries[seen.count - 1].load(Ordering::Relaxed) == seen.top.addr()
            && self.entries[seen.position].load(Ordering::Relaxed) == lock.addr()
    }

    /// The highest of the first `len` entries that has this value.
    fn position(&self, len: usize, value: usize) -> Option<usize> {
        self.entries[..len].iter().rposition(|entry| entry.load(Ordering::Relaxed) == value)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
