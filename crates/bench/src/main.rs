//! `cargo xtask bench`: what Holdfast's parts cost, each beside its peers in one run.
//!
//! The machine is never quiet, so the candidates take turns within each round, and what is told is the median of the rounds
//! and the ratio to a peer of the same rounds. Nothing here is a test: no number fails a build.

#![forbid(unsafe_code)]

mod lock;

use clap::{Parser, Subcommand};

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
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Lock(options) => lock::run(&options),
    }
}
