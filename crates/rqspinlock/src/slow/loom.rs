//! A model that needs a queue which is already there: with three waiters that spin for their turn,
//! loom explores how they starve each other and little else.

use ::loom::sync::Arc;
use ::loom::thread;

use super::*;
use crate::sync::sleep_for_good;
use crate::tests::assert_at_rest;
use crate::tests::loom::{Ready, TIMEOUT, model};
use crate::word::Tail;

/// The middle one of a flushed queue may be told, return, and be back in a queue with the same node
/// before the flusher has told the last.
#[test]
fn flush_of_three() {
    let outcomes = ["the middle one was back before the last was told", "it came back later"];
    model("flush_of_three", 5, outcomes, || {
        let lock = Arc::new(RawRqSpinLock::new());
        let hasty = || Ready::stepping(TIMEOUT / 3);
        let (holder, first, middle, last) = (hasty().cpu(), hasty().cpu(), hasty(), hasty().cpu());
        lock.lock(&holder, None).unwrap();
        let [first, last] = [&first, &last].map(|cpu| Waiter { lock: &lock, cpu, deadline: None });

        let first = first.take_place();
        let last_of_all = Tail::new(last.cpu.id(), 0);
        let second = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || {
                let cpu = middle.cpu();
                let waiter = Waiter { lock: &lock, cpu: &cpu, deadline: None };
                let seat = waiter.take_place();
                assert_eq!(waiter.wait_for_turn(&seat, SPINS), Turn::Flushed);
                drop(seat);
                assert_eq!(lock.lock(&cpu, None), Err(LockError::TimedOut));
                assert!(cpu.is_idle());
                registry().node(last_of_all).turn().is_none()
            })
        };
        while lock.word.peek().tail() == Some(first.tail) {
            thread::yield_now();
        }
        let last = last.take_place();
        assert!(Head::new(&lock, &first).flush());
        assert_eq!(last.node.turn(), Some(Turn::Flushed));
        let early = second.join().unwrap();

        // SAFETY: `holder` has the lock.
        unsafe { lock.unlock(&holder) };
        assert_at_rest(&lock);
        [early, !early]
    });
}

/// One sleeps on its node behind a head, which goes somehow and so tells it `told`. Sleeps end by a wake only.
fn sleeps_behind(name: &'static str, told: Turn, go: fn(Head<'_>)) {
    let outcomes = ["it slept", "it did not"];
    sleep_for_good(true);
    model(name, 4, outcomes, move || {
        let lock = Arc::new(RawRqSpinLock::new());
        let (holder, first, second) = (Ready::patient().cpu(), Ready::patient().cpu(), Ready::patient());
        lock.lock(&holder, None).unwrap();
        let head = Waiter { lock: &lock, cpu: &first, deadline: None };
        let seat = head.take_place();
        let behind = {
            let lock = Arc::clone(&lock);
            thread::spawn(move || {
                let cpu = second.cpu();
                let waiter = Waiter { lock: &lock, cpu: &cpu, deadline: None };
                let seat = waiter.take_place();
                assert_eq!(waiter.wait_for_turn(&seat, SPINS), told);
                if told == Turn::Head {
                    Head::new(&lock, &seat).leave();
                }
                drop(seat);
                assert!(cpu.is_idle());
                cpu.events().snapshot().parked > 0
            })
        };
        while lock.word.peek().tail() == Some(seat.tail) {
            thread::yield_now();
        }
        go(Head::new(&lock, &seat));
        let slept = behind.join().unwrap();
        drop(seat);
        // SAFETY: `holder` has the lock.
        unsafe { lock.unlock(&holder) };
        assert_at_rest(&lock);
        [slept, !slept]
    });
    sleep_for_good(false);
}

#[test]
fn a_sleeping_waiter_is_told() {
    sleeps_behind("a_sleeping_waiter_is_told", Turn::Head, |head| head.leave());
}

#[test]
fn sleeping_waiters_are_flushed() {
    sleeps_behind("sleeping_waiters_are_flushed", Turn::Flushed, |head| assert!(head.flush()));
}
