//! What came of the rounds, as a table that can be pasted into a document.

use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::load::{Outcome, Shape};
use super::server::Process;
use super::work::Item;
use crate::{histogram, median};

/// Who has turns.
pub struct Candidate<'a> {
    pub name: String,
    /// Which build of holdfastd; empty where there is one only.
    pub label: String,
    pub server: &'a Process,
    pub items: Arc<[Item]>,
}

/// All rounds of one candidate.
pub struct Rounds {
    pub rates: Vec<f64>,
    pub latencies: Histogram<u64>,
    pub failures: u64,
    pub failure: Option<String>,
    /// For each call.
    pub server: Vec<f64>,
    pub loader: Vec<f64>,
}

impl Default for Rounds {
    fn default() -> Self {
        let (rates, server, loader) = Default::default();
        Rounds { rates, latencies: histogram(), failures: 0, failure: None, server, loader }
    }
}

impl Rounds {
    pub fn add(&mut self, outcome: Outcome) {
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / outcome.calls.max(1) as f64;
        self.rates.push(outcome.calls as f64 / outcome.seconds);
        self.server.push(micros(outcome.server));
        self.loader.push(micros(outcome.loader));
        self.latencies.add(&outcome.latencies).expect("one grows to the other's range");
        self.failures += outcome.failures;
        self.failure = self.failure.take().or(outcome.failure);
    }

    /// Round by round, and the median of that.
    fn ratio(&self, to: &Rounds) -> f64 {
        median(&self.rates.iter().zip(&to.rates).map(|(own, other)| own / other).collect::<Vec<_>>())
    }
}

/// Gives back how many calls failed.
pub fn print(shape: Shape, candidates: &[Candidate<'_>], all: &[Rounds]) -> u64 {
    println!("\n{} connections x {} calls at a time, closed loop\n", shape.connections, shape.streams);
    let first = candidates[0].full_name();
    println!(
        "| call | rate/s | vs {first} | vs its first build | p50 us | p99 us | p99.9 us | server us | loader us | failed |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut failed = 0;
    for (candidate, rounds) in candidates.iter().zip(all) {
        let build = candidates.iter().position(|other| other.name == candidate.name).expect("it is one itself");
        let at = |quantile| rounds.latencies.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "| {} | {:.0} | {:.3} | {:.3} | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {} |",
            candidate.full_name(),
            median(&rounds.rates),
            rounds.ratio(&all[0]),
            rounds.ratio(&all[build]),
            at(0.5),
            at(0.99),
            at(0.999),
            median(&rounds.server),
            median(&rounds.loader),
            rounds.failures,
        );
        failed += rounds.failures;
    }
    for (candidate, rounds) in candidates.iter().zip(all) {
        if let Some(failure) = &rounds.failure {
            println!("\n{}: {} failed, the first: {failure}", candidate.full_name(), rounds.failures);
        }
    }
    failed
}

impl Candidate<'_> {
    fn full_name(&self) -> String {
        if self.label.is_empty() { self.name.clone() } else { format!("{}@{}", self.name, self.label) }
    }
}
