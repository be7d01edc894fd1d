//! Acquiring a lock that is not free.
//!
//! ```text
//!            lock(): push the table entry, CAS (0,0,0) -> (0,0,1) --- acquired (fast)
//!                              | taken
//!   AA? Deadlock(Aa) <---- [ STEAL ]  100 spins: (*,0,0) -> (*,0,1) -- acquired (stolen)
//!                              |
//! ABBA? Deadlock(Abba) <-- [ ENTER ]  no node left: one try, Deadlock(Nesting)
//!                              |      tail := me
//!              nobody before   |   somebody before: link behind it
//!               .--------------+--------------.
//!               |                             v
//!               |                        [ QUEUED ] -- told "flushed" --> TimedOut
//!               v                             |
//!           [ HEAD ] <------ told "head" -----'
//!            |  | |  each round: 100 spins on the word, a yield, the checks;
//!            |  | |  after three rounds: set pending (the next release is ours)
//!            |  | |
//!            |  | `- locked = 0: CLAIM: lock, clear pending, clear the tail if it is ours;
//!            |  |    otherwise tell the successor "head" ------------ acquired (claimed)
//!            |  `--- ABBA or the caller's deadline: LEAVE: clear pending and our own tail in one
//!            |       CAS; otherwise tell the successor "head" ------- Deadlock, DeadlinePassed
//!            `------ timeout: FLUSH: (*,*,1) -> (0,0,1), then tell everyone from our node to
//!                    the old tail "flushed" ------------------------- TimedOut
//! ```
//!
//! Who may do what: only the head sets and clears *pending*, only the head looks at the clock, and
//! only a head that leaves tells another node anything. A queued waiter does nothing but wait for
//! its own node.
//!
//! The difference to Linux is the head: there a second contender waits on a pending bit without a
//! node, and a queue cannot be overtaken. Here everyone may steal a free lock until the head has
//! waited for some rounds, because a strict queue of preemptible threads hands the lock to threads
//! that are not running; pending then bounds the overtaking.
//!
//! # Orderings
//! Q1: every transition of the word that enters or leaves the queue is AcqRel, and everyone else's
//! is a read-modify-write that keeps the release sequence. So whoever finds a tail in the word sees
//! the reset of the node it names, and whoever finds none sees all that the last head did.
//! L1 to L3 against R1 are the lock proper: see word.rs.

use std::time::{Duration, Instant};

use crate::cpu::{Cpu, Seat};
use crate::deadlock;
use crate::error::{Cycle, LockError};
use crate::lock::RawRqSpinLock;
use crate::registry::{Node, Turn, registry};
use crate::sync::{Backoff, Ordering, ROUNDS_BEFORE_CLAIM, SPINS, end_round, spin_loop};
use crate::word::{Tail, Word};

/// Between two checks for an ABBA deadlock by the head of a queue.
const ABBA_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// Acquires `lock`, which the fast path has just found taken; `cpu` has pushed it.
#[cold]
#[inline(never)]
pub(crate) fn lock(lock: &RawRqSpinLock, cpu: &Cpu, deadline: Option<Instant>) -> Result<(), LockError> {
    let waiter = Waiter { lock, cpu, deadline };
    waiter.acquire().inspect_err(|error| {
        cpu.held().withdraw();
        match error {
            LockError::Deadlock(Cycle::Aa) => cpu.counters().aa.bump(),
            LockError::Deadlock(Cycle::Abba { .. }) => cpu.counters().abba.bump(),
            // Counted where they are told apart: the one fallback, the flusher and the flushed.
            LockError::Deadlock(Cycle::Nesting) | LockError::TimedOut | LockError::DeadlinePassed => {}
        }
    })
}

/// Takes the lock past a queue if it is free and the queue's head has not claimed it.
#[cold]
#[inline(never)]
pub(crate) fn try_steal(lock: &RawRqSpinLock, cpu: &Cpu) -> bool {
    let stolen = lock
        .word
        // L2, Acquire: pairs with R1 as L1 does.
        .change(Ordering::Acquire, |word| word.may_be_stolen().then(|| word.locked()))
        .is_ok();
    if stolen {
        cpu.counters().stolen.bump();
    }
    stolen
}

/// One acquisition that did not succeed at once.
struct Waiter<'a> {
    lock: &'a RawRqSpinLock,
    cpu: &'a Cpu,
    deadline: Option<Instant>,
}

