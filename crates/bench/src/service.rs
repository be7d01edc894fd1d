//! `bench service`: calls of `holdfastd` beside those of a bare gRPC server, Redis and etcd, one process each, all in one run.
//!
//! ```text
//!                     ┌──► bench-peer tonic      A: tonic's own server, constant answers
//!   bench service     ├──► bench-peer holdfast   B: our transport, the same answers
//!     our loader ─────┼──► holdfastd             one, or several builds of it
//!     redis-benchmark ├──► redis-server
//!     h2load          └──► etcd
//!
//!   each shape: each round: each candidate has its turn (A B C A B C ...)
//! ```
//!
//! The servers that do not have the turn are idle. A ratio is told round by round, and the median of that.

mod candidates;
mod client;
mod free;
mod load;
mod others;
mod pace;
mod plot;
mod rounds;
mod scale;
mod scene;
mod server;
mod stall;
mod table;
mod work;

use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use self::candidates::What;
use self::load::Shape;
use self::scale::Curve;
use self::server::Process;
use self::table::Report;

pub const HELP: &str = "\
How to read the tables:
  rate/s        calls answered a second, the median of the rounds; `elements/s` what they have read or written
  vs bare       the rate to that of `bare` in the same round, and the median of that; `vs 1st build` likewise to the first --holdfastd
  p50 ...       from the call to the end of its answer, of all rounds together. At a fixed rate: from when the call was meant to begin
  server us     user and system time of the server's process for each call; `loader us` the same of the loader, which shares the processors
  failed        calls that were refused, answered wrongly or not at all: then the row is worth nothing

Examples:
  cargo xtask bench service                                everything but the curves: some minutes
  cargo xtask bench service --shape 8x32 --rounds 7 --only bare,get,update
  cargo xtask bench service --only bare,get --holdfastd old=/tmp/holdfastd.old --holdfastd new=target/release/holdfastd
  cargo xtask bench service --only update --server-arg=--workers-per-cpu=2
  cargo xtask bench service --scenario free,stall --json free.json
  cargo xtask bench service --scale connections,workers --plot growth.svg";

#[derive(Args)]
pub struct Options {
    /// Rounds; in each, every candidate has its turn. The median is told
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// Seconds that are counted of each turn
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,

    /// Only these calls, and no scenario unless it is asked for
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<What>,

    /// These scenarios, and no calls in a closed loop unless they are asked for [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    scenario: Vec<Scenario>,

    /// Only these growth curves
    #[arg(long, value_delimiter = ',', value_name = "NAMES", conflicts_with_all = ["only", "scenario"])]
    scale: Vec<Curve>,

    /// Connections, and calls at a time on each
    #[arg(long, value_delimiter = ',', value_name = "CxS", default_values_t = [SHAPE, Shape { connections: 1, streams: 1 }, Shape { connections: 8, streams: 1 }])]
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

    /// Elements of a batch
    #[arg(long, value_delimiter = ',', value_name = "N", default_values_t = [64, 1024])]
    batch: Vec<usize>,

    /// Elements of the map that the scenario `free` frees
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    elements: u64,

    /// Leave out the points of a curve that are larger than this
    #[arg(long, default_value_t = 10_000_000, value_name = "N")]
    largest: u64,

    /// Write all tables as JSON, too
    #[arg(long, value_name = "FILE.json")]
    json: Option<PathBuf>,

    /// Write latencies, or with --scale growth, as a picture, too
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// The shape of the scenarios and the curves: more calls at a time than either side has threads for.
const SHAPE: Shape = Shape { connections: 8, streams: 32 };

/// More than calls as fast as they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Half of the peak, at a fixed rate: what callers wait where the server is not the limit
    Rate,
    /// The same, while a large map is freed
    Free,
    /// One operation takes 50 ms, and one waits for its lock: what everybody else gets meanwhile
    Stall,
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

impl Build {
    /// Starts it on a free port.
    fn start<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Process> {
        let mut command = Command::new(&self.path);
        command.args(["--listen", "127.0.0.1:0", "--allow-simulated-owners", "--log", "warn"]);
        command.args(arguments.iter().map(AsRef::as_ref));
        Process::start(command)
    }
}

/// A program that was built with this one.
fn beside(name: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.is_file(), "{} is not there: cargo build --release -p holdfastd -p bench", path.display());
    Ok(path)
}

impl Options {
    fn wants(&self, what: What) -> bool {
        if self.only.is_empty() { self.scenario.is_empty() } else { self.only.contains(&what) }
    }

    fn wants_scenario(&self, scenario: Scenario) -> bool {
        if self.scenario.is_empty() { self.only.is_empty() } else { self.scenario.contains(&scenario) }
    }

    fn builds(&self) -> Result<Vec<Build>> {
        match self.holdfastd.as_slice() {
            [] => Ok(vec![Build { label: String::new(), path: beside("holdfastd")? }]),
            builds => Ok(builds.to_vec()),
        }
    }

    /// The one that scenarios and curves are about.
    fn first_build(&self) -> Result<Build> {
        Ok(self.builds()?.swap_remove(0))
    }

    fn counted(&self) -> Result<Duration> {
        Duration::try_from_secs_f64(self.seconds).context("--seconds is no time")
    }
}

/// What the numbers depend on, for whoever reads them elsewhere.
fn about(options: &Options) -> Vec<(String, String)> {
    let first_line = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        line.rsplit([':', '\t']).next().unwrap_or_default().trim().to_owned()
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    [
        ("processors", format!("{processors} x {}", first_line("/proc/cpuinfo", "model name"))),
        ("kernel", first_line("/proc/sys/kernel/osrelease", "")),
        ("memory", first_line("/proc/meminfo", "MemTotal")),
        ("command", format!("cargo xtask bench {}", arguments.join(" "))),
        ("values", format!("{} bytes of {} owners", options.value, options.owners)),
        ("rounds", format!("{}, {} s a turn", options.rounds, options.seconds)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

pub fn run(options: &Options) -> Result<()> {
    raise_descriptor_limit();
    let about = about(options);
    for (key, value) in &about {
        println!("{key}: {value}");
    }
    let mut report = Report::default();
    if !options.scale.is_empty() {
        scale::run(options, &mut report)?;
    } else {
        if What::value_variants().iter().any(|what| options.wants(*what)) {
            rounds::run(options, &mut report)?;
        }
        if options.wants_scenario(Scenario::Rate) {
            free::at_half_of_the_peak(options, &mut report)?;
        }
        if options.wants_scenario(Scenario::Free) {
            free::while_a_map_is_freed(options, &mut report)?;
        }
        if options.wants_scenario(Scenario::Stall) {
            stall::run(options, &mut report)?;
        }
    }
    let failed = report.end(&about, options.json.as_deref(), options.plot.as_deref())?;
    ensure!(failed == 0, "{failed} calls failed");
    Ok(())
}

/// Ten thousand connections take as many descriptors here. The server raises its own.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(why) = setrlimit(Resource::Nofile, limit) {
        println!("the limit of descriptors stays as it is: {why}");
    }
}
