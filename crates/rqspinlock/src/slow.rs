//! Acquiring a lock that is not free.
//!
//! ```text
//!            lock(): (0,0,0) -> (0,0,1) ------------------------------ acquired (fast)
//!                    (*,0,0) -> (*,0,1), if our turn is not over ------ acquired (stolen)
//!                              | taken: push the table entry
//!   AA? Deadlock(Aa) <---- [ STEAL ]  a few looks more, but not when our turn is ending
//!                              |
//! ABBA? Deadlock(Abba) <-- [ ENTER ]  no node left: one try, Deadlock(Nesting)
//!                              |      tail := me
//!              nobody before   |   somebody before: link behind it
//!               .--------------+--------------.
//!               |                             v
//!               |                        [ QUEUED ] -- told "flushed" --> TimedOut
//!               |                             |  some spins, then asleep on the node
//!               v                             |
//!           [ HEAD ] <------ told "head" -----'
//!            |  | |  each round: a look at the word, the checks, and a sleep on the word
//!            |  | |  (a release wakes it, a thief at the end of its turn, or the next check);
//!            |  | |  in the third round: set pending (the next release is ours), and stay awake for some
//!            |  | |
//!            |  | `- locked = 0: CLAIM: lock, clear pending, clear the tail if it is ours;
//!            |  |    otherwise tell the successor "head" ------------ acquired (claimed)
//!            |  `--- ABBA or the caller's deadline: LEAVE: clear pending and our own tail in one
//!            |       CAS; otherwise tell the successor "head" ------- Deadlock, DeadlinePassed
//!            `------ timeout: FLUSH: (*,*,1) -> (0,0,1), then tell everyone from our node to
//!                    the old tail "flushed" ------------------------- TimedOut
//! ```
//!
//! Who may do what: only the head sets and clears *pending*, and only a head that leaves tells another
//! node anything. A queued waiter does nothing but wait for its own node; it does not look at the
//! clock, which the head does for all.
//!
//! The difference to Linux is the head: there a second contender waits on a pending bit without a
//! node, and a queue cannot be overtaken. Here everyone may steal a free lock, because a strict queue
//! of preemptible threads hands the lock to threads that are not running. Two bounds keep that fair: a
//! thief has a turn (streak.rs), and the head claims after some rounds, so that each queued waiter in
//! turn becomes the one that runs.
//!
//! # Sleeping
//! A waiter in the queue sleeps on its node's flag, the head on the word. Who tells a waiter swaps out the flag that says "asleep",
//! and a release looks for the bit that says "parked" afterwards; so each knows whom to wake (P1, P2). The head's sleep is bounded
//! by its next check, and the others' by `QUEUED_SLEEP`. Uncontended lock and unlock make no system call.
//!
//! # Orderings
//! Q1: every transition of the word that enters or leaves the queue is AcqRel, and everyone else's
//! is a read-modify-write that keeps the release sequence. So whoever finds a tail in the word sees
//! the reset of the node it names, and whoever finds none sees all that the last head did.
//! (A head that leaves finds the reset of its successor's node twice over, by Q1 and by the link, N1.)
//! L1 to L3 against R1 are the lock proper: see word.rs.

use std::time::{Duration, Instant};

use crate::cpu::{Cpu, Seat};
use crate::deadlock;
use crate::error::{Cycle, LockError};
use crate::lock::RawRqSpinLock;
use crate::registry::{Turn, registry};
use crate::sync::{
    CLAIMING_PAUSE, COURTESY, LOOKS, LOOKS_CLAIMING, Ordering, ROUNDS_BEFORE_CLAIM, ROUNDS_CLAIMING, SPINS, end_round,
    pause, spin_loop,
};
use crate::word::Word;

/// Between two checks for an ABBA deadlock by the head of a queue, which sleeps no longer than that.
const ABBA_CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// How long a waiter in the queue sleeps at most. A safety net: it is woken when it has its turn, and checks nothing before.
/// Not shorter: every sleep that ends for nothing takes a processor from somebody who works.
const QUEUED_SLEEP: Duration = Duration::from_millis(100);

