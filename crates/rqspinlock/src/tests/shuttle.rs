//! Random schedules of more threads, and of longer lives, than loom can go through: shuttle.
//!
//! `RUSTFLAGS="--cfg loom --cfg shuttle" cargo test -p rqspinlock --release --lib shuttle`
//!
//! It knows one order of all steps: what orderings are for, loom has shown.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Arc;
use shuttle::thread;

use super::assert_at_rest;
use crate::sync::sleep_for_good;
use crate::{Clock, Cpu, Events, LockError, RqSpinLock};

const TIMEOUT: Duration = Duration::from_secs(1);

/// Goes on by a step at every look.
struct SteppingClock {
    base: Instant,
    step: Duration,
    looks: AtomicU64,
}

impl Clock for SteppingClock {
    fn now(&self) -> Instant {
        self.base + self.step * u32::try_from(self.looks.fetch_add(1, Relaxed)).unwrap_or(u32::MAX)
    }
}

/// What one thread did.
#[derive(Default)]
struct Life {
    sections: u64,
    timed_out: u64,
    events: Events,
}

/// Takes the lock so often, in whatever way, and comes back whatever became of it.
fn live(lock: &RqSpinLock<u64>, times: u32, step: Duration) -> Life {
    let base = Instant::now();
    let cpu = Cpu::builder()
        .timeout(TIMEOUT)
        .clock(SteppingClock { base, step, looks: AtomicU64::new(0) })
        .register()
        .unwrap();
    let mut life = Life::default();
    for _ in 0..times {
        let guard = match thread_rng().gen_range(0..4) {
            0 => lock.try_lock(&cpu).ok_or(None),
            // Over after some looks from now, or before the first.
            1 => lock.lock_until(&cpu, base + step * thread_rng().gen_range(0..100)).map_err(Some),
            _ => lock.lock(&cpu).map_err(Some),
        };
        match guard {
            Ok(mut value) => {
                let seen = *value;
                thread::yield_now();
                *value = seen + 1;
                life.sections += 1;
            }
            Err(Some(LockError::TimedOut)) => life.timed_out += 1,
            Err(None | Some(LockError::DeadlinePassed)) => {}
            Err(Some(error)) => panic!("{error}"),
        }
    }
    assert!(cpu.is_idle());
    life.events = cpu.events().snapshot();
    life
}

/// `steps` has a thread for each of its entries: how fast its time goes.
fn lives(times: u32, steps: &'static [Duration]) {
    let lock = Arc::new(RqSpinLock::new(0));
    let threads: Vec<_> = steps
        .iter()
        .map(|step| {
            let lock = Arc::clone(&lock);
            thread::spawn(move || live(&lock, times, *step))
        })
        .collect();
    let lives: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_at_rest(lock.raw());
    let lock = Arc::into_inner(lock).expect("the threads have ended");
    let events: Events = lives.iter().map(|life| life.events).sum();
    assert_eq!(lock.into_inner(), lives.iter().map(|life| life.sections).sum::<u64>(), "an update is lost");
    assert_eq!(events.acquisitions(), lives.iter().map(|life| life.sections).sum::<u64>());
    assert_eq!(events.timeouts + events.flushed, lives.iter().map(|life| life.timed_out).sum::<u64>());
}

/// Their time stands still: they wait as long as it takes.
const PATIENT: [Duration; 4] = [Duration::ZERO; 4];
/// Some see their time go by: heads leave, and flush their queues.
const MIXED: [Duration; 4] = [Duration::ZERO, Duration::from_millis(300), Duration::from_millis(30), Duration::ZERO];

#[test]
fn nobody_is_forgotten() {
    // A sleep ends by a wake only: a lost one is a deadlock, which shuttle reports.
    sleep_for_good(true);
    shuttle::check_random(|| lives(4, &PATIENT), 3_000);
    shuttle::check_pct(|| lives(3, &PATIENT), 3_000, 3);
}

#[test]
fn heads_leave_and_queues_are_flushed() {
    sleep_for_good(false);
    shuttle::check_random(|| lives(4, &MIXED), 3_000);
}
