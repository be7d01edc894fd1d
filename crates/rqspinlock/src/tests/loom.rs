//! The models of loom: every schedule (up to a number of preemptions) of the real code.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p rqspinlock --release --lib loom`
//!
//! What each proves stands in the crate's documentation.
//!
//! Every model ends with the word, the tables and the nodes at rest. In all of them witnesses
//! (`sync.rs`) check that there is one head at a time, that each happens after the one before it,
//! that nobody is at a node when its owner uses it again, and that pending is the head's.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::assert_at_rest;
use crate::sync::sleep_for_good;
use crate::{Clock, Cpu, Cycle, Events, Guard, LockError, RqSpinLock};

/// Runs `body` in every schedule with at most `preemptions` preemptions.
///
/// `body` says which of `outcomes` its schedule came to, and each must come up in some schedule: a
/// model that never gets to what it is about would prove nothing.
pub(crate) fn model<const N: usize>(
    name: &str,
    preemptions: usize,
    outcomes: [&str; N],
    body: impl Fn() -> [bool; N] + Send + Sync + 'static,
) {
    let mut builder = loom::model::Builder::new();
    // LOOM_MAX_PREEMPTIONS goes first, for who has the time: one more takes ten times as long.
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    let schedules = std::sync::Arc::new(AtomicU32::new(0));
    let seen: std::sync::Arc<[AtomicU32; N]> = std::sync::Arc::new(std::array::from_fn(|_| AtomicU32::new(0)));
    let start = Instant::now();
    let (counted, noted) = (std::sync::Arc::clone(&schedules), std::sync::Arc::clone(&seen));
    builder.check(move || {
        counted.fetch_add(1, Relaxed);
        for (count, came) in noted.iter().zip(body()) {
            count.fetch_add(u32::from(came), Relaxed);
        }
    });
    println!("{name}: {schedules:?} schedules in {:?}", start.elapsed());
    for (outcome, count) in outcomes.iter().zip(seen.iter()) {
        println!("  {outcome}: {count:?}");
        assert!(count.load(Relaxed) > 0, "no schedule in which {outcome}");
    }
}

/// The time is the number of times it was asked for, in steps: real time is not for models, whose
/// runs have to repeat.
struct SteppingClock {
    base: Instant,
    step: Duration,
    calls: AtomicU32,
}

impl Clock for SteppingClock {
    fn now(&self) -> Instant {
        self.base + self.step * self.calls.fetch_add(1, Relaxed)
    }
}

pub(crate) const TIMEOUT: Duration = Duration::from_secs(1);
/// Small enough that no model reaches the timeout in such steps.
const STEP: Duration = Duration::from_micros(1);

/// A Cpu that is registered before the threads of a model start, so that its schedules are not
/// spent on registering.
pub(crate) struct Ready {
    cpu: Cpu,
    base: Instant,
}

// SAFETY: a Cpu is bound to its thread because its table and nodes have one writer. The model moves
// it to its thread before the first use and never back.
unsafe impl Send for Ready {}

impl Ready {
    /// A Cpu whose time goes on by `step` at every look.
    pub(crate) fn stepping(step: Duration) -> Ready {
        let base = Instant::now();
        let clock = SteppingClock { base, step, calls: AtomicU32::new(0) };
        let cpu = Cpu::builder().timeout(TIMEOUT).clock(clock).register().unwrap();
        Ready { cpu, base }
    }

    /// A Cpu for which time stands still, so that it waits as long as it takes.
    pub(crate) fn patient() -> Ready {
        Ready::stepping(Duration::ZERO)
    }

    pub(crate) fn cpu(self) -> Cpu {
        self.cpu
    }
}

type Counter = RqSpinLock<UnsafeCell<u32>>;

fn counter() -> Arc<Counter> {
    Arc::new(RqSpinLock::new(UnsafeCell::new(0)))
}

/// One section: loom fails the model if two of these can overlap or miss each other's writes.
fn increment(value: &UnsafeCell<u32>) {
    // SAFETY: the caller holds the lock around `value`.
    value.with_mut(|value| unsafe { *value += 1 });
}

fn lock_and_increment(lock: &Counter, cpu: &Cpu) -> Result<(), LockError> {
    let guard = lock.lock(cpu)?;
    increment(&guard);
    Ok(())
}

/// Releases the lock that the waiters of a model wait for; they may come first, at the price of a
/// yield instead of a preemption.
fn release(held: Guard<'_, UnsafeCell<u32>>) {
    thread::yield_now();
    drop(held);
}

/// Everything back at rest, and as many increments as there were sections.
fn assert_ended(lock: &Counter, sections: u32) {
    assert_at_rest(lock.raw());
    let cpu = Ready::patient().cpu();
    let guard = lock.try_lock(&cpu).expect("nobody holds it");
    // SAFETY: the lock is held.
    assert_eq!(guard.with(|value| unsafe { *value }), sections);
}

