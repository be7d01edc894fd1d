//! The laboratory's commands: what is run, how far it is, and what came of it.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use lab::spurious::{self, Config, Row};
use serde_json::{Value as Json, json};

use crate::args::{LabCommand, SpuriousArgs};
use crate::failure::Failure;
use crate::output::{Listing, Output};

const HEADER: &[&str] = &["TASKS", "GUARD", "OPERATIONS", "BUSY", "DEADLOCK", "TIMEOUT", "SERVED", "P99", "MAX"];

pub fn run<W: Write>(command: LabCommand, output: &mut Output<W>) -> Result<(), Failure> {
    match command {
        LabCommand::Spurious(args) => spurious(&args, output),
    }
}

fn spurious<W: Write>(args: &SpuriousArgs, output: &mut Output<W>) -> Result<(), Failure> {
    let cpus = spurious::allowed_cpus().map_err(|error| Failure::usage(error.to_string()))?;
    let config =
        Config { cpus, tasks: args.tasks.iter().map(|&tasks| tasks.into()).collect(), operations: args.operations };
    // On stderr, and only where that is a terminal.
    let bar = ProgressBar::new(args.operations * 2 * config.tasks.len() as u64);
    let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} operations, {eta} left");
    bar.set_style(style.expect("a constant template is good"));
    bar.enable_steady_tick(Duration::from_millis(200));
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
    let busy = match row.busy {
        0 => "0".to_owned(),
        busy => format!("{busy} ({:.4}%)", row.busy_share() * 100.0),
    };
    vec![
        row.tasks.to_string(),
        guard(row).to_owned(),
        row.operations.to_string(),
        busy,
        row.deadlocks.to_string(),
        row.timeouts.to_string(),
        format!("{:.2} M/s", row.served_per_second() / 1e6),
        time(row.latency.value_at_quantile(0.99)),
        time(row.latency.max()),
    ]
}

fn json_of(row: &Row) -> Json {
    json!({
        "tasks_per_processor": row.tasks,
        "guard": guard(row),
        "operations": row.operations,
        "busy": row.busy,
        "busy_share_of_get_or_creates": row.busy_share(),
        "deadlocks": row.deadlocks,
        "timeouts": row.timeouts,
        "served_per_second": row.served_per_second(),
        "p50_ns": row.latency.value_at_quantile(0.5),
        "p99_ns": row.latency.value_at_quantile(0.99),
        "max_ns": row.latency.max(),
    })
}

fn time(nanoseconds: u64) -> String {
    match nanoseconds {
        0..10_000 => format!("{nanoseconds} ns"),
        10_000..10_000_000 => format!("{:.1} us", nanoseconds as f64 / 1e3),
        _ => format!("{:.1} ms", nanoseconds as f64 / 1e6),
    }
}
