//! What happens between two batches.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_test::task;

use super::{Desks, FAR, PATIENCE, answer, ask, config, desk, op, reply, status, wait_until};
use crate::{Background, Config, Executor, Responder, Seat, Workers};

/// One worker whose background work is `background`.
fn start_with(
    config: Config,
    background: impl FnMut(&mut Vec<Responder<u32>>) -> Background + Send + Clone + 'static,
) -> (Desks, Workers) {
    let background = Mutex::new(background);
    let make = move |seat: &Seat| Ok::<_, String>(desk(seat, background.lock().expect("no panic").clone()));
    Executor::start(config, make).expect("the worker starts")
}

/// What is answered in the background is delivered before the worker sleeps.
#[test]
fn an_answer_from_the_background_wakes_its_caller() {
    let (executor, _workers) = start_with(config(1), |kept| {
        kept.drain(..).for_each(|responder| responder.send(5));
        Background::Idle
    });
    let stall = super::Stall::begin(&executor, 0, None);
    let keep = op(|desk, job| desk.kept.push(job.responder));
    let mut ticket = task::spawn(executor.submit(0, keep, None).expect("there is room"));
    assert!(ticket.poll().is_pending(), "it waits before there is an answer");
    stall.end();
    wait_until("its caller is woken", || ticket.is_woken());
    assert_eq!(answer(&mut ticket), Ok(5));
}

#[test]
fn background_work_comes_after_each_batch() {
    let trace = Arc::new(Mutex::new(Vec::new()));
    let note = |what: String| trace.lock().expect("no panic").push(what);
    let (executor, _workers) = {
        let trace = Arc::clone(&trace);
        start_with(Config { batch: 2, ..config(1) }, move |_| {
            trace.lock().expect("no panic").push("background".to_owned());
            Background::Idle
        })
    };
    wait_until("it is called before the first sleep", || trace.lock().expect("no panic").len() == 1);
    let (begun, has_begun) = channel();
    let (go, gone) = channel();
    let traced = |n: u32| {
        let trace = Arc::clone(&trace);
        op(move |_, job| {
            trace.lock().expect("no panic").push(n.to_string());
            job.responder.send(n);
        })
    };
    let mut stall = task::spawn(executor.submit(0, super::stalled(begun, gone), None).expect("there is room"));
    has_begun.recv_timeout(PATIENCE).expect("the job begins");
    note("stall".to_owned());
    let tickets: Vec<_> = (1..=4).map(|n| executor.submit(0, traced(n), None).expect("there is room")).collect();
    go.send(()).expect("the job waits for it");
    assert_eq!(answer(&mut stall), Ok(1));
    for (n, ticket) in (1..).zip(tickets) {
        assert_eq!(answer(&mut task::spawn(ticket)), Ok(n));
    }
    wait_until("the last batch is over", || trace.lock().expect("no panic").len() == 9);
    assert_eq!(
        *trace.lock().expect("no panic"),
        ["background", "stall", "1", "background", "2", "3", "background", "4", "background"]
    );
    let counters = executor.workers()[0].counters();
    assert_eq!((counters.batches, counters.jobs, counters.high_water), (3, 5, 4));
}

#[test]
fn an_idle_worker_sleeps() {
    let calls = Arc::new(AtomicU32::new(0));
    let (executor, _workers) = {
        let calls = Arc::clone(&calls);
        start_with(config(1), move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            Background::Idle
        })
    };
    wait_until("it is called before the first sleep", || calls.load(Ordering::SeqCst) == 1);
    for n in 1..=5 {
        assert_eq!(executor.submit_wait(0, reply(n), None), Ok(n));
        // Once at the start, and once after each batch of one job.
        wait_until("the batch is over", || calls.load(Ordering::SeqCst) == n + 1);
        wait_until("it sleeps", || status(executor.workers()[0].tid(), "State").starts_with('S'));
        assert_eq!(calls.load(Ordering::SeqCst), n + 1, "it is called for nothing");
    }
}

#[test]
fn again_calls_again_and_still_looks_into_the_mailbox() {
    let calls = Arc::new(AtomicU32::new(0));
    let enough = Arc::new(AtomicBool::new(false));
    let (executor, _workers) = {
        let (calls, enough) = (Arc::clone(&calls), Arc::clone(&enough));
        start_with(config(1), move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            if enough.load(Ordering::SeqCst) { Background::Idle } else { Background::Again }
        })
    };
    wait_until("it is called again without a job", || calls.load(Ordering::SeqCst) > 100);
    let stop = op(move |_, job| {
        enough.store(true, Ordering::SeqCst);
        job.responder.send(1);
    });
    assert_eq!(ask(&executor, 0, stop), Ok(1), "a job gets through");
    wait_until("it sleeps", || status(executor.workers()[0].tid(), "State").starts_with('S'));
    let then = calls.load(Ordering::SeqCst);
    assert_eq!(ask(&executor, 0, reply(2)), Ok(2));
    wait_until("the batch is over", || calls.load(Ordering::SeqCst) == then + 1);
}

#[test]
fn after_calls_when_the_time_is_over() {
    const PAUSE: Duration = Duration::from_millis(30);
    let (called, calls) = channel();
    let (_executor, _workers) = start_with(config(1), move |_| {
        let _ = called.send(Instant::now());
        Background::After(PAUSE)
    });
    let next = || calls.recv_timeout(PATIENCE).expect("it is called");
    let mut last = next();
    for _ in 0..3 {
        let now = next();
        assert!(now - last >= PAUSE, "it is called too early: {:?}", now - last);
        last = now;
    }
}

#[test]
fn a_job_does_not_wait_for_after() {
    for pause in [FAR, Duration::MAX] {
        let (executor, _workers) = start_with(config(1), move |_| Background::After(pause));
        wait_until("it sleeps", || status(executor.workers()[0].tid(), "State").starts_with('S'));
        assert_eq!(ask(&executor, 0, reply(3)), Ok(3), "a job wakes it");
    }
}

#[test]
fn long_work_answers_from_the_background() {
    let mut steps = 0;
    let (executor, _workers) = start_with(config(1), move |kept| {
        if kept.is_empty() {
            return Background::Idle;
        }
        steps += 1;
        if steps == 3 {
            kept.drain(..).for_each(|responder| responder.send(steps));
        }
        Background::Again
    });
    let long = op(|desk, job| desk.kept.push(job.responder));
    assert_eq!(ask(&executor, 0, long), Ok(3));
    assert_eq!(executor.workers()[0].counters().dropped, 0);
}
