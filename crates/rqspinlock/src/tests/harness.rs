//! What the tests need to be deterministic and to end.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Runs a case on a thread of its own; ends the process, with the case's name, if it hangs.
///
/// A thread that spins for ever cannot be ended in any other way.
pub(super) fn watchdog<R: Send + 'static>(case: &str, limit: Duration, body: impl FnOnce() -> R + Send + 'static) -> R {
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
        eprintln!("watchdog: the case `{case}` did not end within {limit:?}; it hangs");
        std::process::abort();
    }
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Waits, for ten seconds at most, until a value is as expected.
pub(super) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited in vain until {what}");
        thread::yield_now();
    }
}
