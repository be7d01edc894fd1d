//! Submitting, refusing, cancelling, answering.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_test::{assert_pending, assert_ready, assert_ready_eq, task};

use super::{FAR, PATIENCE, Stall, answer, ask, config, op, reply, start, wait_until};
use crate::{Config, Executor, Refused, Responder, deliver};

/// A flag, and a job that raises it.
fn flag() -> (Arc<AtomicBool>, super::Op) {
    let flag = Arc::new(AtomicBool::new(false));
    let raise = Arc::clone(&flag);
    let op = op(move |_, job| {
        raise.store(true, Ordering::SeqCst);
        job.responder.send(0);
    });
    (flag, op)
}

#[test]
fn a_ticket_waits_and_is_woken_by_its_reply() {
    let (executor, _workers) = start(config(2));
    let stall = Stall::begin(&executor, 0, None);
    let mut ticket = task::spawn(executor.submit(0, reply(7), None).expect("there is room"));
    assert_pending!(ticket.poll());
    assert_eq!(ask(&executor, 1, reply(8)), Ok(8), "the other worker is not in a job");
    assert!(!ticket.is_woken());

    stall.end();
    wait_until("the reply wakes the ticket", || ticket.is_woken());
    assert_ready_eq!(ticket.poll(), Ok(7));
    assert_eq!(executor.workers()[0].counters().jobs, 2);
    assert_eq!(executor.workers()[1].counters().jobs, 1);
}

#[test]
fn who_waits_for_an_answer_is_woken_at_the_end_of_the_batch_or_before_a_job_waits() {
    let (executor, _workers) = start(config(1));
    let stall = Stall::begin(&executor, 0, None);
    let mut first = task::spawn(executor.submit(0, reply(7), None).expect("there is room"));
    assert_pending!(first.poll());
    let (told, tells) = channel();
    let (go, gone) = channel();
    let second = executor.submit(
        0,
        op(move |_, job| {
            told.send("the first is answered").expect("the test waits for it");
            gone.recv_timeout(PATIENCE).expect("the test goes on");
            deliver();
            told.send("its caller was woken").expect("the test waits for it");
            job.responder.send(8);
        }),
        None,
    );
    let mut second = task::spawn(second.expect("there is room"));
    assert_pending!(second.poll());

    stall.go.send(()).expect("the job waits for it");
    assert_eq!(tells.recv_timeout(PATIENCE), Ok("the first is answered"));
    assert!(!first.is_woken(), "the batch goes on");
    go.send(()).expect("the job waits for it");
    assert_eq!(tells.recv_timeout(PATIENCE), Ok("its caller was woken"));
    assert!(first.is_woken());
    assert_ready_eq!(first.poll(), Ok(7));
    assert_eq!(answer(&mut second), Ok(8), "and the end of the batch wakes the rest");
}

