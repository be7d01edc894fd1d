//! The lock word: 32 bits that say everything about one lock.
//!
//! ```text
//!  31                18 17 16 15      10   9        8       7          0
//! +--------------------+-----+----------+--------+---------+------------+
//! |      cpu + 1       | idx |   free   | parked | pending |   locked   |
//! +--------------------+-----+----------+--------+---------+------------+
//!  `------- tail -----------'
//! ```
//!
//! - *locked*: 0 or 1.
//! - *pending*: the head of the queue has claimed the next release; nobody steals any more.
//! - *parked*: the head of the queue sleeps on this word. It sets it, of a lock that is held; every
//!   transition carries it along but those by which the head leaves; who releases the lock and finds it
//!   clears it and wakes the sleeper.
//! - *tail*: the last node of the queue, by the Cpu that owns it (plus one) and its nesting index.
//!   Zero means that there is no queue.
//!
//! The states are written (tail, pending, locked). Rust has no atomics of mixed size, so every
//! transition is a read-modify-write of the whole word. That has a benefit: the word's
//! modifications form one release sequence, and an Acquire on it sees everything that any earlier
//! Release on it published, however many thieves have been in between.

use std::fmt;
use std::num::NonZeroU32;

use crate::cpu::CpuId;
use std::time::Duration;

use crate::sync::{Futex, NAPS, Ordering};

const LOCKED: u32 = 1;
const LOCKED_MASK: u32 = 0xff;
const PENDING: u32 = 1 << 8;
const PARKED: u32 = 1 << 9;
const NESTING_SHIFT: u32 = 16;
const NESTING_MASK: u32 = 0b11;
const CPU_SHIFT: u32 = 18;
const TAIL_MASK: u32 = !0 << NESTING_SHIFT;

/// The name of a queue node, as it stands in the tail field of a word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail(NonZeroU32);

impl Tail {
    pub(crate) fn new(cpu: CpuId, nesting: usize) -> Tail {
        debug_assert!(nesting <= NESTING_MASK as usize);
        let cpu = cpu.index() as u32 + 1;
        let bits = cpu << CPU_SHIFT | (nesting as u32) << NESTING_SHIFT;
        Tail(NonZeroU32::new(bits).expect("the Cpu's part of it is not 0"))
    }

    /// The name in these bits, if there is one; of a whole word, only its tail field is looked at.
    pub(crate) fn from_bits(bits: u32) -> Option<Tail> {
        NonZeroU32::new(bits & TAIL_MASK).map(Tail)
    }

    pub(crate) fn bits(self) -> u32 {
        self.0.get()
    }

    /// The Cpu whose node it is.
    pub(crate) fn cpu(self) -> CpuId {
        CpuId::from_index((self.bits() >> CPU_SHIFT) as usize - 1)
    }

    /// Which of its nodes it is.
    pub(crate) fn nesting(self) -> usize {
        (self.bits() >> NESTING_SHIFT & NESTING_MASK) as usize
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.cpu(), self.nesting())
    }
}

/// One value of the word, and the transitions out of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(u32);

impl Word {
    /// (0, 0, 0): nobody holds it, nobody waits.
    pub(crate) const UNLOCKED: Word = Word(0);
    /// (0, 0, 1): held, nobody waits.
    pub(crate) const HELD: Word = Word(LOCKED);

    pub(crate) fn is_locked(self) -> bool {
        self.0 & LOCKED_MASK != 0
    }

    pub(crate) fn is_pending(self) -> bool {
        self.0 & PENDING != 0
    }

    pub(crate) fn is_parked(self) -> bool {
        self.0 & PARKED != 0
    }

    pub(crate) fn tail(self) -> Option<Tail> {
        Tail::from_bits(self.0)
    }

    /// A thief takes a lock that is free and not claimed: (t, 0, 0) -> (t, 0, 1)
    pub(crate) fn stolen(self) -> Option<Word> {
        (!self.is_locked() && !self.is_pending()).then_some(Word(self.0 | LOCKED))
    }

    /// (t, *, l) -> (t, 1, l)
    pub(crate) fn pending(self) -> Word {
        Word(self.0 | PENDING)
    }

    /// The head sleeps on a lock that is held: (t, p, 1) -> (t, p, 1), parked
    pub(crate) fn parked(self) -> Option<Word> {
        self.is_locked().then_some(Word(self.0 | PARKED))
    }

    /// (*, p, l) -> (tail, p, l)
    pub(crate) fn queued(self, tail: Option<Tail>) -> Word {
        Word(self.0 & !TAIL_MASK | tail.map_or(0, Tail::bits))
    }

    /// What only the head sets goes with it: the next one sets its own.
    fn without_head(self) -> Word {
        Word(self.0 & !(PENDING | PARKED))
    }

    /// The head `me` leaves the queue: (me, *, l) -> (0, 0, l), (other, *, l) -> (other, 0, l)
    pub(crate) fn left_by(self, me: Tail) -> Word {
        let word = self.without_head();
        if word.tail() == Some(me) { word.queued(None) } else { word }
    }

    /// The head `me` takes a lock that is free and leaves the queue, in one:
    /// (me, *, 0) -> (0, 0, 1), (other, *, 0) -> (other, 0, 1)
    pub(crate) fn claimed_by(self, me: Tail) -> Option<Word> {
        (!self.is_locked()).then_some(Word(self.left_by(me).0 | LOCKED))
    }

