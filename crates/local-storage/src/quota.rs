//! Limits on bytes of value: one owner's in all maps, and everybody's together.
//!
//! ```text
//!  one owner's:  LocalStorage::bytes, checked and changed under the storage's lock
//!  everybody's:  Quota::used ◄── reserved before an element is linked, given back when it has left both lists
//! ```
//!
//! Both count what is linked: an element whose owner is half unlinked counts until it has gone, one that waits for its
//! grace period does not, and a replacement takes over its predecessor's bytes. Neither passes its limit at any moment.
//!
//! A create that is going to be refused or to start over may hold bytes for a moment, and another one may be refused for
//! it: a first element that loses the race for its owner's slot does. (One that finds the bytes used up holds a place in its
//! map for a moment, never the reverse: so it can only be in the way of those who would be refused with it.)

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::error::{Scope, UpdateError};

/// How many bytes of value there may be. None: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteLimits {
    /// One owner's, in all maps.
    pub owner: Option<u64>,
    /// All owners', in all maps that share the [`Quota`].
    pub total: Option<u64>,
}

/// What maps share that have to keep to the same limits. See [`StorageMap::with_quota`](crate::StorageMap::with_quota).
#[derive(Debug)]
pub struct Quota {
    limits: ByteLimits,
    /// Bytes reserved of the total; stays 0 where that has no limit. A line of its own: every create and delete writes it.
    used: CachePadded<AtomicU64>,
}

impl Quota {
    /// Nothing used yet.
    pub fn new(limits: ByteLimits) -> Quota {
        Quota { limits, used: CachePadded::default() }
    }

    /// Bytes of value now in the maps that share it, those included that are just being created or unlinked. None where the
    /// total has no limit, since nobody counts then.
    pub fn used(&self) -> Option<u64> {
        // Relaxed: a count.
        self.limits.total.map(|_| self.used.load(Ordering::Relaxed))
    }

    /// Whether an owner that has `used` bytes may have `size` more.
    pub(crate) fn check_owner(&self, used: u64, size: u32) -> Result<(), UpdateError> {
        match self.limits.owner {
            Some(limit) if !fits(used, size, limit) => Err(UpdateError::Quota { scope: Scope::Owner, limit, used }),
            _ => Ok(()),
        }
    }

    /// Whether `size` bytes of the total are left.
    pub(crate) fn check_total(&self, size: u32) -> Result<(), UpdateError> {
        match (self.limits.total, self.used()) {
            (Some(limit), Some(used)) if !fits(used, size, limit) => {
                Err(UpdateError::Quota { scope: Scope::Total, limit, used })
            }
            _ => Ok(()),
        }
    }

    /// Takes `size` bytes of the total, if there are so many left.
    pub(crate) fn reserve(&self, size: u32) -> Result<(), UpdateError> {
        let Some(limit) = self.limits.total else { return Ok(()) };
        // Relaxed: the exactness comes from the compare-exchange, not from an order.
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                fits(used, size, limit).then(|| used + u64::from(size))
            })
            .map_err(|used| UpdateError::Quota { scope: Scope::Total, limit, used })?;
        Ok(())
    }

    /// Gives back what [`Quota::reserve`] took.
    pub(crate) fn give_back(&self, size: u32) {
        if self.limits.total.is_some() {
            // Relaxed: as in `reserve`.
            self.used.fetch_sub(size.into(), Ordering::Relaxed);
        }
    }
}

fn fits(used: u64, size: u32, limit: u64) -> bool {
    limit.checked_sub(size.into()).is_some_and(|most| used <= most)
}
