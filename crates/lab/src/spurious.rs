//! Refusals without recursion: threads that share a processor, each with an owner of its own.
//!
//! ```text
//!   for each round, for each number of tasks a processor, for each guard:
//!     tasks (pinned) ──► barrier ──► get-or-create, delete, get-or-create, ... ──► so many operations in all ──► counts, latencies
//! ```
//!
//! The guards take turns within a round, so that what the machine does besides meets both. They differ in nothing but the [`Guard`]: the section
//! has no sleep, no yield and no hook in it. A thread that is interrupted in the middle of an operation is what the counter takes for recursion.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use local_storage::{
    Context, CreateMapError, DeleteError, Guard, MapSpec, Owner, OwnerSlot, Processor, StorageMap, UpdateError,
    VersionClock, destroy,
};
use rqspinlock::{Cpu, LockError, RegisterError};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Rounds, in each of which both guards have their turn.
const ROUNDS: u64 = 5;
/// Of so many pairs of a create and a delete one of the two is timed, in turns: looking at the clock costs as much as a third of one.
const TIMED: u64 = 8;
/// Operations between two reports of progress.
const REPORT: u64 = 8192;
/// Bytes of a value.
const VALUE: u32 = 64;

/// What is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The processors that are worked on.
    pub cpus: Vec<usize>,
    /// Threads on each processor: a row of the table for each number and guard.
    pub tasks: Vec<usize>,
    /// Operations of each row, over all rounds and threads. A get-or-create is one, and so is a delete.
    pub operations: u64,
}

/// One guard with so many tasks.
#[derive(Clone, Debug)]
pub struct Row {
    /// Threads on each processor.
    pub tasks: usize,
    /// Whether it was the legacy guard.
    pub legacy: bool,
    /// Operations that were tried.
    pub operations: u64,
    /// For how long.
    pub time: Duration,
    /// What came of them.
    pub met: Met,
}

/// What threads have met.
#[derive(Clone, Debug)]
pub struct Met {
    /// Refused as busy: nobody recurs here, so each of them is spurious.
    pub busy: u64,
    /// Refused by a lock as a deadlock: there is none, so this is 0.
    pub deadlocks: u64,
    /// Refused by a lock after its timeout: a stall of the machine.
    pub timeouts: u64,
    /// What a sixteenth of the operations took, in nanoseconds.
    pub latency: Histogram<u64>,
}

impl Row {
    /// Get-or-creates are half of the operations, and only they are refused as busy.
    pub fn busy_share(&self) -> f64 {
        self.met.busy as f64 / (self.operations as f64 / 2.0).max(1.0)
    }

