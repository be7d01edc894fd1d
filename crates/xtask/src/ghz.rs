//! The load tests of `deploy/ghz/` (its README is the guide): ghz makes the calls, one configuration
//! after the other, and this prints one table and fails if any call did not answer OK. ghz itself ends
//! with 0 however many calls fail, so its JSON report decides.
//!
//! ```text
//! (start a server) -> clear leftovers -> set up owners and map -> one ghz run a call -> clear -> table
//! ```
//!
//! The set-up is made of ghz calls, too, so that whoever has only ghz can do all of this by hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::job::{Job, bounded, cargo, target_dir};
use crate::server::{self, Server};

const MODULE: &str = "github.com/bojand/ghz/cmd/ghz";
const VERSION: &str = "0.121.0";
/// ghz and its dependencies are downloaded and compiled.
const INSTALL_SECONDS: u32 = 600;

const CONFIGURATIONS: &str = "deploy/ghz";
/// How many owners one call of `setup-owners.json` and `clear-owners.json` is about.
const OWNERS_PER_CALL: u64 = 1000;
/// So many calls show whether a wrong one is seen.
const WRONG_CALLS: u64 = 100;
/// How many messages of failed calls are shown: they may name the owner, and be as many as the calls.
const MESSAGES: usize = 3;
const OK: &str = "OK";
const NOT_FOUND: &str = "NotFound";

const EXAMPLES: &str = "\
Examples:
  cargo xtask ghz                                    build and start a server, load it, stop it
  cargo xtask ghz --only get,update --calls 100000   these calls, and what they need, only
  cargo xtask ghz --target 10.0.0.7:7411             a server that runs already, started with
                                                     --allow-simulated-owners --max-maps 10001

The guide is deploy/ghz/README.md. ghz comes from `go install`, once, into the target directory.
The full report of each call stays there, too, in ghz/.

Exit codes: 0 every call answered OK, 1 one did not or the test could not be run, 2 wrong usage.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// Load the server here, which allows simulated owners [default: one that is built and started for it]
    #[arg(long, value_name = "HOST:PORT")]
    target: Option<String>,

    /// Make so many calls of each kind
    #[arg(long, value_name = "N", default_value_t = Self::CI.calls, value_parser = clap::value_parser!(u64).range(1..))]
    calls: u64,

    /// Spread them over so many connections
    #[arg(long, value_name = "N", default_value_t = Self::CI.connections, value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,

    /// Have so many calls under way at a time
    #[arg(long, value_name = "N", default_value_t = Self::CI.concurrency, value_parser = clap::value_parser!(u64).range(1..))]
    concurrency: u64,

    /// Make these calls, and those that they need, only [default: all but wrong-map]
    #[arg(long, value_delimiter = ',', value_name = "CALL,...")]
    only: Vec<Load>,

    /// Also see the command itself fail when its calls do
    #[arg(long)]
    self_check: bool,
}

impl Options {
    /// What CI does.
    const CI: Self =
        Self { target: None, calls: 10_000, connections: 4, concurrency: 50, only: Vec::new(), self_check: true };
}

// What can be loaded, in the order in which it is done; each is a configuration of this name. (Not a
// doc comment, and none on the variants: clap would print them as help.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Load {
    Create,
    Update,
    Get,
    List,
    UpdateTask,
    GetTask,
    Delete,
    CreateMap,
    FreeMap,
    WrongMap,
}

impl Load {
    /// What must be done with it, before it or after: a `get` finds only what a `create` made, and
    /// maps that are created are freed again.
    fn with(self) -> &'static [Self] {
        match self {
            Self::Create | Self::UpdateTask | Self::WrongMap => &[],
            Self::Update | Self::Get | Self::List | Self::Delete => &[Self::Create],
            Self::GetTask => &[Self::UpdateTask],
            Self::CreateMap => &[Self::FreeMap],
            Self::FreeMap => &[Self::CreateMap],
        }
    }

    /// Those asked for with what they need, each once and in order; without a wish all that should succeed.
    fn select(only: &[Self]) -> Vec<Self> {
        let is_wanted = |load: Self| {
            if only.is_empty() {
                load != Self::WrongMap
            } else {
                only.contains(&load) || only.iter().any(|wanted| wanted.with().contains(&load))
            }
        };
        Self::value_variants().iter().copied().filter(|load| is_wanted(*load)).collect()
    }

    fn name(self) -> String {
        let value = self.to_possible_value().expect("no call is hidden from the command line");
        value.get_name().to_owned()
    }
}

