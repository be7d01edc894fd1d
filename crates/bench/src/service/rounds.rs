//! Calls in a closed loop, in rounds.

use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::Options;
use super::candidates::{Candidate, PAIRS, Servers, What};
use super::load::{Outcome, Shape};
use super::plot::Panel;
use super::table::{Column, Report, Table};
use crate::{histogram, median};

pub const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

const CALLS: &[Column] = &[
    ("rate/s", 0),
    ("elements/s", 0),
    ("vs bare", 3),
    ("vs 1st build", 3),
    ("p50 us", 0),
    ("p99 us", 0),
    ("p99.9 us", 0),
    ("server us", 2),
    ("loader us", 2),
    ("failed", 0),
];

const RATIOS: &[Column] = &[("elements/s", 3), ("least", 3), ("most", 3), ("server us", 3)];

/// All rounds of one candidate.
pub struct Rounds {
    rates: Vec<f64>,
    latencies: Histogram<u64>,
    quantiles: [Vec<f64>; 3],
    failures: u64,
    failure: Option<String>,
    /// For each call.
    server: Vec<f64>,
    loader: Vec<f64>,
}

impl Default for Rounds {
    fn default() -> Self {
        let (rates, quantiles, server, loader) = Default::default();
        Rounds { rates, latencies: histogram(), quantiles, failures: 0, failure: None, server, loader }
    }
}

impl Rounds {
    pub fn add(&mut self, outcome: Outcome) {
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / outcome.calls.max(1) as f64;
        self.rates.push(outcome.calls as f64 / outcome.seconds);
        self.server.push(micros(outcome.server));
        self.loader.push(micros(outcome.loader));
        self.latencies.add(&outcome.latencies).expect("one grows to the other's range");
        for (all, told) in self.quantiles.iter_mut().zip(outcome.quantiles) {
            all.extend(told);
        }
        self.failures += outcome.failures;
        self.failure = self.failure.take().or(outcome.failure);
    }

    /// A turn of which nothing came. The others go on.
    fn lose(&mut self, why: &anyhow::Error) {
        self.rates.push(0.0);
        self.failures += 1;
        self.failure.get_or_insert_with(|| format!("{why:#}"));
    }

    pub fn rate(&self) -> f64 {
        median(&self.rates)
    }

    pub fn server(&self) -> f64 {
        if self.server.is_empty() { f64::NAN } else { median(&self.server) }
    }

    fn loader(&self) -> f64 {
        if self.loader.is_empty() { f64::NAN } else { median(&self.loader) }
    }

    /// In microseconds, in the order of [`QUANTILES`].
    pub fn latencies(&self) -> [Option<f64>; 3] {
        if self.latencies.is_empty() {
            return self.quantiles.each_ref().map(|told| (!told.is_empty()).then(|| median(told)));
        }
        QUANTILES.map(|quantile| Some(self.latencies.value_at_quantile(quantile) as f64 / 1e3))
    }

    pub fn tell_failures(&self, name: &str, report: &mut Report) {
        report.failed(name, self.failures, self.failure.as_deref());
    }

    /// Of the rates, round by round, and the median of that.
    pub fn ratio(&self, to: &Rounds) -> f64 {
        median(&self.ratios(to))
    }

    fn ratios(&self, to: &Rounds) -> Vec<f64> {
        self.rates.iter().zip(&to.rates).map(|(own, other)| own / other).collect()
    }
}

pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    let servers = Servers::start(options, report)?;
    let candidates = servers.candidates(options)?;
    for shape in &options.shape {
        let mut all: Vec<_> = candidates.iter().map(|_| Rounds::default()).collect();
        for _ in 0..options.rounds {
            for (candidate, rounds) in candidates.iter().zip(&mut all) {
                match candidate.turn(*shape, options.counted()?) {
                    Ok(outcome) => rounds.add(outcome),
                    Err(why) => rounds.lose(&why),
                }
            }
        }
        tell(*shape, &candidates, &all, report);
    }
    Ok(())
}

fn tell(shape: Shape, candidates: &[Candidate<'_>], all: &[Rounds], report: &mut Report) {
    let title = format!("{} connections x {} calls at a time, closed loop", shape.connections, shape.streams);
    let mut calls = Table::new(&title, CALLS);
    let find = |what: What| candidates.iter().position(|candidate| candidate.what == what);
    for (candidate, rounds) in candidates.iter().zip(all) {
        let name = candidate.full_name();
        let to = |other: Option<usize>| other.map(|other| rounds.ratio(&all[other]));
        let [p50, p99, p999] = rounds.latencies();
        let cells = [
            Some(rounds.rate()),
            Some(rounds.rate() * candidate.elements() as f64),
            to(find(What::Bare)),
            to(candidates.iter().position(|other| other.is_like(candidate)).filter(|_| !candidate.label.is_empty())),
            p50,
            p99,
            p999,
            Some(rounds.server()),
            Some(rounds.loader()),
            Some(rounds.failures as f64),
        ];
        calls.row_of_rounds(&name, cells, rounds.rates.clone());
        rounds.tell_failures(&name, report);
    }
    report.tell(&calls);
    let mut ratios = Table::new(format!("{title}: ratios"), RATIOS);
    for &(own, other) in PAIRS {
        let Some(second) = find(other) else { continue };
        for (first, candidate) in candidates.iter().enumerate().filter(|(_, candidate)| candidate.what == own) {
            let elements = candidate.elements() as f64 / candidates[second].elements() as f64;
            let rounds: Vec<_> = all[first].ratios(&all[second]).iter().map(|ratio| ratio * elements).collect();
            let (least, most) =
                (rounds.iter().copied().fold(f64::MAX, f64::min), rounds.iter().copied().fold(0.0, f64::max));
            let cpu = all[first].server()
                / candidate.elements() as f64
                / (all[second].server() / candidates[second].elements() as f64);
            let name = format!("{} / {}", candidate.full_name(), other.name());
            ratios.row_of_rounds(name, [Some(median(&rounds)), Some(least), Some(most), Some(cpu)], rounds);
        }
    }
    report.tell(&ratios);
    report.draw(latencies(&title, candidates, all));
}

/// How long all but one of so many took at most.
fn latencies(title: &str, candidates: &[Candidate<'_>], all: &[Rounds]) -> Panel {
    // More lines than these nobody can tell apart.
    let shown = [What::Bare, What::TransportGet, What::TransportUpdate, What::Get, What::Update];
    let told = candidates.iter().zip(all).filter(|(candidate, _)| shown.contains(&candidate.what));
    let line = |rounds: &Rounds| {
        let one_of =
            (1..=16).map(|power| 2f64.powi(power)).take_while(|of| *of <= rounds.latencies.len() as f64 / 10.0);
        one_of.map(|of| (of, rounds.latencies.value_at_quantile(1.0 - 1.0 / of) as f64 / 1e3)).collect()
    };
    let lines = told.map(|(candidate, rounds)| (candidate.full_name(), line(rounds))).collect();
    Panel::new(title, "one call of so many", "takes longer than, in us", lines)
}
