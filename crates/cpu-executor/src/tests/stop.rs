//! The end of the threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::gettid;
use tokio_test::{assert_pending, assert_ready_eq, task};

use super::{Desks, FAR, PATIENCE, Stall, answer, ask, config, in_time, op, reply, start, status, wait_until};
use crate::{Config, Refused, StopError};

/// A job that counts its runs.
fn counting(runs: &Arc<AtomicU32>) -> super::Op {
    let runs = Arc::clone(runs);
    op(move |_, job| job.responder.send(runs.fetch_add(1, Ordering::SeqCst)))
}

fn is_refused(executor: &Desks, worker: usize) -> bool {
    matches!(executor.submit(worker, reply(0), None), Err(Refused::Stopped))
}

#[test]
fn what_runs_ends_and_what_is_queued_is_refused() {
    let (executor, workers) = start(Config { batch: 64, ..config(2) });
    let runs = Arc::new(AtomicU32::new(0));
    let stall = Stall::begin(&executor, 0, None);
    let mut queued: Vec<_> =
        (0..10).map(|_| task::spawn(executor.submit(0, counting(&runs), None).expect("there is room"))).collect();
    executor.submit_detached(0, counting(&runs)).expect("there is room");
    let stopping = thread::spawn(move || workers.stop(PATIENCE));

    wait_until("nothing new is taken", || is_refused(&executor, 0));
    wait_until("the idle worker has ended", || !executor.workers()[1].alive());
    assert!(executor.workers()[0].alive(), "a job runs there");
    assert_pending!(queued[0].poll());

    stall.end();
    assert_eq!(stopping.join().expect("no panic"), Ok(()));
    for ticket in &mut queued {
        assert_ready_eq!(ticket.poll(), Err(Refused::Stopped));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 0, "nothing of it has run");
    for info in executor.workers() {
        assert!(!info.alive());
        assert!(!std::path::Path::new(&format!("/proc/self/task/{}", info.tid())).exists(), "its thread was joined");
        assert_eq!(executor.submit_wait(info.index(), reply(1), None), Err(Refused::Stopped));
        assert_eq!(executor.submit_detached(info.index(), reply(1)), Err(Refused::Stopped));
    }
}

