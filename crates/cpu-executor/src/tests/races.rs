//! The hand-over under load: callers that give up against workers that begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio_test::task;

use super::{config, op, reply, start};
use crate::Refused;

const ROUNDS: u64 = 5_000;

#[test]
fn a_job_is_either_run_or_cancelled() {
    let (executor, _workers) = start(config(1));
    let runs = Arc::new(AtomicU64::new(0));
    let (mut answered, mut given_up) = (0, 0);
    for round in 0..ROUNDS {
        let counted = Arc::clone(&runs);
        let count = op(move |_, job| {
            counted.fetch_add(1, Ordering::SeqCst);
            job.responder.send(0);
        });
        let mut ticket = match executor.submit(0, count, None) {
            Ok(ticket) => task::spawn(ticket),
            Err(refused) => panic!("room for one job at a time: {refused}"),
        };
        // A moment that differs from round to round, so that the drop falls on all sides of the worker's turn.
        (0..round % 200).for_each(|_| std::hint::spin_loop());
        match ticket.poll() {
            std::task::Poll::Ready(answer) => {
                assert_eq!(answer, Ok(0));
                answered += 1;
            }
            std::task::Poll::Pending => given_up += 1,
        }
        drop(ticket);
        if round % 32 == 31 {
            // Catches up, so that there is room for the next ones.
            assert_eq!(executor.submit_wait(0, reply(1), None), Ok(1));
        }
    }
    assert_eq!(executor.submit_wait(0, reply(1), None), Ok(1), "the worker is past all of them");
    let counters = executor.workers()[0].counters();
    let (runs, others) = (runs.load(Ordering::SeqCst), ROUNDS / 32 + 1);
    println!("{ROUNDS} jobs: {answered} answered, {given_up} given up, {} of these cancelled", counters.cancelled);
    assert_eq!(counters.jobs, runs + others);
    assert_eq!(runs + counters.cancelled, ROUNDS, "each is one or the other");
    assert!(runs >= answered, "what was answered has run");
}

#[test]
fn a_deadline_that_was_told_means_that_nothing_has_happened() {
    let (executor, _workers) = start(config(1));
    let runs = Arc::new(AtomicU64::new(0));
    let (replies, refusals) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for caller in 0..2 {
            let (executor, runs, replies, refusals) = (&executor, &runs, &replies, &refusals);
            scope.spawn(move || {
                for round in 0..ROUNDS / 2 {
                    let counted = Arc::clone(runs);
                    let count = op(move |_, job| {
                        counted.fetch_add(1, Ordering::SeqCst);
                        job.responder.send(0);
                    });
                    let deadline = Instant::now() + Duration::from_micros((round * 7 + caller) % 60);
                    match executor.submit_wait(0, count, Some(deadline)) {
                        Ok(_) => replies.fetch_add(1, Ordering::SeqCst),
                        Err(Refused::DeadlinePassed) => refusals.fetch_add(1, Ordering::SeqCst),
                        Err(refused) => panic!("neither done nor late: {refused}"),
                    };
                }
            });
        }
    });
    assert_eq!(executor.submit_wait(0, reply(1), None), Ok(1), "the worker is past all of them");
    let (replies, refusals) = (replies.into_inner(), refusals.into_inner());
    println!("{replies} replies, {refusals} deadlines");
    assert_eq!(replies, runs.load(Ordering::SeqCst), "a job has run if and only if its caller knows");
    assert_eq!(replies + refusals, ROUNDS);
}
