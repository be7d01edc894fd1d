//! `Cpu`: the right to take locks, held by one thread.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::{Clock, SystemClock};
use crate::error::RegisterError;
use crate::events::{Counters, EventsHandle};
use crate::held::HeldTable;
use crate::registry::{Context, NODES, Node, registry};
use crate::streak::Streak;
use crate::word::Tail;

/// How long the head of a queue waits before it flushes the queue, unless the Cpu was built with
/// another [timeout](CpuBuilder::timeout): 250 ms, as in Linux.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(250);

/// The number of a [`Cpu`]: small, unique among those that are registered, used again afterwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(u16);

impl CpuId {
    /// `index` is below `CPU_MAX`, which fits.
    pub(crate) fn from_index(index: usize) -> CpuId {
        debug_assert!(index < crate::sync::CPU_MAX);
        CpuId(index as u16)
    }

    /// The number, counted from 0: an index into a table of per-Cpu data.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cpu{}", self.0)
    }
}

impl fmt::Debug for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuId({})", self.0)
    }
}

/// One registered lock context: a thread that may take locks, normally one pinned worker.
///
/// It owns a table of the locks it holds and four nodes to queue with. Linux has these once for
/// each processor, because it disables preemption while a lock is held; userspace cannot, so they
/// belong to the thread. It is neither `Send` nor `Sync`: the table has one writer.
///
/// ```compile_fail
/// let cpu = rqspinlock::Cpu::register().unwrap();
/// std::thread::spawn(move || drop(cpu)); // `Cpu` cannot be sent between threads
/// ```
///
/// # Ending, and ending badly
/// Dropping a Cpu gives its number back. A Cpu that ends while it holds a lock (its guard was
/// forgotten, or dropped by a panic) can release neither: the lock stays locked, those who ask for it get
/// [`TimedOut`](crate::LockError::TimedOut), and the number is never used again.
pub struct Cpu {
    context: &'static Context,
    counters: Arc<Counters>,
    clock: Box<dyn Clock>,
    timeout: Duration,
    before_waiting: Option<Box<dyn Fn()>>,
    /// Nodes in use: waits under way.
    nesting: Cell<usize>,
    poisoned: Cell<bool>,
    /// How long it has been overtaking others.
    pub(crate) streak: Streak,
    #[cfg(feature = "fault-injection")]
    plan: crate::fault::OfCpu,
    not_send: PhantomData<*mut ()>,
}

impl Cpu {
    /// Registers the calling thread with the system's clock and [`DEFAULT_TIMEOUT`].
    ///
    /// # Errors
    /// When all 16,383 numbers are in use.
    pub fn register() -> Result<Cpu, RegisterError> {
        Cpu::builder().register()
    }

    /// Registers with another clock or timeout.
    pub fn builder() -> CpuBuilder {
        CpuBuilder { timeout: DEFAULT_TIMEOUT, clock: Box::new(SystemClock), before_waiting: None }
    }

    /// This Cpu's number.
    pub fn id(&self) -> CpuId {
        self.context.id()
    }

    /// A handle that reads this Cpu's counters from any thread.
    pub fn events(&self) -> EventsHandle {
        EventsHandle::new(Arc::clone(&self.counters))
    }

    /// Has a critical section of this Cpu ended in a panic? The lock that it held stays locked for
    /// ever; other locks work as before.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.get()
    }

    pub(crate) fn poison(&self) {
        self.poisoned.set(true);
    }

    #[inline]
    pub(crate) fn held(&self) -> &HeldTable {
        &self.context.held
    }

    #[inline]
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    #[cfg(feature = "fault-injection")]
    pub(crate) fn plan(&self) -> &crate::fault::OfCpu {
        &self.plan
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// It is going to join a queue.
    pub(crate) fn is_going_to_wait(&self) {
        if let Some(before_waiting) = &self.before_waiting {
            before_waiting();
        }
    }

    /// The time by this Cpu's clock.
    pub(crate) fn now(&self) -> Instant {
        /// Unwinding would take a waiter out of the middle of a queue.
        struct AbortOnUnwind;
        impl Drop for AbortOnUnwind {
            fn drop(&mut self) {
                eprintln!("rqspinlock: the Clock of a Cpu panicked while it waited for a lock");
                std::process::abort();
            }
        }
        let unwinding = AbortOnUnwind;
        let now = self.clock.now();
        std::mem::forget(unwinding);
        now
    }

    /// Takes the next free queue node; none if four waits are under way.
    pub(crate) fn seat(&self) -> Option<Seat<'_>> {
        let nesting = self.nesting.get();
        if nesting == NODES {
            return None;
        }
        self.nesting.set(nesting + 1);
        Some(Seat { cpu: self, tail: Tail::new(self.id(), nesting), node: self.context.node(nesting) })
    }

    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.held().count() == 0 && self.nesting.get() == 0
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        // While a lock is held its table entry and the word say so, and must not come to mean
        // another Cpu. (No node can be in use: a wait borrows the Cpu.)
        if self.held().count() == 0 {
            self.context.release();
        }
    }
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu")
            .field("id", &self.id())
            .field("held", &self.held().count())
            .field("timeout", &self.timeout)
            .field("poisoned", &self.is_poisoned())
            .finish_non_exhaustive()
    }
}

/// A queue node in use; given back when dropped.
pub(crate) struct Seat<'a> {
    cpu: &'a Cpu,
    /// The node's name in a word.
    pub(crate) tail: Tail,
    pub(crate) node: &'a Node,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.cpu.nesting.set(self.cpu.nesting.get() - 1);
    }
}

/// Configures a [`Cpu`] before it is registered; made by [`Cpu::builder`].
#[must_use = "a builder registers nothing until `register` is called"]
pub struct CpuBuilder {
    timeout: Duration,
    clock: Box<dyn Clock>,
    before_waiting: Option<Box<dyn Fn()>>,
}

impl CpuBuilder {
    /// How long this Cpu waits as the head of a queue before it gives up and flushes the queue.
    ///
    /// There is no right value: a holder that is preempted exceeds any bound without a bug. It is
    /// a bound on the damage, not a measure of the section.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Where this Cpu gets the time from.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// What this Cpu does before it joins a queue, in which it may sleep for as long as the timeout: see to what others wait for
    /// it with, say. It holds the locks that it holds, may take others, and must not panic into the acquisition.
    pub fn before_waiting(mut self, what: impl Fn() + 'static) -> Self {
        self.before_waiting = Some(Box::new(what));
        self
    }

    /// Registers the calling thread.
    ///
    /// # Errors
    /// When all 16,383 numbers are in use.
    pub fn register(self) -> Result<Cpu, RegisterError> {
        Ok(Cpu {
            context: registry().claim()?,
            counters: Arc::default(),
            clock: self.clock,
            timeout: self.timeout,
            before_waiting: self.before_waiting,
            nesting: Cell::new(0),
            poisoned: Cell::new(false),
            streak: Streak::default(),
            #[cfg(feature = "fault-injection")]
            plan: crate::fault::OfCpu::default(),
            not_send: PhantomData,
        })
    }
}

impl fmt::Debug for CpuBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CpuBuilder").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
