//! 64 threads that do everything at random, for as long as is asked for: `cargo xtask stress lock --seconds 600`.
//!
//! ```text
//!   windows of 100 ms   │ quiet │ quiet │ quiet │ quiet │ quiet │ naps │ naps │ naps │ naps │ naps │ quiet │ ...
//!                       └ the rate before ──────────────────────┘                                  └ the rate after
//! ```
//!
//! A seed repeats what each thread chooses, and not how the threads meet: that is the system's choice.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::assert_at_rest;
use super::harness::{measured, median, watchdog_beside};
use super::stress::{alone, preempted_for};
use crate::{Cpu, DEFAULT_TIMEOUT, Events, EventsHandle, Guard, LockError, RqSpinLock};

const THREADS: u64 = 64;

/// The last one is the inner one of every nested pair.
const LOCKS: usize = 3;

/// How long a holder sleeps with its lock.
const NAP: Duration = Duration::from_millis(20);

/// From the beginning of one nap with a lock to that of the next with the same one.
///
/// A head waits for one holder: through that one's own nap, and, if that one waits for the last lock, through naps with the
/// last lock, of which five begin in 250 ms. Those are 120 ms. In the other 130 the queue before that holder moves on,
/// 63 threads at most with half a millisecond of thefts before each. So naps alone end no wait with `TimedOut`: that
/// takes a machine that does not run its threads, or a lock that is wrong. (Were naps with all locks strung together in
/// longer chains of nested pairs, they could.)
const BETWEEN_NAPS: Duration = Duration::from_millis(60);

/// The watcher was not run for so long: then nobody can tell who else was not.
const GAP: Duration = Duration::from_millis(50);

/// Nobody is without a lock for longer. Seen were 100 ms, 140 with twice as many other busy threads as processors, and 3 s
/// with all wakes lost.
const PATIENCE: Duration = Duration::from_millis(500);

const WINDOW: Duration = Duration::from_millis(100);

/// So many windows are quiet, and as many with naps.
const WINDOWS: usize = 5;

type Halves = (u64, u64);

struct Arena {
    locks: [RqSpinLock<Halves>; LOCKS],
    start: Instant,
    stop: AtomicBool,
    naps: AtomicBool,
    /// For each lock, when the next nap is due: nanoseconds from the start.
    next_nap: [AtomicU64; LOCKS],
    /// All threads, before the first of them begins.
    ready: Barrier,
}

/// What one thread has done, and how long it took.
#[derive(Default)]
struct Outcome {
    updates: [u64; LOCKS],
    naps: u64,
    /// Calls that ended with `TimedOut`, from when to when.
    timed_out: Vec<(Instant, Instant)>,
    deadlines: u64,
    /// Those of them that came in the queue, as its head.
    left: u64,
    longest_wait: Duration,
    /// From one acquisition to the next.
    longest_without: Duration,
    events: Events,
}

struct Worker<'a> {
    arena: &'a Arena,
    cpu: &'a Cpu,
    events: EventsHandle,
    rng: Rng,
    last: Instant,
    outcome: Outcome,
}

impl<'a> Worker<'a> {
    fn run(mut self) -> Outcome {
        while !self.arena.stop.load(Ordering::Relaxed) {
            // A pair one time in eight.
            let nested = self.rng.u8(..8) == 0;
            let outer = self.rng.usize(..LOCKS - usize::from(nested));
            if let Some(mut guard) = self.acquire(outer) {
                self.section(outer, &mut guard);
                if nested && let Some(mut inner) = self.acquire(LOCKS - 1) {
                    self.section(LOCKS - 1, &mut inner);
                }
            }
            self.think();
        }
        assert!(self.cpu.is_idle());
        self.outcome.longest_without = self.outcome.longest_without.max(self.last.elapsed());
        Outcome { events: self.events.snapshot(), ..self.outcome }
    }

