//! The case table of the lock, by name.

#[cfg(debug_assertions)]
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use super::assert_at_rest;
use super::harness::{Party, measured, median, wait_until, watchdog};
use crate::word::Word;
use crate::{Clock, Cpu, Cycle, DEFAULT_TIMEOUT, LockError, ManualClock, RqSpinLock};

pub(super) const MS: Duration = Duration::from_millis(1);

pub(super) fn time() -> Arc<ManualClock> {
    Arc::new(ManualClock::new())
}

pub(super) fn cpu_by(time: &Arc<ManualClock>) -> Cpu {
    Cpu::builder().clock(Arc::clone(time)).register().unwrap()
}

/// Locks and releases; what came of it.
pub(super) fn pass(lock: &RqSpinLock<u64>, cpu: &Cpu) -> Result<(), LockError> {
    *lock.lock(cpu)? += 1;
    Ok(())
}

/// The clock stands still, so this cannot be anything but the check.
#[test]
fn aa() {
    watchdog("aa", || {
        let cpu = cpu_by(&time());
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

/// The same by the system's clock, to see what "at once" is.
#[test]
fn aa_takes_no_time() {
    watchdog("aa_takes_no_time", || {
        let cpu = Cpu::register().unwrap();
        let lock = RqSpinLock::new(7);
        let _guard = lock.lock(&cpu).unwrap();
        let refuse = || {
            let start = Instant::now();
            assert_eq!(lock.lock(&cpu).unwrap_err(), LockError::Deadlock(Cycle::Aa));
            start.elapsed()
        };
        let mut waits: Vec<_> = (0..1_000).map(|_| refuse()).collect();
        let wait = median(&mut waits);
        measured(format_args!("aa: refused after {wait:.1?}, the median of {}", waits.len()));
        assert!(wait < MS);
    });
}

/// The 33rd lock is not in the table, so asking for it again is not seen and times out.
#[test]
fn held_lock_max() {
    watchdog("held_lock_max", || {
        let cpu = Cpu::register().unwrap();
        let locks: Vec<_> = (0..34).map(RqSpinLock::new).collect();
        let mut guards: Vec<_> = locks.iter().map(|lock| lock.lock(&cpu).unwrap()).collect();
        let start = Instant::now();
        assert_eq!(locks[32].lock(&cpu).unwrap_err(), LockError::TimedOut);
        assert!(start.elapsed() >= DEFAULT_TIMEOUT, "gave up after {:?}", start.elapsed());
        assert_eq!(locks[30].lock(&cpu).unwrap_err(), LockError::Deadlock(Cycle::Aa));
        while let Some(guard) = guards.pop() {
            drop(guard);
        }
        assert!(cpu.is_idle());
        locks.iter().for_each(|lock| assert_at_rest(lock.raw()));
        let events = cpu.events().snapshot();
        assert_eq!((events.fast, events.timeouts, events.out_of_order), (34, 1, 0));
    });
}

/// Both hold one and want the other's, by the real clock.
#[test]
fn abba() {
    watchdog("abba", || {
        let locks = Arc::new([RqSpinLock::new(0), RqSpinLock::new(0)]);
        let mut waits = Vec::new();
        let mut both = 0;
        for _ in 0..50 {
            let both_hold = Arc::new(Barrier::new(2));
            let parties = [0, 1].map(|mine| {
                let (locks, both_hold) = (Arc::clone(&locks), Arc::clone(&both_hold));
                thread::spawn(move || {
                    let cpu = Cpu::register().unwrap();
                    let outer = locks[mine].lock(&cpu).unwrap();
                    both_hold.wait();
                    let start = Instant::now();
                    let result = pass(&locks[1 - mine], &cpu);
                    let waited = start.elapsed();
                    drop(outer);
                    assert!(cpu.is_idle());
                    (result, waited, cpu.id())
                })
            });
            let [left, right] = parties.map(|party| party.join().unwrap());
            let mut refused = 0;
            for ((result, waited, _), (_, _, other), wanted) in
                [(&left, &right, locks[0].id()), (&right, &left, locks[1].id())]
            {
                if let Err(error) = result {
                    let cycle = Cycle::Abba { wanted, other: *other };
                    assert_eq!(*error, LockError::Deadlock(cycle));
                    waits.push(*waited);
                    refused += 1;
                }
            }
            assert!(refused >= 1, "a deadlock that nobody saw cannot have ended");
            both += u32::from(refused == 2);
            locks.iter().for_each(|lock| assert_at_rest(lock.raw()));
        }
        let wait = median(&mut waits);
        measured(format_args!(
            "abba: refused after {wait:.1?}, the median of {}; to both in {both} of 50 rounds",
            waits.len()
        ));
        // The first check comes before the queue, the next after a millisecond, the timeout after 250.
        assert!(wait < 50 * MS);
    });
}

/// The clock stands still, so it is the check before queueing that sees the cycle.
#[test]
fn abba_before_queueing() {
    static A: RqSpinLock<u64> = RqSpinLock::new(0);
    static B: RqSpinLock<u64> = RqSpinLock::new(0);
    watchdog("abba_before_queueing", || {
        let time = time();
        let cpu = cpu_by(&time);
        let b = B.lock(&cpu).unwrap();
        let other = Party::start(&time, |cpu| {
            let _a = A.lock(cpu).unwrap();
            pass(&B, cpu)
        });
        other.wait_queued(&B);
        let cycle = Cycle::Abba { wanted: B.id(), other: other.id };
        assert_eq!(A.lock(&cpu).unwrap_err(), LockError::Deadlock(cycle));
        drop(b);
        assert_eq!(other.join(), Ok(()));
        assert_eq!(cpu.events().snapshot().abba, 1);
        assert!(cpu.is_idle());
    });
}

/// One party holds `A` and is head of the queue for `B`, with `waiters` behind it; this thread holds
/// `B`. Then this thread's table says that it waits for `A` (which it does not do in earnest, as
/// its own check would be the first to see the cycle).
fn deadlocked_head(a: &'static RqSpinLock<u64>, b: &'static RqSpinLock<u64>, waiters: usize) {
    let time = time();
    let cpu = cpu_by(&time);
    let held = b.lock(&cpu).unwrap();
    let head = Party::start(&time, |cpu| {
        let _a = a.lock(cpu).unwrap();
        pass(b, cpu)
    });
    head.wait_look();
    let behind: Vec<_> = (0..waiters)
        .map(|_| {
            let waiter = Party::start(&time, |cpu| pass(b, cpu));
            waiter.wait_queued(b);
            waiter
        })
        .collect();
    cpu.held().push(a.id());

    time.advance(MS - Duration::from_nanos(1));
    head.wait_look();
    head.wait_look();
    assert!(head.is_waiting(), "the check was due a nanosecond later");
    time.advance(Duration::from_nanos(1));
    let cycle = Cycle::Abba { wanted: a.id(), other: cpu.id() };
    assert_eq!(head.join(), Err(LockError::Deadlock(cycle)));
    assert_at_rest(a.raw());

    cpu.held().withdraw();
    if behind.is_empty() {
        assert_eq!(b.raw().word.peek(), Word::HELD);
    } else {
        behind[0].wait_look();
        assert!(behind.iter().all(Party::is_waiting));
    }
    drop(held);
    for waiter in behind {
        assert_eq!(waiter.join(), Ok(()));
    }
    assert_at_rest(b.raw());
    assert!(cpu.is_idle());
}

#[test]
fn deadlocked_head_alone() {
    static A: RqSpinLock<u64> = RqSpinLock::new(0);
    static B: RqSpinLock<u64> = RqSpinLock::new(0);
    watchdog("deadlocked_head_alone", || deadlocked_head(&A, &B, 0));
}

#[test]
fn deadlocked_head_with_waiters() {
    static A: RqSpinLock<u64> = RqSpinLock::new(0);
    static B: RqSpinLock<u64> = RqSpinLock::new(0);
    watchdog("deadlocked_head_with_waiters", || deadlocked_head(&A, &B, 3));
}

/// `ab` threads take A and then B, `ba` the reverse, until `enough` refusals in some time; gives back how many
/// deadlocks were refused.
fn ab_against_ba(ab: usize, ba: usize, enough: impl Fn(Duration, u64) -> bool) -> u64 {
    let locks = Arc::new([RqSpinLock::new(0_u64), RqSpinLock::new(0)]);
    let stop = Arc::new(AtomicBool::new(false));
    let all_refused = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..ab + ba)
        .map(|n| {
            let (locks, stop, all_refused) = (Arc::clone(&locks), Arc::clone(&stop), Arc::clone(&all_refused));
            let [first, second] = if n < ab { [0, 1] } else { [1, 0] };
            thread::spawn(move || {
                let cpu = Cpu::register().unwrap();
                let (mut passed, mut refused, mut timed_out) = ([0_u64; 2], 0, 0);
                while !stop.load(Ordering::Relaxed) {
                    let mut outer = match locks[first].lock(&cpu) {
                        Ok(outer) => outer,
                        Err(LockError::TimedOut) => {
                            timed_out += 1;
                            continue;
                        }
                        Err(error) => panic!("{error}"),
                    };
                    *outer += 1;
                    passed[first] += 1;
                    thread::yield_now();
                    match locks[second].lock(&cpu) {
                        Ok(mut inner) => {
                            *inner += 1;
                            passed[second] += 1;
                        }
                        Err(LockError::Deadlock(Cycle::Abba { .. })) => {
                            refused += 1;
                            all_refused.fetch_add(1, Ordering::Relaxed);
                        }
                        // Two whose parties both wait behind innocents, or a busy machine.
                        Err(LockError::TimedOut) => timed_out += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                assert!(cpu.is_idle());
                let events = cpu.events().snapshot();
                assert_eq!(events.acquisitions(), passed[0] + passed[1]);
                assert_eq!((events.abba, events.timeouts + events.flushed), (refused, timed_out));
                // Who is refused was in the queue, or about to join it.
                let left = events.queued - events.claimed - timed_out;
                assert!(left <= refused, "{events:?}");
                assert_eq!((events.aa, events.out_of_order), (0, 0));
                (passed, timed_out)
            })
        })
        .collect();
    let start = Instant::now();
    wait_until("enough has happened", || enough(start.elapsed(), all_refused.load(Ordering::Relaxed)));
    stop.store(true, Ordering::Relaxed);
    let (mut passed, mut timed_out) = ([0, 0], 0);
    for thread in threads {
        let ([a, b], late) = thread.join().unwrap();
        passed[0] += a;
        passed[1] += b;
        timed_out += late;
    }
    for (lock, passed) in locks.iter().zip(passed) {
        assert_at_rest(lock.raw());
        let cpu = Cpu::register().unwrap();
        assert_eq!(*lock.lock(&cpu).unwrap(), passed);
    }
    let refused = all_refused.load(Ordering::Relaxed);
    measured(format_args!("{ab} AB against {ba} BA: {passed:?} sections, {refused} refused, {timed_out} timed out"));
    refused
}

#[test]
fn ab_16_against_ba_1() {
    watchdog("ab_16_against_ba_1", || {
        let refused = ab_against_ba(16, 1, |elapsed, refused| elapsed > 300 * MS && refused > 0);
        assert!(refused > 0);
    });
}

#[test]
fn ab_8_against_ba_8() {
    watchdog("ab_8_against_ba_8", || ab_against_ba(8, 8, |elapsed, _| elapsed > 500 * MS));
}

/// A cycle of three, which no check sees.
#[test]
fn abbcca() {
    watchdog("abbcca", || {
        let locks = Arc::new([0, 1, 2].map(RqSpinLock::new));
        let all_hold = Arc::new(Barrier::new(3));
        let parties = [0, 1, 2].map(|mine| {
            let (locks, all_hold) = (Arc::clone(&locks), Arc::clone(&all_hold));
            thread::spawn(move || {
                let cpu = Cpu::register().unwrap();
                let outer = locks[mine].lock(&cpu).unwrap();
                all_hold.wait();
                let result = pass(&locks[(mine + 1) % 3], &cpu);
                drop(outer);
                assert!(cpu.is_idle());
                result
            })
        });
        let results = parties.map(|party| party.join().unwrap());
        assert!(results.contains(&Err(LockError::TimedOut)), "{results:?}");
        assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(LockError::TimedOut))), "{results:?}");
        locks.iter().for_each(|lock| assert_at_rest(lock.raw()));
    });
}

#[cfg(debug_assertions)]
#[test]
fn out_of_order_unlock_is_asserted() {
    watchdog("out_of_order_unlock_is_asserted", || {
        let cpu = Cpu::register().unwrap();
        let (a, b) = (RqSpinLock::new(0), RqSpinLock::new(0));
        let first = a.lock(&cpu).unwrap();
        let second = b.lock(&cpu).unwrap();
        let panic = catch_unwind(AssertUnwindSafe(|| drop(first))).unwrap_err();
        let message = panic.downcast_ref::<&str>().unwrap();
        assert!(message.contains("reverse order of their acquisition"), "{message}");
        drop(second);
        // It was not released, and its Cpu knows that.
        assert!(cpu.is_poisoned() && !cpu.is_idle());
        assert_eq!(a.lock(&cpu).err(), Some(LockError::Deadlock(Cycle::Aa)));
        assert_at_rest(b.raw());
    });
}

#[cfg(not(debug_assertions))]
#[test]
fn out_of_order_unlock_is_counted() {
    watchdog("out_of_order_unlock_is_counted", || {
        let cpu = Cpu::register().unwrap();
        let locks = [0, 1, 2].map(RqSpinLock::new);
        let [a, b, c] = [0, 1, 2].map(|n| locks[n].lock(&cpu).unwrap());
        drop(a);
        assert_eq!(locks[1].lock(&cpu).unwrap_err(), LockError::Deadlock(Cycle::Aa));
        let a = locks[0].lock(&cpu).unwrap();
        drop((b, c, a));
        assert!(cpu.is_idle());
        locks.iter().for_each(|lock| assert_at_rest(lock.raw()));
        assert_eq!(cpu.events().snapshot().out_of_order, 3);
    });
}

/// A head and seven behind it are told in one that the time is up, whatever they call next.
#[test]
fn timed_out_head_with_waiters() {
    static LOCK: RqSpinLock<u64> = RqSpinLock::new(0);
    watchdog("timed_out_head_with_waiters", || {
        let time = time();
        let cpu = cpu_by(&time);
        let held = LOCK.lock(&cpu).unwrap();
        let parties: Vec<_> = (0..8)
            .map(|_| {
                let party = Party::start(&time, |cpu| pass(&LOCK, cpu));
                party.wait_queued(&LOCK);
                party
            })
            .collect();
        parties[0].wait_look();
        time.advance(DEFAULT_TIMEOUT - Duration::from_nanos(1));
        parties[0].wait_look();
        parties[0].wait_look();
        assert!(parties.iter().all(Party::is_waiting), "a nanosecond is left");

        time.advance(Duration::from_nanos(1));
        let mut total = crate::Events::default();
        for party in parties {
            let events = party.events.clone();
            assert_eq!(party.join(), Err(LockError::TimedOut));
            total += events.snapshot();
        }
        assert_eq!((total.timeouts, total.flushed, total.queued), (1, 7, 8));
        assert_eq!(LOCK.raw().word.peek(), Word::HELD);
        drop(held);
        assert_eq!(pass(&LOCK, &cpu), Ok(()));
        assert_at_rest(LOCK.raw());
    });
}

/// Those who come back at once after a flush are in another queue, whose time begins anew.
#[test]
fn retry_after_a_flush() {
    static LOCK: RqSpinLock<u64> = RqSpinLock::new(0);
    watchdog("retry_after_a_flush", || {
        let time = time();
        let cpu = cpu_by(&time);
        let held = LOCK.lock(&cpu).unwrap();
        let parties: Vec<_> = (0..4)
            .map(|_| {
                let party = Party::start(&time, |cpu| {
                    assert_eq!(pass(&LOCK, cpu), Err(LockError::TimedOut));
                    pass(&LOCK, cpu)
                });
                party.wait_queued(&LOCK);
                party
            })
            .collect();
        parties[0].wait_look();
        time.advance(DEFAULT_TIMEOUT);
        for party in &parties {
            wait_until("it is back in a queue", || party.events.snapshot().queued == 2);
        }
        // Whichever is head now: it has looked at the clock since all are here.
        let looks = |parties: &[Party<_>]| parties.iter().map(Party::looks).sum::<u64>();
        let look_again = || {
            let before = looks(&parties);
            wait_until("the new head has looked twice", || looks(&parties) >= before + 2);
        };
        look_again();
        time.advance(DEFAULT_TIMEOUT - MS);
        look_again();
        assert!(parties.iter().all(Party::is_waiting), "the new queue has its own time");
        drop(held);
        for party in parties {
            assert_eq!(party.join(), Ok(()));
        }
        assert_at_rest(LOCK.raw());
    });
}

/// A clock that asks for the next lock when it is looked at, which is how a wait comes to be
/// inside of a wait.
struct NestingClock;

thread_local! {
    static CPU: std::cell::OnceCell<Cpu> = const { std::cell::OnceCell::new() };
    static DEPTH: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
static NESTED: [RqSpinLock<u64>; 5] = [const { RqSpinLock::new(0) }; 5];
static INNERMOST: std::sync::Mutex<Option<LockError>> = std::sync::Mutex::new(None);

impl Clock for NestingClock {
    fn now(&self) -> Instant {
        let depth = DEPTH.get() + 1;
        if depth < NESTED.len() {
            DEPTH.set(depth);
            let result = CPU.with(|cpu| pass(&NESTED[depth], cpu.get().unwrap()));
            if depth == NESTED.len() - 1 {
                *INNERMOST.lock().unwrap() = result.err();
            } else {
                result.unwrap();
            }
        }
        Instant::now()
    }
}

#[test]
fn nesting_5() {
    watchdog("nesting_5", || {
        let cpu = Cpu::register().unwrap();
        let mut guards: Vec<_> = NESTED.iter().map(|lock| lock.lock(&cpu).unwrap()).collect();
        let waiter = thread::spawn(|| {
            CPU.with(|cpu| {
                let long = Duration::from_secs(1000);
                cpu.set(Cpu::builder().timeout(long).clock(NestingClock).register().unwrap()).unwrap();
                let cpu = cpu.get().unwrap();
                pass(&NESTED[0], cpu).unwrap();
                assert!(cpu.is_idle());
                cpu.events().snapshot()
            })
        });
        wait_until("the fifth level has given up", || INNERMOST.lock().unwrap().is_some());
        assert_eq!(*INNERMOST.lock().unwrap(), Some(LockError::Deadlock(Cycle::Nesting)));
        for (level, lock) in NESTED.iter().enumerate() {
            assert_eq!(lock.raw().word.peek().tail().is_some(), level < 4, "level {level}");
        }
        while let Some(guard) = guards.pop() {
            drop(guard);
        }
        let events = waiter.join().unwrap();
        assert_eq!((events.queued, events.acquisitions(), events.trylock_fallback), (4, 4, 1));
        NESTED.iter().for_each(|lock| assert_at_rest(lock.raw()));
    });
}

/// Heads that set pending and give up, all the time, against those that come new: a pending that is
/// left behind, or cleared for somebody else, would show in the word or as a hang.
#[test]
fn give_up_against_newcomers() {
    static LOCK: RqSpinLock<u64> = RqSpinLock::new(0);
    watchdog("give_up_against_newcomers", || {
        let stop = Arc::new(AtomicBool::new(false));
        let gave_up = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..6)
            .map(|n| {
                let (stop, gave_up) = (Arc::clone(&stop), Arc::clone(&gave_up));
                thread::spawn(move || {
                    let cpu = Cpu::register().unwrap();
                    let mut passed = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let patience = Duration::from_micros(20 * (n % 3));
                        let result = match n {
                            0..3 => LOCK.lock(&cpu),
                            _ => LOCK.lock_until(&cpu, Instant::now() + patience),
                        };
                        match result {
                            Ok(mut guard) => {
                                *guard += 1;
                                passed += 1;
                                thread::yield_now();
                            }
                            Err(LockError::DeadlinePassed) => {
                                gave_up.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(LockError::TimedOut) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                    assert!(cpu.is_idle());
                    (passed, cpu.events().snapshot())
                })
            })
            .collect();
        let start = Instant::now();
        let gave_up_often = || gave_up.load(Ordering::Relaxed) > 100;
        wait_until("enough have given up", || start.elapsed() > 300 * MS && gave_up_often());
        stop.store(true, Ordering::Relaxed);
        let mut passed = 0;
        for thread in threads {
            let (mine, events) = thread.join().unwrap();
            assert_eq!(events.acquisitions(), mine);
            passed += mine;
        }
        assert_at_rest(LOCK.raw());
        assert_eq!(*LOCK.lock(&Cpu::register().unwrap()).unwrap(), passed);
    });
}
