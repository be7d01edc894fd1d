//! The cases of recursion, over gRPC, with the numbers that each must come to under either guard.
//!
//! Most are those of Linux' own tests of local storage. Programs are attached through `AttachProgram`, their steps written in the text form;
//! what came of the steps is read from the programs' counters and events, and what came of the calls from their answers.
//!
//! ```text
//!   for each case: does the server allow what it needs? ── no ─► skipped, with the flag that is missing
//!                            └─ yes ─► World ─► case ─► figures, each beside what it must be ─► all taken away again
//! ```

mod findings;
mod locks;
mod plain;
mod recursion;
mod stress;

use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::time::{Duration, Instant};

use holdfast_proto::v1::OnError;
use tokio::time::timeout;

use self::findings::{Checked, Problem};
pub use self::findings::{Figure, Measure};
use crate::target::{Guard, Target};
use crate::world::World;

/// Workers that share a processor, where the cases choose: what `nodeadlock` needs.
pub const WORKERS: usize = 32;
/// How long a case may take, beside a stress's own time.
const LIMIT: Duration = Duration::from_secs(60);

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Case {
    /// A program whose own steps come by its hook point.
    Recursion,
    /// Workers that share a processor, none of which recurs.
    NoDeadlock,
    /// A step that wants the storage's lock that its own call holds.
    LockedAa,
    /// A step that wants the bucket's lock that its own call holds.
    BucketAa,
    /// Two workers, each of which wants what the other one holds.
    Abba,
    /// Three, in a ring.
    Abbcca,
    /// A holder that takes its time.
    Timeout,
    /// Programs around calls.
    EnterExit,
    /// Creates on an owner that is leaving.
    ExitOwner,
    /// What every call answers.
    Crud,
    /// Owners that leave while maps are freed.
    StressFree,
    /// One owner that all change.
    StressChange,
    /// Many that read, on one processor.
    StressLookup,
    /// The errors of steps as those of the callers.
    Propagated,
}

impl Case {
    /// All of them.
    pub const ALL: [Case; 14] = [
        Case::Recursion,
        Case::NoDeadlock,
        Case::LockedAa,
        Case::BucketAa,
        Case::Abba,
        Case::Abbcca,
        Case::Timeout,
        Case::EnterExit,
        Case::ExitOwner,
        Case::Crud,
        Case::StressFree,
        Case::StressChange,
        Case::StressLookup,
        Case::Propagated,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Case::Recursion => "recursion",
            Case::NoDeadlock => "nodeadlock",
            Case::LockedAa => "locked_aa",
            Case::BucketAa => "bucket_aa",
            Case::Abba => "abba",
            Case::Abbcca => "abbcca",
            Case::Timeout => "timeout",
            Case::EnterExit => "enter_exit",
            Case::ExitOwner => "exit_owner",
            Case::Crud => "crud",
            Case::StressFree => "stress_free",
            Case::StressChange => "stress_change",
            Case::StressLookup => "stress_lookup",
            Case::Propagated => "propagated",
        }
    }

    /// In a few words.
    pub fn about(self) -> &'static str {
        match self {
            Case::Recursion => "A program whose own steps come by its hook point",
            Case::NoDeadlock => "32 workers on one processor, none of which recurs",
            Case::LockedAa => "A step that wants the storage's lock that its own call holds",
            Case::BucketAa => "A step that wants the bucket's lock that its own call holds",
            Case::Abba => "Two workers, each of which wants what the other one holds",
            Case::Abbcca => "Three workers, in a ring",
            Case::Timeout => "A holder that takes 600 ms, and one who waits for it",
            Case::EnterExit => "Programs before and after each call",
            Case::ExitOwner => "Creates on owners that are leaving",
            Case::Crud => "What create, update, get and delete answer",
            Case::StressFree => "Owners that leave while maps are freed",
            Case::StressChange => "One owner that everybody changes",
            Case::StressLookup => "256 readers on one processor",
            Case::Propagated => "The errors of steps as those of their callers",
        }
    }

    /// Flags that the server lacks for it; none: it can be run.
    fn missing(self, target: &Target) -> Option<String> {
        let info = target.info();
        let lab_steps = matches!(self, Case::Abba | Case::Abbcca | Case::Timeout | Case::Propagated);
        let workers = match self {
            Case::Abba | Case::Timeout => 2,
            Case::Abbcca | Case::Propagated => 3,
            _ => 1,
        };
        let mut missing = Vec::new();
        if !info.simulated_owners_allowed {
            missing.push("--allow-simulated-owners".to_owned());
        }
        if lab_steps && !info.lab_steps_allowed {
            missing.push("--allow-lab-steps".to_owned());
        }
        let there = info.workers.len();
        if there < workers {
            missing.push(format!("--workers-per-cpu {workers} (there are {there} workers in all)"));
        }
        let together = target.crowd().len();
        if self == Case::NoDeadlock && together < WORKERS {
            missing.push(format!("--workers-per-cpu {WORKERS} (there are {together} on one processor at most)"));
        }
        (!missing.is_empty()).then(|| format!("the server was started without {}", missing.join(" and ")))
    }

    async fn check(self, world: &World<'_>, options: Options) -> Checked {
        match self {
            Case::Recursion => recursion::recursion(world).await,
            Case::NoDeadlock => recursion::nodeadlock(world).await,
            Case::LockedAa => locks::locked_aa(world, OnError::Count).await,
            Case::BucketAa => locks::bucket_aa(world).await,
            Case::Abba => locks::ring(world, 2, OnError::Count).await,
            Case::Abbcca => locks::ring(world, 3, OnError::Count).await,
            Case::Timeout => locks::timeout(world, OnError::Count).await,
            Case::EnterExit => recursion::enter_exit(world).await,
            Case::ExitOwner => recursion::exit_owner(world).await,
            Case::Crud => plain::crud(world).await,
            Case::StressFree => stress::free(world, options.stress).await,
            Case::StressChange => stress::change(world, options.stress).await,
            Case::StressLookup => stress::lookup(world, options.reads).await,
            Case::Propagated => locks::propagated(world).await,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(name: &str) -> Result<Case, String> {
        Case::ALL.into_iter().find(|case| case.name() == name).ok_or_else(|| format!("{name:?} is no case"))
    }
}

/// How the cases are run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long each of `stress_free` and `stress_change` goes on.
    pub stress: Duration,
    /// How often each of the 256 readers of `stress_lookup` reads.
    pub reads: usize,
}