/// The step of CI. Says that it skips the load tests where neither ghz nor Go is.
pub fn step(job: &mut Job) -> Result<()> {
    match has_ghz_or_go() {
        Ok(()) => run(job, &Options::CI),
        Err(why) => {
            job.skip("load tests (ghz is installed with Go, which is not there)", &why);
            Ok(())
        }
    }
}

/// The command: the step with wishes. Who asked for it wants it done, so that nothing is skipped.
pub fn command(options: &Options, list: bool) -> ExitCode {
    let mut job = if list { Job::listing() } else { Job::new() };
    if list {
        println!("ghz");
    }
    match run(&mut job, options) {
        Ok(()) => ExitCode::SUCCESS,
        // Here rather than in `main`, whose message may come with a backtrace: this is for load testers.
        Err(why) => {
            eprintln!("error: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(job: &mut Job, options: &Options) -> Result<()> {
    let ghz = install(job)?;
    let server = if options.target.is_none() { start(job, options.calls)? } else { None };
    let endpoint = server.as_ref().and_then(|server| server.endpoints().next()?.strip_prefix("tcp://"));
    // Without a target and without a server this is a listing.
    let target = options.target.as_deref().or(endpoint).unwrap_or("127.0.0.1:PORT");
    let mut loader = Loader { job, ghz, target, options };
    let rows = loader.load_all()?;
    if options.self_check {
        loader.see_a_wrong_call_fail()?;
    }
    if job.is_listing() {
        return Ok(());
    }
    println!("\n{}", table(&rows));
    let (calls, failed) = rows.iter().fold((0, 0), |(calls, failed), row| (calls + row.calls, failed + row.failed));
    ensure!(failed == 0, "{failed} of {calls} calls failed at {target}: the lines below the table say how");
    Ok(())
}

fn ghz_dir() -> PathBuf {
    // The version is in the path, because a ghz from `go install` calls itself "dev".
    target_dir().join(format!("tools/ghz-{VERSION}"))
}

fn has_ghz_or_go() -> Result<()> {
    if !ghz_dir().join("ghz").exists() {
        Command::new("go").arg("version").output().context("cannot start `go`")?;
    }
    Ok(())
}

fn install(job: &mut Job) -> Result<PathBuf> {
    let folder = ghz_dir();
    let ghz = folder.join("ghz");
    if !ghz.exists() {
        let mut go = Command::new("go");
        go.arg("install").arg(format!("{MODULE}@v{VERSION}"));
        let mut install = bounded(INSTALL_SECONDS, &go);
        // Go takes only an absolute path.
        install.env("GOBIN", std::path::absolute(&folder).context("there is no current directory")?);
        job.run(install).context("cannot install ghz, which takes Go and its module proxy")?;
    }
    Ok(ghz)
}

/// A server for the test alone, with room for what the test makes. None in a listing.
fn start(job: &mut Job, calls: u64) -> Result<Option<Server>> {
    server::build(job)?;
    // One map more for the elements, and the simulated owners beside a real one.
    let (maps, owners) = ((calls + 1).to_string(), (owner_calls(calls) * OWNERS_PER_CALL + 1).to_string());
    let mut options = vec!["--listen", "127.0.0.1:0", "--allow-simulated-owners", "--log", "warn"];
    options.extend(["--max-maps", &maps, "--max-owners", &owners]);
    Server::start(job, &options, 1)
}

struct Loader<'a> {
    job: &'a mut Job,
    ghz: PathBuf,
    target: &'a str,
    options: &'a Options,
}

impl Loader<'_> {
    /// Everything between two empty servers; a row for each load, whether its calls succeeded or not.
    fn load_all(&mut self) -> Result<Vec<Row>> {
        let owner_calls = owner_calls(self.options.calls);
        // What a run that was broken off has left.
        self.clear()?;
        self.once("setup-owners", owner_calls, &[OK])?;
        self.once("setup-map", 1, &[OK])?;
        let mut rows = Vec::new();
        for load in Load::select(&self.options.only) {
            rows.push(self.load(load)?);
        }
        self.clear()?;
        Ok(rows)
    }

    fn clear(&mut self) -> Result<()> {
        self.once("clear-map", 1, &[OK, NOT_FOUND])?;
        self.once("clear-owners", owner_calls(self.options.calls), &[OK])
    }

    /// Calls that have to succeed before anything can be measured.
    fn once(&mut self, name: &str, calls: u64, accepted: &[&str]) -> Result<()> {
        let report = self.ghz(name, calls, 1, 1)?;
        let ended: u64 = accepted.iter().filter_map(|status| report.statuses.get(*status)).sum();
        ensure!(ended == calls || self.job.is_listing(), "`{name}` failed: {}", report.failures().join("; "));
        Ok(())
    }

    fn load(&mut self, load: Load) -> Result<Row> {
        let calls = self.options.calls;
        // ghz takes neither fewer calls than are under way nor fewer of those than connections.
        let concurrency = self.options.concurrency.min(calls);
        let report = self.ghz(&load.name(), calls, concurrency, self.options.connections.min(concurrency))?;
        Ok(Row::new(load.name(), calls, &report))
    }

    /// Runs one configuration; an empty report in a listing.
    fn ghz(&mut self, name: &str, calls: u64, concurrency: u64, connections: u64) -> Result<Report> {
        let output = report_file(name);
        let mut command = Command::new(&self.ghz);
        command.arg("--config").arg(Path::new(CONFIGURATIONS).join(format!("{name}.json")));
        for (option, number) in [("--total", calls), ("--concurrency", concurrency), ("--connections", connections)] {
            command.arg(option).arg(number.to_string());
        }
        command.args(["--format", "json", "--output"]).arg(&output).arg(self.target);
        if !self.job.is_listing() {
            fs::create_dir_all(report_dir()).context("cannot make a folder for ghz's reports")?;
            // A report of a former run must not be taken for this one's.
            let _ = fs::remove_file(&output);
        }
        self.job.run(command)?;
        if self.job.is_listing() { Ok(Report::default()) } else { Report::read(&output) }
    }

    /// Has this command make wrong calls, and sees it fail because of them.
    fn see_a_wrong_call_fail(&mut self) -> Result<()> {
        let wrong = Load::WrongMap.name();
        let report = report_file(&wrong);
        if !self.job.is_listing() {
            println!("(self-check: the next command has to fail)");
            let _ = fs::remove_file(&report);
        }
        let mut command = cargo("xtask ghz --only");
        command.arg(&wrong).arg("--target").arg(self.target).arg("--calls").arg(WRONG_CALLS.to_string());
        let result = self.job.run(command);
        if self.job.is_listing() {
            return result;
        }
        let Err(failure) = result else {
            bail!("`{wrong}` asks for a map that nobody made, and the command succeeded")
        };
        let row = Row::new(wrong, WRONG_CALLS, &Report::read(&report)?);
        ensure!(row.failed == WRONG_CALLS, "the command failed, but not because of its calls: {failure:#}");
        println!("(self-check: it failed as it must: {failure:#})");
        Ok(())
    }
}

fn owner_calls(owners: u64) -> u64 {
    owners.div_ceil(OWNERS_PER_CALL)
}

fn report_dir() -> PathBuf {
    target_dir().join("ghz")
}

fn report_file(name: &str) -> PathBuf {
    report_dir().join(format!("{name}.json"))
}

/// What we need of ghz's JSON.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    rps: f64,
    #[serde(rename = "statusCodeDistribution")]
    statuses: BTreeMap<String, u64>,
    #[serde(rename = "errorDistribution")]
    errors: BTreeMap<String, u64>,
    /// Of the calls that answered OK. Null if there is none.
    latency_distribution: Option<Vec<Latency>>,
}

