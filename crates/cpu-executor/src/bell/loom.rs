//! Every schedule of a put against a worker that goes to sleep.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::bell::Bell;
use crate::models::model;

/// How many jobs are in the queue. Its orderings are the weakest that a channel can have: what sees to it that the worker does
/// not sleep beside a job has to be the bell.
type Queue = AtomicUsize;

/// Two submitters, one job each. A worker that slept for ever beside a job would be a deadlock, which fails the model.
#[test]
fn nobody_sleeps_beside_a_job() {
    model(["the worker did not sleep", "the worker slept"], || {
        let (bell, queue) = (Arc::new(Bell::new()), Arc::new(Queue::new(0)));
        let worker = {
            let (bell, queue) = (Arc::clone(&bell), Arc::clone(&queue));
            // Before the others begin, as in the executor.
            bell.hang();
            move || {
                let (mut done, mut slept) = (0, 0);
                while done < 2 {
                    done += queue.swap(0, Ordering::Acquire);
                    if done < 2 {
                        bell.sleep(None, || {
                            // Relaxed, and no change of it: a look.
                            let there = queue.load(Ordering::Relaxed) > 0;
                            slept |= usize::from(!there);
                            there
                        });
                    }
                }
                slept
            }
        };
        for _ in 0..2 {
            let (bell, queue) = (Arc::clone(&bell), Arc::clone(&queue));
            thread::spawn(move || {
                queue.fetch_add(1, Ordering::Release);
                bell.ring();
            });
        }
        worker()
    });
}
