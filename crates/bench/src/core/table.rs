//! Candidates that take turns, and the table of how they did.

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

    /// One that cannot run here.
    pub fn skipped(name: impl Into<String>, why: impl Into<String>) -> Self {
        Candidate { name: name.into(), run: Err(why.into()) }
    }
}

/// How candidates are measured.
pub struct Table {
    pub rounds: u16,
    pub milliseconds: u64,
}

impl Table {
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

/// 0 to `count` in a random order, the same in every run for the same seed.
pub fn shuffled(count: u32, seed: u64) -> Vec<u32> {
    let mut keys: Vec<_> = (0..count).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut keys);
    keys
}
