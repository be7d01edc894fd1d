//! A resilient queued spinlock for userspace: `lock()` may fail, with [`Deadlock`] when waiting
//! would never end and with [`TimedOut`] when it did not end in time.
//!
//! [`Deadlock`]: LockError::Deadlock
//! [`TimedOut`]: LockError::TimedOut
//!
//! ```
//! use rqspinlock::{Cpu, Cycle, LockError, RqSpinLock};
//!
//! let cpu = Cpu::register()?; // once for each thread that takes locks
//! let lock = RqSpinLock::new(vec![1, 2]);
//!
//! let mut list = lock.lock(&cpu)?;
//! list.push(3);
//! // Any other lock would hang here.
//! assert_eq!(lock.lock(&cpu).err(), Some(LockError::Deadlock(Cycle::Aa)));
//! drop(list);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The README has an example of each error, and lists what is guaranteed and what is not.
//!
//! # The story
//! Linux met the wrong order of locks with BPF, whose programs nobody has reviewed, and answered with
//! `rqspinlock` (6.15): a queued spinlock whose waiters watch for deadlocks and whose wait is bounded.
//!
//! This crate is that lock for threads. It keeps the words and the results of Linux's: the 4-byte
//! word of *locked*, *pending* and *tail*; MCS queue nodes, four for each CPU; a table of held
//! locks for each CPU; AA and ABBA checks; a head of the queue that times out for all.
//!
//! ```text
//!   word of lock B                       Cpu 0                       Cpu 2
//!  +------------------------------+      held: [ B ]                 held: [ A | B ]
//!  | tail: cpu 7 | pending | lock |      (the holder)                      held^  ^wanted
//!  +------|-----------------------+
//!         |                              Cpu 2, node 0               Cpu 7, node 0
//!         |                              +----------------+  next    +----------------+
//!         |                      head -> | flag: head     |--------->| flag: waiting  |
//!         |                              +----------------+          +----------------+
//!         `-----------------------------------------------------------------^
//! ```
//!
//! The holder is known only by the tables. The first waiter, the head, waits for the word and makes all
//! checks; the others wait for their own node. `slow.rs` draws the states and says who may do what.
//!
//! # What userspace changes
//! A [`Cpu`] is a thread, not a processor. Linux can keep tables and nodes once for each processor as
//! it does not preempt a thread that holds a lock; a thread of ours loses its processor at any
//! instruction. A strict queue would then hand the lock to threads that are not running. So a free
//! lock may be **stolen** past the queue, by each thief for half a millisecond, and until the head has
//! waited for three rounds; then it sets *pending*, and the next release is its own. In Linux *pending*
//! means a second contender that waits without a node; here it belongs to the head and bounds the overtaking.
//!
//! For the same reason waiters do not only spin: after a few microseconds they sleep, the head on the
//! lock's word and the others on their nodes, and whoever lets them go on wakes them.
//!
//! # Feature `fault-injection`
//! Refusals on demand, for the tests of what is built on the lock: `Cpu::refuse(n, error)` and
//! `RawRqSpinLock::refuse(n, error)` make the n-th acquisition fail. Without it nothing of that is compiled.
//!
//! # Models
//! The protocol is checked by loom and shuttle, on this code and not on a copy.
//! `RUSTFLAGS="--cfg loom" cargo test -p rqspinlock --release --lib loom`
//!
//! | loom, every schedule within its bound of preemptions | proves |
//! |---|---|
//! | `fast_path_and_unlock` | exclusion and visibility of the value; registration |
//! | `thief_against_claiming_head` | a thief and a head never both win; no pending is left behind |
//! | `queue_hand_over` | exclusion and one head at a time along a queue; nobody is forgotten |
//! | `head_gives_up_alone` | leaving clears pending and the tail in one, against the release |
//! | `head_gives_up_before_a_successor` | headship goes on to who is behind, or to a newcomer |
//! | `flush_against_release` | everyone of a flushed queue is told, once, and nobody else |
//! | `retry_after_a_flush`, `flush_of_three` | nodes of a flushed queue may be used at once in the next |
//! | `one_of_two_sees_abba` | two Cpus that want each other's lock are not both overlooked |
//! | `a_sleeping_head_is_woken` | sleep on the word against the releases of a holder and of a thief, before and after the claim: no wake is lost |
//! | `a_sleeping_waiter_is_told`, `sleeping_waiters_are_flushed` | sleep on the node against hand-over and flush, the same |
//!
//! shuttle (`--cfg loom --cfg shuttle`, `--lib shuttle`) goes through random schedules of four threads that come back again and again,
//! by every way in, with and without time passing: no update is lost, nobody is forgotten, and all is at rest in the end.

mod clock;
mod cpu;
mod deadlock;
mod error;
mod events;
#[cfg(feature = "fault-injection")]
mod fault;
mod held;
mod lock;
mod registry;
mod slow;
mod streak;
mod sync;
mod word;

pub use clock::{Clock, ManualClock, SystemClock};
pub use cpu::{Cpu, CpuBuilder, CpuId, DEFAULT_TIMEOUT};
pub use error::{Cycle, LockError, LockId, RegisterError};
pub use events::{Events, EventsHandle};
pub use lock::{Guard, RawRqSpinLock, RqSpinLock};

#[cfg(test)]
mod tests;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
