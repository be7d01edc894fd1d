//! `bench service`: calls of `holdfastd` beside those of a bare gRPC server, one process each, all in one run.
//!
//! ```text
//!                     ┌──► bench-peer tonic     tonic's own server, constant answers
//!   bench service ────┤
//!     the loader      ├──► holdfastd            one, or several builds of it
//!                     └──► ...
//!
//!   each shape: each round: each candidate has its turn (A B C A B C ...)
//! ```
//!
//! The servers that do not have the turn are idle. A ratio is told round by round, and the median of that.

mod client;
mod load;
mod scene;
mod server;
mod table;
mod work;

use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::{Args, ValueEnum};

use self::load::Shape;
use self::scene::Scene;
use self::server::Process;
use self::table::{Candidate, Rounds};
use self::work::Item;

pub const HELP: &str = "\
How to read the tables:
  rate/s        calls answered a second, the median of the rounds
  vs bare       the rate to that of the first row in the same round, and the median of that; `vs LABEL` likewise to the first build
  p50 ...       from the call to the end of its answer, of all rounds together
  server us     user and system time of the server's process for each call; `loader us` the same of the loader, which shares the processors
  failed        calls that were refused, answered wrongly or not at all: then the row is worth nothing

Examples:
  cargo xtask bench service --shape 8x32 --rounds 7
  cargo xtask bench service --only bare,get --holdfastd old=/tmp/holdfastd.old --holdfastd new=target/release/holdfastd
  cargo xtask bench service --only update --server-arg=--workers-per-cpu=2";

#[derive(Args)]
pub struct Options {
    /// Rounds; in each, every candidate has its turn. The median is told
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// Seconds that are counted of each turn
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,

    /// Only these
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<What>,

    /// Connections, and calls at a time on each
    #[arg(long, value_delimiter = ',', value_name = "CxS", default_values_t = [Shape { connections: 8, streams: 32 }, Shape { connections: 1, streams: 1 }, Shape { connections: 8, streams: 1 }])]
    shape: Vec<Shape>,

    /// A build of holdfastd, with a name for the tables; may be given more than once [default: the one beside this program]
    #[arg(long, value_name = "LABEL=PATH")]
    holdfastd: Vec<Build>,

    /// An option for holdfastd, as --server-arg=--workers-per-cpu=2; may be given more than once
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    server_arg: Vec<String>,

    /// Simulated owners, each with a value
    #[arg(long, default_value_t = 1_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    owners: u64,

    /// Bytes of each value
    #[arg(long, default_value_t = 64, value_name = "BYTES")]
    value: usize,
}

/// What is called, and at whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Get at tonic's own server, with constant answers
    Bare,
    /// Get that finds a value
    Get,
    /// Update of a value
    Update,
}

/// A build of holdfastd.
#[derive(Clone, Debug)]
struct Build {
    label: String,
    path: PathBuf,
}

impl FromStr for Build {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (label, path) = text.split_once('=').ok_or_else(|| format!("{text:?} is not LABEL=PATH"))?;
        Ok(Build { label: label.to_owned(), path: path.into() })
    }
}

/// A program that was built with this one.
fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.is_file(), "{} is not there: cargo build --release -p holdfastd -p bench", path.display());
    Ok(path)
}

/// Everything that serves.
struct Servers {
    bare: Process,
    holdfastd: Vec<(String, Process, Scene)>,
}

impl Servers {
    fn start(options: &Options) -> Result<Servers> {
        let mut bare = Command::new(beside("bench-peer")?);
        bare.args(["tonic", "--value", &options.value.to_string()]);
        let bare = Process::start(bare)?;
        let builds = match options.holdfastd.as_slice() {
            [] => vec![Build { label: String::new(), path: beside("holdfastd")? }],
            builds => builds.to_vec(),
        };
        let start = |build: Build| {
            let mut command = Command::new(&build.path);
            command.args(["--listen", "127.0.0.1:0", "--allow-simulated-owners", "--log", "warn"]);
            command.args(&options.server_arg);
            let server = Process::start(command)?;
            let scene = Scene::make(server.address(), options.owners, options.value)?;
            Ok((build.label, server, scene))
        };
        Ok(Servers { bare, holdfastd: builds.into_iter().map(start).collect::<Result<_>>()? })
    }

    /// Who has turns, in their order.
    fn candidates(&self, options: &Options) -> Vec<Candidate<'_>> {
        let mut candidates = Vec::new();
        let wanted = |what: &What| options.only.is_empty() || options.only.contains(what);
        for what in What::value_variants().iter().filter(|what| wanted(what)) {
            let name = what.to_possible_value().expect("none is skipped").get_name().to_owned();
            if *what == What::Bare {
                let zeroes = Bytes::from(vec![0; options.value]);
                let owners = self.holdfastd[0].2.owners.iter();
                let items = owners.map(|owner| Item::get(scene::MAP, *owner, &zeroes)).collect();
                candidates.push(Candidate { name, label: String::new(), server: &self.bare, items });
                continue;
            }
            for (label, server, scene) in &self.holdfastd {
                let item = |(owner, value): (&u64, &Bytes)| match what {
                    What::Update => Item::update(scene::MAP, *owner, value),
                    What::Bare | What::Get => Item::get(scene::MAP, *owner, value),
                };
                let items = scene.owners.iter().zip(&scene.values).map(item).collect();
                candidates.push(Candidate { name: name.clone(), label: label.clone(), server, items });
            }
        }
        candidates
    }
}

pub fn run(options: &Options) -> Result<()> {
    let servers = Servers::start(options)?;
    let candidates = servers.candidates(options);
    let counted = Duration::try_from_secs_f64(options.seconds).context("--seconds is no time")?;
    println!(
        "values of {} bytes of {} owners; {} rounds, {} s a turn",
        options.value, options.owners, options.rounds, options.seconds
    );
    let mut failed = 0;
    for shape in &options.shape {
        let mut rounds: Vec<_> = candidates.iter().map(|_| Rounds::default()).collect();
        for _ in 0..options.rounds {
            for (candidate, rounds) in candidates.iter().zip(&mut rounds) {
                rounds.add(load::closed(candidate.server, *shape, &Arc::clone(&candidate.items), counted)?);
            }
        }
        failed += table::print(*shape, &candidates, &rounds);
    }
    ensure!(failed == 0, "{failed} calls failed");
    Ok(())
}