/// A thread that locks once; gives back what happened on its Cpu.
fn locker(lock: &Arc<Counter>, ready: Ready) -> thread::JoinHandle<Events> {
    let lock = Arc::clone(lock);
    thread::spawn(move || {
        let cpu = ready.cpu();
        lock_and_increment(&lock, &cpu).unwrap();
        assert!(cpu.is_idle());
        cpu.events().snapshot()
    })
}

#[test]
fn fast_path_and_unlock() {
    let outcomes = ["nobody waited", "somebody queued", "somebody stole"];
    model("fast_path_and_unlock", 6, outcomes, || {
        let lock = counter();
        let other = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || {
                let cpu = Ready::patient().cpu();
                lock_and_increment(&lock, &cpu).unwrap();
                assert!(cpu.is_idle());
                cpu.events().snapshot()
            })
        };
        let cpu = Ready::patient().cpu();
        lock_and_increment(&lock, &cpu).unwrap();
        assert!(cpu.is_idle());
        let events: Events = [cpu.events().snapshot(), other.join().unwrap()].into_iter().sum();
        drop(cpu);
        assert_ended(&lock, 2);
        [events.fast == 2, events.queued > 0, events.stolen > 0]
    });
}

/// A thread that tries once; gives back whether it got the lock, and what happened on its Cpu.
fn thief(lock: &Arc<Counter>, ready: Ready) -> thread::JoinHandle<(bool, Events)> {
    let lock = Arc::clone(lock);
    thread::spawn(move || {
        let cpu = ready.cpu();
        let won = lock.try_lock(&cpu).map(|guard| increment(&guard)).is_some();
        assert!(cpu.is_idle());
        (won, cpu.events().snapshot())
    })
}

#[test]
fn thief_against_claiming_head() {
    let outcomes = ["the thief overtook a queue", "the head claimed against a thief"];
    model("thief_against_claiming_head", 4, outcomes, || {
        let lock = counter();
        let (holder, ready) = (Ready::patient().cpu(), Ready::patient());
        let held = lock.lock(&holder).unwrap();
        let head = locker(&lock, Ready::patient());
        let thief = thief(&lock, ready);
        release(held);
        let head = head.join().unwrap();
        let (won, thief) = thief.join().unwrap();
        assert_ended(&lock, 1 + u32::from(won));
        [head.queued == 1 && thief.stolen == 1, head.claimed == 1 && !won]
    });
}

#[test]
fn queue_hand_over() {
    let outcomes = ["both queued", "the second stole"];
    model("queue_hand_over", 2, outcomes, || {
        let lock = counter();
        let holder = Ready::patient().cpu();
        let held = lock.lock(&holder).unwrap();
        let waiters = [Ready::patient(), Ready::patient()].map(|ready| locker(&lock, ready));
        release(held);
        let [first, second] = waiters.map(|waiter| waiter.join().unwrap());
        assert_ended(&lock, 2);
        [first.claimed + second.claimed == 2, first.claimed + second.stolen == 2]
    });
}

/// Gives up in its third round as head, with pending set; true if it got the lock before that.
fn impatient(lock: &Arc<Counter>, ready: Ready) -> thread::JoinHandle<(bool, Events)> {
    let lock = Arc::clone(lock);
    thread::spawn(move || {
        let deadline = ready.base + 3 * STEP;
        let cpu = ready.cpu();
        let got = match lock.lock_until(&cpu, deadline) {
            Ok(guard) => {
                increment(&guard);
                true
            }
            Err(LockError::DeadlinePassed) => false,
            Err(error) => panic!("{error}"),
        };
        assert!(cpu.is_idle());
        (got, cpu.events().snapshot())
    })
}

#[test]
fn head_gives_up_alone() {
    let outcomes = ["it gave up", "it claimed"];
    model("head_gives_up_alone", 6, outcomes, || {
        let lock = counter();
        let holder = Ready::patient().cpu();
        let held = lock.lock(&holder).unwrap();
        let head = impatient(&lock, Ready::stepping(STEP));
        release(held);
        let (got, events) = head.join().unwrap();
        assert_ended(&lock, u32::from(got));
        [events.queued == 1 && !got, events.claimed == 1]
    });
}

#[test]
fn head_gives_up_before_a_successor() {
    let outcomes = ["it gave up and the other, queued, got the lock", "both claimed"];
    model("head_gives_up_before_a_successor", 2, outcomes, || {
        let lock = counter();
        let holder = Ready::patient().cpu();
        let held = lock.lock(&holder).unwrap();
        let head = impatient(&lock, Ready::stepping(STEP));
        // Behind the one that gives up, before it, or in a queue of its own, all by the schedule.
        let other = locker(&lock, Ready::patient());
        release(held);
        let (got, head) = head.join().unwrap();
        let other = other.join().unwrap();
        assert_ended(&lock, 1 + u32::from(got));
        [head.queued == 1 && !got && other.claimed == 1, head.claimed + other.claimed == 2]
    });
}

