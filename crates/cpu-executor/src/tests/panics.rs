//! Workers that panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_test::{assert_pending, task};
use tracing::Level;

use super::logs::{heard, listen};
use super::{Desks, PATIENCE, Stall, answer, ask, config, desk, op, reply, start, wait_until};
use crate::{Background, Executor, Refused, Seat};

/// The worker has ended, and only that one.
fn assert_dead(executor: &Desks, worker: usize, other: usize) {
    wait_until("the worker has ended", || !executor.workers()[worker].alive());
    // The mailbox goes a moment later, and with it what has slipped in.
    assert_eq!(ask(executor, worker, reply(1)), Err(Refused::Stopped));
    wait_until("its mailbox is gone", || executor.submit(worker, reply(1), None).is_err());
    assert_eq!(executor.submit_detached(worker, reply(1)), Err(Refused::Stopped));
    assert_eq!(executor.submit_wait(worker, reply(1), None), Err(Refused::Stopped));
    assert!(executor.workers()[other].alive());
    assert_eq!(ask(executor, other, reply(2)), Ok(2));
}

#[test]
fn a_panic_ends_one_worker_and_its_mailbox() {
    listen();
    let (executor, workers) = start(config(2));
    let stall = Stall::begin(&executor, 0, None);
    let panic = op(|_, _| panic!("a job that panics"));
    let mut panicking = task::spawn(executor.submit(0, panic, None).expect("there is room"));
    let mut queued = task::spawn(executor.submit(0, reply(3), None).expect("there is room"));
    assert_pending!(panicking.poll());
    assert_pending!(queued.poll());
    stall.end();

    assert_eq!(answer(&mut panicking), Err(Refused::Dropped), "what it did is unknown");
    assert_eq!(answer(&mut queued), Err(Refused::Stopped), "it was never begun");
    assert!(!executor.workers()[0].alive(), "whoever was refused can see why");
    assert_dead(&executor, 0, 1);
    assert_eq!(workers.stop(PATIENCE), Ok(()));

    let errors = heard(Level::ERROR, &["worker=0", "a job that panics"]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    let counters = executor.workers()[0].counters();
    assert_eq!((counters.jobs, counters.dropped), (2, 1));
}

#[test]
fn a_panic_in_the_background_is_one_too() {
    listen();
    let armed = Arc::new(AtomicBool::new(false));
    let (executor, _workers): (Desks, _) = {
        let armed = Arc::clone(&armed);
        let make = move |seat: &Seat| {
            let (armed, worker) = (Arc::clone(&armed), seat.worker);
            Ok::<_, String>(desk(seat, move |_| {
                assert!(worker != 1 || !armed.load(Ordering::SeqCst), "background work that panics");
                Background::Idle
            }))
        };
        Executor::start(config(2), make).expect("the workers start")
    };
    let arm = op(move |_, job| {
        armed.store(true, Ordering::SeqCst);
        job.responder.send(5);
    });
    assert_eq!(ask(&executor, 1, arm), Ok(5), "the job itself is answered");
    assert_dead(&executor, 1, 0);
    wait_until("it is logged", || heard(Level::ERROR, &["worker=1", "background work that panics"]).len() == 1);
}

#[test]
fn a_worker_that_panics_again_as_it_is_dropped_does_not_end_the_process() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the drop panics, too");
        }
    }
    let make = |seat: &Seat| {
        let bomb = (seat.worker == 0).then(|| Bomb);
        Ok::<_, String>(desk(seat, move |_| {
            let _ = &bomb;
            Background::Idle
        }))
    };
    let (executor, workers): (Desks, _) = Executor::start(config(2), make).expect("the workers start");
    let panic = op(|_, _| panic!("the first panic"));
    assert_eq!(ask(&executor, 0, panic), Err(Refused::Dropped));
    assert_dead(&executor, 0, 1);
    assert_eq!(workers.stop(PATIENCE), Ok(()), "its thread has come to its end");
}
