//! `bench hooks`: what hook points cost where nothing is attached, in instructions, which are the same in every run.
//!
//! ```text
//!   the core as it is       ─► valgrind --tool=callgrind, n operations and 2n ─► instructions an operation ─┐
//!   the core without hooks  ─► the same                                       ─► instructions an operation ─┴─► difference / points
//! ```
//!
//! The second one is built with `--cfg holdfast_no_hooks`, which is there for this alone.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, ValueEnum};
use local_storage::{Context, Mode, StorageMap, destroy};

use crate::core::stores::{Bare, context, some_maps, value_of};

/// Operations of the shorter run.
const COUNT: u64 = 20_000;

#[derive(Args)]
pub struct Options {
    /// The same program, built without hook points (`cargo xtask bench hooks` sees to it)
    #[arg(long, value_name = "FILE", required_unless_present = "work")]
    without: Option<PathBuf>,

    /// Only do this work, so often: what runs under valgrind
    #[arg(long, hide = true)]
    work: Option<Work>,

    #[arg(long, hide = true, default_value_t = COUNT)]
    count: u64,
}

/// What is counted, on one owner and map.
#[derive(Clone, Copy, ValueEnum)]
enum Work {
    /// Replacing a value.
    Update,
    /// Creating and deleting a value of an owner that has another one.
    Churn,
    /// Creating and deleting an owner's only value.
    First,
    /// The read that programs may see.
    Get,
    /// A get-or-create that finds a value.
    GetOrCreate,
}

impl Work {
    fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
    }

    /// Hook points that it comes by.
    fn points(self) -> f64 {
        match self {
            Work::Update => 3.0,
            Work::Churn => 6.0,
            Work::First => 5.0,
            Work::Get | Work::GetOrCreate => 1.0,
        }
    }

    fn run(self, count: u64) -> anyhow::Result<()> {
        let cx = context()?;
        let maps = some_maps(2, 16)?;
        let owner = &Bare::many(1)[0];
        let (map, beside) = (&maps[0], &maps[1]);
        let put = |map: &Arc<StorageMap>| map.update(&cx, owner, &value_of(1), Mode::Any, None);
        if matches!(self, Work::Churn) {
            put(beside)?;
        }
        if !matches!(self, Work::Churn | Work::First) {
            put(map)?;
        }
        for _ in 0..count {
            self.once(&cx, map, owner)?;
        }
        destroy(&cx, owner);
        Ok(())
    }

    // So that the loop around it is the same whatever is in it.
    #[inline(never)]
    fn once(self, cx: &Context, map: &Arc<StorageMap>, owner: &Bare) -> anyhow::Result<()> {
        // What the caller makes of the answer is not counted: it could be any.
        match self {
            Work::Update => _ = black_box(map.update(cx, owner, &value_of(2), Mode::Any, None))?,
            Work::Churn | Work::First => {
                black_box(map.update(cx, owner, &value_of(2), Mode::Any, None))?;
                black_box(map.delete(cx, owner, None))?;
            }
            Work::Get => {
                let Ok(Some(_)) = black_box(map.get(cx, owner)) else { bail!("it is there, and nothing stops it") };
            }
            Work::GetOrCreate => _ = black_box(map.get_or_create(cx, owner, &value_of(2)))?,
        }
        Ok(())
    }
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    if let Some(work) = options.work {
        return work.run(options.count);
    }
    let without = options.without.as_deref().context("--without is missing")?;
    let with = std::env::current_exe()?;
    println!("{:<16}{:>14}{:>14}{:>8}{:>16}", "instructions", "with hooks", "without", "points", "a point");
    for work in Work::value_variants() {
        let (with, without) = (of_one(&with, *work)?, of_one(without, *work)?);
        let (name, points) = (work.name(), work.points());
        println!("{name:<16}{with:>14.1}{without:>14.1}{points:>8}{:>16.2}", (with - without) / points);
    }
    Ok(())
}

/// Instructions of one operation.
fn of_one(program: &Path, work: Work) -> anyhow::Result<f64> {
    let [once, twice] = [COUNT, 2 * COUNT].map(|count| counted(program, work, count));
    Ok((twice? as f64 - once? as f64) / COUNT as f64)
}

/// Instructions of a whole run.
fn counted(program: &Path, work: Work, count: u64) -> anyhow::Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    valgrind.args(["hooks", "--work", &work.name(), "--count", &count.to_string()]);
    let output = valgrind.output().context("valgrind does not start: install it (package valgrind)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed: {said}");
    let number = said.lines().find_map(|line| line.split_once("Collected :")).map(|(_, number)| number.trim());
    number.and_then(|number| number.parse().ok()).with_context(|| format!("valgrind says no number: {said}"))
}
