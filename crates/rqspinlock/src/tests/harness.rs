//! What the tests need to be deterministic and to end.

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Clock, Cpu, CpuId, EventsHandle, ManualClock, RqSpinLock};

/// Far more than any case needs on a busy machine, and far less than for ever.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a case on a thread of its own; ends the process, with the case's name, if it hangs.
///
/// A thread that spins for ever cannot be ended in any other way.
pub(crate) fn watchdog<R: Send + 'static>(case: &str, body: impl FnOnce() -> R + Send + 'static) -> R {
    watchdog_beside(Duration::ZERO, case, body)
}

/// The same for a case that is told how long to run: so much longer than any other it may take.
pub(super) fn watchdog_beside<R: Send + 'static>(
    time: Duration,
    case: &str,
    body: impl FnOnce() -> R + Send + 'static,
) -> R {
    let limit = LIMIT + time;
    let (done, result) = mpsc::channel();
    let thread = thread::Builder::new()
        .name(case.to_owned())
        .spawn(move || {
            let value = body();
            done.send(()).expect("the watchdog listens until it is told");
            value
        })
        .expect("a thread can be started");
    if result.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
        // Past the harness, which would keep what is printed until the end that does not come.
        let _ = writeln!(io::stderr(), "watchdog: the case `{case}` did not end within {limit:?}; it hangs");
        std::process::abort();
    }
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Says aloud what was measured: not with `println!`, which the harness keeps to itself where a test passes.
pub(super) fn measured(what: impl Display) {
    let _ = io::stderr().write_all(format!("MEASURED {what}\n").as_bytes());
}

/// The middle one of some measurements.
pub(super) fn median<T: Copy + PartialOrd>(values: &mut [T]) -> T {
    values.sort_unstable_by(|a, b| a.partial_cmp(b).expect("no measurement is without an order"));
    values[values.len() / 2]
}

/// Waits, for thirty seconds at most, until a value is as expected.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
        thread::yield_now();
    }
}

/// The test's time, and how often one Cpu has looked at it.
struct WatchedClock {
    time: Arc<ManualClock>,
    looks: Arc<AtomicU64>,
}

impl Clock for WatchedClock {
    fn now(&self) -> Instant {
        let now = self.time.now();
        // Release, and Acquire in `looks`: who sees the look knows that it saw the time before.
        self.looks.fetch_add(1, Ordering::Release);
        now
    }
}

/// A thread with a Cpu that goes by the test's time.
pub(super) struct Party<R> {
    pub(super) id: CpuId,
    pub(super) events: EventsHandle,
    looks: Arc<AtomicU64>,
    thread: thread::JoinHandle<R>,
}

impl<R: Send + 'static> Party<R> {
    /// Starts a thread that runs `body` with a Cpu of its own, and checks that nothing is left of
    /// its locks and nodes when `body` has ended.
    pub(super) fn start(time: &Arc<ManualClock>, body: impl FnOnce(&Cpu) -> R + Send + 'static) -> Self {
        let looks = Arc::new(AtomicU64::new(0));
        let clock = WatchedClock { time: Arc::clone(time), looks: Arc::clone(&looks) };
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let cpu = Cpu::builder().clock(clock).register().unwrap();
            tell.send((cpu.id(), cpu.events())).unwrap();
            let result = body(&cpu);
            assert!(cpu.is_idle(), "{cpu:?} still holds a lock or a node");
            result
        });
        let (id, events) = told.recv().expect("the thread registers");
        Party { id, events, looks, thread }
    }

    /// How often it has looked at the clock: zero until it is head.
    pub(super) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Acquire)
    }

    /// Waits until it is the last in the queue for `lock`, so that who starts next is behind it.
    pub(super) fn wait_queued<T>(&self, lock: &RqSpinLock<T>) {
        let tail = || lock.raw().word.peek().tail();
        wait_until("it has joined the queue", || tail().is_some_and(|tail| tail.cpu() == self.id));
    }

    /// Waits until it is head and has looked at the clock since it was asked.
    pub(super) fn wait_look(&self) {
        let before = self.looks();
        wait_until("the head looks at the clock", || self.looks() > before);
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.thread.is_finished()
    }

    pub(super) fn join(self) -> R {
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
