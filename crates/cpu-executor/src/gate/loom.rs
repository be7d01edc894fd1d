//! Every schedule of a put against the end of the mailbox.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::gate::Gate;
use crate::models::model;

/// A queue of one place. Its orderings are the weakest that a channel can have: what sees to it that no job is left behind
/// has to be the gate.
struct Queue(AtomicBool);

impl Queue {
    fn put(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Takes out what is there: how many jobs? Where nothing seems to be, nothing is written, as in a channel.
    fn empty(&self) -> usize {
        usize::from(self.0.load(Ordering::Acquire) && self.0.swap(false, Ordering::Acquire))
    }
}

#[test]
fn no_job_is_left_behind() {
    model(["the worker finds it", "the submitter finds it"], || {
        let gate = Arc::new(Gate::open());
        let queue = Arc::new(Queue(AtomicBool::new(false)));
        let worker = {
            let (gate, queue) = (Arc::clone(&gate), Arc::clone(&queue));
            thread::spawn(move || {
                gate.close();
                queue.empty()
            })
        };
        queue.put();
        let by_submitter = if gate.was_closed_meanwhile() { queue.empty() } else { 0 };
        let by_worker = worker.join().expect("the worker ends");
        assert_eq!(by_worker + by_submitter, 1, "the job is answered once");
        assert!(gate.is_closed());
        by_submitter
    });
}
