//! Candidates that take turns, and the table of how they did.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::median;

/// Operations between two looks at the clock.
pub const BATCH: usize = 1024;

/// One row. `run` does [`BATCH`] operations.
pub struct Candidate<'a> {
    name: String,
    run: Result<Box<dyn FnMut() + 'a>, String>,
}

impl<'a> Candidate<'a> {
    /// One that does `operation` over and over.
    pub fn new(name: impl Into<String>, mut operation: impl FnMut() + 'a) -> Self {
        let run = move || (0..BATCH).for_each(|_| operation());
        Candidate { name: name.into(), run: Ok(Box::new(run)) }
    }

    /// One that does `operation` with one key after the other.
    pub fn over<'k: 'a, K: Copy>(name: impl Into<String>, keys: &'k [K], mut operation: impl FnMut(K) + 'a) -> Self {
        let mut keys = keys.iter().copied().cycle();
        let run = move || keys.by_ref().take(BATCH).for_each(&mut operation);
        Candidate { name: name.into(), run: Ok(Box::new(run)) }
    }

    /// One that takes each key from what `operation` has read by the one before, so that none can begin before the last has ended.
    pub fn chained(name: impl Into<String>, first: u64, mut operation: impl FnMut(u64) -> u64 + 'a) -> Self {
        let mut key = first;
        let run = move || (0..BATCH).for_each(|_| key = operation(key));
        Candidate { name: name.into(), run: Ok(Box::new(run)) }
    }

    /// One that cannot run here.
    pub fn skipped(name: impl Into<String>, why: impl Into<String>) -> Self {
        Candidate { name: name.into(), run: Err(why.into()) }
    }
}

/// Reads the value of a key, and says which number is in it.
pub type Read<'a> = (&'static str, &'a dyn Fn(u64) -> u64);

/// How candidates are measured.
pub struct Table {
    pub rounds: u16,
    pub milliseconds: u64,
}

impl Table {
    /// Reads by keys in a random order, once with each key taken from the value before, once with keys that were there before.
    pub fn print_reads(&self, title: &str, peer: usize, cycle: &[(u64, u64)], reads: &[Read<'_>]) {
        let mut one: Vec<_> = reads.iter().map(|&(name, read)| Candidate::chained(name, cycle[0].0, read)).collect();
        self.print(&format!("{title}, one after the other: each key is read in the value before"), peer, &mut one);
        let mut many: Vec<_> = reads
            .iter()
            .map(|&(name, read)| Candidate::over(name, cycle, move |(key, _)| _ = black_box(read(key))))
            .collect();
        self.print(
            &format!("{title}, with known keys: the processor begins one before the last ends"),
            peer,
            &mut many,
        );
    }

    /// Lets the candidates take turns and prints a row for each. Ratios are told to the one at `peer`, round by round.
    pub fn print(&self, title: &str, peer: usize, candidates: &mut [Candidate<'_>]) {
        let mut times = vec![Vec::new(); candidates.len()];
        // The first turn of each warms caches and tables up, and is not counted.
        for round in 0..=self.rounds {
            for (candidate, times) in candidates.iter_mut().zip(&mut times) {
                let Ok(run) = &mut candidate.run else { continue };
                let time = turn(run, Duration::from_millis(self.milliseconds));
                if round > 0 {
                    times.push(time);
                }
            }
        }
        println!("\n{title}");
        println!("  {:<44} {:>9} {:>9} {:>9} {:>7}", "", "ns", "least", "most", "ratio");
        for (candidate, own) in candidates.iter().zip(&times) {
            match &candidate.run {
                Ok(_) => {
                    let ratios: Vec<_> = own.iter().zip(&times[peer]).map(|(own, peer)| own / peer).collect();
                    let least = own.iter().copied().fold(f64::MAX, f64::min);
                    let most = own.iter().copied().fold(0.0, f64::max);
                    let ratio = if ratios.is_empty() { String::new() } else { format!("{:.2}", median(&ratios)) };
                    println!("  {:<44} {:>9.1} {least:>9.1} {most:>9.1} {ratio:>7}", candidate.name, median(own));
                }
                Err(why) => println!("  {:<44} SKIPPED: {why}", candidate.name),
            }
        }
    }
}

/// Nanoseconds an operation.
fn turn(run: &mut dyn FnMut(), duration: Duration) -> f64 {
    let (began, mut batches) = (Instant::now(), 0_u32);
    loop {
        run();
        batches += 1;
        let took = began.elapsed();
        if took >= duration {
            return took.as_nanos() as f64 / f64::from(batches) / BATCH as f64;
        }
    }
}

/// The keys in a random order, each with the one that follows it; the first follows the last.
pub fn cycle(keys: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut order: Vec<_> = keys.into_iter().collect();
    fastrand::Rng::with_seed(1).shuffle(&mut order);
    let following = order.iter().cycle().skip(1);
    order.iter().copied().zip(following.copied()).collect()
}

/// The same pairs in the order in which stores are filled with them: a value's memory says nothing about the next one's.
pub fn apart(cycle: &[(u64, u64)]) -> impl ExactSizeIterator<Item = (u64, u64)> + use<'_> {
    shuffled(cycle.len() as u32, 2).into_iter().map(|at| cycle[at as usize])
}

/// 0 to `count` in a random order, the same in every run for the same seed.
pub fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut keys: Vec<_> = (0..count).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut keys);
    keys
}
