//! What the types promise beside the protocol.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::assert_at_rest;
use super::harness::watchdog;
use crate::{Cpu, Cycle, LockError, RawRqSpinLock, RqSpinLock};

fn hasty() -> Cpu {
    Cpu::builder().timeout(Duration::from_millis(5)).register().unwrap()
}

#[test]
fn the_raw_lock_is_four_bytes_and_zero_is_unlocked() {
    assert_eq!(size_of::<RawRqSpinLock>(), 4);
    assert_eq!(align_of::<RawRqSpinLock>(), 4);
    // SAFETY: all-zero bytes are a valid lock, as its documentation promises.
    let lock: RawRqSpinLock = unsafe { std::mem::zeroed() };
    let cpu = Cpu::register().unwrap();
    assert!(!lock.is_locked());
    assert_eq!(lock.lock(&cpu, None), Ok(()));
    assert!(lock.is_locked());
    assert!(!lock.try_lock(&cpu));
    // SAFETY: locked above by the same Cpu.
    unsafe { lock.unlock(&cpu) };
    assert!(lock.try_lock(&cpu));
    // SAFETY: as above.
    unsafe { lock.unlock(&cpu) };
    assert_at_rest(&lock);
    assert!(cpu.is_idle());
}

#[test]
fn a_refused_try_lock_leaves_no_trace() {
    let (cpu, other) = (Cpu::register().unwrap(), Cpu::register().unwrap());
    let lock = RqSpinLock::new(1);
    let guard = lock.try_lock(&cpu).unwrap();
    assert!(lock.try_lock(&other).is_none());
    assert!(other.is_idle());
    assert_eq!(cpu.held().count(), 1);
    drop(guard);
    assert!(cpu.is_idle());
}

#[test]
fn a_panic_in_the_section_leaves_it_locked() {
    watchdog("a_panic_in_the_section_leaves_it_locked", || {
        let cpu = hasty();
        let mut lock = RqSpinLock::new(1);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let mut guard = lock.lock(&cpu).unwrap();
            *guard = 2;
            panic!("half done");
        }));
        assert!(unwound.is_err());
        assert!(cpu.is_poisoned());
        assert!(lock.raw().is_locked());
        let other = hasty();
        assert_eq!(lock.lock(&other).unwrap_err(), LockError::TimedOut);
        assert!(lock.try_lock(&other).is_none());
        // Other locks go on; the lost one is known as held.
        let second = RqSpinLock::new(0);
        drop(second.lock(&cpu).unwrap());
        assert_eq!(lock.lock(&cpu).unwrap_err(), LockError::Deadlock(Cycle::Aa));
        assert!(!other.is_poisoned());
        // Who has the lock to itself can still look.
        assert_eq!(*lock.get_mut(), 2);
        assert_eq!(lock.into_inner(), 2);
    });
}

#[test]
fn a_section_inside_of_an_unwinding_is_released() {
    struct LocksWhenDropped<'a>(&'a RqSpinLock<u32>, &'a Cpu);
    impl Drop for LocksWhenDropped<'_> {
        fn drop(&mut self) {
            *self.0.lock(self.1).unwrap() += 1;
        }
    }
    let cpu = Cpu::register().unwrap();
    let lock = RqSpinLock::new(0);
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _cleanup = LocksWhenDropped(&lock, &cpu);
        panic!("somewhere else");
    }));
    assert!(unwound.is_err());
    assert!(!cpu.is_poisoned());
    assert_at_rest(lock.raw());
    assert_eq!(lock.into_inner(), 1);
}

/// Its table goes on saying that the lock is held, so its number must not become another's.
#[test]
fn a_cpu_that_ends_while_holding_keeps_its_number() {
    watchdog("a_cpu_that_ends_while_holding_keeps_its_number", || {
        let lock = RqSpinLock::new(0);
        let lost = Cpu::register().unwrap();
        let number = lost.id();
        std::mem::forget(lock.lock(&lost).unwrap());
        drop(lost);
        // Enough to take every free number below it, and it, were it free.
        let cpus: Vec<_> = (0..number.index() + 64).map(|_| Cpu::register().unwrap()).collect();
        assert!(cpus.iter().all(|cpu| cpu.id() != number));
        assert_eq!(lock.lock(&hasty()).unwrap_err(), LockError::TimedOut);
    });
}

#[test]
fn counters_outlive_their_cpu() {
    let lock = RqSpinLock::new(0);
    let cpu = Cpu::register().unwrap();
    let events = cpu.events();
    drop(lock.lock(&cpu).unwrap());
    drop(cpu);
    // Whoever has the number now counts for itself.
    let next = Cpu::register().unwrap();
    drop(lock.lock(&next).unwrap());
    assert_eq!(events.snapshot().fast, 1);
    let both: crate::Events = [events.snapshot(), next.events().snapshot()].into_iter().sum();
    assert_eq!(both.acquisitions(), 2);
}

#[test]
fn errors_explain_themselves() {
    let (a, b) = (Cpu::register().unwrap(), RqSpinLock::new(0));
    let abba = LockError::Deadlock(Cycle::Abba { wanted: b.id(), other: a.id() }).to_string();
    assert!(abba.contains(&a.id().to_string()) && abba.contains(&b.id().to_string()), "{abba}");
    for (error, says) in [
        (LockError::Deadlock(Cycle::Aa), "AA"),
        (LockError::Deadlock(Cycle::Nesting), "four locks"),
        (LockError::TimedOut, "timed out"),
        (LockError::DeadlinePassed, "deadline"),
    ] {
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// A waiter that unwound out of the queue would hang all behind it; the process ends instead.
#[test]
fn a_clock_that_panics_ends_the_process() {
    const CHILD: &str = "RQSPINLOCK_TEST_PANICKING_CLOCK";
    struct Broken;
    impl crate::Clock for Broken {
        fn now(&self) -> std::time::Instant {
            panic!("no time");
        }
    }
    if std::env::var_os(CHILD).is_some() {
        let (holder, waiter) = (Cpu::register().unwrap(), Cpu::builder().clock(Broken).register().unwrap());
        let lock = RqSpinLock::new(0);
        let _held = lock.lock(&holder).unwrap();
        let _ = catch_unwind(AssertUnwindSafe(|| lock.lock(&waiter).map(drop)));
        unreachable!("the process has ended");
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::api::a_clock_that_panics_ends_the_process", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("the Clock of a Cpu panicked"), "{said}");
    assert!(!said.contains("the process has ended"), "{said}");
}