impl Waiter<'_> {
    /// STEAL and ENTER.
    fn acquire(&self) -> Result<(), LockError> {
        if let Some(cycle) = deadlock::aa(self.lock, self.cpu) {
            return Err(LockError::Deadlock(cycle));
        }
        for _ in 0..SPINS {
            if try_steal(self.lock, self.cpu) {
                return Ok(());
            }
            spin_loop();
        }
        // Behind somebody else nobody would check, so once before.
        if let Some(cycle) = deadlock::abba(self.lock, self.cpu) {
            return Err(LockError::Deadlock(cycle));
        }
        if self.deadline.is_some_and(|at| self.cpu.now() >= at) {
            return Err(LockError::DeadlinePassed);
        }
        let Some(seat) = self.cpu.seat() else {
            self.cpu.counters().trylock_fallback.bump();
            return if try_steal(self.lock, self.cpu) { Ok(()) } else { Err(LockError::Deadlock(Cycle::Nesting)) };
        };
        seat.node.reset();
        if try_steal(self.lock, self.cpu) {
            return Ok(());
        }
        match self.enter(&seat) {
            Turn::Head => self.head(&seat),
            Turn::Flushed => {
                self.cpu.counters().flushed.bump();
                Err(LockError::TimedOut)
            }
        }
    }

    /// ENTER and QUEUED: joins the queue and waits to become its head.
    fn enter(&self, seat: &Seat<'_>) -> Turn {
        self.cpu.counters().queued.bump();
        // Q1: publishes the reset of our node to who comes behind us, and shows us the node of who
        // is before us, or what the last head did.
        let before = self.update(Ordering::AcqRel, |word| word.queued(seat.tail));
        let Some(predecessor) = registry().node(before.tail()) else {
            return Turn::Head;
        };
        predecessor.link(seat.tail);
        self.wait_for_turn(seat.node)
    }

    /// QUEUED: no clock and no checks here, the head does them for all.
    fn wait_for_turn(&self, node: &Node) -> Turn {
        let mut backoff = Backoff::new();
        let mut gave_way = false;
        loop {
            if let Some(turn) = node.turn() {
                return turn;
            }
            if backoff.wait() && !gave_way {
                gave_way = true;
                self.cpu.counters().parked.bump();
            }
        }
    }

    /// HEAD: one way or another, this returns within the timeout.
    fn head(&self, seat: &Seat<'_>) -> Result<(), LockError> {
        // The time of becoming head, first asked for when a round of spinning was not enough.
        let mut since = None;
        let mut checked = None;
        let mut rounds = 0;
        loop {
            if self.claim(seat) {
                self.cpu.counters().claimed.bump();
                return Ok(());
            }
            let now = self.cpu.now();
            let since = *since.get_or_insert(now);
            if now.saturating_duration_since(*checked.get_or_insert(now)) >= ABBA_CHECK_INTERVAL {
                checked = Some(now);
                if let Some(cycle) = deadlock::abba(self.lock, self.cpu) {
                    self.leave(seat);
                    return Err(LockError::Deadlock(cycle));
                }
            }
            // The timeout goes before the caller's deadline: it speaks for the whole queue.
            if now.saturating_duration_since(since) >= self.cpu.timeout() {
                if self.flush(seat) {
                    self.cpu.counters().timeouts.bump();
                    return Err(LockError::TimedOut);
                }
                continue;
            }
            if self.deadline.is_some_and(|at| now >= at) {
                self.leave(seat);
                return Err(LockError::DeadlinePassed);
            }
            rounds += 1;
            if rounds == ROUNDS_BEFORE_CLAIM {
                // Relaxed: it publishes nothing, and only we clear it again.
                self.update(Ordering::Relaxed, Word::pending);
            }
            self.rest(rounds);
        }
    }

    /// One round of the head's spinning on the word; true if it has the lock.
    fn claim(&self, seat: &Seat<'_>) -> bool {
        self.lock.head.touch();
        for _ in 0..SPINS {
            // L3, Acquire: pairs with R1 as L1 does. And Q1: we leave the queue, and the tail may be
            // another's by now.
            let claimed =
                self.lock.word.change(Ordering::AcqRel, |word| (!word.is_locked()).then(|| word.claimed_by(seat.tail)));
            if let Ok(before) = claimed {
                self.hand_on(seat, before.tail());
                return true;
            }
            spin_loop();
        }
        false
    }

    /// The end of a round of the head: the processor goes to somebody else.
    fn rest(&self, rounds: u32) {
        if rounds == 1 {
            self.cpu.counters().parked.bump();
        }
        end_round(rounds);
    }

    /// LEAVE: only we give up; whoever is behind us becomes head.
    fn leave(&self, seat: &Seat<'_>) {
        self.lock.head.touch();
        // Q1. One step: between clearing pending and clearing the tail a newcomer could become head
        // and set a pending of its own, which is not ours to clear. And the word that the change
        // was applied to, not the fact of a retry, tells whether somebody is behind us.
        let before = self.update(Ordering::AcqRel, |word| word.left_by(seat.tail));
        self.hand_on(seat, before.tail());
    }

    /// Having left a queue that ended with `tail`: makes the next one head, if it was not us.
    fn hand_on(&self, seat: &Seat<'_>, tail: Tail) {
        if tail == seat.tail {
            return;
        }
        let successor = seat.node.successor();
        // Nobody else may have become head in the meantime.
        self.lock.head.touch();
        if let Some(node) = registry().node(successor) {
            node.tell(Turn::Head);
        }
    }

    /// FLUSH: the whole queue has timed out, in one; false if the lock has been released, so that
    /// there is something to claim instead.
    fn flush(&self, seat: &Seat<'_>) -> bool {
        self.lock.head.touch();
        // Q1. From here on newcomers form a queue of their own, with a head and a timeout of its own;
        // the one that we cut off ends with `last`, and nobody can join it any more.
        let Ok(before) = self.lock.word.change(Ordering::AcqRel, |word| word.is_locked().then(|| word.flushed()))
        else {
            return false;
        };
        let last = before.tail();
        let mut at = seat.tail;
        while at != last {
            // `at` is our own node in the first turn; after that a node that waits to be told, and
            // its link is read before it is told: then the node is its owner's again.
            let node = registry().node(at).expect("only the last node has no successor");
            let next = node.successor();
            if at != seat.tail {
                node.tell(Turn::Flushed);
            }
            at = next;
        }
        if last != seat.tail
            && let Some(node) = registry().node(last)
        {
            node.tell(Turn::Flushed);
        }
        true
    }

    /// A transition that every word allows; gives back the word before it.
    fn update(&self, order: Ordering, transition: impl Fn(Word) -> Word) -> Word {
        match self.lock.word.change(order, |word| Some(transition(word))) {
            Ok(before) | Err(before) => before,
        }
    }
}