    /// By one of the three ways in.
    fn acquire(&mut self, index: usize) -> Option<Guard<'a, Halves>> {
        let (lock, cpu) = (&self.arena.locks[index], self.cpu);
        let queued = self.events.snapshot().queued;
        let start = Instant::now();
        let result = match self.rng.u8(..8) {
            0..4 => lock.lock(cpu),
            4..6 => lock.lock_until(cpu, start + Duration::from_micros(self.rng.u64(..2_000))),
            _ => Ok(lock.try_lock(cpu)?),
        };
        let now = Instant::now();
        match result {
            Ok(guard) => {
                let outcome = &mut self.outcome;
                outcome.longest_wait = outcome.longest_wait.max(now - start);
                outcome.longest_without = outcome.longest_without.max(now - self.last);
                self.last = now;
                return Some(guard);
            }
            Err(LockError::TimedOut) => self.outcome.timed_out.push((start, now)),
            Err(LockError::DeadlinePassed) => {
                self.outcome.deadlines += 1;
                self.outcome.left += self.events.snapshot().queued - queued;
            }
            // The order of the locks is the same for all: nobody may be taken for a party of a deadlock.
            Err(error @ LockError::Deadlock(_)) => panic!("{error}"),
        }
        None
    }

    fn section(&mut self, index: usize, value: &mut Halves) {
        let (left, right) = *value;
        assert_eq!(left, right, "somebody else is in the section");
        value.0 = left + 1;
        // The halves are written apart, whatever the compiler thinks of it.
        std::hint::black_box(&mut *value);
        if self.nap_is_due(index) {
            preempted_for(NAP);
            self.outcome.naps += 1;
        } else {
            self.work();
        }
        value.1 = left + 1;
        self.outcome.updates[index] += 1;
    }

    /// Whether it falls to this holder to sleep.
    fn nap_is_due(&self, index: usize) -> bool {
        if !self.arena.naps.load(Ordering::Relaxed) {
            return false;
        }
        // Written by holders of that lock only: no other one comes between.
        let next = &self.arena.next_nap[index];
        let now = self.arena.start.elapsed();
        let is_due = now.as_nanos() as u64 >= next.load(Ordering::Relaxed);
        if is_due {
            next.store((now + BETWEEN_NAPS).as_nanos() as u64, Ordering::Relaxed);
        }
        is_due
    }

    /// Nothing, or some microseconds.
    fn work(&mut self) {
        for _ in 0..[0, 0, 10, 100][self.rng.usize(..4)] {
            std::hint::spin_loop();
        }
    }

    fn think(&mut self) {
        match self.rng.u16(..512) {
            // Load that comes and goes; nobody waits for it.
            0 => thread::park_timeout(Duration::from_micros(self.rng.u64(..5_000))),
            1..16 => thread::yield_now(),
            _ => self.work(),
        }
    }
}

/// Looks every few milliseconds whether it is run; gives back from when to when it was not.
fn watch(arena: &Arena) -> (Vec<(Instant, Instant)>, Duration) {
    let (mut gaps, mut longest) = (Vec::new(), Duration::ZERO);
    let mut last = Instant::now();
    while !arena.stop.load(Ordering::Relaxed) {
        thread::park_timeout(Duration::from_millis(5));
        let now = Instant::now();
        longest = longest.max(now - last);
        if now - last > GAP {
            gaps.push((last, now));
        }
        last = now;
    }
    (gaps, longest)
}

/// Acquisitions a second, in each of the windows.
#[derive(Default)]
struct Rates {
    before: Vec<f64>,
    napping: Vec<f64>,
    after: Vec<f64>,
}

impl Rates {
    /// Lets one quiet spell and one with naps follow the other, and a quiet one come last; `go_on` may end it before.
    fn take(arena: &Arena, time: Duration, acquisitions: impl Fn() -> u64, go_on: impl Fn() -> bool) -> Rates {
        let mut rates = Rates::default();
        let spells = time.div_duration_f64(WINDOW * WINDOWS as u32) as usize;
        for spell in 0..(spells | 1).max(3) {
            let naps = spell % 2 == 1;
            arena.naps.store(naps, Ordering::Relaxed);
            for _ in 0..WINDOWS {
                let (start, before) = (Instant::now(), acquisitions());
                while let Some(left) = WINDOW.checked_sub(start.elapsed()) {
                    thread::park_timeout(left);
                }
                let rate = (acquisitions() - before) as f64 / start.elapsed().as_secs_f64();
                match spell {
                    0 => rates.before.push(rate),
                    _ if naps => rates.napping.push(rate),
                    _ => rates.after.push(rate),
                }
                if !go_on() {
                    return rates;
                }
            }
        }
        rates
    }

    /// Before any nap; then, in parts of that: among naps, after naps, and in the worst of the spells after naps.
    fn compared(mut self) -> (f64, [f64; 3]) {
        let before = median(&mut self.before);
        let worst = self.after.chunks_mut(WINDOWS).map(median).fold(f64::INFINITY, f64::min);
        (before, [median(&mut self.napping), median(&mut self.after), worst].map(|rate| rate / before))
    }
}

/// What is known of a run when it has ended.
struct Run {
    elapsed: Duration,
    /// How long the threads took to end once they were told.
    ending: Duration,
    outcomes: Vec<Outcome>,
    events: Events,
    rates: Rates,
    gaps: Vec<(Instant, Instant)>,
    longest_gap: Duration,
}

