//! Every schedule of the race.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::mpsc;
use loom::thread;

use crate::models::model;
use crate::phase::Phase;

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
/// The one who was not told so waits for the answer, and sees all that the job did.
#[test]
fn caller_against_worker() {
    model(["the job runs", "the job is cancelled"], || {
        let phase = Arc::new(Phase::queued());
        let world = World::new();
        let (reply, answer) = mpsc::channel();

        let worker = {
            let (phase, world) = (Arc::clone(&phase), world.clone());
            thread::spawn(move || {
                if phase.begin() {
                    world.touch();
                    // The caller may have gone by then.
                    let _ = reply.send(());
                    return true;
                }
                false
            })
        };

        let cancelled = phase.cancel();
        if !cancelled {
            answer.recv().expect("a job that cannot be cancelled is answered");
        }
        world.touch();
        assert!(!phase.cancel(), "the ticket's drop after its deadline decides nothing");
        assert_eq!(worker.join().expect("the worker ends"), !cancelled, "the two agree about who won");
        usize::from(cancelled)
    });
}

/// The worker, too, may cancel (it sees the deadline), while the ticket is dropped: one of them answers for the job.
#[test]
fn two_cancellers() {
    model(["the worker answers", "the caller cancels"], || {
        let phase = Arc::new(Phase::queued());
        let worker = {
            let phase = Arc::clone(&phase);
            thread::spawn(move || phase.cancel())
        };
        let by_caller = phase.cancel();
        let by_worker = worker.join().expect("the worker ends");
        assert!(by_caller != by_worker, "exactly one is told that it decided");
        assert!(!phase.begin(), "and nobody runs the job");
        usize::from(by_caller)
    });
}
