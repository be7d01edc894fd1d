//! `holdfast lab deadlock`.

use std::io::{self, Write, stderr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use lab::deadlock::{self, Error, Meanwhile, Report, Times};
use lab::spurious::allowed_cpus;
use lab::{Guard, Server, Target};
use serde_json::{Value as Json, json};

use super::{interrupt, progress, time, typed_target};
use crate::args::{Common, Format};
use crate::commands::Done;
use crate::failure::Failure;
use crate::output::{Listing, Output};

#[derive(Args, Debug)]
pub struct DeadlockArgs {
    /// How often to make each kind
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rounds: u32,
    /// Draw the times into this file as well
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
}

const KINDS: &[&str] = &["KIND", "GUARD", "REASON", "ROUNDS", "TOLD", "MEDIAN", "MAX", "NET"];
const MEANWHILE: &[&str] = &["MEANWHILE", "CALLS", "REFUSED", "P50", "P99", "MAX"];
const HISTOGRAM: &[&str] = &["KIND", "FROM", "TO", "TOLD", ""];

pub async fn run<W: Write>(common: &Common, args: &DeadlockArgs, output: &mut Output<W>) -> Done {
    let report = match typed_target(common).await? {
        Some(target) => measure(&target, args).await?,
        None => in_process(common, args).await?,
    };
    print(&report, output)?;
    if let Some(file) = &args.svg {
        lab::plot_times(file, &report.kinds).map_err(|error| Failure::Output(io::Error::other(error)))?;
    }
    match report.problems() {
        problems if problems.is_empty() => Ok(()),
        problems => Err(Failure::Lab(problems.join("; "))),
    }
}

async fn in_process(common: &Common, args: &DeadlockArgs) -> Result<Report, Failure> {
    let mut cpus = allowed_cpus().map_err(|error| Failure::Lab(error.to_string()))?;
    cpus.truncate(deadlock::WORKERS);
    let workers_each = deadlock::WORKERS.div_ceil(cpus.len().max(1));
    let failed = |error: &dyn std::error::Error| Failure::Lab(error.to_string());
    let server = Server::start(Guard::RqSpinLock, cpus, workers_each).await.map_err(|error| failed(&error))?;
    let target = server.target(common.timeout).await.map_err(|error| failed(&error))?;
    let report = measure(&target, args).await;
    server.stop().await;
    report
}

async fn measure(target: &Target, args: &DeadlockArgs) -> Result<Report, Failure> {
    let bar = progress(0, "{wide_bar} {pos} of {len} rounds, {eta} left");
    let on_round = |done: u32, all: u32| {
        bar.set_length(all.into());
        bar.set_position(done.into());
    };
    let report = deadlock::run(target, args.rounds, &mut interrupt(), on_round).await;
    bar.finish_and_clear();
    report.map_err(|error: Error| Failure::Lab(error.to_string()))
}

fn print<W: Write>(report: &Report, output: &mut Output<W>) -> Done {
    if output.format == Format::Json {
        return Ok(output.record(&json!({
            "guard": report.guard.name(),
            "plain_update_ns": nanos(report.plain),
            "kinds": report.kinds.iter().map(|times| kind_json(times, report)).collect::<Vec<_>>(),
            "meanwhile": report.meanwhile.iter().map(meanwhile_json).collect::<Vec<_>>(),
            "left_out": report.left_out,
            "problems": report.problems(),
        }))?);
    }
    table(output, KINDS, &report.kinds.iter().map(|times| kind_cells(times, report)).collect::<Vec<_>>())?;
    output.bytes(b"\n")?;
    table(output, MEANWHILE, &report.meanwhile.iter().map(meanwhile_cells).collect::<Vec<_>>())?;
    output.bytes(b"\n")?;
    table(output, HISTOGRAM, &report.kinds.iter().flat_map(bars).collect::<Vec<_>>())?;
    output.bytes(format!("\nAn update that meets nobody: {}\n", time(nanos(report.plain))).as_bytes())?;
    let mut notes = report.left_out.iter().map(|what| format!("left out: {what}")).collect::<Vec<_>>();
    if report.guard == Guard::PerCpuCounter {
        notes.push(
            "the counter comes before the locks: every kind comes as STORAGE_BUSY, and gets wait at a stalled worker"
                .into(),
        );
    }
    // Whoever closed stderr does not want to know.
    notes.iter().for_each(|note| _ = writeln!(stderr(), "note: {note}"));
    Ok(())
}

fn table<W: Write>(output: &mut Output<W>, header: &'static [&'static str], rows: &[Vec<String>]) -> Done {
    let mut listing = Listing::new(output, header);
    listing.page(rows, Clone::clone, |_| Json::Null)?;
    Ok(listing.end()?)
}

fn nanos(time: Duration) -> u64 {
    time.as_nanos() as u64
}

fn net(times: &Times, report: &Report) -> Option<Duration> {
    Some(times.median()?.saturating_sub(report.plain))
}

fn kind_cells(times: &Times, report: &Report) -> Vec<String> {
    let or_dash = |measure: Option<Duration>| measure.map_or("-".to_owned(), |measure| time(nanos(measure)));
    vec![
        times.kind.name().to_owned(),
        times.guard.name().to_owned(),
        times.kind.reason(times.guard).code_name().to_owned(),
        times.rounds.to_string(),
        times.refused.len().to_string(),
        or_dash(times.median()),
        or_dash(times.refused.last().copied()),
        or_dash(net(times, report)),
    ]
}

fn kind_json(times: &Times, report: &Report) -> Json {
    let bins = times.histogram();
    let bins =
        bins.iter().map(|(from, to, count)| json!({ "from_ns": nanos(*from), "to_ns": nanos(*to), "told": count }));
    json!({
        "kind": times.kind.name(),
        "reason": times.kind.reason(times.guard).code_name(),
        "rounds": times.rounds,
        "told": times.refused.len(),
        "other": times.other,
        "median_ns": times.median().map(nanos),
        "max_ns": times.refused.last().copied().map(nanos),
        "net_ns": net(times, report).map(nanos),
        "histogram": bins.collect::<Vec<_>>(),
        "times_ns": times.refused.iter().copied().map(nanos).collect::<Vec<_>>(),
    })
}

fn meanwhile_cells(meanwhile: &Meanwhile) -> Vec<String> {
    vec![
        meanwhile.load.name().to_owned(),
        meanwhile.calls.to_string(),
        meanwhile.refused.to_string(),
        time(meanwhile.latency.value_at_quantile(0.5)),
        time(meanwhile.latency.value_at_quantile(0.99)),
        time(meanwhile.latency.max()),
    ]
}

fn meanwhile_json(meanwhile: &Meanwhile) -> Json {
    json!({
        "load": meanwhile.load.name(),
        "calls": meanwhile.calls,
        "refused": meanwhile.refused,
        "p50_ns": meanwhile.latency.value_at_quantile(0.5),
        "p99_ns": meanwhile.latency.value_at_quantile(0.99),
        "max_ns": meanwhile.latency.max(),
    })
}

/// The histogram of a kind, a row for each bin.
fn bars(times: &Times) -> Vec<Vec<String>> {
    /// Of the longest bar.
    const WIDTH: usize = 40;
    let bins = times.histogram();
    let most = bins.iter().map(|(_, _, count)| *count).max().unwrap_or(1);
    let row = |(from, to, count): &(Duration, Duration, usize)| {
        let bar = "#".repeat((count * WIDTH).div_ceil(most));
        vec![times.kind.name().to_owned(), time(nanos(*from)), time(nanos(*to)), count.to_string(), bar]
    };
    bins.iter().map(row).collect()
}
