//! Why a lock was not acquired.

use std::fmt;

use crate::cpu::CpuId;

/// A lock's identity: the address of its word, for as long as the lock is neither moved nor freed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockId(usize);

impl LockId {
    pub(crate) fn from_addr(addr: usize) -> LockId {
        LockId(addr)
    }

    /// The address, as a number to compare or to print; nothing may be read through it.
    #[inline]
    pub fn addr(self) -> usize {
        self.0
    }
}

impl fmt::Display for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockId({self})")
    }
}

/// Why `lock()` gave up. Nothing was acquired; the locks held before are held still.
///
/// The names and the distinction are those of Linux's `rqspinlock` (`-EDEADLK`, `-ETIMEDOUT`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum LockError {
    /// Waiting would never have ended.
    Deadlock(Cycle),
    /// Waiting did not end in time: the holder is stuck, dead or very slow, or the deadlock is one
    /// that the checks cannot see.
    TimedOut,
    /// The deadline that the caller gave to `lock_until` has passed.
    DeadlinePassed,
}

/// The kind of deadlock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Cycle {
    /// This Cpu already holds the lock that it asked for.
    Aa,
    /// Another Cpu holds the lock that was asked for, and waits for one that this Cpu holds.
    Abba {
        /// The lock that the other Cpu waits for and this one holds.
        wanted: LockId,
        /// The other Cpu.
        other: CpuId,
    },
    /// This Cpu is already waiting for four locks, each wait started inside of the one before; a
    /// fifth may try once but cannot wait.
    Nesting,
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Deadlock(cycle) => write!(f, "deadlock: {cycle}"),
            LockError::TimedOut => f.write_str(
                "timed out: the lock was not released within the timeout of the Cpu at the head of \
                 its queue; the holder is stuck, ended while holding it, or is part of a deadlock \
                 of more than two",
            ),
            LockError::DeadlinePassed => f.write_str("the caller's deadline passed before the lock was released"),
        }
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cycle::Aa => f.write_str("this Cpu already holds the lock (AA)"),
            Cycle::Abba { wanted, other } => write!(
                f,
                "{other} holds the lock and waits for lock {wanted}, which this Cpu holds (ABBA); \
                 release it and try again"
            ),
            Cycle::Nesting => {
                f.write_str("this Cpu is already waiting for four locks, one inside of the other (nesting)")
            }
        }
    }
}

impl std::error::Error for LockError {}

/// Why a [`Cpu`](crate::Cpu) could not be registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum RegisterError {
    /// As many Cpus as the lock word can name are registered, or have ended while holding a lock.
    TooManyCpus {
        /// How many that is.
        limit: usize,
    },
}

impl fmt::Display for RegisterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegisterError::TooManyCpus { limit } => write!(
                f,
                "all {limit} Cpus are in use (one that ends while it holds a lock stays in use); \
                 let fewer threads take locks, or drop a Cpu first"
            ),
        }
    }
}

impl std::error::Error for RegisterError {}
