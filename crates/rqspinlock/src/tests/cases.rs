//! The case table of the lock, by name.

use std::sync::Arc;
use std::time::Duration;

use super::assert_at_rest;
use super::harness::watchdog;
use crate::{Cpu, Cycle, LockError, ManualClock, RqSpinLock};

const LIMIT: Duration = Duration::from_secs(60);

/// The clock stands still, so this cannot be anything but the check.
#[test]
fn aa() {
    watchdog("aa", LIMIT, || {
        let cpu = Cpu::builder().clock(Arc::new(ManualClock::new())).register().unwrap();
        let lock = RqSpinLock::new(7);
        let guard = lock.lock(&cpu).unwrap();
        assert_eq!(lock.lock(&cpu).unwrap_err(), LockError::Deadlock(Cycle::Aa));
        assert_eq!(*guard, 7);
        drop(guard);
        assert_at_rest(lock.raw());
        assert!(cpu.is_idle());
        let events = cpu.events().snapshot();
        assert_eq!((events.fast, events.aa, events.queued), (1, 1, 0));
        drop(lock.lock(&cpu).unwrap());
    });
}
