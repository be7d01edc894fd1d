//! Every schedule of the two ends.

use std::future::poll_fn;

use loom::cell::UnsafeCell;
use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;

use crate::error::Refused;
use crate::models::model;
use crate::slot::slot;

/// What the job does to the world. It holds nothing, but loom fails the model if two touches of it are not ordered.
#[derive(Clone)]
struct World(Arc<UnsafeCell<()>>);

impl World {
    fn new() -> Self {
        World(Arc::new(UnsafeCell::new(())))
    }

    fn touch(&self) {
        self.0.with_mut(|_| ());
    }
}

/// The deadline and then the drop on the caller's side, against the worker.
///
/// The caller who was told "cancelled" may touch the world without asking anybody: the worker does not.
/// The one who was not told so waits for the answer, is woken, and sees all that the job did.
#[test]
fn caller_against_worker() {
    model(["the job runs", "the job is cancelled"], || {
        let (queued, mut pending) = slot();
        let world = World::new();
        let worker = {
            let world = world.clone();
            thread::spawn(move || {
                let Some(answer) = queued.begin() else { return false };
                world.touch();
                answer.send(Ok(7));
                true
            })
        };
        let cancelled = pending.cancel();
        if !cancelled {
            assert_eq!(block_on(poll_fn(|cx| pending.poll(cx))), Ok(7));
        }
        world.touch();
        assert!(!pending.cancel(), "the ticket's drop after its deadline decides nothing");
        assert_eq!(worker.join().expect("the worker ends"), !cancelled, "the two agree about who won");
        usize::from(cancelled)
    });
}

/// A caller that waits from the beginning is woken, whatever comes first: the answer, or its knowing whom to wake.
#[test]
fn an_answer_is_not_missed() {
    model(["it is answered"], || {
        let (queued, mut pending) = slot();
        let worker = thread::spawn(move || queued.begin().expect("nobody cancels it").send(Ok(7)));
        assert_eq!(block_on(poll_fn(|cx| pending.poll(cx))), Ok(7));
        worker.join().expect("the worker ends");
        0
    });
}

/// A caller that goes while its answer comes. The answer is let go once: loom fails the model if it leaks.
#[test]
fn nobody_is_there_for_the_answer() {
    model(["the job has begun", "the caller has gone before"], || {
        let (queued, pending) = slot();
        let worker = thread::spawn(move || match queued.begin() {
            Some(answer) => {
                answer.send(Ok(Arc::new(7)));
                0
            }
            None => 1,
        });
        drop(pending);
        worker.join().expect("the worker ends")
    });
}

/// The worker, too, may settle it (it sees the deadline, or the mailbox ends), while the ticket's deadline passes: one of
/// them answers for the job.
#[test]
fn two_who_cancel() {
    model(["the worker answers", "the caller cancels"], || {
        let (queued, mut pending) = slot::<()>();
        let worker = thread::spawn(move || queued.expire());
        let by_caller = pending.cancel();
        if !by_caller {
            assert_eq!(block_on(poll_fn(|cx| pending.poll(cx))), Err(Refused::DeadlinePassed));
        }
        worker.join().expect("the worker ends");
        let mut again = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(pending.poll(&mut again).is_pending(), "there is one answer at most");
        usize::from(by_caller)
    });
}