/// Acquires `lock`, which the caller has just found taken, or may not steal.
#[cold]
#[inline(never)]
pub(crate) fn lock(lock: &RawRqSpinLock, cpu: &Cpu, deadline: Option<Instant>) -> Result<(), LockError> {
    // Push, then wait: who is about to wait must be seen waiting (held.rs).
    cpu.held().push(lock.id());
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

/// Takes the lock past a queue if it is free and the queue's head has not claimed it; for who has not pushed it.
// Not inlined: it would cost the fast path more than a call costs a thief.
#[inline(never)]
pub(crate) fn try_steal(lock: &RawRqSpinLock, cpu: &Cpu) -> bool {
    steal(lock, cpu, || cpu.held().push(lock.id()))
}

#[inline]
fn steal(lock: &RawRqSpinLock, cpu: &Cpu, push: impl FnOnce()) -> bool {
    // L2, Acquire: pairs with R1 as L1 does.
    let Ok(before) = lock.word.change(Ordering::Acquire, Word::stolen) else {
        return false;
    };
    cpu.counters().stolen.bump();
    // Before the clock is asked, which may be somebody's code that locks.
    push();
    if before.tail().is_some() {
        cpu.streak.overtook(lock, cpu);
    }
    true
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
        let steals = !self.cpu.streak.is_ending();
        if steals {
            // The first look was the caller's.
            for look in 1..LOOKS {
                pause(1 << look);
                if self.steal() {
                    return Ok(());
                }
            }
        }
        // Behind somebody else nobody would check, so once before.
        if let Some(cycle) = deadlock::abba(self.lock, self.cpu) {
            return Err(LockError::Deadlock(cycle));
        }
        if self.deadline.is_some_and(|at| self.cpu.now() >= at) {
            return Err(LockError::DeadlinePassed);
        }
        self.cpu.is_going_to_wait();
        let Some(seat) = self.cpu.seat() else {
            self.cpu.counters().trylock_fallback.bump();
            return if self.steal() { Ok(()) } else { Err(LockError::Deadlock(Cycle::Nesting)) };
        };
        seat.node.reset();
        if steals && self.steal() {
            return Ok(());
        }
        let turn = if self.enter(&seat) {
            Turn::Head
        } else {
            // Whose turn has ended has a whole queue before it.
            self.wait_for_turn(&seat, if steals { SPINS } else { 0 })
        };
        match turn {
            Turn::Head => Head::new(self.lock, &seat).wait(self),
            Turn::Flushed => {
                self.cpu.counters().flushed.bump();
                Err(LockError::TimedOut)
            }
        }
    }

    fn steal(&self) -> bool {
        steal(self.lock, self.cpu, || {})
    }

    /// ENTER: joins the queue; true if there was none, so that we are its head.
    fn enter(&self, seat: &Seat<'_>) -> bool {
        self.cpu.streak.end();
        // Q1: publishes the reset of our node to who comes behind us, and shows us the node of who
        // is before us, or what the last head did.
        let before = self.lock.word.update(Ordering::AcqRel, |word| word.queued(Some(seat.tail)));
        self.cpu.counters().queued.bump();
        if let Some(predecessor) = before.tail() {
            registry().node(predecessor).link(seat.tail);
            if !before.is_locked() {
                // Our turn is over, and we leave a free lock to a head that may sleep: it has been outrun by us and asked no
                // release to wake it.
                self.lock.word.wake();
            }
        }
        before.tail().is_none()
    }

    /// QUEUED: no clock and no checks here, the head does them for all.
    fn wait_for_turn(&self, seat: &Seat<'_>, spins: u32) -> Turn {
        for _ in 0..spins {
            if let Some(turn) = seat.node.turn() {
                return turn;
            }
            spin_loop();
        }
        self.cpu.counters().parked.bump();
        loop {
            seat.node.sleep(QUEUED_SLEEP);
            if let Some(turn) = seat.node.turn() {
                return turn;
            }
        }
    }
}

/// A waiter that has become head. It leaves by exactly one of `claim`, `leave` and `flush`.
struct Head<'a> {
    lock: &'a RawRqSpinLock,
    seat: &'a Seat<'a>,
    /// We have set pending, so it is set.
    pending: bool,
    /// A release has woken us, and a thief was quicker.
    outrun: bool,
    slept: bool,
    /// Rounds that have passed.
    rounds: u32,
}

impl<'a> Head<'a> {
    fn new(lock: &'a RawRqSpinLock, seat: &'a Seat<'a>) -> Self {
        Head { lock, seat, pending: false, outrun: false, slept: false, rounds: 0 }
    }

    /// HEAD: one way or another, this returns within the timeout.
    fn wait(mut self, waiter: &Waiter<'_>) -> Result<(), LockError> {
        let cpu = waiter.cpu;
        // When we became head and when we last checked: both from the first look at the clock,
        // which a head that gets the lock in its first round does not need.
        let mut times = None;
        loop {
            if self.claim() {
                cpu.counters().claimed.bump();
                return Ok(());
            }
            let now = cpu.now();
            let (since, checked) = times.get_or_insert((now, now));
            if now.saturating_duration_since(*checked) >= ABBA_CHECK_INTERVAL {
                *checked = now;
                if let Some(cycle) = deadlock::abba(self.lock, cpu) {
                    self.leave();
                    return Err(LockError::Deadlock(cycle));
                }
            }
            // The timeout goes before the caller's deadline: it speaks for the whole queue.
            if now.saturating_duration_since(*since) >= cpu.timeout() {
                if self.flush() {
                    cpu.counters().timeouts.bump();
                    return Err(LockError::TimedOut);
                }
                continue;
            }
            if waiter.deadline.is_some_and(|at| now >= at) {
                self.leave();
                return Err(LockError::DeadlinePassed);
            }
            self.rest(cpu);
        }
    }

