//! The ways of plain threads: they wait, within bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{FAR, PATIENCE, Stall, ask, config, op, reply, start, wait_until};
use crate::{Config, Refused};

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_thread_waits_for_its_reply() {
    let (executor, _workers) = start(config(1));
    let stall = Stall::begin(&executor, 0, None);
    thread::scope(|scope| {
        let call = scope.spawn(|| executor.submit_wait(0, reply(6), None));
        wait_until("the job is queued", || executor.workers()[0].queued() == 1);
        assert!(!call.is_finished());
        stall.end();
        assert_eq!(call.join().expect("no panic"), Ok(6));
    });
}

#[test]
fn a_thread_waits_for_room_and_then_gives_up() {
    let (executor, _workers) = start(Config { mailbox_capacity: 1, ..config(1) });
    let stall = Stall::begin(&executor, 0, None);
    let runs = Arc::new(AtomicU32::new(0));
    let count = || {
        let runs = Arc::clone(&runs);
        op(move |_, job| job.responder.send(runs.fetch_add(1, Ordering::SeqCst)))
    };
    executor.submit_detached(0, count()).expect("there is room for one");

    let begun = Instant::now();
    assert_eq!(executor.submit_detached(0, count()), Err(Refused::Overloaded));
    assert_eq!(executor.submit_wait(0, count(), None), Err(Refused::Overloaded));
    assert_eq!(executor.submit_wait(0, count(), Some(Instant::now() + FAR)), Err(Refused::Overloaded));
    assert!(begun.elapsed() >= Duration::from_millis(300), "each has waited 100 ms for room");
    assert_eq!(executor.submit_wait(0, count(), Some(Instant::now() + SHORT)), Err(Refused::DeadlinePassed));

    stall.end();
    assert_eq!(executor.submit_wait(0, reply(2), None), Ok(2));
    assert_eq!(runs.load(Ordering::SeqCst), 1, "what was refused does not run");
}

#[test]
fn room_that_comes_in_time_is_taken() {
    let (executor, _workers) = start(Config { mailbox_capacity: 1, ..config(1) });
    // More threads than places: each has to wait for the others.
    thread::scope(|scope| {
        for thread in 0..4 {
            let executor = &executor;
            scope.spawn(move || {
                for n in 0..50 {
                    let number = thread * 50 + n;
                    let limit = Instant::now() + PATIENCE;
                    let answer = loop {
                        match executor.submit_wait(0, reply(number), None) {
                            // A machine that is busy enough starves a thread for 100 ms.
                            Err(Refused::Overloaded) if Instant::now() < limit => {}
                            answer => break answer,
                        }
                    };
                    assert_eq!(answer, Ok(number));
                }
            });
        }
    });
    assert_eq!(executor.workers()[0].counters().jobs, 200);
}

#[test]
fn the_deadline_of_a_waiting_thread_cancels_its_job() {
    let (executor, _workers) = start(config(1));
    let stall = Stall::begin(&executor, 0, None);
    let begun = Instant::now();
    assert_eq!(executor.submit_wait(0, reply(6), Some(begun + SHORT)), Err(Refused::DeadlinePassed));
    assert!(begun.elapsed() >= SHORT && begun.elapsed() < PATIENCE, "it does not wait for the worker");
    stall.end();
    assert_eq!(ask(&executor, 0, reply(2)), Ok(2));
    let counters = executor.workers()[0].counters();
    assert_eq!((counters.jobs, counters.cancelled), (2, 1));
}

#[test]
fn a_waiting_thread_awaits_what_runs_past_its_deadline() {
    let (executor, _workers) = start(config(1));
    let late = op(|_, job| {
        let deadline = job.deadline.expect("it has one");
        wait_until("the deadline passes", || Instant::now() > deadline + SHORT);
        job.responder.send(9);
    });
    // Far enough that the worker begins in time on a busy machine, too.
    let deadline = Instant::now() + Duration::from_millis(500);
    assert_eq!(executor.submit_wait(0, late, Some(deadline)), Ok(9));
    assert!(Instant::now() > deadline);
}

#[test]
fn a_passed_deadline_is_refused_without_waiting() {
    let (executor, _workers) = start(config(1));
    assert_eq!(executor.submit_wait(0, reply(1), Some(Instant::now())), Err(Refused::DeadlinePassed));
    assert_eq!(executor.workers()[0].counters().high_water, 0);
}
