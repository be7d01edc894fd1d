//! Who is alive: an account of the elements and the storages that the threads of one test have made.
//!
//! ```text
//!   made ──► live ──── off both its lists, or replaced ────► waiting ──grace period──► freed
//!              └── dropped before anybody else saw it ────────────────────────────────►
//! ```
//!
//! Tests run side by side in one process, so each has an account of its own, which its threads [enter](Ledger::enter);
//! what the others make is in none. An element that is retired twice is noticed at that moment; one that is freed twice only by the
//! sums, or by a sanitizer: its token has gone with it.

use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

use super::*;

#[derive(Default)]
pub(crate) struct Ledger {
    live: AtomicI64,
    waiting: AtomicI64,
    storages: AtomicI64,
    twice: AtomicU64,
}

thread_local! {
    static CURRENT: Cell<Option<&'static Ledger>> = const { Cell::new(None) };
}

impl Ledger {
    /// A new one. It is never freed: who is in it may outlive the test.
    pub(super) fn open() -> &'static Ledger {
        Box::leak(Box::default())
    }

    /// What this thread makes from now on is in this account.
    pub(super) fn enter(&'static self) {
        CURRENT.set(Some(self));
    }

    /// Elements that are neither retired nor freed.
    pub(super) fn live(&self) -> i64 {
        self.live.load(Ordering::Relaxed)
    }

    /// How often an element was retired that had been already.
    pub(super) fn twice(&self) -> u64 {
        self.twice.load(Ordering::Relaxed)
    }

    /// Waits for the grace periods, half a minute at most: then nothing may be left.
    pub(super) fn assert_nothing_is_left(&self) {
        let left = || [self.live(), self.waiting.load(Ordering::Relaxed), self.storages.load(Ordering::Relaxed)];
        let limit = Instant::now() + Duration::from_secs(30);
        while left() != [0; 3] {
            assert!(Instant::now() < limit, "[live, waiting elements, storages] are left: {:?}", left());
            collect();
            std::thread::yield_now();
        }
        assert_eq!(self.twice(), 0, "elements were retired twice");
    }
}

const LIVE: u8 = 1;
const WAITING: u8 = 2;

/// An element's entry. Relaxed throughout: counts. For what other tests' threads free, a test waits.
pub(crate) struct Token {
    ledger: Option<&'static Ledger>,
    stage: AtomicU8,
}

impl Default for Token {
    fn default() -> Token {
        let ledger = CURRENT.get();
        if let Some(ledger) = ledger {
            ledger.live.fetch_add(1, Ordering::Relaxed);
        }
        Token { ledger, stage: AtomicU8::new(LIVE) }
    }
}

impl Token {
    /// It waits for its grace period.
    pub(crate) fn retire(&self) {
        let before = self.stage.swap(WAITING, Ordering::Relaxed);
        let Some(ledger) = self.ledger else { return };
        if before == LIVE {
            ledger.live.fetch_sub(1, Ordering::Relaxed);
            ledger.waiting.fetch_add(1, Ordering::Relaxed);
        } else {
            ledger.twice.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Its memory goes.
    pub(crate) fn free(&self) {
        let Some(ledger) = self.ledger else { return };
        let stage = if self.stage.load(Ordering::Relaxed) == LIVE { &ledger.live } else { &ledger.waiting };
        stage.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A storage's entry.
pub(crate) struct Counted(Option<&'static Ledger>);

impl Default for Counted {
    fn default() -> Counted {
        let ledger = CURRENT.get();
        if let Some(ledger) = ledger {
            ledger.storages.fetch_add(1, Ordering::Relaxed);
        }
        Counted(ledger)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(ledger) = self.0 {
            ledger.storages.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
