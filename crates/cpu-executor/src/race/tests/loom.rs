//! The models of loom: every schedule of the hand-over.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p cpu-executor --release --lib loom`

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::mpsc;
use loom::thread;

use crate::race::Race;

/// Runs `body` in every schedule. It says which of `outcomes` its schedule came to, and each must be the
/// one of some schedule: a model that never gets to what it is about would prove nothing.
fn model<const N: usize>(outcomes: [&'static str; N], body: impl Fn() -> usize + Send + Sync + 'static) {
    let seen: std::sync::Arc<[AtomicU32; N]> = std::sync::Arc::new(std::array::from_fn(|_| AtomicU32::new(0)));
    let noted = std::sync::Arc::clone(&seen);
    loom::model(move || {
        noted[body()].fetch_add(1, Relaxed);
    });
    for (outcome, count) in outcomes.iter().zip(seen.iter()) {
        println!("{outcome}: {count:?} schedules");
        assert!(count.load(Relaxed) > 0, "no schedule in which {outcome}");
    }
}

/// What the job does to the world: loom fails the model if two touches of it are not ordered.
#[derive(Clone)]
struct World(Arc<UnsafeCell<u32>>);

impl World {
    fn new() -> Self {
        World(Arc::new(UnsafeCell::new(0)))
    }

    fn change(&self) {
        self.0.with_mut(|times| {
            // SAFETY: the pointer is that of the cell, and loom fails the model when another thread
            // touches it meanwhile.
            unsafe { *times += 1 }
        });
    }

    fn changes(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|times| unsafe { *times })
    }
}

/// The deadline and then the drop on the caller's side, against the worker.
///
/// The caller who was told "cancelled" may touch the world without asking anybody: the worker does not.
/// The one who was not told so waits for the answer, and sees all that the job did.
#[test]
fn caller_against_worker() {
    model(["the job runs", "the job is cancelled"], || {
        let race = Arc::new(Race::new());
        let world = World::new();
        let (reply, answer) = mpsc::channel();

        let worker = {
            let (race, world) = (Arc::clone(&race), world.clone());
            thread::spawn(move || {
                if race.start() {
                    world.change();
                    // The caller may have gone by then.
                    let _ = reply.send(());
                    return true;
                }
                false
            })
        };

        let cancelled = race.cancel();
        if !cancelled {
            answer.recv().expect("a job that cannot be cancelled is answered");
        }
        assert_eq!(world.changes(), u32::from(!cancelled));
        assert!(!race.cancel(), "the ticket's drop after its deadline decides nothing");
        assert_eq!(worker.join().expect("the worker ends"), !cancelled, "the two agree about who won");
        usize::from(cancelled)
    });
}

/// The worker, too, may cancel (deadline, stop), while the ticket is dropped: one of them answers for the job.
#[test]
fn two_cancellers() {
    model(["the worker answers", "the caller cancels"], || {
        let race = Arc::new(Race::new());
        let worker = {
            let race = Arc::clone(&race);
            thread::spawn(move || race.cancel())
        };
        let by_caller = race.cancel();
        let by_worker = worker.join().expect("the worker ends");
        assert!(by_caller != by_worker, "exactly one is told that it decided");
        assert!(!race.start(), "and nobody runs the job");
        usize::from(by_caller)
    });
}
