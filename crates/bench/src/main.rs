//! `cargo xtask bench`: what Holdfast's parts cost, each beside its peers in one run.
//!
//! The machine is never quiet, so the candidates take turns within each round, and what is told is the median of the rounds
//! and the ratio to a peer of the same rounds. Nothing here is a test: no number fails a build.

#![forbid(unsafe_code)]

mod core;
mod hooks;
mod lock;
mod service;

use std::thread;
use std::time::Duration;

use clap::{Parser, Subcommand};
use hdrhistogram::Histogram;

#[derive(Parser)]
#[command(name = "cargo xtask bench", about = "Benchmarks of Holdfast, each beside its peers in one run")]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The lock: alone and with many threads, beside std, parking_lot, a ticket lock and an MCS lock
    Lock(lock::Options),
    /// The storage core: lookups and changes beside dashmap, papaya and the kernel's bpf(2); memory; a free under load
    #[command(after_help = core::HELP)]
    Core(core::Options),
    /// What hook points cost where nothing is attached, in instructions: needs valgrind
    Hooks(hooks::Options),
    /// The server: calls of holdfastd beside those of a bare gRPC server
    #[command(after_help = service::HELP)]
    Service(service::Options),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Lock(options) => lock::run(&options),
        What::Core(options) => core::run(&options),
        What::Hooks(options) => hooks::run(&options),
        What::Service(options) => service::run(&options),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Of nanoseconds.
fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are allowed")
}

#[expect(clippy::disallowed_methods, reason = "a measurement lasts for a time; nothing waits for anything by it")]
fn pause(duration: Duration) {
    thread::sleep(duration);
}
