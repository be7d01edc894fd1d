//! Deadlocks of a running server, as their callers see them: how soon each is told, and what everybody else gets meanwhile.
//!
//! ```text
//!   AA       X ─► wants its own lock                       told at once
//!   ABBA     X ◄─► Y                                       told at once
//!   ABBCCA   X ─► Y ─► Z ─► X                              told after the lock's timeout
//!   timeout  Y ─► X, who takes its time                    told after the lock's timeout
//!
//!   meanwhile, once a millisecond each:   Gets of X, Y and Z
//!                                         updates at a worker that takes no part
//!                                         updates of others of X's worker
//! ```
//!
//! X, Y and Z are simulated owners on workers of their own. Their programs fail the calls that they run in, so that each caller gets the lock's
//! error as its own.

mod meanwhile;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use holdfast_proto::v1::{HookPoint, OnError, Reason, UpdateResponse};

pub use self::meanwhile::{Load, Meanwhile};
use crate::failed::{Answer, Failed};
use crate::target::{Guard, Target};
use crate::world::{Owner, World};

/// Workers that all kinds take, and one that takes no part.
pub const WORKERS: usize = 4;
/// The lock's own timeout, unless the server was started with another one.
pub const LOCK_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a holder takes, in milliseconds: longer than that.
const HOLD_MS: u64 = 400;
/// Calls that tell what one costs where nobody waits.
const PLAIN: usize = 300;
/// The bounds of a histogram's bins within a decade, all about a quarter apart (the preferred numbers R10); 250 ms is one of them.
const BOUNDS: [u32; 11] = [100, 125, 160, 200, 250, 315, 400, 500, 630, 800, 1000];
/// How long a whole round may take.
const ROUND: Duration = Duration::from_secs(30);

/// Who waits for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// One waits for itself.
    Aa,
    /// Two wait for each other.
    Abba,
    /// Three wait in a ring.
    Abbcca,
    /// One waits for one that takes its time.
    Timeout,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Aa, Kind::Abba, Kind::Abbcca, Kind::Timeout];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Aa => "AA",
            Kind::Abba => "ABBA",
            Kind::Abbcca => "ABBCCA",
            Kind::Timeout => "timeout",
        }
    }

    /// Owners that take part, each on a worker of its own.
    fn parties(self) -> usize {
        match self {
            Kind::Aa => 1,
            Kind::Abba | Kind::Timeout => 2,
            Kind::Abbcca => 3,
        }
    }

    /// Why its callers are refused.
    pub fn reason(self, guard: Guard) -> Reason {
        match (guard, self) {
            (Guard::PerCpuCounter, _) => Reason::StorageBusy,
            (Guard::RqSpinLock, Kind::Aa) => Reason::LockDeadlockAa,
            (Guard::RqSpinLock, Kind::Abba) => Reason::LockDeadlockAbba,
            (Guard::RqSpinLock, Kind::Abbcca | Kind::Timeout) => Reason::LockTimeout,
        }
    }

    /// Whether its callers have to wait for the lock's timeout.
    pub fn times_out(self, guard: Guard) -> bool {
        self.reason(guard) == Reason::LockTimeout
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How soon the callers of one kind were told.
#[derive(Clone, Debug)]
pub struct Times {
    /// Which.
    pub kind: Kind,
    /// Under which guard.
    pub guard: Guard,
    /// How often it was made.
    pub rounds: u32,
    /// From the moment when all calls were sent to each refusal that was expected, in increasing order.
    pub refused: Vec<Duration>,
    /// Other refusals, by their reason; and rounds in which nobody was refused.
    pub other: BTreeMap<String, u64>,
}

impl Times {
    /// The time of the middle one; none where nobody was refused.
    pub fn median(&self) -> Option<Duration> {
        self.refused.get(self.refused.len().checked_sub(1)? / 2).copied()
    }

    /// How many took how long, where there are any: from, to (exclusively) and how many. Ten bins are a power of ten.
    pub fn histogram(&self) -> Vec<(Duration, Duration, usize)> {
        let mut bins = Vec::<(Duration, Duration, usize)>::new();
        for time in &self.refused {
            let (from, to) = bin(*time);
            match bins.last_mut() {
                Some(last) if last.0 == from => last.2 += 1,
                _ => bins.push((from, to, 1)),
            }
        }
        bins
    }

    /// What is not as it should be.
    pub fn problem(&self) -> Option<String> {
        let (kind, reason) = (self.kind, self.kind.reason(self.guard).code_name());
        if !self.other.is_empty() {
            let other: Vec<_> = self.other.iter().map(|(what, count)| format!("{what} {count}")).collect();
            return Some(format!("{kind}: expected {reason} alone, and in every round: {}", other.join(", ")));
        }
        let (median, first) = (self.median()?, *self.refused.first()?);
        if self.kind.times_out(self.guard) && first < LOCK_TIMEOUT {
            let hint = "was the server started with another --lock-timeout-ms?";
            return Some(format!("{kind}: told after {first:?}, expected no less than {LOCK_TIMEOUT:?} ({hint})"));
        }
        let late = !self.kind.times_out(self.guard) && median >= LOCK_TIMEOUT;
        late.then(|| format!("{kind}: told after {median:?}, as if a timeout had to pass: expected at once"))
    }
}

/// The bin of a time.
fn bin(time: Duration) -> (Duration, Duration) {
    // Nobody is told sooner.
    let mut decade = Duration::from_micros(1);
    loop {
        for bounds in BOUNDS.windows(2) {
            let to = decade.saturating_mul(bounds[1]) / BOUNDS[0];
            if time < to {
                return (decade * bounds[0] / BOUNDS[0], to);
            }
        }
        decade = decade.saturating_mul(10);
    }
}

/// What was seen.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of which guard.
    pub guard: Guard,
    /// How long an update takes that has nobody to wait for: the median.
    pub plain: Duration,
    /// How soon callers were told.
    pub kinds: Vec<Times>,
    /// What the others got meanwhile.
    pub meanwhile: Vec<Meanwhile>,
    /// What was left out, and which flag the server lacks for it.
    pub left_out: Vec<String>,
}