#[test]
fn jobs_run_in_the_order_of_their_submission() {
    let (executor, _workers) = start(config(1));
    let stall = Stall::begin(&executor, 0, None);
    let order = Arc::new(Mutex::new(Vec::new()));
    let tickets: Vec<_> = (0..20)
        .map(|n| {
            let order = Arc::clone(&order);
            let push = op(move |_, job| {
                order.lock().expect("no panic").push(n);
                job.responder.send(n);
            });
            executor.submit(0, push, None).expect("there is room")
        })
        .collect();
    stall.end();
    for (n, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(answer(&mut task::spawn(ticket)), Ok(n as u32));
    }
    assert_eq!(*order.lock().expect("no panic"), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_job_brings_its_deadline_and_the_time_of_its_submission() {
    let (executor, _workers) = start(config(1));
    let before = Instant::now();
    let deadline = before + FAR;
    let check = op(move |_, job| {
        let seen = job.deadline == Some(deadline) && job.enqueued_at >= before && job.enqueued_at <= Instant::now();
        job.responder.send(u32::from(seen));
    });
    assert_eq!(executor.submit_wait(0, check, Some(deadline)), Ok(1));
}

#[test]
fn a_full_mailbox_refuses() {
    let (executor, _workers) = start(Config { mailbox_capacity: 2, ..config(1) });
    let info = &executor.workers()[0];
    let stall = Stall::begin(&executor, 0, None);
    let mut queued = [1, 2].map(|n| task::spawn(executor.submit(0, reply(n), None).expect("there is room for two")));
    assert_eq!(info.queued(), 2);
    assert_eq!(info.counters().high_water, 2, "seen before the worker takes them");

    let (ran, raise) = flag();
    assert_eq!(executor.submit(0, raise, None).err(), Some(Refused::Overloaded));
    assert!(queued.iter_mut().all(|ticket| ticket.poll().is_pending()));

    stall.end();
    assert_eq!(queued.each_mut().map(answer), [Ok(1), Ok(2)]);
    assert_eq!(ask(&executor, 0, reply(3)), Ok(3), "there is room again");
    assert!(!ran.load(Ordering::SeqCst), "what was refused does not run");
    assert_eq!((info.queued(), info.counters().high_water), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_passes_in_the_mailbox() {
    let (executor, _workers) = start(config(1));
    let stall = Stall::begin(&executor, 0, None);
    let (ran, raise) = flag();
    let deadline = Instant::now() + FAR;
    let mut ticket = task::spawn(executor.submit(0, raise, Some(deadline)).expect("there is room"));
    assert_pending!(ticket.poll());
    tokio::time::advance(FAR / 2).await;
    assert!(!ticket.is_woken());

    tokio::time::advance(FAR).await;
    assert!(ticket.is_woken(), "the deadline wakes the ticket, with the worker still in its job");
    assert_ready_eq!(ticket.poll(), Err(Refused::DeadlinePassed));

    stall.end();
    assert_eq!(ask(&executor, 0, reply(2)), Ok(2), "the worker is past it");
    assert!(!ran.load(Ordering::SeqCst));
    let counters = executor.workers()[0].counters();
    assert_eq!((counters.jobs, counters.cancelled, counters.dropped), (2, 1, 0));
}

#[test]
fn the_worker_answers_a_job_past_its_deadline_without_running_it() {
    let (executor, _workers) = start(config(1));
    let stall = Stall::begin(&executor, 0, None);
    let (ran, raise) = flag();
    let deadline = Instant::now() + Duration::from_millis(20);
    let mut ticket = task::spawn(executor.submit(0, raise, Some(deadline)).expect("there is room"));
    wait_until("the deadline passes", || Instant::now() > deadline);
    stall.end();
    assert_eq!(ask(&executor, 0, reply(2)), Ok(2), "the worker is past it");

    // Its first poll, and without a runtime: no timer of the ticket has anything to do with it.
    assert_ready_eq!(ticket.poll(), Err(Refused::DeadlinePassed));
    assert!(!ran.load(Ordering::SeqCst));
    assert_eq!(executor.workers()[0].counters().cancelled, 1);
}

#[test]
fn a_deadline_that_has_passed_is_refused_at_once() {
    let (executor, _workers) = start(config(1));
    let (ran, raise) = flag();
    let past = Instant::now();
    assert_eq!(executor.submit(0, raise, Some(past)).err(), Some(Refused::DeadlinePassed));
    assert_eq!(ask(&executor, 0, reply(2)), Ok(2));
    assert!(!ran.load(Ordering::SeqCst));
}

#[test]
fn a_dropped_ticket_cancels_what_is_queued() {
    let (executor, _workers) = start(config(1));
    let stall = Stall::begin(&executor, 0, None);
    let (ran, raise) = flag();
    drop(executor.submit(0, raise, None).expect("there is room"));
    stall.end();
    assert_eq!(ask(&executor, 0, reply(2)), Ok(2), "the worker is past it");
    assert!(!ran.load(Ordering::SeqCst));
    let counters = executor.workers()[0].counters();
    assert_eq!((counters.jobs, counters.cancelled, counters.dropped), (2, 1, 0));
}

#[test]
fn a_dropped_ticket_does_not_stop_what_runs() {
    let (executor, _workers) = start(config(1));
    let (go, gone) = std::sync::mpsc::channel();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel();
    let long = op(move |_, job| {
        begun.send(()).expect("the test waits for it");
        gone.recv_timeout(super::PATIENCE).expect("the test lets it go");
        job.responder.send(1);
        done.send(()).expect("the test waits for it");
    });
    let ticket = executor.submit(0, long, None).expect("there is room");
    has_begun.recv_timeout(super::PATIENCE).expect("the job begins");
    drop(ticket);
    go.send(()).expect("the job waits for it");
    is_done.recv_timeout(super::PATIENCE).expect("the job goes on to its end");
    assert_eq!(executor.workers()[0].counters().cancelled, 0);
}

#[tokio::test(start_paused = true)]
async fn what_runs_is_awaited_past_its_deadline() {
    let (executor, _workers) = start(config(1));
    let mut stall = Stall::begin(&executor, 0, Some(Instant::now() + FAR));
    assert_pending!(stall.ticket.poll());
    tokio::time::advance(2 * FAR).await;
    assert_pending!(stall.ticket.poll());
    assert_pending!(stall.ticket.poll(), "and again, after the deadline was dealt with");
    stall.end();
    assert_eq!(executor.workers()[0].counters().cancelled, 0);
}

#[test]
fn a_lost_responder_is_counted_and_told() {
    let (executor, _workers) = start(config(1));
    let info = &executor.workers()[0];
    let lose = || op(|_, job| drop(job.responder));
    assert_eq!(ask(&executor, 0, lose()), Err(Refused::Dropped));
    assert_eq!(info.counters().dropped, 1);

    executor.submit_detached(0, lose()).expect("there is room");
    assert_eq!(ask(&executor, 0, reply(2)), Ok(2), "the worker goes on");
    assert_eq!(info.counters().dropped, 2, "the loss counts although nobody waits");
}

#[test]
fn a_responder_may_answer_from_another_thread() {
    let (executor, _workers) = start(config(1));
    let (hand_over, responders) = std::sync::mpsc::channel::<Responder<u32>>();
    let give = op(move |_, job| hand_over.send(job.responder).expect("the test waits for it"));
    let mut ticket = task::spawn(executor.submit(0, give, None).expect("there is room"));
    let responder = responders.recv_timeout(super::PATIENCE).expect("the job runs");
    assert_eq!(ask(&executor, 0, reply(2)), Ok(2), "the worker is free meanwhile");
    assert_pending!(ticket.poll());
    responder.send(5);
    assert!(ticket.is_woken());
    assert_ready_eq!(ticket.poll(), Ok(5));
    assert_eq!(executor.workers()[0].counters().dropped, 0);
}

#[test]
fn a_detached_job_runs_and_its_answer_goes_nowhere() {
    let (executor, _workers) = start(config(1));
    let (ran, raise) = flag();
    executor.submit_detached(0, raise).expect("there is room");
    assert_eq!(ask(&executor, 0, reply(2)), Ok(2));
    assert!(ran.load(Ordering::SeqCst));
    let counters = executor.workers()[0].counters();
    assert_eq!((counters.jobs, counters.cancelled, counters.dropped), (2, 0, 0));
}

#[test]
fn there_is_no_worker_beyond_the_last() {
    let (executor, _workers) = start(config(2));
    assert_eq!(executor.submit(2, reply(1), None).err(), Some(Refused::Stopped));
    assert_eq!(executor.submit_detached(2, reply(1)), Err(Refused::Stopped));
    assert_eq!(executor.submit_wait(usize::MAX, reply(1), None), Err(Refused::Stopped));
}

#[tokio::test]
async fn tickets_are_awaited_on_a_runtime() {
    let (executor, _workers) = start(config(2));
    let calls = (0..200_u32).map(|n| {
        let executor: Executor<_, _> = executor.clone();
        tokio::spawn(async move {
            loop {
                match executor.submit(n as usize % 2, reply(n), Some(Instant::now() + FAR)) {
                    Ok(ticket) => return ticket.await,
                    // 200 calls do not fit into two mailboxes of 64.
                    Err(Refused::Overloaded) => tokio::task::yield_now().await,
                    Err(refused) => return Err(refused),
                }
            }
        })
    });
    for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let answer = tokio::time::timeout(super::PATIENCE, call).await.expect("in time").expect("no panic");
        assert_eq!(answer, Ok(n as u32));
    }
}

#[test]
fn a_ticket_that_is_ready_at_once_needs_no_timer() {
    let (executor, _workers) = start(config(1));
    let mut ticket = task::spawn(executor.submit(0, reply(4), Some(Instant::now() + FAR)).expect("there is room"));
    assert_eq!(ask(&executor, 0, reply(2)), Ok(2), "the worker is past it");
    assert_eq!(assert_ready!(ticket.poll()), Ok(4));
}
