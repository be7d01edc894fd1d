//! One measurement: so many threads on one lock, for so long.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::candidates::Candidate;

/// What is done with the lock held: so many steps of a calculation that cannot be shortened.
#[derive(Clone, Copy)]
pub struct Section {
    pub nanoseconds: u64,
    steps: u64,
}

impl Section {
    /// One that takes so long on this machine, when nothing gets in its way.
    pub fn calibrated(nanoseconds: u64) -> Self {
        const STEPS: u64 = 100_000;
        // The quickest of many: the others were disturbed.
        let quickest = (0..50).map(|_| {
            let began = Instant::now();
            work(STEPS);
            began.elapsed().as_nanos() as u64
        });
        let quickest = quickest.min().unwrap_or(1).max(1);
        Self { nanoseconds, steps: nanoseconds * STEPS / quickest }
    }
}

/// Not inlined, and in registers alone: the same instructions for every lock, whatever stands around them.
#[inline(never)]
fn work(steps: u64) {
    let mut value = black_box(1_u64);
    for _ in 0..steps {
        value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    black_box(value);
}

/// What came of it.
pub struct Outcome {
    /// Millions of sections a second.
    pub throughput: f64,
    /// Those of the unluckiest thread, to those of the luckiest.
    pub fairness: f64,
    /// How long a thread waited for the lock, in nanoseconds.
    pub waits: Histogram<u64>,
    /// How often the lock was refused.
    pub refused: u64,
    /// For how long at most a thread that sleeps a millisecond at a time was not run.
    pub gap: Duration,
}

/// One wait in so many is timed, where sections are short: two looks at the clock take as long as they do.
const SAMPLED: u64 = 16;

pub fn measure<C: Candidate>(threads: usize, section: Section, duration: Duration) -> Outcome {
    let lock = C::default();
    let (start, stop) = (Barrier::new(threads + 2), AtomicBool::new(false));
    let every = if section.nanoseconds < 1_000 { SAMPLED } else { 1 };
    let run = || {
        let mut thread = C::thread();
        let mut waits = crate::histogram();
        let (mut done, mut refused) = (0_u64, 0_u64);
        start.wait();
        while !stop.load(Ordering::Relaxed) {
            let timed = done.is_multiple_of(every).then(Instant::now);
            let mut waited = None;
            let entered = C::with(&lock, &mut thread, |value| {
                waited = timed.map(|began| began.elapsed());
                *value += 1;
                work(section.steps);
            });
            if let Some(waited) = waited {
                waits.record(waited.as_nanos() as u64).expect("it grows as it has to");
            }
            done += u64::from(entered);
            refused += u64::from(!entered);
        }
        (done, refused, waits)
    };
    let watch = || {
        let mut gap = Duration::ZERO;
        start.wait();
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            crate::pause(Duration::from_millis(1));
            gap = gap.max(began.elapsed());
        }
        gap
    };
    thread::scope(|scope| {
        let runners: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let watchdog = scope.spawn(watch);
        start.wait();
        let began = Instant::now();
        crate::pause(duration);
        let took = began.elapsed();
        stop.store(true, Ordering::Relaxed);
        let mut waits = crate::histogram();
        let (mut each, mut refused) = (Vec::new(), 0);
        for runner in runners {
            let (done, was_refused, waited) = runner.join().expect("no runner panics");
            each.push(done);
            refused += was_refused;
            waits.add(&waited).expect("one grows to the other's range");
        }
        let (least, most) = (each.iter().min().copied().unwrap_or(0), each.iter().max().copied().unwrap_or(0));
        Outcome {
            throughput: each.iter().sum::<u64>() as f64 / took.as_secs_f64() / 1e6,
            fairness: if most == 0 { 0.0 } else { least as f64 / most as f64 },
            waits,
            refused,
            gap: watchdog.join().expect("the watchdog does not panic"),
        }
    })
}

/// Nanoseconds of a lock and an unlock that nobody disturbs.
pub fn uncontended<C: Candidate>() -> f64 {
    const TIMES: u32 = 2_000_000;
    let (lock, mut thread) = (C::default(), C::thread());
    let began = Instant::now();
    for _ in 0..TIMES {
        C::with(black_box(&lock), &mut thread, |value| *value += 1);
    }
    began.elapsed().as_nanos() as f64 / f64::from(TIMES)
}
