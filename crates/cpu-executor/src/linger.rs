//! Staying awake a little before going to sleep, where that has paid.
//!
//! To sleep and be woken takes both sides a system call, and the processor that slept some microseconds to come back (tens
//! of them on a virtual machine). Where the next job mostly comes within that time, it is better waited for. Where it does
//! not, nobody stays awake: a thread that waits in vain takes time from one that works.
//!
//! ```text
//!             it came in time, or the sleep was short
//!           ┌──────────────────────────────────────────┐
//!           ▼                                          │
//!      hopeful: TRIES left ──── in vain, TRIES times ──┴─► sleeps at once
//! ```

use std::thread;
use std::time::{Duration, Instant};

/// How often in a row it may be in vain.
const TRIES: u32 = 3;

/// Whether, and how long, one thread stays awake for one thing.
#[derive(Debug)]
pub struct Linger {
    limit: Duration,
    tries: u32,
}

impl Linger {
    /// For `limit` at most, each time.
    pub const fn new(limit: Duration) -> Linger {
        Linger { limit, tries: TRIES }
    }

    /// Waits until it `is_there`, letting others run meanwhile. False: it is not, so sleep.
    pub fn wait(&mut self, mut is_there: impl FnMut() -> bool) -> bool {
        if self.tries == 0 {
            return false;
        }
        let until = Instant::now() + self.limit;
        loop {
            thread::yield_now();
            if is_there() {
                self.tries = TRIES;
                return true;
            }
            if Instant::now() >= until {
                self.tries -= 1;
                return false;
            }
        }
    }

    /// It has slept for so long.
    pub fn slept(&mut self, time: Duration) {
        if time < self.limit {
            self.tries = TRIES;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn what_comes_is_waited_for() {
        let mut linger = Linger::new(LONG);
        let mut looks = 0;
        assert!(linger.wait(|| {
            looks += 1;
            looks == 10
        }));
    }

    #[test]
    fn what_does_not_come_is_waited_for_three_times() {
        let mut linger = Linger::new(Duration::ZERO);
        let mut looks = 0;
        for _ in 0..10 {
            assert!(!linger.wait(|| {
                looks += 1;
                false
            }));
        }
        assert_eq!(looks, 3);
    }

    #[test]
    fn a_short_sleep_gives_hope_and_a_long_one_does_not() {
        let mut linger = Linger::new(Duration::from_micros(1));
        while linger.tries > 0 {
            linger.wait(|| false);
        }
        linger.slept(Duration::from_micros(1));
        assert!(!linger.wait(|| true), "it slept for longer than it would have waited");
        linger.slept(Duration::ZERO);
        assert!(linger.wait(|| true));
    }
}
