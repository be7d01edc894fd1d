//! The lock as a whole: the case table by name, stress, and the models of loom.

use crate::RawRqSpinLock;
use crate::word::Word;

#[cfg(not(loom))]
mod api;
#[cfg(not(loom))]
mod cases;
#[cfg(not(loom))]
mod harness;
#[cfg(all(loom, not(shuttle)))]
pub(crate) mod loom;
#[cfg(not(loom))]
mod random;
#[cfg(all(loom, shuttle))]
mod shuttle;
#[cfg(not(loom))]
mod stress;
#[cfg(not(loom))]
mod waits;

/// Nobody holds the lock, nobody waits, and nothing is left in its word.
pub(crate) fn assert_at_rest(lock: &RawRqSpinLock) {
    assert_eq!(lock.word.peek(), Word::UNLOCKED);
}
