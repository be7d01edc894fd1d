//! The two checks for a deadlock.
//!
//! Both read held-lock tables (held.rs) and nothing else. They never look into a lock but the one
//! that is being acquired: the addresses in other Cpus' tables are compared, not followed.

use crate::cpu::Cpu;
use crate::error::Cycle;
use crate::lock::RawRqSpinLock;
use crate::registry::registry;
use crate::sync::{Ordering, fence};

/// Does this Cpu hold the lock that it is acquiring? Exact, for the first 31 locks it holds.
pub(crate) fn aa(lock: &RawRqSpinLock, cpu: &Cpu) -> Option<Cycle> {
    cpu.held().holds(lock.id()).then_some(Cycle::Aa)
}

/// Does somebody hold `lock` and wait for what this Cpu holds?
///
/// A heuristic, with these limits: both parties of a cycle may see it and both give up; a cycle of
/// three or more is never seen; neither is one of two whose parties both wait behind innocents,
/// because only the head of a queue looks; nor a lock past a table's 31st. Those end in a timeout.
pub(crate) fn abba(lock: &RawRqSpinLock, cpu: &Cpu) -> Option<Cycle> {
    if !cpu.held().holds_any() {
        return None;
    }
    // D1, SeqCst: pairs with the same fence of the other party. Each has pushed the lock it wants
    // before its fence and reads the other's table after it, so at least one sees the other.
    fence(Ordering::SeqCst);
    for other in registry().others(cpu.id()) {
        if !lock.is_locked() {
            return None;
        }
        let Some(seen) = other.held.sight(lock.id()) else {
            continue;
        };
        if cpu.held().holds(seen.top) && other.held.still_shows(lock.id(), &seen) && lock.is_locked() {
            return Some(Cycle::Abba { wanted: seen.top, other: other.id() });
        }
    }
    None
}
