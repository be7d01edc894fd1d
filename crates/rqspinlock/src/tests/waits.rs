//! Deadlines of the caller, and the order in which the queue is served.

use std::sync::{Arc, mpsc};

use super::assert_at_rest;
use super::cases::{MS, cpu_by, pass, time};
use super::harness::{Party, wait_until, watchdog};
use crate::word::Word;
use crate::{Clock, Cpu, DEFAULT_TIMEOUT, LockError, RqSpinLock};

/// The head's own deadline is nobody else's: the next one becomes head and waits on.
#[test]
fn a_deadline_ends_one_wait_only() {
    static LOCK: RqSpinLock<u64> = RqSpinLock::new(0);
    watchdog("a_deadline_ends_one_wait_only", || {
        let time = time();
        let cpu = cpu_by(&time);
        let held = LOCK.lock(&cpu).unwrap();
        let deadline = time.now() + 10 * MS;
        let head = Party::start(&time, move |cpu| LOCK.lock_until(cpu, deadline).err());
        head.wait_queued(&LOCK);
        let second = Party::start(&time, |cpu| pass(&LOCK, cpu));
        second.wait_queued(&LOCK);
        time.advance(10 * MS);
        assert_eq!(head.join(), Some(LockError::DeadlinePassed));
        second.wait_look();
        drop(held);
        assert_eq!(second.join(), Ok(()));
        assert_eq!(LOCK.lock_until(&cpu, deadline).map(|guard| *guard), Ok(1), "a free lock needs no time");
        assert_at_rest(LOCK.raw());
    });
}

/// Once before it joins a queue, and not where it gets the lock without.
#[test]
fn what_a_cpu_does_before_it_waits() {
    static LOCK: RqSpinLock<u64> = RqSpinLock::new(0);
    static FREE: RqSpinLock<u64> = RqSpinLock::new(0);
    watchdog("what_a_cpu_does_before_it_waits", || {
        let time = time();
        let cpu = cpu_by(&time);
        let held = LOCK.lock(&cpu).unwrap();
        let (say, said) = mpsc::channel();
        let clock = Arc::clone(&time);
        let waiter = std::thread::spawn(move || {
            let before_waiting = move || say.send("it is going to wait").unwrap();
            let cpu = Cpu::builder().clock(clock).before_waiting(before_waiting).register().unwrap();
            pass(&FREE, &cpu).and_then(|()| pass(&LOCK, &cpu))
        });
        assert_eq!(said.recv(), Ok("it is going to wait"));
        assert!(!waiter.is_finished());
        drop(held);
        assert_eq!(waiter.join().unwrap(), Ok(()));
        assert!(said.recv().is_err(), "once");
        assert_at_rest(LOCK.raw());
    });
}

/// In the queue nobody looks at the time: the deadline is noticed on becoming head.
#[test]
fn a_queued_waiter_notices_its_deadline_as_head() {
    static LOCK: RqSpinLock<u64> = RqSpinLock::new(0);
    watchdog("a_queued_waiter_notices_its_deadline_as_head", || {
        let time = time();
        let cpu = cpu_by(&time);
        let held = LOCK.lock(&cpu).unwrap();
        let head = Party::start(&time, |cpu| pass(&LOCK, cpu));
        head.wait_look();
        let deadline = time.now() + 10 * MS;
        let second = Party::start(&time, move |cpu| LOCK.lock_until(cpu, deadline).err());
        second.wait_queued(&LOCK);
        // Behind the second, so that it has somebody to hand on to.
        let third = Party::start(&time, |cpu| pass(&LOCK, cpu));
        third.wait_queued(&LOCK);
        time.advance(20 * MS);
        head.wait_look();
        head.wait_look();
        assert!(second.is_waiting(), "it is not head yet");
        // Now the time of the head is up and takes the second with it: a flush goes before.
        time.advance(DEFAULT_TIMEOUT);
        assert_eq!(head.join(), Err(LockError::TimedOut));
        assert_eq!(second.join(), Some(LockError::TimedOut));
        assert_eq!(third.join(), Err(LockError::TimedOut));

        let deadline = time.now() + 10 * MS;
        let head = Party::start(&time, move |cpu| LOCK.lock_until(cpu, deadline).err());
        head.wait_queued(&LOCK);
        let second = Party::start(&time, move |cpu| LOCK.lock_until(cpu, deadline).err());
        second.wait_queued(&LOCK);
        time.advance(10 * MS);
        assert_eq!(head.join(), Some(LockError::DeadlinePassed));
        assert_eq!(second.join(), Some(LockError::DeadlinePassed));
        assert_eq!(LOCK.raw().word.peek(), Word::HELD);
        drop(held);
    });
}

#[test]
fn a_deadline_in_the_past_does_not_queue() {
    watchdog("a_deadline_in_the_past_does_not_queue", || {
        let lock = Arc::new(RqSpinLock::new(0_u64));
        let cpu = Cpu::register().unwrap();
        let held = lock.lock(&cpu).unwrap();
        let time = time();
        let party = {
            let (lock, now) = (Arc::clone(&lock), time.now());
            Party::start(&time, move |cpu| lock.lock_until(cpu, now).err())
        };
        let events = party.events.clone();
        assert_eq!(party.join(), Some(LockError::DeadlinePassed));
        assert_eq!(events.snapshot().queued, 0);
        drop(held);
    });
}

/// Among those in the queue it is first come, first served.
#[test]
fn queued_waiters_are_served_in_order() {
    static LOCK: RqSpinLock<Vec<usize>> = RqSpinLock::new(Vec::new());
    watchdog("queued_waiters_are_served_in_order", || {
        let time = time();
        let cpu = cpu_by(&time);
        let held = LOCK.lock(&cpu).unwrap();
        let parties: Vec<_> = (0..8)
            .map(|n| {
                let party = Party::start(&time, move |cpu| LOCK.lock(cpu).unwrap().push(n));
                party.wait_queued(&LOCK);
                party
            })
            .collect();
        drop(held);
        parties.into_iter().for_each(Party::join);
        assert_eq!(*LOCK.lock(&cpu).unwrap(), (0..8).collect::<Vec<_>>());
    });
}

/// The head claims the next release, whatever its clock says, and from then on nobody is quicker.
#[test]
fn a_claimed_release_is_not_stolen() {
    static LOCK: RqSpinLock<u64> = RqSpinLock::new(0);
    watchdog("a_claimed_release_is_not_stolen", || {
        let time = time();
        let cpu = cpu_by(&time);
        for _ in 0..200 {
            let held = LOCK.lock(&cpu).unwrap();
            let (release, released) = mpsc::channel();
            let head = Party::start(&time, move |cpu| {
                let _guard = LOCK.lock(cpu).unwrap();
                released.recv().unwrap();
            });
            wait_until("the head has claimed", || LOCK.raw().word.peek().is_pending());
            drop(held);
            // It has it, or will; in between the lock is free.
            assert!((0..100).all(|_| LOCK.try_lock(&cpu).is_none()));
            release.send(()).unwrap();
            head.join();
            assert_at_rest(LOCK.raw());
        }
    });
}
