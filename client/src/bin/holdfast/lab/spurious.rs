//! `holdfast lab spurious`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueHint};
use lab::spurious::{self, Config, Row};
use serde_json::{Value as Json, json};

use super::time;
use crate::failure::Failure;
use crate::output::{Listing, Output};

#[derive(Args, Debug)]
pub struct SpuriousArgs {
    /// Threads on each processor that this process may use: a row for each number and guard
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "2,8", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub tasks: Vec<u16>,
    /// Operations of each row
    #[arg(long, value_name = "N", default_value = "100000000", value_parser = clap::value_parser!(u64).range(1_000..=1_000_000_000_000))]
    pub operations: u64,
    /// Draw the refusals into this file as well
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub svg: Option<PathBuf>,
}

const HEADER: &[&str] = &["TASKS", "GUARD", "OPERATIONS", "BUSY", "DEADLOCK", "TIMEOUT", "SERVED", "P99", "MAX"];

pub fn run<W: Write>(args: &SpuriousArgs, output: &mut Output<W>) -> Result<(), Failure> {
    let cpus = spurious::allowed_cpus().map_err(|error| Failure::usage(error.to_string()))?;
    let config =
        Config { cpus, tasks: args.tasks.iter().map(|&tasks| tasks.into()).collect(), operations: args.operations };
    let all = args.operations * 2 * config.tasks.len() as u64;
    let bar = super::progress(all, "{wide_bar} {human_pos} of {human_len} operations, {eta} left");
    let rows = spurious::run(&config, |done, _| bar.set_position(done));
    bar.finish_and_clear();
    let rows = rows.map_err(|error| Failure::usage(error.to_string()))?;
    let mut listing = Listing::new(output, HEADER);
    listing.page(&rows, cells, json_of)?;
    listing.end()?;
    match &args.svg {
        Some(file) => lab::plot(file, &rows).map_err(|error| Failure::Output(io::Error::other(error))),
        None => Ok(()),
    }
}

fn guard(row: &Row) -> &'static str {
    if row.legacy { "percpu-counter" } else { "rqspinlock" }
}

fn cells(row: &Row) -> Vec<String> {
    let busy = match row.met.busy {
        0 => "0".to_owned(),
        busy => format!("{busy} ({:.4}%)", row.busy_share() * 100.0),
    };
    vec![
        row.tasks.to_string(),
        guard(row).to_owned(),
        row.operations.to_string(),
        busy,
        row.met.deadlocks.to_string(),
        row.met.timeouts.to_string(),
        format!("{:.2} M/s", row.served_per_second() / 1e6),
        time(row.met.latency.value_at_quantile(0.99)),
        time(row.met.latency.max()),
    ]
}

fn json_of(row: &Row) -> Json {
    json!({
        "tasks_per_processor": row.tasks,
        "guard": guard(row),
        "operations": row.operations,
        "busy": row.met.busy,
        "busy_share_of_get_or_creates": row.busy_share(),
        "deadlocks": row.met.deadlocks,
        "timeouts": row.met.timeouts,
        "served_per_second": row.served_per_second(),
        "p50_ns": row.met.latency.value_at_quantile(0.5),
        "p99_ns": row.met.latency.value_at_quantile(0.99),
        "max_ns": row.met.latency.max(),
    })
}
