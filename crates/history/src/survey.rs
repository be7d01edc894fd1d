//! Many histories, one after the other.

use std::fmt::Display;
use std::io::{self, Write};

use crate::check::check;
use crate::record::{History, Tally};
use crate::violation::Violation;

/// Clients of a history.
pub const CLIENTS: u32 = 4;
/// Calls that each of them makes.
pub const CALLS: u32 = 200;

/// How many histories a test is asked for: `HOLDFAST_HISTORIES`, or `default`.
///
/// # Panics
/// If the variable is no number.
pub fn wanted(default: u64) -> u64 {
    const VARIABLE: &str = "HOLDFAST_HISTORIES";
    std::env::var(VARIABLE).map_or(default, |value| {
        value.parse().unwrap_or_else(|_| panic!("{VARIABLE}={value} is no number: expected how many histories"))
    })
}

/// Records and checks histories with one seed after the other until `wanted` of them were contested, and says what was in
/// those. The first violation ends it. Where the clients were hardly ever in each other's way, one that was not contested is
/// checked, too, but does not count.
///
/// # Panics
/// If two of three histories are not contested: then they show nothing.
pub fn survey(
    wanted: u64,
    seed: u64,
    mut record: impl FnMut(u64) -> History,
) -> Result<Tally, (Box<Violation>, Tally)> {
    let mut contested = Tally::default();
    for attempt in 0..3 * wanted {
        let history = record(seed.wrapping_add(attempt));
        let tally = history.tally();
        if let Err(violation) = check(&history) {
            return Err((violation, contested + tally));
        }
        if tally.is_contested() {
            contested = contested + tally;
        }
        if contested.histories == wanted {
            return Ok(contested);
        }
    }
    panic!(
        "only {} of {} histories were contested, {wanted} were wanted: {contested}",
        contested.histories,
        3 * wanted
    );
}

/// Says aloud what was measured: not with `println!`, which the harness keeps to itself where a test passes.
pub fn measured(what: impl Display) {
    let _ = io::stderr().write_all(format!("MEASURED {what}\n").as_bytes());
}