/// Locks up to `tries` times; gives back whether it got the lock.
fn may_time_out(lock: &Arc<Counter>, ready: Ready, tries: u32) -> thread::JoinHandle<(bool, Events)> {
    let lock = Arc::clone(lock);
    thread::spawn(move || {
        let cpu = ready.cpu();
        let got = (0..tries).any(|_| match lock_and_increment(&lock, &cpu) {
            Ok(()) => true,
            Err(LockError::TimedOut) => false,
            Err(error) => panic!("{error}"),
        });
        assert!(cpu.is_idle());
        (got, cpu.events().snapshot())
    })
}

#[test]
fn flush_against_release() {
    let outcomes = ["both timed out together", "only the head timed out", "nobody timed out"];
    model("flush_against_release", 2, outcomes, || {
        let lock = counter();
        let holder = Ready::patient().cpu();
        let held = lock.lock(&holder).unwrap();
        let threads = [Ready::stepping(TIMEOUT / 3), Ready::patient()].map(|ready| may_time_out(&lock, ready, 1));
        release(held);
        let [(first, hasty), (second, patient)] = threads.map(|thread| thread.join().unwrap());
        assert_eq!((hasty.timeouts, hasty.flushed), (u64::from(!first), 0));
        assert_eq!((patient.timeouts, patient.flushed), (0, u64::from(!second)));
        assert!(second || !first, "nobody is flushed unless a head timed out");
        assert_ended(&lock, u32::from(first) + u32::from(second));
        [!first && !second, !first && second, first && second]
    });
}

#[test]
fn retry_after_a_flush() {
    let outcomes = ["the flushed one came back and got the lock", "the flusher did"];
    model("retry_after_a_flush", 2, outcomes, || {
        let lock = counter();
        let holder = Ready::patient().cpu();
        let held = lock.lock(&holder).unwrap();
        let threads = [Ready::stepping(TIMEOUT / 3), Ready::patient()].map(|ready| may_time_out(&lock, ready, 2));
        release(held);
        let [(first, hasty), (second, patient)] = threads.map(|thread| thread.join().unwrap());
        assert_ended(&lock, u32::from(first) + u32::from(second));
        [second && patient.flushed == 1, first && hasty.timeouts == 1]
    });
}

/// Here a sleep ends by a wake only: were one lost, loom would report that nobody can go on. The thief may be quicker than the
/// head that was woken, so that there are two releases, each with a bit of its own.
#[test]
fn a_sleeping_head_is_woken() {
    let outcomes = ["the head slept", "it did not", "it slept, and a thief came by"];
    sleep_for_good(true);
    model("a_sleeping_head_is_woken", 3, outcomes, || {
        let lock = counter();
        let (holder, ready) = (Ready::patient().cpu(), Ready::patient());
        let held = lock.lock(&holder).unwrap();
        let head = locker(&lock, Ready::patient());
        let thief = thief(&lock, ready);
        release(held);
        let head = head.join().unwrap();
        let (won, thief) = thief.join().unwrap();
        assert_ended(&lock, 1 + u32::from(won));
        [head.parked > 0, head.parked == 0, head.parked > 0 && thief.stolen == 1]
    });
    sleep_for_good(false);
}

/// Both clocks stand still, so the only check is the one before queueing: were both overlooked,
/// both would wait for ever.
#[test]
fn one_of_two_sees_abba() {
    let outcomes = ["both gave up", "one gave up", "there was no cycle"];
    model("one_of_two_sees_abba", 4, outcomes, || {
        let (a, b) = (counter(), counter());
        let threads = [(&a, &b), (&b, &a)].map(|(first, second)| {
            let (first, second) = (Arc::clone(first), Arc::clone(second));
            let ready = Ready::patient();
            thread::spawn(move || {
                let cpu = ready.cpu();
                let outer = first.lock(&cpu).unwrap();
                let inner = lock_and_increment(&second, &cpu);
                increment(&outer);
                drop(outer);
                assert!(cpu.is_idle());
                match inner {
                    Ok(()) => 1,
                    Err(LockError::Deadlock(Cycle::Abba { .. })) => 0,
                    Err(error) => panic!("{error}"),
                }
            })
        });
        let [in_b, in_a] = threads.map(|thread| thread.join().unwrap());
        assert_ended(&a, 1 + in_a);
        assert_ended(&b, 1 + in_b);
        [in_a + in_b == 0, in_a + in_b == 1, in_a + in_b == 2]
    });
}