#[derive(Debug, Deserialize)]
struct Latency {
    percentage: u8,
    #[serde(rename = "latency")]
    nanoseconds: u64,
}

impl Report {
    fn read(file: &Path) -> Result<Self> {
        let text = File::open(file).with_context(|| format!("ghz has written no report {}", file.display()))?;
        serde_json::from_reader(BufReader::new(text))
            .with_context(|| format!("{} is not the JSON report of ghz {VERSION}", file.display()))
    }

    fn percentile(&self, percentage: u8) -> Option<Duration> {
        let latency = self.latency_distribution.iter().flatten().find(|latency| latency.percentage == percentage)?;
        Some(Duration::from_nanos(latency.nanoseconds))
    }

    /// How the calls failed: by status, and the messages.
    fn failures(&self) -> Vec<String> {
        let statuses = self.statuses.iter().filter(|(status, _)| *status != OK);
        let errors = self.errors.iter().take(MESSAGES);
        statuses.chain(errors).map(|(what, count)| format!("{count} x {what}")).collect()
    }
}

/// One line of the table.
#[derive(Debug, PartialEq)]
struct Row {
    name: String,
    calls: u64,
    failed: u64,
    rate: f64,
    percentiles: [Option<Duration>; 3],
    failures: Vec<String>,
}