    /// The queue of a lock that is held is cut off: (*, *, 1) -> (0, 0, 1)
    pub(crate) fn flushed(self) -> Option<Word> {
        self.is_locked().then_some(self.without_head().queued(None))
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Word")
            .field("tail", &self.tail())
            .field("pending", &self.is_pending())
            .field("parked", &self.is_parked())
            .field("locked", &self.is_locked())
            .finish()
    }
}

/// The word in memory. All-zero bytes are an unlocked lock.
#[cfg_attr(not(loom), repr(transparent))]
pub(crate) struct AtomicWord(Futex);

impl AtomicWord {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        AtomicWord(Futex::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        AtomicWord(Futex::new(0))
    }

    /// A look at the word, to decide what to try; whatever is decided is checked by [`Self::change`].
    #[inline]
    pub(crate) fn peek(&self) -> Word {
        // Relaxed: no data is read on the strength of this; the change that follows synchronises.
        Word(self.0.load(Ordering::Relaxed))
    }

    /// The fast path: (0, 0, 0) -> (0, 0, 1).
    #[inline]
    pub(crate) fn lock_fast(&self) -> bool {
        // The look first: past a queue, an exchange that must fail is half of what a theft costs. (In a model it only
        // multiplies the schedules: it decides nothing that the exchange does not.)
        (cfg!(loom) || self.peek() == Word::UNLOCKED)
            && self
                .0
                .compare_exchange(
                    Word::UNLOCKED.0,
                    Word::HELD.0,
                    // L1, Acquire: pairs with R1 in `release`; the holder sees the last one's writes.
                    Ordering::Acquire,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// The release: (t, p, 1) -> (t, p, 0); then, if the head sleeps, *parked* goes, and the head is woken.
    #[inline]
    pub(crate) fn release(&self) {
        // R1, Release: pairs with the Acquire of whoever locks next (L1, L2 and L3); it also keeps
        // what was done to the table of held locks (held.rs) before it. A read-modify-write, because a plain
        // store would wipe out the tail and break the release sequence of those queued. A subtraction
        // of which only "is anything left?" is asked, because that comes for nothing on x86; the old word costs nanoseconds.
        if self.0.fetch_sub(LOCKED, Ordering::Release) != LOCKED && self.peek().is_parked() {
            self.wake_parked();
        }
    }

    /// P1, the other half. If the head had said "parked" before the release, the word says so still, or somebody has cleared it:
    /// the head itself, which is awake, or another release, which wakes it. And the head may have said it anew since the
    /// release, of a thief's lock: clearing that is no harm, since the wake comes after it. Either it finds the head asleep, or
    /// the head's word is not the one it wanted to sleep on any more. (The word is touched after the release: a lock must outlive its unlock, as `&self` says.)
    #[cold]
    #[inline(never)]
    fn wake_parked(&self) {
        // Relaxed: it publishes nothing; the kernel orders it before the wake.
        self.0.fetch_and(!PARKED, Ordering::Relaxed);
        self.wake();
    }

    /// Wakes who sleeps on the word.
    pub(crate) fn wake(&self) {
        self.0.wake();
    }

    /// P1: sleeps until the release, at most for `timeout`. Not at all where the lock is free.
    pub(crate) fn park(&self, timeout: Duration) {
        // Relaxed: it only asks the holder for a wake. Either the release comes after it in the word's order and
        // finds the bit, or it comes before it and there is nothing to sleep for; and the kernel compares the word again.
        if let Ok(before) = self.change(Ordering::Relaxed, Word::parked) {
            let _ = self.0.sleep(before.0 | PARKED, timeout);
        }
    }

    /// Sleeps while others take and release the lock, at most for `timeout`, until a thief wakes it at the end of its turn. Not
    /// at all where the lock is free.
    pub(crate) fn nap(&self, timeout: Duration) {
        // The kernel lets nobody sleep on a word that has changed since the look, and this one does all the time.
        for _ in 0..NAPS {
            let word = self.peek();
            if !word.is_locked() || self.0.sleep(word.0, timeout) {
                return;
            }
        }
    }

    /// Applies `transition` until it holds; gives back the word it was applied to, or, if
    /// `transition` refused one, that one.
    ///
    /// A thief, an unlock or the parked bit makes it try again and nothing else does: the other
    /// fields change only through the caller or through newcomers, who come once each.
    #[inline]
    pub(crate) fn change(&self, order: Ordering, transition: impl Fn(Word) -> Option<Word>) -> Result<Word, Word> {
        let mut seen = self.peek();
        while let Some(next) = transition(seen) {
            match self.0.compare_exchange_weak(seen.0, next.0, order, Ordering::Relaxed) {
                Ok(_) => return Ok(seen),
                Err(now) => seen = Word(now),
            }
        }
        Err(seen)
    }

    /// A [`change`](Self::change) that no word refuses.
    #[inline]
    pub(crate) fn update(&self, order: Ordering, transition: impl Fn(Word) -> Word) -> Word {
        match self.change(order, |word| Some(transition(word))) {
            Ok(before) | Err(before) => before,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
