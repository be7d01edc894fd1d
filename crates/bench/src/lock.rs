//! `bench lock`: the lock beside its peers.

mod candidates;
mod measure;
mod plot;

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hdrhistogram::Histogram;
use rqspinlock::RqSpinLock;

use self::candidates::{Candidate, Mcs, ParkingLot, ParkingLotFair, Std, Ticket};
use self::measure::{Outcome, Section, measure, uncontended};
use self::plot::{Line, Panel};
use crate::median;

#[derive(Args)]
pub struct Options {
    /// Rounds; in each, every lock has its turn. The median is told
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// Milliseconds that each lock has in each round
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    milliseconds: u64,

    /// Numbers of threads
    #[arg(long, value_delimiter = ',', default_values_t = [2, 4, 16, 64], value_parser = clap::value_parser!(u16).range(1..))]
    threads: Vec<u16>,

    /// Sections: 0, 100 and 1000 nanoseconds, or some of them
    #[arg(long, value_delimiter = ',', default_values_t = [0, 100, 1000])]
    sections: Vec<u64>,

    /// Only locks whose name contains one of these
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,

    /// Write the throughput as a picture, too
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// A lock, as the tables know it.
struct Entry {
    name: &'static str,
    fair: bool,
    measure: fn(usize, Section, Duration) -> Outcome,
    uncontended: fn() -> f64,
}

fn entry<C: Candidate>() -> Entry {
    Entry { name: C::NAME, fair: C::FAIR, measure: measure::<C>, uncontended: uncontended::<C> }
}

fn entries() -> [Entry; 6] {
    [
        entry::<RqSpinLock<u64>>(),
        entry::<ParkingLot>(),
        entry::<Std>(),
        entry::<ParkingLotFair>(),
        entry::<Ticket>(),
        entry::<Mcs>(),
    ]
}

/// All rounds of one lock.
struct Rounds {
    throughput: Vec<f64>,
    fairness: Vec<f64>,
    waits: Histogram<u64>,
    refused: Vec<(u64, Duration)>,
}

fn nanoseconds(value: u64) -> String {
    match value {
        0..10_000 => format!("{value} ns"),
        10_000..10_000_000 => format!("{} us", value / 1_000),
        _ => format!("{} ms", value / 1_000_000),
    }
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let wanted = |entry: &Entry| options.only.is_empty() || options.only.iter().any(|only| entry.name.contains(only));
    let entries: Vec<_> = entries().into_iter().filter(wanted).collect();
    println!("uncontended lock and unlock, median of {} rounds", options.rounds);
    let mut rounds = vec![Vec::new(); entries.len()];
    for _ in 0..options.rounds {
        for (entry, times) in entries.iter().zip(&mut rounds) {
            times.push((entry.uncontended)());
        }
    }
    for (entry, times) in entries.iter().zip(&rounds) {
        let ratio = ratio(times, &entries, &rounds);
        println!("  {:<18} {:>6.1} ns {ratio:>6}", entry.name, median(times));
    }
    let mut panels = Vec::new();
    for &nanoseconds in &options.sections {
        let section = Section::calibrated(nanoseconds);
        let mut lines: Vec<_> = entries.iter().map(|entry| Line { name: entry.name, points: Vec::new() }).collect();
        for &threads in &options.threads {
            let speeds = contended(options, &entries, usize::from(threads), section);
            for (line, speed) in lines.iter_mut().zip(speeds) {
                line.points.push((threads, speed));
            }
        }
        panels.push(Panel { nanoseconds, lines });
    }
    match &options.plot {
        Some(file) => plot::write(file, &panels),
        None => Ok(()),
    }
}

/// The peer that ratios are told to.
const PEER: &str = ParkingLot::NAME;

/// Of each round, and then the median: the machine is as slow for the one as for the other.
fn ratio(own: &[f64], entries: &[Entry], all: &[Vec<f64>]) -> String {
    match entries.iter().position(|entry| entry.name == PEER) {
        Some(peer) => {
            format!("{:.2}", median(&own.iter().zip(&all[peer]).map(|(own, peer)| own / peer).collect::<Vec<_>>()))
        }
        None => String::new(),
    }
}

/// Prints a table, and gives back the median throughput of each lock.
fn contended(options: &Options, entries: &[Entry], threads: usize, section: Section) -> Vec<f64> {
    println!("\n{threads} threads, sections of {} ns", section.nanoseconds);
    println!(
        "  {:<18} {:>8} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "lock", "M/s", "ratio", "min/max", "p50", "p99", "p99.99", "refused"
    );
    let mut all: Vec<_> = entries
        .iter()
        .map(|_| Rounds {
            throughput: Vec::new(),
            fairness: Vec::new(),
            waits: crate::histogram(),
            refused: Vec::new(),
        })
        .collect();
    for _ in 0..options.rounds {
        for (entry, rounds) in entries.iter().zip(&mut all) {
            let outcome = (entry.measure)(threads, section, Duration::from_millis(options.milliseconds));
            rounds.throughput.push(outcome.throughput);
            rounds.fairness.push(outcome.fairness);
            rounds.waits.add(&outcome.waits).expect("one grows to the other's range");
            if outcome.refused > 0 {
                rounds.refused.push((outcome.refused, outcome.gap));
            }
        }
    }
    let throughputs: Vec<_> = all.iter().map(|rounds| rounds.throughput.clone()).collect();
    for (entry, rounds) in entries.iter().zip(&all) {
        let wait = |quantile| nanoseconds(rounds.waits.value_at_quantile(quantile));
        println!(
            "  {:<18} {:>8.3} {:>6} {:>9.2} {:>9} {:>9} {:>9} {:>9}{}",
            entry.name,
            median(&rounds.throughput),
            ratio(&rounds.throughput, entries, &throughputs),
            median(&rounds.fairness),
            wait(0.5),
            wait(0.99),
            wait(0.9999),
            rounds.refused.iter().map(|(refused, _)| refused).sum::<u64>(),
            if entry.fair { "  fair" } else { "" },
        );
        for (refused, gap) in &rounds.refused {
            println!("    {refused} refused in a round in which a watchdog was not run for {gap:?}");
        }
    }
    all.iter().map(|rounds| median(&rounds.throughput)).collect()
}
