//! The two ends of a job that somebody waits for: the mailbox holds one, the caller the other. Between them is one
//! allocation with the state, the answer and who is to be woken.
//!
//! ```text
//!            begin (the worker's turn)          answer
//!  QUEUED ──────────────────────────────► RUNNING ────────► ANSWERED
//!     │                                                        ▲
//!     ├── settle (the worker sees the deadline; ───────────────┤ DeadlinePassed, Stopped
//!     │           the mailbox ends)         └── SETTLED ───────┘
//!     └── cancel (the ticket's deadline or drop) ──► CANCELLED
//! ```
//!
//! The job leaves QUEUED once, by one compare-exchange, so that exactly one of the three happens. Whoever takes it to
//! RUNNING or SETTLED has the only right to write the answer, and the caller's end, which there is one of, the only one to
//! take it, when it is there.

use std::fmt;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use crate::error::Refused;
use crate::sync::{Arc, AtomicU8, AtomicWaker, Ordering, UnsafeCell, register, take};
use crate::wakes;

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
/// It will not run, and why is about to be told.
const SETTLED: u8 = 2;
const CANCELLED: u8 = 3;
const ANSWERED: u8 = 4;

struct Slot<Reply> {
    state: AtomicU8,
    answer: UnsafeCell<Option<Result<Reply, Refused>>>,
    caller: AtomicWaker,
}

// SAFETY: `state` and `caller` are made to be shared. The answer is touched by one thread at a time: by the one that has
// taken the job from QUEUED to RUNNING or SETTLED, before it says ANSWERED (S2), and by the caller's end, after it has seen
// that (S3). It goes from one thread to the other, and nobody borrows it, so that it need not be Sync itself.
unsafe impl<Reply: Send> Sync for Slot<Reply> {}
// SAFETY: it owns what is in it.
unsafe impl<Reply: Send> Send for Slot<Reply> {}

impl<Reply> Slot<Reply> {
    /// Out of QUEUED; false if somebody else has decided.
    fn leave_queued(&self, to: u8) -> bool {
        // S1, its own partner. Relaxed, because only who wins counts, and the changes of one location have one order
        // anyway. The job goes over by the mailbox, the answer by S2 and S3; a canceller reads nothing that the worker wrote.
        self.state.compare_exchange(QUEUED, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// For the one who has taken the job to RUNNING or SETTLED, once.
    fn answer(&self, answer: Result<Reply, Refused>) {
        // SAFETY: the caller has won S1 for RUNNING or SETTLED and calls this once, so that nobody else writes; and nobody
        // reads before S2.
        self.answer.with_mut(|place| unsafe { *place = Some(answer) });
        // S2, Release, partner S3: who sees ANSWERED sees the answer, and what the job did.
        self.state.store(ANSWERED, Ordering::Release);
        // Behind S2, and registered before S3: a caller that does not see ANSWERED after it has registered is found here.
        if let Some(waker) = take(&self.caller) {
            wakes::wake(waker);
        }
    }
}

pub(crate) fn slot<Reply>() -> (Queued<Reply>, Pending<Reply>) {
    let (state, answer, caller) = (AtomicU8::new(QUEUED), UnsafeCell::new(None), AtomicWaker::new());
    let slot = Arc::new(Slot { state, answer, caller });
    (Queued(Some(Arc::clone(&slot))), Pending(slot))
}

/// The end in the mailbox. Dropped there, it says that the worker has stopped.
pub(crate) struct Queued<Reply>(Option<Arc<Slot<Reply>>>);

impl<Reply> Queued<Reply> {
    /// The worker's turn: None if the job was cancelled.
    pub(crate) fn begin(mut self) -> Option<Answer<Reply>> {
        let slot = self.0.take()?;
        slot.leave_queued(RUNNING).then(|| Answer(slot))
    }

    /// The worker has seen that the deadline has passed.
    pub(crate) fn expire(mut self) {
        self.settle(Refused::DeadlinePassed);
    }

    fn settle(&mut self, refused: Refused) {
        if let Some(slot) = self.0.take().filter(|slot| slot.leave_queued(SETTLED)) {
            slot.answer(Err(refused));
        }
    }
}

impl<Reply> Drop for Queued<Reply> {
    fn drop(&mut self) {
        self.settle(Refused::Stopped);
    }
}

/// The right to answer a job that runs.
pub(crate) struct Answer<Reply>(Arc<Slot<Reply>>);

impl<Reply> Answer<Reply> {
    /// A caller that is gone does not get it, and that is all.
    pub(crate) fn send(self, answer: Result<Reply, Refused>) {
        self.0.answer(answer);
    }
}

/// The caller's end. Dropping it cancels the job if it is still queued.
pub(crate) struct Pending<Reply>(Arc<Slot<Reply>>);

impl<Reply> Pending<Reply> {
    /// True if the job will never run. If not, it runs or was refused, and the answer comes.
    pub(crate) fn cancel(&self) -> bool {
        self.0.leave_queued(CANCELLED)
    }

    /// The answer, once.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply, Refused>> {
        if let Some(answer) = self.take() {
            return Poll::Ready(answer);
        }
        register(&self.0.caller, cx.waker());
        // Again, for the answer that came before it knew whom to wake.
        self.take().map_or(Poll::Pending, Poll::Ready)
    }

    fn take(&mut self) -> Option<Result<Reply, Refused>> {
        // S3, Acquire, partner S2.
        if self.0.state.load(Ordering::Acquire) != ANSWERED {
            return None;
        }
        // SAFETY: the answer is there, so its writer has done with it, and there is one `Pending`, which is borrowed here.
        self.0.answer.with_mut(|place| unsafe { (*place).take() })
    }

    /// Waits on a plain thread; not longer than to the deadline if the job is still queued then.
    pub(crate) fn wait(mut self, mut deadline: Option<Instant>) -> Result<Reply, Refused> {
        let waker = Waker::from(std::sync::Arc::new(Unpark(thread::current())));
        let mut cx = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(answer) = self.poll(&mut cx) {
                return answer;
            }
            let Some(limit) = deadline else {
                thread::park();
                continue;
            };
            let left = limit.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::park_timeout(left);
            } else if self.cancel() {
                return Err(Refused::DeadlinePassed);
            } else {
                deadline = None;
            }
        }
    }
}

impl<Reply> Drop for Pending<Reply> {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl<Reply> fmt::Debug for Pending<Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// Wakes a thread that has parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests;
