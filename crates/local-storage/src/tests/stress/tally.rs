//! What the threads of a stress test do, counted; and whether the machine let them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use fastrand::Rng;
use history::measured;
use rqspinlock::{DEFAULT_TIMEOUT, LockError};

use super::*;
use crate::tests::busy::is_abba;

/// Somebody who waits for nothing was not run for so long: then nobody can tell who else was not.
const GAP: Duration = Duration::from_millis(50);

/// From when to when.
type Span = (Instant, Instant);

/// How often something was done, and how long it took at most.
#[derive(Clone, Copy, Default)]
struct Done {
    count: u64,
    longest: Duration,
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Done) {
        *self = Done { count: self.count + other.count, longest: self.longest.max(other.longest) };
    }
}

impl fmt::Debug for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {:.1?} at most", self.count, self.longest)
    }
}

/// What happened, and how often.
#[derive(Default)]
pub(super) struct Tally {
    done: BTreeMap<&'static str, Done>,
    /// By their kind.
    errors: BTreeMap<&'static str, u64>,
    /// Unlinkings that a refused lock has put on a retry list, at least: what a call puts there and works off itself is not seen.
    put_off: u64,
    /// Calls that a lock has ended with `TimedOut`.
    timed_out: Vec<Span>,
    /// This thread was not run.
    gaps: Vec<Span>,
}

impl Tally {
    /// Does something, and counts and times it.
    pub(super) fn does<T>(&mut self, cx: &Context, what: &'static str, call: impl FnOnce() -> T) -> T {
        // Relaxed: only this thread changes it.
        let put_off = || cx.retry_length().load(Ordering::Relaxed);
        let (start, before) = (Instant::now(), put_off());
        let answer = call();
        let done = Done { count: 1, longest: start.elapsed() };
        *self.done.entry(what).or_default() += done;
        self.put_off += put_off().saturating_sub(before);
        answer
    }

    /// A lookup or a listing. It waits for nothing, so if it takes long, the thread was not run.
    pub(super) fn reads<T>(&mut self, cx: &Context, what: &'static str, call: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let answer = self.does(cx, what, call);
        self.gaps.extend(gap(start, Instant::now()));
        answer
    }

    /// An update, or another call that may fail like one, with the errors that the others' doings may cause. Anything else is a bug.
    pub(super) fn updates<T>(
        &mut self,
        cx: &Context,
        what: &'static str,
        call: impl FnOnce() -> Result<T, UpdateError>,
    ) -> Option<T> {
        let start = Instant::now();
        let error = match self.does(cx, what, call) {
            Ok(answer) => return Some(answer),
            Err(error) => error,
        };
        let kind = match error {
            UpdateError::NotFound => "not found",
            UpdateError::Exists { .. } => "exists",
            UpdateError::VersionMismatch { .. } => "version mismatch",
            UpdateError::OwnerGone => "owner gone",
            UpdateError::MapFreeing => "map freeing",
            UpdateError::Lock(Refusal { error: LockError::DeadlinePassed, .. }) | UpdateError::Unsettled { .. }
                if !cx.waits =>
            {
                "would wait"
            }
            // Where dozens create and delete the same one, an update finds the owner's storage gone each time that it has its lock.
            UpdateError::Unsettled { deadline: false } => "unsettled",
            UpdateError::Lock(Refusal { error: LockError::TimedOut, .. }) => {
                self.timed_out.push((start, Instant::now()));
                return None;
            }
            UpdateError::Lock(refusal) if is_abba(refusal.error) => "ABBA",
            other => panic!("{what}: {other}"),
        };
        *self.errors.entry(kind).or_default() += 1;
        None
    }

    /// A delete.
    pub(super) fn deletes(
        &mut self,
        cx: &Context,
        call: impl FnOnce() -> Result<Version, DeleteError>,
    ) -> Option<Version> {
        self.updates(cx, "deletes", || {
            call().map_err(|error| match error {
                DeleteError::OwnerGone => UpdateError::OwnerGone,
                DeleteError::NotFound => UpdateError::NotFound,
                DeleteError::VersionMismatch { current } => UpdateError::VersionMismatch { current },
                DeleteError::MapFreeing => UpdateError::MapFreeing,
                DeleteError::Lock(refusal) => UpdateError::Lock(refusal),
                DeleteError::Busy => UpdateError::Busy,
                DeleteError::Stopped => UpdateError::Stopped,
            })
        })
    }

    pub(super) fn done(&self, what: &str) -> u64 {
        self.done.get(what).map_or(0, |done| done.count)
    }