    /// Between two rounds: gives the processor to somebody else until the lock is released.
    ///
    /// To be woken by a release costs the holder a system call. Where a thief takes the lock all the same there would be one
    /// with every release, and of no use: who was outrun sleeps on without asking for it. The thief wakes it at the end of its turn.
    fn rest(&mut self, cpu: &Cpu) {
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds == ROUNDS_BEFORE_CLAIM {
            // Who comes after us is to be told as soon as we have the lock, and to wake it takes longer than many a section:
            // better now, while somebody works. It goes back to sleep where that is too early.
            if let Some(next) = self.seat.node.linked() {
                registry().node(next).rouse();
            }
            // Relaxed: it publishes nothing, and only we clear it again.
            self.lock.word.update(Ordering::Relaxed, Word::pending);
            self.pending = true;
            return;
        }
        if self.pending && self.rounds < ROUNDS_BEFORE_CLAIM + ROUNDS_CLAIMING {
            return end_round(self.rounds);
        }
        if !std::mem::replace(&mut self.slept, true) {
            cpu.counters().parked.bump();
        }
        if self.outrun && !self.pending {
            return self.lock.word.nap(ABBA_CHECK_INTERVAL);
        }
        self.lock.word.park(ABBA_CHECK_INTERVAL);
        let now = self.lock.word.peek();
        self.outrun = now.is_locked() && !now.is_parked();
    }

    /// One round: looks at the word, and takes the lock if it finds it free; true if it has it.
    ///
    /// As long as others may take it, only if it is still free a moment later: the one who works takes it again at once, and to
    /// snatch it from him in between would end a turn that has hardly begun.
    fn claim(&self) -> bool {
        self.lock.head.touch();
        let looks = if self.pending {
            LOOKS_CLAIMING
        } else {
            if self.lock.word.peek().is_locked() {
                return false;
            }
            pause(COURTESY);
            1
        };
        for look in 1..=looks {
            // L3, Acquire: pairs with R1 as L1 does. And Q1: we leave the queue, and the tail may be
            // another's by now.
            let claimed = self.lock.word.change(Ordering::AcqRel, |word| word.claimed_by(self.seat.tail));
            if let Ok(before) = claimed {
                self.hand_on(before);
                return true;
            }
            if look < looks {
                pause(CLAIMING_PAUSE);
            }
        }
        false
    }

    /// Pending is the head's alone: set when it has set it, and not otherwise. Of the last word before
    /// it left, so that it is exact; for the models.
    fn check_pending(&self, before: Word) {
        if cfg!(any(debug_assertions, loom)) {
            assert_eq!(before.is_pending(), self.pending, "pending, and what the head has set");
        }
    }

    /// LEAVE: only we give up; whoever is behind us becomes head.
    fn leave(&self) {
        self.lock.head.touch();
        // Q1. One step: between clearing pending and clearing the tail a newcomer could become head
        // and set a pending of its own, which is not ours to clear.
        let before = self.lock.word.update(Ordering::AcqRel, |word| word.left_by(self.seat.tail));
        self.hand_on(before);
    }

    /// Having left the queue by changing the word `before`: makes the next one head, if there is.
    ///
    /// Only the tail *field* tells that. That the change had to be tried again does not: a thief, or
    /// a release, may have been the reason, and a wait for a successor that does not exist is
    /// endless.
    fn hand_on(&self, before: Word) {
        self.check_pending(before);
        if before.tail() == Some(self.seat.tail) {
            return;
        }
        let successor = self.seat.node.successor();
        // Nobody else may have become head in the meantime.
        self.lock.head.touch();
        registry().node(successor).tell(Turn::Head);
    }

    /// FLUSH: the whole queue has timed out, in one; false if the lock has been released, so that
    /// there is something to claim instead.
    fn flush(&self) -> bool {
        self.lock.head.touch();
        // Q1. From here on newcomers form a queue of their own, with a head and a timeout of its own;
        // nobody can join the one that we cut off, which goes from us to the tail that we removed.
        let Ok(before) = self.lock.word.change(Ordering::AcqRel, Word::flushed) else {
            return false;
        };
        self.check_pending(before);
        let last = before.tail();
        if last == Some(self.seat.tail) {
            return true;
        }
        let mut next = self.seat.node.successor();
        while last != Some(next) {
            let node = registry().node(next);
            // First the link, then the word: once told, its owner may be in the next queue with it.
            next = node.successor();
            node.tell(Turn::Flushed);
        }
        registry().node(next).tell(Turn::Flushed);
        true
    }
}

#[cfg(test)]
impl Waiter<'_> {
    /// Takes a place in the queue, as `acquire` does, and does not wait.
    fn take_place(&self) -> Seat<'_> {
        let seat = self.cpu.seat().expect("the Cpu waits for nothing yet");
        seat.node.reset();
        self.enter(&seat);
        seat
    }
}

#[cfg(all(test, loom, not(shuttle)))]
mod loom;
#[cfg(all(test, not(loom)))]
mod tests;
