//! What needs a queue whose head is played by hand.

use std::cell::{Cell, OnceCell};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use super::*;
use crate::tests::assert_at_rest;
use crate::tests::harness::{wait_until, watchdog};
use crate::{Clock, ManualClock, RqSpinLock};

/// Longer than any machine takes to wake somebody.
const LONG: Duration = Duration::from_secs(20);

/// A thread that sleeps beside the held `lock` as a head does that was outrun, only longer; it gives back whether it was woken.
fn outrun(lock: &Arc<RawRqSpinLock>) -> JoinHandle<bool> {
    let lock = Arc::clone(lock);
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        tell.send(rustix::thread::gettid()).unwrap();
        let began = Instant::now();
        lock.word.nap(LONG);
        began.elapsed() < LONG
    });
    let stat = format!("/proc/self/task/{}/stat", told.recv().unwrap().as_raw_nonzero());
    // The name may hold anything, and ends with the last bracket.
    wait_until("it sleeps", || std::fs::read_to_string(&stat).unwrap().rsplit(") ").next().unwrap().starts_with('S'));
    thread
}

#[test]
fn who_queues_beside_a_free_lock_wakes_the_head() {
    watchdog("who_queues_beside_a_free_lock_wakes_the_head", || {
        let lock = Arc::new(RawRqSpinLock::new());
        let [holder, first, second] = [(); 3].map(|()| Cpu::register().unwrap());
        let [first, second] = [&first, &second].map(|cpu| Waiter { lock: &lock, cpu, deadline: None });
        lock.lock(&holder, None).unwrap();
        let head = first.take_place();
        let sleeper = outrun(&lock);
        // SAFETY: `holder` has the lock.
        unsafe { lock.unlock(&holder) };
        let behind = second.take_place();
        assert!(sleeper.join().unwrap(), "it slept on beside a free lock");
        Head::new(&lock, &head).leave();
        assert_eq!(behind.node.turn(), Some(Turn::Head));
        Head::new(&lock, &behind).leave();
        assert_at_rest(&lock);
    });
}

#[test]
fn a_thief_wakes_the_head_at_the_end_of_its_turn() {
    watchdog("a_thief_wakes_the_head_at_the_end_of_its_turn", || {
        let (lock, time) = (Arc::new(RawRqSpinLock::new()), Arc::new(ManualClock::new()));
        let thief = Cpu::builder().clock(Arc::clone(&time)).register().unwrap();
        let first = Cpu::register().unwrap();
        let first = Waiter { lock: &lock, cpu: &first, deadline: None };
        let head = first.take_place();
        assert!(lock.try_lock(&thief));
        let sleeper = outrun(&lock);
        while !thief.streak.is_ending() {
            // SAFETY: `thief` has the lock.
            unsafe { lock.unlock(&thief) };
            time.advance(Duration::from_micros(100));
            assert!(lock.try_lock(&thief));
        }
        assert!(sleeper.join().unwrap(), "it slept on through the end of the turn");
        assert!(!thief.streak.is_over(), "it comes while the thief may go on");
        // SAFETY: `thief` has the lock.
        unsafe { lock.unlock(&thief) };
        Head::new(&lock, &head).leave();
        assert_at_rest(&lock);
    });
}

thread_local! {
    static CPU: OnceCell<Cpu> = const { OnceCell::new() };
    static ANSWER: Cell<Option<LockError>> = const { Cell::new(None) };
}
static STOLEN: RqSpinLock<u32> = RqSpinLock::new(0);

/// A clock that wants, once, the lock for whose sake it is asked.
struct Relocking;

impl Clock for Relocking {
    fn now(&self) -> Instant {
        if ANSWER.get().is_none() {
            // Whatever comes of it, not again.
            ANSWER.set(Some(LockError::DeadlinePassed));
            ANSWER.set(CPU.with(|cpu| STOLEN.lock(cpu.get().unwrap()).err()));
        }
        Instant::now()
    }
}

#[test]
fn a_stolen_lock_is_held_for_the_clock_too() {
    watchdog("a_stolen_lock_is_held_for_the_clock_too", || {
        let first = Cpu::register().unwrap();
        let first = Waiter { lock: STOLEN.raw(), cpu: &first, deadline: None };
        let head = first.take_place();
        CPU.with(|cpu| {
            let cpu = cpu.get_or_init(|| Cpu::builder().clock(Relocking).register().unwrap());
            drop(STOLEN.lock(cpu).unwrap());
            assert_eq!(cpu.events().snapshot().stolen, 1);
        });
        assert_eq!(ANSWER.get(), Some(LockError::Deadlock(Cycle::Aa)));
        Head::new(STOLEN.raw(), &head).leave();
        assert_at_rest(STOLEN.raw());
    });
}
