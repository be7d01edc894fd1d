//! The lock as a whole: the case table by name, stress, and the models of loom.
//!
//! | case | test | model |
//! |---|---|---|
//! | AA | `cases::aa`, `aa_takes_no_time` | |
//! | held_lock_max: the 33rd of 34 again | `cases::held_lock_max` | |
//! | ABBA, 2 Cpus | `cases::abba`, `abba_before_queueing` | `one_of_two_sees_abba` |
//! | AB against BA | `cases::ab_16_against_ba_1`, `ab_8_against_ba_8` | |
//! | ABBCCA, 3 Cpus | `cases::abbcca` | |
//! | out-of-order unlock | `cases::out_of_order_unlock_is_asserted` (debug), `out_of_order_unlock_is_counted` (release) | |
//! | deadlocked head, nobody behind | `cases::deadlocked_head_alone` | `head_gives_up_alone` |
//! | deadlocked head, waiters behind | `cases::deadlocked_head_with_waiters` | `head_gives_up_before_a_successor` |
//! | timed-out head, N behind | `cases::timed_out_head_with_waiters` | `flush_against_release`, `flush_of_three` |
//! | nesting 5 | `cases::nesting_5` | |
//! | give-up against newcomers | `cases::give_up_against_newcomers` | `head_gives_up_before_a_successor` |
//! | retry after a flush | `cases::retry_after_a_flush` | `retry_after_a_flush` |
//! | stress on 2 cores, holders that sleep 20 ms | `stress::stress_2`, `stress_4`, `stress_8`, `stress_64`; `random::stress_64_at_random` | shuttle's |
//! | fairness: first come, first served in the queue | `waits::queued_waiters_are_served_in_order` | `queue_hand_over` |
//! | fairness: bounded overtaking | `waits::a_claimed_release_is_not_stolen`, `stress::fairness`; `a_turn_ends_by_time_and_anew_with_every_queue` of `streak.rs` | `thief_against_claiming_head` |

use crate::RawRqSpinLock;
use crate::word::Word;

#[cfg(not(loom))]
mod api;
#[cfg(not(loom))]
mod cases;
#[cfg(not(loom))]
pub(crate) mod harness;
#[cfg(all(loom, not(shuttle)))]
pub(crate) mod loom;
#[cfg(not(loom))]
mod random;
#[cfg(all(loom, shuttle))]
mod shuttle;
#[cfg(not(loom))]
mod stress;
#[cfg(not(loom))]
mod waits;

/// Nobody holds the lock, nobody waits, and nothing is left in its word.
pub(crate) fn assert_at_rest(lock: &RawRqSpinLock) {
    assert_eq!(lock.word.peek(), Word::UNLOCKED);
}