    /// Operations a second that were served. (Where a get-or-create was refused there was nothing to delete, either.)
    pub fn served_per_second(&self) -> f64 {
        let Met { busy, deadlocks, timeouts, .. } = self.met;
        let served = self.operations.saturating_sub(2 * busy + deadlocks + timeouts);
        served as f64 / self.time.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// The processors that this process may use.
pub fn allowed_cpus() -> Result<Vec<usize>, Error> {
    let allowed = sched_getaffinity(None).map_err(Error::Affinity)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect())
}

/// Why it did not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Where this process may run is not told.
    #[error("cannot tell which processors this process may use: {0}")]
    Affinity(rustix::io::Errno),
    /// A thread could not go where it is to work.
    #[error("cannot pin a thread to processor {cpu}: {error}")]
    Pin {
        /// The processor.
        cpu: usize,
        /// What the system said.
        error: rustix::io::Errno,
    },
    /// Too many threads at once.
    #[error("no lock context for another thread: {0}; take fewer tasks or processors")]
    TooMany(#[from] RegisterError),
    /// No memory for the map.
    #[error(transparent)]
    Map(#[from] CreateMapError),
}

struct Task {
    id: u64,
    slot: OwnerSlot,
}

impl Owner for Task {
    fn id(&self) -> u64 {
        self.id
    }

    fn slot(&self) -> &OwnerSlot {
        &self.slot
    }
}

impl Met {
    fn new() -> Met {
        let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds are good");
        Met { busy: 0, deadlocks: 0, timeouts: 0, latency }
    }

    fn refused(&mut self, error: LockError) {
        match error {
            LockError::Deadlock(_) => self.deadlocks += 1,
            LockError::TimedOut | LockError::DeadlinePassed => self.timeouts += 1,
        }
    }

    fn created<T>(&mut self, result: Result<T, UpdateError>) {
        match result {
            Ok(_) => {}
            Err(UpdateError::Busy) => self.busy += 1,
            Err(UpdateError::Lock(refusal)) => self.refused(refusal.error),
            Err(error) => unreachable!("an owner that nobody else has: {error}"),
        }
    }

    fn deleted<T>(&mut self, result: Result<T, DeleteError>) {
        match result {
            // It was not created before.
            Ok(_) | Err(DeleteError::NotFound) => {}
            Err(DeleteError::Lock(refusal)) => self.refused(refusal.error),
            Err(error) => unreachable!("an owner that nobody else has: {error}"),
        }
    }

    fn add(&mut self, other: &Met) {
        self.busy += other.busy;
        self.deadlocks += other.deadlocks;
        self.timeouts += other.timeouts;
        self.latency.add(&other.latency).expect("the same bounds");
    }
}

/// Runs all of it. `progress` is told how many operations are done, of how many; it is called by several threads.
pub fn run(config: &Config, progress: impl Fn(u64, u64) + Sync) -> Result<Vec<Row>, Error> {
    let kinds = config.tasks.iter().flat_map(|&tasks| [(tasks, true), (tasks, false)]);
    let row = |(tasks, legacy)| Row { tasks, legacy, operations: 0, time: Duration::ZERO, met: Met::new() };
    let mut rows: Vec<Row> = kinds.map(row).collect();
    let all = config.operations * rows.len() as u64;
    let done = AtomicU64::new(0);
    // Relaxed: a count for people.
    let report = |more: u64| progress(done.fetch_add(more, Ordering::Relaxed) + more, all);
    for round in 0..ROUNDS {
        // So that the rounds sum up to what was asked for.
        let operations = config.operations * (round + 1) / ROUNDS - config.operations * round / ROUNDS;
        for row in &mut rows {
            let (time, met) = turn(&config.cpus, row.tasks, row.legacy, operations, &report)?;
            row.operations += operations;
            row.time += time;
            row.met.add(&met);
        }
    }
    Ok(rows)
}

fn turn(
    cpus: &[usize],
    tasks: usize,
    legacy: bool,
    operations: u64,
    report: &(impl Fn(u64) + Sync),
) -> Result<(Duration, Met), Error> {
    let threads = cpus.len() * tasks;
    let spec =
        MapSpec { id: 1, value_size: VALUE, max_elements: 16 * threads as u64, kind: 0, min_buckets: 16 * threads };
    let map = Arc::new(StorageMap::new(spec)?);
    let guards: Vec<_> = cpus
        .iter()
        .map(|_| if legacy { Guard::PerCpuCounter(Arc::new(Processor::default())) } else { Guard::RqSpinLock })
        .collect();
    let barrier = Barrier::new(threads);
    let results: Vec<Result<(Instant, Instant, Met), Error>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                let (map, barrier, cpu) = (&map, &barrier, cpus[number % cpus.len()]);
                let guard = guards[number % cpus.len()].clone();
                let share =
                    operations * (number as u64 + 1) / threads as u64 - operations * number as u64 / threads as u64;
                scope.spawn(move || {
                    let context = prepare(cpu, number, guard);
                    // Also where it failed: the others wait.
                    barrier.wait();
                    let context = context?;
                    let began = Instant::now();
                    let met = work(&context, map, number as u64 + 1, share, report);
                    Ok((began, Instant::now(), met))
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker does not panic")).collect()
    });
    let mut met = Met::new();
    let (mut began, mut ended) = (None::<Instant>, None::<Instant>);
    for result in results {
        let (from, to, own) = result?;
        (began, ended) =
            (Some(began.map_or(from, |began| began.min(from))), Some(ended.map_or(to, |ended| ended.max(to))));
        met.add(&own);
    }
    Ok((began.zip(ended).map_or(Duration::ZERO, |(began, ended)| ended - began), met))
}

/// On a thread of its own: pins it and gives it what operations need.
fn prepare(cpu: usize, number: usize, guard: Guard) -> Result<Context, Error> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|error| Error::Pin { cpu, error })?;
    let versions = VersionClock::new(number % VersionClock::INDEXES).expect("below the number of indexes");
    Ok(Context::new(Cpu::register()?, versions, rqspinlock::DEFAULT_TIMEOUT).with_guard(guard))
}