impl Default for Options {
    /// Three seconds; 200 times.
    fn default() -> Options {
        Options { stress: Duration::from_secs(3), reads: 200 }
    }
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub case: Case,
    /// Under which guard.
    pub guard: Guard,
    /// Whether it is as it must be.
    pub verdict: Verdict,
    /// What was seen.
    pub figures: Vec<Figure>,
    /// How long it took.
    pub took: Duration,
}

/// Whether a case is as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Passed,
    /// It is not, and this is what is wrong.
    Failed(String),
    /// It was not tried, for this reason.
    Skipped(String),
    /// Somebody wanted an end of it before.
    Interrupted,
}

impl Outcome {
    /// `ok`, `FAILED` or `skipped`.
    pub fn result(&self) -> &'static str {
        match self.verdict {
            Verdict::Passed => "ok",
            Verdict::Failed(_) => "FAILED",
            Verdict::Skipped(_) | Verdict::Interrupted => "skipped",
        }
    }

    /// What was seen and what is wrong, in a line.
    pub fn detail(&self) -> String {
        let figures: Vec<_> = self.figures.iter().map(ToString::to_string).collect();
        let why = self.why().map(str::to_owned);
        let parts: Vec<_> = why.into_iter().chain((!figures.is_empty()).then(|| figures.join(", "))).collect();
        parts.join("; ")
    }

    /// What is wrong, or why it was not tried.
    pub fn why(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Passed => None,
            Verdict::Failed(why) | Verdict::Skipped(why) => Some(why),
            Verdict::Interrupted => Some("interrupted"),
        }
    }

    /// Whether it failed.
    pub fn is_failure(&self) -> bool {
        matches!(self.verdict, Verdict::Failed(_))
    }
}

/// Runs these cases, one after the other, and takes away what they have made. When `stop` is done, the case that is being run and those
/// that follow are skipped; it is not looked at again. `report` is told what is about to be run.
///
/// Bounded in time. Exact only where nobody else uses the server: `recursion` has a program on all maps for a moment.
pub async fn run(
    target: &Target,
    cases: &[Case],
    options: Options,
    stop: &mut (impl Future<Output = ()> + Unpin),
    mut report: impl FnMut(Case),
) -> Vec<Outcome> {
    let (mut outcomes, mut stopped) = (Vec::new(), false);
    for &case in cases {
        report(case);
        let began = Instant::now();
        let guard = target.guard();
        let outcome = |verdict, figures| Outcome { case, guard, verdict, figures, took: began.elapsed() };
        let outcome = match case.missing(target) {
            _ if stopped => outcome(Verdict::Interrupted, Vec::new()),
            Some(missing) => outcome(Verdict::Skipped(missing), Vec::new()),
            None => {
                let world = World::new(target);
                let limit = LIMIT + options.stress;
                let checked = tokio::select! {
                    checked = timeout(limit, Box::pin(case.check(&world, options))) => Some(checked),
                    () = &mut *stop => None,
                };
                let cleaned = world.clean().await.err().map(|failed| failed.to_string());
                stopped = checked.is_none();
                let (verdict, figures) = match checked {
                    None => (Verdict::Interrupted, Vec::new()),
                    Some(Ok(Ok(figures))) => (Verdict::Passed, figures),
                    Some(Ok(Err(Problem { what, figures }))) => (Verdict::Failed(what), figures),
                    Some(Err(_)) => (Verdict::Failed(format!("not done within {limit:?}")), Vec::new()),
                };
                outcome(worse(verdict, cleaned), figures)
            }
        };
        outcomes.push(outcome);
    }
    outcomes
}

/// What is left behind is a failure, too.
fn worse(verdict: Verdict, left: Option<String>) -> Verdict {
    match (verdict, left) {
        (verdict, None) => verdict,
        (Verdict::Failed(problem), Some(left)) => Verdict::Failed(format!("{problem}; {left}")),
        (_, Some(left)) => Verdict::Failed(left),
    }
}
