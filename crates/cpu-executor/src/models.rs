//! What the models of loom share: they run the real code in every schedule.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p cpu-executor --release --lib loom`
//!
//! | model | proves |
//! |---|---|
//! | `slot::tests::loom::caller_against_worker` | a cancelled job does not run; one that runs is answered, and all it did is seen |
//! | `slot::tests::loom::an_answer_is_not_missed` | who waits is woken, whichever of the two is first |
//! | `slot::tests::loom::nobody_is_there_for_the_answer` | an answer that nobody takes is let go once |
//! | `slot::tests::loom::two_who_cancel` | one of them answers for the job |
//! | `bell::loom::nobody_sleeps_beside_a_job` | a worker that goes to sleep finds the job, or is woken |
//! | `gate::loom::no_job_is_left_behind` | a job that is put while the mailbox ends is found by exactly one of the two |

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Runs `body` in every schedule with at most three preemptions (or as many as `LOOM_MAX_PREEMPTIONS` says). It says which of `outcomes` its schedule came to, and each must be the one of some
/// schedule: a model that never gets to what it is about would prove nothing.
pub(crate) fn model<const N: usize>(outcomes: [&'static str; N], body: impl Fn() -> usize + Send + Sync + 'static) {
    let seen: Arc<[AtomicU32; N]> = Arc::new(array::from_fn(|_| AtomicU32::new(0)));
    let noted = Arc::clone(&seen);
    let mut builder = loom::model::Builder::new();
    // More preemptions find nothing more in two threads, and take minutes in three.
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(move || {
        noted[body()].fetch_add(1, Relaxed);
    });
    for (outcome, count) in outcomes.iter().zip(seen.iter()) {
        println!("{outcome}: {count:?} schedules");
        assert!(count.load(Relaxed) > 0, "no schedule in which {outcome}");
    }
}
