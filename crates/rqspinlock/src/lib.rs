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
//! # The story
//! Code that runs on behalf of others (a program attached to a hook, a plug-in, a callback) may take
//! locks in an order that nobody has reviewed. With an ordinary lock the first mistake stops the
//! thread for ever, and everyone behind it. Linux met this with BPF and answered with `rqspinlock`
//! (6.15): a queued spinlock whose waiters watch for deadlocks and whose wait is bounded, so that
//! the worst outcome of a wrong order is an error in the hands of whoever made it.
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
//! The holder is known only by the tables. The first waiter, the head, spins on the word and makes all
//! checks; the others wait for their own node. `slow.rs` draws the states and says who may do what.
//!
//! # What userspace changes
//! A [`Cpu`] is a thread, not a processor. Linux can keep tables and nodes once for each processor as
//! it does not preempt a thread that holds a lock; a thread of ours loses its processor at any
//! instruction. A strict queue would then hand the lock to threads that are not running. So a free
//! lock may be **stolen** past the queue, by each thief for half a millisecond, and until the head has
//! waited for four rounds; then it sets *pending*, and the next release is its own. In Linux *pending*
//! means a second contender that waits without a node; here it belongs to the head and bounds the overtaking.
//!
//! For the same reason waiters do not only spin: after a few microseconds they sleep, the head on the
//! lock's word and the others on their nodes, and whoever lets them go on wakes them.
//!
//! # Guarantees
//! - Mutual exclusion, and each holder sees what the ones before it wrote.
//! - AA is refused at once, for the first 31 locks a Cpu holds.
//! - Every wait ends: a queue that has a head is released, claimed, handed on or flushed within the
//!   head's timeout (250 ms by default). Waiters in the queue do not time out one after the other, but
//!   all at once with the head; those who come after that begin anew.
//! - An error means that nothing was acquired, and leaves the locks held before as they were.
//! - First come, first served among those in the queue; who is at its head is overtaken only for
//!   four rounds, each of which ends within a millisecond once it runs.
//! - A panic in a section leaves the lock locked, so nobody sees a half-done update. The same goes for
//!   a thread that ends while it holds a lock.
//! - Uncontended lock and unlock make no system call and cost two atomic read-modify-writes.
//!
//! # Non-guarantees
//! - ABBA is a heuristic: both parties may see it and both give up (so let go of what you hold before
//!   you try again), and it may go unseen, in a cycle of three or more, when both parties wait behind
//!   innocent waiters, or past 31 held locks. What goes unseen ends in `TimedOut`.
//! - `TimedOut` proves no bug: a holder that the system does not run for that long looks just
//!   like a stuck one.
//! - A lock that was lost (to a panic, or by forgetting a guard) is lost for good.
//! - [`lock_until`](RqSpinLock::lock_until) may return late: only the head looks at the time, and a
//!   queue moves one head, and at most one timeout, at a time.
//! - A lock's identity is its address. Moving or freeing a lock that a forgotten guard still holds is
//!   memory-safe, but another lock at that address may then be taken for it by the checks.
//! - One `Cpu` on each thread is what the deadlock checks assume: a thread that waits with one Cpu for
//!   what it holds with another waits until the timeout.
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
//! | `a_sleeping_head_is_woken` | sleep on the word against the release: no wake is lost |
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