fn work(cx: &Context, map: &Arc<StorageMap>, id: u64, operations: u64, report: &impl Fn(u64)) -> Met {
    let task = Task { id, slot: OwnerSlot::new() };
    let (value, mut met) = ([id as u8; VALUE as usize], Met::new());
    for number in 0..operations {
        let pair = number / 2;
        let timed = pair.is_multiple_of(TIMED) && number % 2 == pair / TIMED % 2;
        let started = timed.then(Instant::now);
        // Of an odd number of operations the last value goes with its owner.
        match number % 2 {
            0 => met.created(map.get_or_create(cx, &task, &value)),
            _ => met.deleted(map.delete(cx, &task, None)),
        }
        if let Some(started) = started {
            met.latency.saturating_record(started.elapsed().as_nanos() as u64);
        }
        if number % REPORT == REPORT - 1 {
            report(REPORT);
        }
    }
    report(operations % REPORT);
    destroy(cx, &task);
    met
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(operations: u64) -> Config {
        let first = allowed_cpus().unwrap()[0];
        Config { cpus: vec![first], tasks: vec![2, 3], operations }
    }

    #[test]
    fn every_operation_is_run_and_only_the_counter_refuses() {
        let (most, calls) = (AtomicU64::new(0), AtomicU64::new(0));
        let rows = run(&small(50_001), |done, all| {
            assert!(done <= all && all == 4 * 50_001);
            most.fetch_max(done, Ordering::Relaxed);
            calls.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!((most.into_inner(), calls.into_inner() > 8), (4 * 50_001, true));
        let kinds: Vec<_> = rows.iter().map(|row| (row.tasks, row.legacy, row.operations)).collect();
        assert_eq!(kinds, [(2, true, 50_001), (2, false, 50_001), (3, true, 50_001), (3, false, 50_001)]);
        for row in rows.iter().filter(|row| !row.legacy) {
            assert_eq!((row.met.busy, row.met.deadlocks), (0, 0), "nobody recurs: {row:?}");
        }
        assert!(
            rows.iter().all(|row| row.met.latency.len() >= 50_001 / (2 * TIMED) - 3 && row.served_per_second() > 0.0)
        );
    }

    /// A thread is interrupted every few milliseconds, seldom outside an operation.
    #[test]
    fn the_counter_refuses_where_nobody_recurs() {
        let limit = Instant::now() + Duration::from_secs(60);
        let busy = loop {
            let rows = run(&small(2_000_000), |_, _| {}).unwrap();
            let busy: u64 = rows.iter().filter(|row| row.legacy).map(|row| row.met.busy).sum();
            if busy > 0 || Instant::now() > limit {
                break busy;
            }
        };
        assert!(busy > 0);
    }

    #[test]
    fn a_processor_that_is_not_there_is_said() {
        let error = run(&Config { cpus: vec![CpuSet::MAX_CPU - 1], ..small(10) }, |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("cannot pin a thread to processor 1023"), "{error}");
    }
}
