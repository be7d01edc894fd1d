//! Many threads on few processors: nothing hangs, nothing is lost, nobody starves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::assert_at_rest;
use super::harness::{measured, watchdog};
use crate::{Cpu, Events, LockError, RqSpinLock};

/// Keeps a lock as a holder does that the system has taken the processor from.
#[expect(clippy::disallowed_methods, reason = "a holder that is not running is what is tested")]
pub(super) fn preempted_for(time: Duration) {
    thread::sleep(time);
}

struct Outcome {
    updates: u64,
    timeouts: u64,
    longest_wait: Duration,
    events: Events,
}

/// `threads` threads increment two halves of one value for `time`; each one's every `sleep_every`-th
/// section sleeps.
fn stress(case: &str, threads: u64, time: Duration, sleep_every: u64) {
    let lock = Arc::new(RqSpinLock::new((0_u64, 0_u64)));
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..threads)
        .map(|n| {
            let (lock, stop) = (Arc::clone(&lock), Arc::clone(&stop));
            thread::spawn(move || worker(n, &lock, &stop, sleep_every))
        })
        .collect();
    let start = Instant::now();
    while let Some(left) = time.checked_sub(start.elapsed()) {
        thread::park_timeout(left);
    }
    stop.store(true, Ordering::Relaxed);
    let outcomes: Vec<Outcome> =
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect();

    assert_at_rest(lock.raw());
    let updates: u64 = outcomes.iter().map(|outcome| outcome.updates).sum();
    let timeouts: u64 = outcomes.iter().map(|outcome| outcome.timeouts).sum();
    let events: Events = outcomes.iter().map(|outcome| outcome.events).sum();
    let longest_wait = outcomes.iter().map(|outcome| outcome.longest_wait).max().unwrap_or_default();
    let fewest = outcomes.iter().map(|outcome| outcome.updates).min().unwrap_or_default();
    let most = outcomes.iter().map(|outcome| outcome.updates).max().unwrap_or_default();
    measured(format_args!(
        "{case}: {updates} updates, {fewest} to {most} a thread, longest wait {longest_wait:.1?}, {events:?}"
    ));
    let lock = Arc::into_inner(lock).expect("all workers have ended");
    assert_eq!(lock.into_inner(), (updates, updates));
    assert_eq!(events.acquisitions(), updates);
    assert_eq!(events.timeouts + events.flushed, timeouts);
    assert_eq!(events.queued, events.claimed + timeouts);
    assert_eq!((events.aa, events.abba, events.out_of_order), (0, 0, 0));
}

fn worker(n: u64, lock: &RqSpinLock<(u64, u64)>, stop: &AtomicBool, sleep_every: u64) -> Outcome {
    let cpu = Cpu::register().expect("far fewer threads than Cpus");
    let (mut updates, mut timeouts, mut longest_wait) = (0, 0, Duration::ZERO);
    // Until everybody has had the lock: whom the others keep from it for ever meets the watchdog.
    while !stop.load(Ordering::Relaxed) || updates == 0 {
        let start = Instant::now();
        match lock.lock(&cpu) {
            Ok(mut guard) => {
                longest_wait = longest_wait.max(start.elapsed());
                let (left, right) = *guard;
                assert_eq!(left, right, "somebody else is in the section");
                guard.0 = left + 1;
                if (updates + n * 31 + 1).is_multiple_of(sleep_every) {
                    preempted_for(Duration::from_millis(20));
                }
                guard.1 = left + 1;
                updates += 1;
            }
            // Possible where the machine gives a thread no processor for a quarter of a second.
            Err(LockError::TimedOut) => timeouts += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(cpu.is_idle());
    Outcome { updates, timeouts, longest_wait, events: cpu.events().snapshot() }
}

/// One at a time: together they would measure each other.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(case: &'static str, threads: u64, sleep_every: u64) {
    let _alone = alone();
    watchdog(case, move || stress(case, threads, Duration::from_secs(1), sleep_every));
}

#[test]
fn stress_2() {
    run("stress_2", 2, 2_000);
}

#[test]
fn stress_4() {
    run("stress_4", 4, 2_000);
}

#[test]
fn stress_8() {
    run("stress_8", 8, 2_000);
}

#[test]
fn stress_64() {
    run("stress_64", 64, 2_000);
}

/// Nobody sleeps, so that the longest wait that is printed is the lock's and the system's own.
#[test]
fn fairness() {
    run("fairness", 8, u64::MAX);
}