impl Row {
    /// Whatever has not ended with OK has failed, a call that ghz did not make included.
    fn new(name: String, calls: u64, report: &Report) -> Self {
        let ok = report.statuses.get(OK).copied().unwrap_or_default();
        Self {
            name,
            calls,
            failed: calls.saturating_sub(ok),
            rate: report.rps,
            percentiles: [50, 95, 99].map(|percentage| report.percentile(percentage)),
            failures: report.failures(),
        }
    }
}

/// The table, and below it how calls failed.
fn table(rows: &[Row]) -> String {
    let mut table = "call           count   failed   rate /s    p50 ms    p95 ms    p99 ms\n".to_owned();
    let mut failures = String::new();
    for Row { name, calls, failed, rate, percentiles, failures: how } in rows {
        write!(table, "{name:<12} {calls:>7} {failed:>8} {rate:>9.0}").expect("a String takes everything");
        for latency in percentiles {
            let latency = latency.map_or("-".to_owned(), |time| format!("{:.2}", time.as_secs_f64() * 1000.0));
            write!(table, " {latency:>9}").expect("a String takes everything");
        }
        table.push('\n');
        for how in how {
            writeln!(failures, "{name}: {how}").expect("a String takes everything");
        }
    }
    table + &failures
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

    fn text(path: &str) -> String {
        let path = Path::new(ROOT).join(path);
        fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
    }

    fn configuration(name: &str) -> Value {
        serde_json::from_str(&text(&format!("{CONFIGURATIONS}/{name}.json"))).expect("a configuration is JSON")
    }

    /// The files of the folder that ghz reads.
    fn configurations() -> BTreeSet<String> {
        let files = fs::read_dir(Path::new(ROOT).join(CONFIGURATIONS)).expect("the folder is there");
        let names = files.map(|file| file.expect("a folder can be read").file_name().into_string().expect("ASCII"));
        names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect()
    }

    fn row(report: &str) -> Row {
        Row::new("get".to_owned(), 10, &serde_json::from_str(report).expect("a report as ghz writes it"))
    }

    const GOOD: &str = r#"{"count":10,"endReason":"normal","rps":1234.5,"errorDistribution":{},"statusCodeDistribution":{"OK":10},
        "latencyDistribution":[{"percentage":10,"latency":5},{"percentage":50,"latency":1500000},
        {"percentage":95,"latency":2000000},{"percentage":99,"latency":12345678}],"histogram":null,"details":[]}"#;

    #[test]
    fn a_good_report_becomes_a_row() {
        let row = row(GOOD);
        assert_eq!((row.calls, row.failed, row.failures.len()), (10, 0, 0));
        let line = "get               10        0      1234      1.50      2.00     12.35";
        assert_eq!(table(&[row]).lines().nth(1), Some(line));
    }

    #[test]
    fn another_status_than_ok_is_a_failed_call() {
        let some = GOOD.replace(r#"{"OK":10}"#, r#"{"OK":7,"NotFound":2,"Unavailable":1}"#);
        let row = row(&some.replace(r#""errorDistribution":{}"#, r#""errorDistribution":{"no map":2}"#));
        assert_eq!(row.failed, 3);
        assert_eq!(row.failures, ["2 x NotFound", "1 x Unavailable", "2 x no map"]);
        assert!(table(&[row]).ends_with("get: 2 x NotFound\nget: 1 x Unavailable\nget: 2 x no map\n"));
    }

    #[test]
    fn a_call_that_was_not_made_is_a_failed_call() {
        assert_eq!(row(&GOOD.replace(r#"{"OK":10}"#, r#"{"OK":9}"#)).failed, 1);
    }

    #[test]
    fn a_report_without_a_success_has_no_latency() {
        let none =
            r#"{"rps":5.0,"errorDistribution":{},"statusCodeDistribution":{"NotFound":10},"latencyDistribution":null}"#;
        assert_eq!(row(none).percentiles, [None; 3]);
    }

    #[test]
    fn what_a_call_needs_is_done_before_it() {
        use Load::{Create, CreateMap, FreeMap, Get, Update, WrongMap};
        assert_eq!(Load::select(&[Update, Get, Update]), [Create, Update, Get]);
        assert_eq!(Load::select(&[CreateMap]), [CreateMap, FreeMap]);
        assert_eq!(Load::select(&[WrongMap]), [WrongMap]);
        assert!(!Load::select(&[]).contains(&WrongMap));
    }

    #[test]
    fn every_unary_storage_call_and_map_free_is_loaded() {
        let loaded: BTreeSet<_> = Load::select(&[])
            .into_iter()
            .map(|load| configuration(&load.name())["call"].as_str().expect("a name").to_owned())
            .collect();
        let proto = text("proto/holdfast/v1/storage_service.proto");
        let unary = proto.lines().filter(|line| !line.contains("(stream "));
        let calls = unary.filter_map(|line| Some(line.trim().strip_prefix("rpc ")?.split_once('(')?.0));
        // What a batch costs is a matter of its items: ghz counts calls.
        let calls = calls.filter(|call| !call.starts_with("Batch"));
        let mut wanted: BTreeSet<_> = calls.map(|call| format!("holdfast.v1.StorageService/{call}")).collect();
        assert!(wanted.len() >= 5, "{wanted:?}");
        wanted.insert("holdfast.v1.MapService/FreeMap".to_owned());
        assert_eq!(wanted.difference(&loaded).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn every_configuration_is_used_named_after_its_file_and_in_the_guide() {
        let names = Load::value_variants().iter().map(|load| load.name());
        let around = ["setup-owners", "setup-map", "clear-map", "clear-owners"].map(str::to_owned);
        assert_eq!(configurations(), names.chain(around).collect());
        let guide = text(&format!("{CONFIGURATIONS}/README.md"));
        for name in configurations() {
            assert_eq!(configuration(&name)["name"], name.as_str());
            assert!(guide.contains(&format!("[`{name}`]({name}.json)")), "{name} is not in the guide");
        }
    }

    #[test]
    fn the_guide_names_the_version_that_ci_installs() {
        let install = format!("go install {MODULE}@v{VERSION}");
        assert!(text(&format!("{CONFIGURATIONS}/README.md")).contains(&install), "{install}");
    }
}
