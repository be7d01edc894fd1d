//! Wake-ups that are put off, so that what belongs together is woken once.
//!
//! To wake a thread costs it and its waker a system call each, so both sides of the border gather what they have for the
//! other one:
//!
//! * A tokio task that submits many jobs in one poll does so [`together`]: the jobs go into the mailboxes at once, and the
//!   workers that sleep are woken at the end, or after [`MOST`] jobs.
//! * A worker answers the jobs of a batch, and wakes those who wait for the answers at its end, or when it is going to wait
//!   itself ([`deliver`]): it finds them all ready, and so does the connection that they come from.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::task::Waker;

use crate::bell::Bell;

/// So many jobs are enough for a worker to begin with.
const MOST: usize = 64;

thread_local! {
    /// Those who wait for answers of this worker's thread; none: it is no worker's.
    static ANSWERED: RefCell<Option<Vec<Waker>>> = const { RefCell::new(None) };
    /// How deep in [`together`] this thread is.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static CALLED: RefCell<Called> = const { RefCell::new(Called { jobs: 0, bells: Vec::new() }) };
}

/// Workers that have got jobs, each once.
struct Called {
    jobs: usize,
    bells: Vec<Arc<Bell>>,
}

/// Runs `body`, and wakes the workers that it has submitted jobs to at its end.
///
/// It must not wait for an answer of theirs, which nothing asynchronous does.
pub fn together<T>(body: impl FnOnce() -> T) -> T {
    /// Also where `body` panics: nobody's job is forgotten.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            let depth = DEPTH.get() - 1;
            DEPTH.set(depth);
            if depth == 0 {
                ring_all();
            }
        }
    }
    DEPTH.set(DEPTH.get() + 1);
    let _end = End;
    body()
}

/// A job was put into the mailbox of this bell's worker.
pub(crate) fn call(bell: &Arc<Bell>) {
    if DEPTH.get() == 0 {
        return bell.ring();
    }
    let full = CALLED.with_borrow_mut(|called| {
        if !called.bells.iter().any(|known| Arc::ptr_eq(known, bell)) {
            called.bells.push(Arc::clone(bell));
        }
        called.jobs += 1;
        called.jobs >= MOST
    });
    if full {
        ring_all();
    }
}

fn ring_all() {
    CALLED.with_borrow_mut(|called| {
        called.jobs = 0;
        called.bells.drain(..).for_each(|bell| bell.ring());
    });
}

/// Wakes those who wait for what this worker's thread has answered. Elsewhere there is nobody.
///
/// The executor calls it after each batch; a worker that is going to wait inside of a job calls it before.
pub fn deliver() {
    // Out of the cell first: a waker is somebody else's code.
    let answered = ANSWERED.with_borrow_mut(|answered| answered.as_mut().map(std::mem::take));
    let Some(mut answered) = answered else { return };
    answered.drain(..).for_each(Waker::wake);
    ANSWERED.with_borrow_mut(|kept| {
        // The room is worth keeping.
        if let Some(kept) = kept.as_mut().filter(|kept| kept.capacity() < answered.capacity()) {
            answered.append(kept);
            *kept = answered;
        }
    });
}

/// This thread is a worker's from now on: it delivers by itself.
pub(crate) fn put_off() {
    ANSWERED.set(Some(Vec::with_capacity(MOST)));
}

/// Wakes somebody whose answer is there, now or when this thread delivers.
pub(crate) fn wake(waker: Waker) {
    let now = ANSWERED.with_borrow_mut(|answered| match answered {
        Some(answered) => {
            answered.push(waker);
            None
        }
        None => Some(waker),
    });
    if let Some(waker) = now {
        waker.wake();
    }
}