impl Report {
    /// Everything that is not as it should be.
    pub fn problems(&self) -> Vec<String> {
        let kinds = self.kinds.iter().filter_map(Times::problem);
        kinds.chain(self.meanwhile.iter().filter_map(Meanwhile::problem)).collect()
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server does not allow it.
    #[error("the server was started without {0}")]
    Missing(String),
    /// Somebody wanted an end of it.
    #[error("interrupted")]
    Interrupted,
    /// Something went wrong.
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// Makes each kind so many times, and takes away what that took, also when `stop` is done before. `report` is told how many rounds are
/// done, of how many.
pub async fn run(
    target: &Target,
    rounds: u32,
    stop: &mut (impl Future<Output = ()> + Unpin),
    report: impl Fn(u32, u32),
) -> Result<Report, Error> {
    let info = target.info();
    let flags =
        [(info.simulated_owners_allowed, "--allow-simulated-owners"), (info.lab_steps_allowed, "--allow-lab-steps")];
    let missing: Vec<_> = flags.into_iter().filter(|(allowed, _)| !allowed).map(|(_, flag)| flag).collect();
    if !missing.is_empty() {
        return Err(Error::Missing(missing.join(" and ")));
    }
    let world = World::new(target);
    let done = tokio::select! {
        done = Box::pin(measure(&world, rounds, report)) => done.map_err(Error::from),
        () = stop => Err(Error::Interrupted),
    };
    let cleaned = world.clean().await;
    let done = done?;
    cleaned?;
    Ok(done)
}

/// Where the deadlocks are made.
struct Scene {
    /// X, Y and Z, as many as there are workers for, and their maps.
    owners: Vec<Owner>,
    maps: Vec<String>,
    /// A map without programs.
    plain: String,
}

async fn measure(world: &World<'_>, rounds: u32, report: impl Fn(u32, u32)) -> Result<Report, Failed> {
    let target = world.target;
    let mut workers: Vec<_> = target.info().workers.iter().map(|worker| worker.index).collect();
    workers.truncate(WORKERS);
    let there = workers.len();
    let bystander = if there == WORKERS { workers.pop() } else { None };
    let mut left_out = Vec::new();
    let without = |what: &str, workers: usize| {
        format!("{what}: it needs {workers} workers, there are {there} (--workers-per-cpu)")
    };
    let (maps, owners) = world.apart(&workers).await?;
    let scene = Scene { owners, maps, plain: world.map("plain").await? };
    let plain = plain(target, &scene).await?;
    let stalled = world.owners_on(&workers[..1]).await?[0];
    let aside = match bystander {
        Some(worker) => Some(world.owners_on(&[worker]).await?[0]),
        None => {
            left_out.push(without(Load::Aside.name(), WORKERS));
            None
        }
    };
    let kinds: Vec<_> = Kind::ALL.into_iter().filter(|kind| kind.parties() <= scene.owners.len()).collect();
    let skipped = Kind::ALL.into_iter().filter(|kind| !kinds.contains(kind));
    left_out.extend(skipped.map(|kind| without(kind.name(), kind.parties())));
    let (over, all) = (Cell::new(false), rounds * kinds.len() as u32);
    let deadlocks = async {
        let mut times = Vec::new();
        for (number, kind) in kinds.iter().enumerate() {
            let done = |round| report(number as u32 * rounds + round, all);
            let one = make(world, *kind, &scene, rounds, done).await;
            let failed = one.is_err();
            times.push(one);
            if failed {
                break;
            }
        }
        over.set(true);
        times.into_iter().collect::<Result<Vec<_>, _>>()
    };
    let mut loads: Vec<_> = vec![
        (Load::Gets, scene.maps.iter().cloned().zip(scene.owners.iter().map(|owner| owner.id)).collect()),
        (Load::Stalled, vec![(scene.plain.clone(), stalled.id)]),
    ];
    loads.extend(aside.map(|owner| (Load::Aside, vec![(scene.plain.clone(), owner.id)])));
    let meanwhile = join_all(loads.into_iter().map(|(load, at)| meanwhile::go_on(target, load, at, &over)));
    let (kinds, mut meanwhile) = tokio::join!(deadlocks, meanwhile);
    meanwhile.sort_by_key(|meanwhile| meanwhile.load);
    Ok(Report { guard: target.guard(), plain, kinds: kinds?, meanwhile, left_out })
}

/// What an update costs that meets nobody.
async fn plain(target: &Target, scene: &Scene) -> Result<Duration, Failed> {
    let mut times = Vec::new();
    for number in 0..PLAIN {
        let began = Instant::now();
        target.update(&scene.plain, scene.owners[0].id, number as u64).await?;
        times.push(began.elapsed());
    }
    times.sort();
    Ok(times[PLAIN / 2])
}

/// Makes one kind so many times.
async fn make(world: &World<'_>, kind: Kind, scene: &Scene, rounds: u32, done: impl Fn(u32)) -> Result<Times, Failed> {
    let (part, target) = (world.part(kind.name()), world.target);
    let parties = kind.parties();
    let mut programs = Vec::new();
    for number in 0..parties {
        let (on_error, steps) = program(kind, number, scene, part.prefix());
        let map = &scene.maps[number];
        programs.push(part.attach(&number.to_string(), HookPoint::StorageLocked, map, on_error, &steps).await?);
    }
    let mut times = Times { kind, guard: target.guard(), rounds, refused: Vec::new(), other: BTreeMap::default() };
    for round in 1..=rounds {
        let began = Instant::now();
        let calls = (0..parties).map(|number| async move {
            let answer = target.update(&scene.maps[number], scene.owners[number].id, 2).await;
            (answer, began.elapsed())
        });
        let answers = tokio::time::timeout(ROUND, join_all(calls)).await;
        let late = |_| Failed(format!("{kind}: a round was not over within {ROUND:?}"));
        note(&mut times, answers.map_err(late)?);
        done(round);
    }
    for program in programs {
        part.detach(&program).await?;
    }
    times.refused.sort();
    Ok(times)
}

/// What runs inside of the call of the owner with this number.
fn program(kind: Kind, number: usize, scene: &Scene, meeting: &str) -> (OnError, Vec<String>) {
    let parties = kind.parties();
    let meet = format!("meet {meeting} {parties} 2000ms");
    let (map, next) = (&scene.maps[number], scene.owners[(number + 1) % parties].id);
    match (kind, number) {
        (Kind::Aa, _) => (OnError::FailOperation, vec![format!("set {map} 9")]),
        (Kind::Timeout, 0) => (OnError::Count, vec![meet, format!("if 1 nonzero: hold {HOLD_MS}ms")]),
        _ => (OnError::FailOperation, vec![meet, format!("if 1 nonzero: set {map} of {next} 9")]),
    }
}

/// The answers of a round.
fn note(times: &mut Times, answers: Vec<(Answer<UpdateResponse>, Duration)>) {
    let expected = times.kind.reason(times.guard);
    let before = times.refused.len();
    for (answer, took) in answers {
        match answer {
            Err(refused) if refused.reason == expected => times.refused.push(took),
            Err(refused) => *times.other.entry(refused.word()).or_default() += 1,
            Ok(_) => {}
        }
    }
    if times.refused.len() == before {
        *times.other.entry("rounds without".to_owned()).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;
    use tonic::Code;

    use super::*;
    use crate::failed::Refused;

    fn times(kind: Kind, guard: Guard, millis: &[u64]) -> Times {
        let refused = millis.iter().map(|millis| Duration::from_millis(*millis)).collect();
        Times { kind, guard, rounds: millis.len() as u32, refused, other: BTreeMap::default() }
    }

    #[test]
    fn times_are_put_into_bins_of_a_tenth_of_a_decade() {
        for (micros, from, to) in [
            (0, 1_000, 1_250),
            (1, 1_000, 1_250),
            (2, 2_000, 2_500),
            (9, 8_000, 10_000),
            (10, 10_000, 12_500),
            (249_999, 200_000_000, 250_000_000),
            (250_000, 250_000_000, 315_000_000),
        ] {
            let expected = (Duration::from_nanos(from), Duration::from_nanos(to));
            assert_eq!(bin(Duration::from_micros(micros)), expected, "{micros}");
        }
        let histogram = times(Kind::Aa, Guard::RqSpinLock, &[1, 1, 2, 3, 250]).histogram();
        assert_eq!(histogram.iter().map(|bin| bin.2).collect::<Vec<_>>(), [2, 1, 1, 1]);
        assert_eq!(times(Kind::Aa, Guard::RqSpinLock, &[1, 2, 3, 4]).median(), Some(Duration::from_millis(2)));
        assert_eq!(times(Kind::Aa, Guard::RqSpinLock, &[]).median(), None);
    }

    #[test]
    fn what_is_not_as_it_should_be_is_told() {
        let problem = |kind, guard, millis: &[u64]| times(kind, guard, millis).problem();
        let (ours, legacy) = (Guard::RqSpinLock, Guard::PerCpuCounter);
        assert_eq!(problem(Kind::Aa, ours, &[1, 1, 300]), None, "one may be unlucky");
        assert_eq!(problem(Kind::Abbcca, ours, &[250, 300]), None);
        assert_eq!(problem(Kind::Timeout, legacy, &[1]), None);
        let aside =
            Meanwhile { load: Load::Aside, calls: 9, refused: 0, first: None, latency: Histogram::new(3).unwrap() };
        assert_eq!(aside.problem(), None);
        let first = Some(Refused { code: Code::Unavailable, reason: Reason::LockTimeout, message: "why".to_owned() });
        let told = Meanwhile { refused: 2, first, ..aside }.problem().unwrap();
        assert_eq!(told, "updates aside of it: 2 of 9 were refused, first with LOCK_TIMEOUT: why");
        assert!(problem(Kind::Abba, ours, &[1, 250, 250]).unwrap().contains("at once"));
        assert!(problem(Kind::Timeout, ours, &[249, 250]).unwrap().contains("no less than 250ms"));
        let mut other = times(Kind::Aa, ours, &[1]);
        note(&mut other, vec![(Ok(UpdateResponse::default()), Duration::ZERO)]);
        assert!(other.problem().unwrap().contains("rounds without 1"), "{other:?}");
    }
}
