//! What a value costs beyond its bytes: resident memory, the allocator's share included.

use std::fs;
use std::ops::Range;

use anyhow::Context as _;
use local_storage::{Mode, Tidy, destroy};
use owners::{OwnerKind, Registry};

use super::VALUE;
use super::stores::{Bare, context, some_maps, value_of};

const MAPS: u64 = 4;

/// Resident bytes of this process.
fn resident() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("/proc/self/status has no VmRSS")?;
    let kibibytes: u64 = line.trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024)
}

pub fn run(count: u32) -> anyhow::Result<()> {
    println!("\nresident memory, {count} owners x {MAPS} maps (VmRSS, the allocator's share included)");
    let cx = context()?;
    let (maps, owners) = (some_maps(MAPS, count.into())?, Bare::many(count));
    let began = resident()?;
    let mut before = began;
    // Owners come one after the other, and each map comes to all of them: an index grows when it has to.
    for (number, map) in (1..).zip(&maps) {
        for owner in &owners {
            map.update(&cx, owner, &value_of(number), Mode::Any, None)?;
        }
        let now = resident()?;
        row(&format!("map {number}: an element beyond its {VALUE} bytes"), before..now, count.into(), VALUE as f64);
        before = now;
    }
    row(
        "an element beyond its bytes, with its part of storage and index",
        began..before,
        u64::from(count) * MAPS,
        VALUE as f64,
    );
    owners.iter().for_each(|owner| destroy(&cx, owner));
    drop((maps, owners));
    while cx.tidy() != Tidy::Done {}
    owners::give_back_memory();

    let config = owners::Config { simulated: true, max_owners: count as usize, ..owners::Config::default() };
    let registry = Registry::start(config, |_| {})?;
    let before = resident()?;
    registry.create_simulated(OwnerKind::Task, 1, count.into(), |_| ())?;
    row("the registry's part of a simulated owner", before..resident()?, count.into(), 0.0);
    Ok(())
}

fn row(what: &str, resident: Range<u64>, among: u64, less: f64) {
    // Not in whole numbers: the system may have taken some back meanwhile.
    let bytes = resident.end as f64 - resident.start as f64;
    println!("  {what:<66} {:>7.1} B", bytes / among as f64 - less);
}
