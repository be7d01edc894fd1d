//! Automation of the repository: `cargo xtask ci` and its parts.
//!
//! One file a task. A task is a function that runs command lines through a [`job::Job`]; `ci` is
//! the list of tasks, run one after the other. The rules that are kept by tests instead of by a
//! command (the arrows between crates, what the root may hold) are in `tests/it/`.
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod container;
mod deny;
mod e2e;
mod examples;
mod ghz;
mod job;
mod lint;
mod loom;
mod oracle;
mod proto;
mod server;
mod stress;
mod test;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::ci::Step;
use crate::job::Job;

const EXAMPLES: &str = "\
Examples:
  cargo xtask ci                      everything, as .ci/run does it
  cargo xtask ci --only fmt,clippy    the quick half, before a commit
  cargo xtask ci --list               what would be run, step by step
  cargo xtask loom                    one step alone

A step that fails does not stop the next; the summary at the end tells everything.
All steps share one target directory (target/, or CARGO_TARGET_DIR); loom and the
tools have folders of their own below it.";

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Automation of the Holdfast repository", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,

    /// Print the steps with their command lines and run nothing
    #[arg(long, global = true)]
    list: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Run every check that a change must pass; fails at the end if one of them failed
    Ci {
        /// Run these steps only, in the order of `ci` [default: all]
        #[arg(long, value_delimiter = ',', value_name = "STEP,...")]
        only: Vec<Step>,
    },
    #[command(flatten)]
    Step(Step),
    /// Measure a part of Holdfast beside its peers: `lock`, `core`, `hooks` or `service` (their options: `cargo xtask bench core --help`)
    Bench {
        /// What to measure, and options for it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "WHAT", required = true)]
        what: Vec<String>,
    },
    /// Let many threads do everything at random for as long as is asked for: `lock` or `core`
    Stress(stress::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    // `ghz` is a step like the others, and beside that a tool with options, which a `Step` cannot carry.
    let matches = Cli::command().mut_subcommand("ghz", ghz::Options::augment_args).get_matches();
    let cli = Cli::from_arg_matches(&matches)?;
    enter_root()?;
    if let Some(("ghz", options)) = matches.subcommand() {
        return Ok(ghz::command(&ghz::Options::from_arg_matches(options)?, cli.list));
    }
    let steps = match cli.task {
        Task::Ci { only } => ci::select(&only),
        Task::Step(step) => vec![step],
        Task::Bench { what } => return alone(cli.list, |job| bench::run(job, &what)),
        Task::Stress(options) => return alone(cli.list, |job| stress::run(job, &options)),
    };
    let passed = if cli.list { ci::list(&steps)? } else { ci::run(&steps) };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is no step of CI.
fn alone(list: bool, task: impl FnOnce(&mut Job) -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    task(&mut if list { Job::listing() } else { Job::new() })?;
    Ok(ExitCode::SUCCESS)
}

/// Goes to the root of the repository, so that every path and every echoed command line is short
/// and can be pasted there.
fn enter_root() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .context("crates/xtask has no grandparent directory")?;
    std::env::set_current_dir(root).with_context(|| format!("cannot enter the repository's root {}", root.display()))
}
