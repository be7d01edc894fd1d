//! What other calls wait while a large map is freed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::{Conditions, OwnerId, OwnerRef, UpdateMode};
use hdrhistogram::Histogram;

use super::get::Running;
use super::stores::value_of;

const FREED: &str = "freed";
const KEPT: &str = "kept";
/// Owners of the map that is called meanwhile.
const CALLED: usize = 10_000;
/// A call is due so often: while one waits for longer, those that were due meanwhile are counted as waiting as well.
const DUE: Duration = Duration::from_micros(100);

/// How long the calls took, in nanoseconds.
#[derive(Clone)]
struct Waits {
    gets: Histogram<u64>,
    /// Updates, by the worker that runs them.
    updates: Vec<Histogram<u64>>,
    /// How many updates that were.
    counts: Vec<u64>,
}

impl Waits {
    fn new(workers: usize) -> Self {
        let histogram = crate::histogram();
        Waits { gets: histogram.clone(), updates: vec![histogram; workers], counts: vec![0; workers] }
    }
}

fn note(histogram: &mut Histogram<u64>, began: Instant) {
    let (took, due) = (began.elapsed().as_nanos() as u64, DUE.as_nanos() as u64);
    histogram.record_correct(took, due).expect("it grows as it has to");
}

/// One client: Get, Update, Get, Update, over all owners and so over all workers, until `over`.
fn client(running: &Running, owners: &[(OwnerId, usize)], over: &AtomicBool) -> Waits {
    let mut waits = Waits::new(running.engine.workers().len());
    // Relaxed: nothing is handed over by it.
    for (owner, worker) in owners.iter().cycle().take_while(|_| !over.load(Ordering::Relaxed)) {
        let owner = OwnerRef::Id(*owner);
        let began = Instant::now();
        running.engine.get(KEPT, &owner).expect("it has a value");
        note(&mut waits.gets, began);
        let value = Bytes::copy_from_slice(&value_of(1));
        let began = Instant::now();
        let update = running.engine.update(KEPT, &owner, value, UpdateMode::Any, Conditions::default());
        running.runtime.block_on(update).expect("nobody frees that map");
        note(&mut waits.updates[*worker], began);
        waits.counts[*worker] += 1;
    }
    waits
}

/// Runs the client for as long as `body` takes.
fn meanwhile<T>(running: &Running, owners: &[(OwnerId, usize)], body: impl FnOnce() -> T) -> (Waits, T) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = scope.spawn(|| client(running, owners, &over));
        let value = body();
        over.store(true, Ordering::Relaxed);
        (client.join().expect("the client does not panic"), value)
    })
}

pub fn run(rounds: u16, elements: u32) -> anyhow::Result<()> {
    let running = Running::start(elements)?;
    let called = &running.owners[..CALLED.min(running.owners.len())];
    running.fill(KEPT, called.iter().map(|owner| (*owner, owner.0)))?;
    let worker = |id: &OwnerId| Ok((*id, running.engine.get_owner(&OwnerRef::Id(*id))?.worker));
    let called: Vec<_> = called.iter().map(worker).collect::<Result<_, engine::Error>>()?;
    let workers = running.engine.workers().len();
    let jobs = || running.engine.workers().iter().map(|worker| worker.counters().jobs).collect::<Vec<_>>();
    let (mut with, mut without) = (Rows::new("during a free"), Rows::new("without"));
    let mut times = Vec::new();
    for _ in 0..rounds {
        running.fill(FREED, running.owners.iter().map(|owner| (*owner, owner.0)))?;
        let before = jobs();
        let (waits, (freed, took)) = meanwhile(&running, &called, || {
            let began = Instant::now();
            (running.runtime.block_on(running.engine.free_map(FREED, None, None)), began.elapsed())
        });
        anyhow::ensure!(freed? == u64::from(elements), "the free took out what was not there, or left something");
        // The job that was not the client's was the free.
        let ran = |worker: &usize| jobs()[*worker] - before[*worker] > waits.counts[*worker];
        let freeing = (0..workers).find(ran).ok_or_else(|| anyhow::anyhow!("no worker ran the free"))?;
        with.add(&waits, freeing);
        let (waits, ()) = meanwhile(&running, &called, || crate::pause(took));
        without.add(&waits, freeing);
        times.push(took.as_secs_f64() * 1e3);
    }
    println!(
        "\nother calls while a map of {elements} elements is freed ({} ms, median of {rounds} rounds), and for as long without",
        crate::median(&times).round()
    );
    println!("  {:<44} {:>9} {:>9} {:>9} {:>9} {:>9}", "", "samples", "p50", "p99", "p99.9", "most");
    for which in 0..NAMES.len() {
        with.print(which);
        without.print(which);
    }
    Ok(())
}

const NAMES: [&str; 3] = ["Get", "Update on the worker that frees", "Update on the other workers"];

struct Rows {
    when: &'static str,
    waits: [Histogram<u64>; 3],
}

impl Rows {
    fn new(when: &'static str) -> Self {
        Rows { when, waits: [(); 3].map(|()| crate::histogram()) }
    }

    fn add(&mut self, waits: &Waits, freeing: usize) {
        let mut add = |which: usize, more| self.waits[which].add(more).expect("one grows to the other's range");
        add(0, &waits.gets);
        for (worker, updates) in waits.updates.iter().enumerate() {
            add(if worker == freeing { 1 } else { 2 }, updates);
        }
    }

    fn print(&self, which: usize) {
        let waits = &self.waits[which];
        let micros = |nanoseconds: u64| format!("{:.1} us", nanoseconds as f64 / 1e3);
        let at = |quantile| micros(waits.value_at_quantile(quantile));
        println!(
            "  {:<44} {:>9} {:>9} {:>9} {:>9} {:>9}",
            format!("{}, {}", NAMES[which], self.when),
            waits.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            micros(waits.max()),
        );
    }
}