fn run(arena: &Arena, seed: u64, time: Duration) -> Run {
    let handles = &Mutex::new(Vec::new());
    thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(arena));
        let workers: Vec<_> = (0..THREADS)
            .map(|n| {
                scope.spawn(move || {
                    let cpu = &Cpu::register().expect("far fewer threads than Cpus");
                    let events = cpu.events();
                    handles.lock().unwrap().push(events.clone());
                    // Mixed first: the threads of the next seed are not those of this one, moved by one.
                    let rng = Rng::with_seed(Rng::with_seed(seed).u64(..) ^ n);
                    arena.ready.wait();
                    Worker { arena, cpu, events, rng, last: Instant::now(), outcome: Outcome::default() }.run()
                })
            })
            .collect();
        arena.ready.wait();
        let handles = handles.lock().unwrap().clone();
        let acquisitions = || handles.iter().map(|events| events.snapshot().acquisitions()).sum();
        // Who has ended before it was told to has panicked.
        let go_on = || !workers.iter().any(|worker| worker.is_finished());
        let rates = Rates::take(arena, time, acquisitions, go_on);
        arena.stop.store(true, Ordering::Relaxed);
        let stopped = Instant::now();
        let outcomes: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
        let ending = stopped.elapsed();
        let (gaps, longest_gap) = watcher.join().expect("no panic");
        let events = outcomes.iter().map(|outcome| outcome.events).sum();
        Run { elapsed: arena.start.elapsed(), ending, outcomes, events, rates, gaps, longest_gap }
    })
}

fn stress(seed: u64, time: Duration) {
    let arena = Arena {
        locks: [const { RqSpinLock::new((0, 0)) }; LOCKS],
        start: Instant::now(),
        stop: AtomicBool::new(false),
        naps: AtomicBool::new(false),
        next_nap: [const { AtomicU64::new(0) }; LOCKS],
        ready: Barrier::new(THREADS as usize + 1),
    };
    let Run { elapsed, ending, outcomes, events, rates, gaps, longest_gap } = run(&arena, seed, time);
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    let longest = |of: fn(&Outcome) -> Duration| outcomes.iter().map(of).max().expect("64 of them");
    let (naps, deadlines, left) = (sum(|o| o.naps), sum(|o| o.deadlines), sum(|o| o.left));
    let (longest_wait, longest_without) = (longest(|o| o.longest_wait), longest(|o| o.longest_without));
    let timed_out: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.timed_out).collect();
    let hand_over = elapsed * LOCKS as u32 / u32::try_from(events.claimed).unwrap_or(u32::MAX).max(1);

    let say = |what: fmt::Arguments<'_>| measured(format_args!("stress_64_at_random: {what}"));
    say(format_args!("seed {seed}, {elapsed:.1?}, {naps} naps of {NAP:?}, {events:?}"));
    say(format_args!("longest wait {longest_wait:.1?}, longest time without a lock {longest_without:.1?}"));
    say(format_args!("a lock changes hands in its queue every {hand_over:.1?}; all ended within {ending:.1?}"));
    let (timeouts, unwatched) = (timed_out.len() as u64, gaps.len());
    say(format_args!(
        "{timeouts} timed out, {deadlines} deadlines passed; {unwatched} times the watcher was not run for {GAP:?}, \
         {longest_gap:.1?} at most"
    ));
    let (before, [among, after, worst]) = rates.compared();
    say(format_args!(
        "{before:.0} acquisitions a second before any nap; of that {among:.2} among naps, {after:.2} after them, \
         {worst:.2} at worst"
    ));

    // Exclusion was asserted on the way. Nothing is lost and nothing is left.
    for (index, lock) in arena.locks.iter().enumerate() {
        assert_at_rest(lock.raw());
        let updates = outcomes.iter().map(|outcome| outcome.updates[index]).sum::<u64>();
        assert_eq!(*lock.lock(&Cpu::register().unwrap()).unwrap(), (updates, updates), "lock {index}");
    }
    assert_eq!(events.acquisitions(), sum(|o| o.updates.iter().sum()));
    assert_eq!(events.timeouts + events.flushed, timeouts);
    assert_eq!(events.queued, events.claimed + timeouts + left);
    // Once in the queue, once at its head.
    assert!(events.parked <= 2 * events.queued);
    assert_eq!((events.aa, events.abba, events.trylock_fallback, events.out_of_order), (0, 0, 0, 0));
    assert!(naps > 0);

    // A wake that is lost costs a sleep of 100 ms at most, and of a single one nobody can say here that the machine was not to
    // blame: loom excludes it. With all of them lost it was 99 ms from one hand-over to the next, otherwise 0.2.
    assert!(hand_over < Duration::from_millis(4), "sleepers are not woken");
    assert!(longest_without < PATIENCE + longest_gap, "a thread starves");
    for (from, to) in timed_out {
        // Who was flushed may have come late: the time that was up is its head's.
        let from = (*from).min(*to - DEFAULT_TIMEOUT);
        let excused = gaps.iter().any(|gap| gap.0 < *to && from < gap.1);
        assert!(excused, "TimedOut after {:?}, and the machine was not to blame", *to - from);
    }
    // With a lock that turned into a strict queue after its first long wait it was 0.3, otherwise more than 0.8.
    assert!(after > 0.5, "the lock does not recover from naps");
}

/// The value of a variable of the environment, if it is set.
fn asked(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{variable}={value}: {error}")))
}

#[test]
fn stress_64_at_random() {
    let time = Duration::from_secs(asked("HOLDFAST_STRESS_SECONDS").unwrap_or(3));
    let seed = asked("HOLDFAST_STRESS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let _alone = alone();
    watchdog_beside(time, "stress_64_at_random", move || stress(seed, time));
}