#[test]
fn idle_workers_end_at_once() {
    let (executor, workers) = start(config(3));
    assert_eq!(ask(&executor, 1, reply(1)), Ok(1));
    let begun = Instant::now();
    assert_eq!(workers.stop(FAR), Ok(()));
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn a_worker_with_a_full_mailbox_hears_of_the_stop() {
    // Full with one job: the worker may take that without having heard, and must not go to sleep afterwards.
    for _ in 0..200 {
        let (executor, workers) = start(Config { mailbox_capacity: 1, batch: 1, ..config(1) });
        let stall = Stall::begin(&executor, 0, None);
        let mut queued = task::spawn(executor.submit(0, reply(3), None).expect("there is room for one"));
        let stopping = thread::spawn(move || workers.stop(PATIENCE));
        stall.end();
        assert_eq!(stopping.join().expect("no panic"), Ok(()));
        let answer = answer(&mut queued);
        assert!(matches!(answer, Ok(3) | Err(Refused::Stopped)), "{answer:?}");
    }
}

#[test]
fn a_stuck_worker_is_named_and_left() {
    let (executor, workers) = start(config(2));
    let stall = Stall::begin(&executor, 1, None);
    let mut queued = task::spawn(executor.submit(1, reply(2), None).expect("there is room"));
    let grace = Duration::from_millis(50);
    let begun = Instant::now();
    let error = workers.stop(grace).expect_err("worker 1 is in a job");
    assert!(begun.elapsed() >= grace);
    assert_eq!(error, StopError { stuck: vec![1], grace });
    assert_eq!(error.to_string(), "workers [1] were still busy after the grace period of 50 ms");
    assert!(!executor.workers()[0].alive());

    stall.end();
    assert_eq!(answer(&mut queued), Err(Refused::Stopped), "it ends when it is out of its job");
    assert!(!executor.workers()[1].alive());
}

#[test]
fn a_stuck_worker_with_a_full_mailbox_does_not_hold_up_the_others() {
    let (executor, workers) = start(Config { mailbox_capacity: 1, ..config(2) });
    let stall = Stall::begin(&executor, 0, None);
    let _queued = executor.submit(0, reply(2), None).expect("there is room for one");
    let stopping = thread::spawn(move || workers.stop(PATIENCE));
    wait_until("the other worker has ended", || !executor.workers()[1].alive());
    assert!(!stopping.is_finished());
    stall.end();
    assert_eq!(stopping.join().expect("no panic"), Ok(()));
}

#[test]
fn long_work_in_hand_is_dropped_with_its_worker() {
    let (executor, workers) = start(config(1));
    let keep = op(|desk, job| desk.kept.push(job.responder));
    let mut long = task::spawn(executor.submit(0, keep, None).expect("there is room"));
    assert_eq!(ask(&executor, 0, reply(1)), Ok(1));
    assert_pending!(long.poll());
    assert_eq!(workers.stop(PATIENCE), Ok(()));
    assert_ready_eq!(long.poll(), Err(Refused::Dropped));
    assert_eq!(executor.workers()[0].counters().dropped, 1);
}

#[test]
fn a_drop_stops_too() {
    let (executor, workers) = start(config(2));
    drop(workers);
    assert!(executor.workers().iter().all(|info| !info.alive()));
    assert!(is_refused(&executor, 0));
}

#[test]
fn a_grace_without_end_is_cut() {
    let (_executor, workers) = start(config(1));
    assert_eq!(workers.stop(Duration::MAX), Ok(()));
}

#[test]
fn a_thread_that_waits_for_room_is_not_left_behind() {
    for round in 0..20 {
        let (executor, workers) = start(Config { mailbox_capacity: 1, ..config(1) });
        let stall = Stall::begin(&executor, 0, None);
        let _full = executor.submit(0, reply(2), None).expect("there is room for one");
        let (say, tid) = channel();
        let waiting = {
            let executor = executor.clone();
            thread::spawn(move || {
                say.send(gettid().as_raw_nonzero().get()).expect("the test waits for it");
                executor.submit_wait(0, reply(3), None)
            })
        };
        let tid = tid.recv_timeout(PATIENCE).expect("the thread starts");
        wait_until("it sleeps until there is room", || status(tid, "State").starts_with('S'));
        let stopping = thread::spawn(move || workers.stop(PATIENCE));
        wait_until("the stop is said", || is_refused(&executor, 0));
        stall.end();
        // The mailbox is emptied, which makes the room that the thread waits for, with nobody behind it any more.
        let answer = in_time(move || waiting.join().expect("no panic"));
        // Overloaded, if the machine was too busy to get here within 100 ms.
        assert!(matches!(answer, Err(Refused::Stopped | Refused::Overloaded)), "round {round}: {answer:?}");
        assert_eq!(stopping.join().expect("no panic"), Ok(()));
    }
}

#[test]
fn nothing_is_lost_between_submitters_and_a_stop() {
    for round in 0..20 {
        let (executor, workers) = start(Config { mailbox_capacity: 4, batch: 3, ..config(2) });
        let runs = Arc::new(AtomicU32::new(0));
        let submitters = [0, 1, 2].map(|submitter| {
            let (executor, runs) = (executor.clone(), Arc::clone(&runs));
            thread::spawn(move || {
                let mut replies = 0;
                loop {
                    // Some on a plain thread, some through a ticket.
                    let answer = if submitter % 2 == 0 {
                        executor.submit_wait(submitter % 2, counting(&runs), None)
                    } else {
                        ask(&executor, submitter % 2, counting(&runs))
                    };
                    match answer {
                        Ok(_) => replies += 1,
                        Err(Refused::Overloaded) => thread::yield_now(),
                        Err(refused) => {
                            assert_eq!(refused, Refused::Stopped);
                            return replies;
                        }
                    }
                }
            })
        });
        wait_until("jobs run", || runs.load(Ordering::SeqCst) > round * 10);
        assert_eq!(workers.stop(PATIENCE), Ok(()));
        let replies: u32 = in_time(move || submitters.map(|thread| thread.join().expect("no panic")).iter().sum());
        assert_eq!(replies, runs.load(Ordering::SeqCst), "a reply for each run");
    }
}