    pub(super) fn errors(&self, kind: &str) -> u64 {
        self.errors.get(kind).copied().unwrap_or_default()
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        other.done.into_iter().for_each(|(what, done)| *self.done.entry(what).or_default() += done);
        other.errors.into_iter().for_each(|(kind, count)| *self.errors.entry(kind).or_default() += count);
        self.put_off += other.put_off;
        self.timed_out.extend(other.timed_out);
        self.gaps.extend(other.gaps);
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { done, errors, put_off, timed_out, gaps } = self;
        let calls: u64 = done.values().map(|done| done.count).sum();
        write!(f, "{calls} calls {done:?}; refused {errors:?}; {} timed out; {put_off} put off; ", timed_out.len())?;
        let longest = gaps.iter().map(|(from, to)| *to - *from).max().unwrap_or_default();
        write!(f, "{} times a thread was not run for {GAP:?}, {longest:.1?} at most", gaps.len())
    }
}

/// One run of a stress test: how many threads, for how long, and what they choose.
pub(super) struct Run {
    name: &'static str,
    threads: usize,
    pub(super) end: Instant,
    seed: u64,
    began: Instant,
    waiting: u64,
    pub(super) total: Tally,
    _alone: MutexGuard<'static, ()>,
}

impl Run {
    /// For as long as the environment says, or a second; with its seed, or any.
    pub(super) fn new(name: &'static str, threads: usize) -> Run {
        static ALONE: Mutex<()> = Mutex::new(());
        // One at a time: the other's 64 threads would be a stall to this one.
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let time = Duration::from_secs(asked("HOLDFAST_STRESS_SECONDS").unwrap_or(1));
        let seed = asked("HOLDFAST_STRESS_SEED").unwrap_or_else(|| fastrand::u64(..));
        let began = Instant::now();
        Run { name, threads, end: began + time, seed, began, waiting: waiting(), total: Tally::default(), _alone }
    }

    /// Whether it is to be the long one.
    pub(super) fn is_long() -> bool {
        asked("HOLDFAST_STRESS_SECONDS").is_some()
    }

    pub(super) fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    /// Runs `round` on all threads at once, each with a context that it makes itself, and adds up what they have done.
    pub(super) fn on_threads_in(
        &mut self,
        round: u64,
        context: impl Fn(usize) -> Context + Sync,
        body: impl Fn(&Context, usize, &mut Rng, &mut Tally) + Sync,
    ) {
        let total = Mutex::new(std::mem::take(&mut self.total));
        let seed = self.seed;
        super::on_threads_in(self.threads, context, |cx, index| {
            // Mixed first: the threads of the next round are not those of this one, moved by one.
            let mut rng = Rng::with_seed(Rng::with_seed(seed ^ round << 32).u64(..) ^ index as u64);
            let mut tally = Tally::default();
            body(cx, index, &mut rng, &mut tally);
            *total.lock().unwrap() += tally;
        });
        self.total = total.into_inner().unwrap();
    }

    /// Runs it under a watcher's eyes, says what it came to, and checks what holds of every run.
    pub(super) fn watched(mut self, rounds: impl FnOnce(&mut Run)) {
        let stop = AtomicBool::new(false);
        let longest = thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(&stop));
            // The watcher is stopped also where they panic.
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rounds(&mut self)));
            stop.store(true, Ordering::Relaxed);
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let (gaps, longest) = watcher.join().expect("it only looks at the clock");
            self.total.gaps.extend(gaps);
            longest
        });
        let Run { name, threads, seed, began, total, waiting: before, .. } = self;
        measured(format_args!(
            "{name}: {threads} threads, seed {seed}, {:.1?}: {total}; the watcher for {longest:.1?} at most",
            began.elapsed(),
        ));
        for (from, to) in total.timed_out {
            // Who was flushed may have come late: the time that was up is its head's.
            let from = from.min(to - DEFAULT_TIMEOUT);
            let excused = total.gaps.iter().any(|gap| gap.0 < to && from < gap.1);
            assert!(excused, "TimedOut after {:?}, and the machine was not to blame", to - from);
        }
        until("everything is freed", || waiting() <= before);
    }
}

/// The time between, if it is long.
fn gap(from: Instant, to: Instant) -> Option<Span> {
    (to - from > GAP).then_some((from, to))
}

/// Looks every few milliseconds whether it is run; gives back when it was not, and for how long at most.
fn watch(stop: &AtomicBool) -> (Vec<Span>, Duration) {
    let (mut gaps, mut longest) = (Vec::new(), Duration::ZERO);
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        thread::park_timeout(Duration::from_millis(5));
        let now = Instant::now();
        longest = longest.max(now - last);
        gaps.extend(gap(last, now));
        last = now;
    }
    (gaps, longest)
}

/// Helps reclamation on until `done` says so.
pub(super) fn until(what: &str, done: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < limit, "still not: {what}; {} wait", waiting());
        collect();
        thread::yield_now();
    }
}
