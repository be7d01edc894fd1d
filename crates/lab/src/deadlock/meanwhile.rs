//! What others get while some are in a deadlock.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::time::{MissedTickBehavior, interval};

use crate::failed::Refused;
use crate::target::Target;

/// How often each calls.
const EVERY: Duration = Duration::from_millis(1);

/// Who calls meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Load {
    /// Reads the values of the owners that are in the deadlocks.
    Gets,
    /// Updates at a worker that takes no part.
    Aside,
    /// Updates of owners whose worker is stalled again and again: only what has to wait for a lock goes there.
    Stalled,
}

impl Load {
    /// In a few words.
    pub fn name(self) -> &'static str {
        match self {
            Load::Gets => "gets of the owners in it",
            Load::Aside => "updates aside of it",
            Load::Stalled => "updates at its worker",
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What one of them got.
#[derive(Clone, Debug)]
pub struct Meanwhile {
    /// Who.
    pub load: Load,
    /// How often it has called.
    pub calls: u64,
    /// How often it was refused.
    pub refused: u64,
    /// What was said first.
    pub first: Option<Refused>,
    /// How long an answer took, in nanoseconds. Of calls that come every millisecond: who waits for 250 ms stands for the 249 that would have
    /// come meanwhile.
    pub latency: Histogram<u64>,
}

impl Meanwhile {
    /// Nobody is to be refused.
    pub fn problem(&self) -> Option<String> {
        let first = self.first.as_ref()?;
        Some(format!("{}: {} of {} were refused, first with {first}", self.load, self.refused, self.calls))
    }
}

/// Calls once a millisecond, for one of these owners each time, until it is over.
pub(super) async fn go_on(target: &Target, load: Load, at: Vec<(String, u64)>, over: &Cell<bool>) -> Meanwhile {
    let latency = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds are good");
    let mut seen = Meanwhile { load, calls: 0, refused: 0, first: None, latency };
    let mut pause = interval(EVERY);
    pause.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (map, owner) in at.iter().cycle() {
        pause.tick().await;
        if over.get() {
            break;
        }
        let began = Instant::now();
        let answer = match load {
            Load::Gets => target.get(map, *owner).await.map(drop),
            Load::Aside | Load::Stalled => target.update(map, *owner, 1).await.map(drop),
        };
        let took = began.elapsed().as_nanos() as u64;
        // It is within the bounds: no call takes a minute.
        let _ = seen.latency.record_correct(took.clamp(1, 60_000_000_000), EVERY.as_nanos() as u64);
        seen.calls += 1;
        if let Err(refused) = answer {
            seen.refused += 1;
            seen.first.get_or_insert(refused);
        }
    }
    seen
}
