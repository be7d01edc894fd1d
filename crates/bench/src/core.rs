//! `bench core`: values of owners beside concurrent maps and the kernel's own local storage; memory; a free under load.

mod free;
mod get;
mod memory;
pub mod stores;
mod table;

use clap::{Args, ValueEnum};

use self::table::Table;

/// Bytes of every value.
pub const VALUE: usize = 64;

/// How to read the tables, and what to try.
pub const HELP: &str = "\
How to read the tables:
  ns            nanoseconds an operation, the median of the rounds; `least` and `most` are the quickest and the slowest round
  ratio         to the row with 1.00, round by round, and the median of that: where it stays while the nanoseconds
                change, the machine was slow for both
  SKIPPED       the kernel's own local storage needs CAP_BPF (run as root) and Linux 5.11

Examples:
  cargo xtask bench core                                   everything: some minutes, and 2 GB of memory
  cargo xtask bench core --only hot,update,churn           the core, dashmap, papaya and the kernel on one owner
  cargo xtask bench core --only free --elements 100000 --rounds 3";

#[derive(Args)]
pub struct Options {
    /// Rounds; in each, every candidate has its turn. The median is told. `memory` has one
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// Milliseconds that each candidate has in each round; a `free` lasts as long as it takes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    milliseconds: u64,

    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PARTS")]
    only: Vec<Part>,

    /// Owners of `owners` and `get`, in random order
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    owners: u32,

    /// Owners of `memory`, each with a value in 4 maps, and elements of the map that `free` frees
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    elements: u32,
}

/// What is measured. Values have 64 bytes, and every read copies them out.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Resident memory of owners, storages and elements, and of the registry of owners
    Memory,
    /// Lookup on one owner that has a value in 1, 16, 17, 100 and 1,000 maps
    Maps,
    /// Lookup on one owner, beside dashmap, papaya and the kernel's bpf(2)
    Hot,
    /// Lookup over many owners in random order, beside dashmap and papaya
    Owners,
    /// The whole Get as the server does it (map by name, owner by id, lookup), beside one dashmap get
    Get,
    /// Replacing a value, beside dashmap, papaya and bpf(2)
    Update,
    /// Creating and deleting a value, beside the same
    Churn,
    /// What other calls wait while a large map is freed, beside the same without a free
    Free,
}

impl Part {
    fn run(self, options: &Options) -> anyhow::Result<()> {
        let table = Table { rounds: options.rounds, milliseconds: options.milliseconds };
        match self {
            Part::Memory => memory::run(options.elements),
            Part::Maps => stores::maps(&table),
            Part::Hot => stores::hot(&table),
            Part::Owners => stores::owners(&table, options.owners),
            Part::Get => get::run(&table, options.owners),
            Part::Update => stores::update(&table),
            Part::Churn => stores::churn(&table),
            Part::Free => free::run(options.rounds, options.elements),
        }
    }
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    println!("values of {VALUE} bytes; {} rounds, {} ms a turn", options.rounds, options.milliseconds);
    // In the order of the list above: memory comes first, in a heap that nothing has torn yet.
    for part in Part::value_variants() {
        if options.only.is_empty() || options.only.contains(part) {
            part.run(options)?;
        }
    }
    Ok(())
}
