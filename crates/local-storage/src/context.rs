//! What every operation brings along: the lock context of its thread, the sequence of its versions, its deadline, and the
//! list of what it could not finish.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rqspinlock::{Cpu, LockError, RawRqSpinLock};

use crate::error::{Refusal, Site};
use crate::guard::Guard;
use crate::hook::{Event, Hooks, Stopped};
use crate::reclaim::{Limbo, Tidy};
use crate::unlink::Work;

/// How often who never waits looks at a lock; each pause is twice the one before.
const LOOKS: u32 = 5;
/// The bits of a version that name the index that drew it.
const INDEX_BITS: u32 = 10;
/// 2025-01-01T00:00:00Z in seconds since 1970.
const YEAR_2025: u64 = 1_735_689_600;

/// The versions of one thread's index: index in the low 10 bits, above them a number that only grows.
///
/// Two indexes never draw the same version, so writers share no counter. The number starts at the wall clock, in units of
/// 100 ns since 2025, so that a restarted server does not repeat what the one before has handed out (unless it drew more
/// than 10 million a second all its life).
#[derive(Debug)]
pub struct VersionClock {
    index: u64,
    last: Cell<u64>,
}

impl VersionClock {
    /// How many indexes there can be.
    pub const INDEXES: usize = 1 << INDEX_BITS;

    /// The versions of `index`, which no other clock of this process has; none from [`VersionClock::INDEXES`] on.
    pub fn new(index: usize) -> Option<VersionClock> {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since_2025 = since_1970.saturating_sub(Duration::from_secs(YEAR_2025));
        let last = Cell::new((since_2025.as_nanos() / 100) as u64);
        (index < Self::INDEXES).then_some(VersionClock { index: index as u64, last })
    }

    /// The next version, above `old` and above everything that this index has drawn.
    pub(crate) fn draw(&self, old: u64) -> u64 {
        let next = self.last.get().max(old >> INDEX_BITS) + 1;
        self.last.set(next);
        next << INDEX_BITS | self.index
    }
}

/// The context of the operations of one thread. It owns the thread's [`Cpu`], so it cannot leave it.
pub struct Context {
    cpu: Cpu,
    pub(crate) versions: VersionClock,
    deadline: Cell<Option<Instant>>,
    pub(crate) restart_limit: Duration,
    retry: RefCell<VecDeque<Work>>,
    retry_length: Arc<AtomicU64>,
    pub(crate) limbo: Limbo,
    guard: Guard,
    hooks: Option<Box<dyn Hooks>>,
    pub(crate) waits: bool,
    /// Hooks that run now, one inside the other.
    depth: Cell<usize>,
    #[cfg(test)]
    pub(crate) plan: crate::tests::plan::Plan,
}

impl Context {
    /// A context for this thread. `restart_limit` bounds how long an operation without a deadline may start over; the lock's
    /// timeout is a good value.
    pub fn new(cpu: Cpu, versions: VersionClock, restart_limit: Duration) -> Context {
        let (deadline, retry, limbo) = (Cell::new(None), RefCell::default(), Limbo::default());
        Context {
            cpu,
            versions,
            deadline,
            restart_limit,
            retry,
            retry_length: Arc::default(),
            limbo,
            guard: Guard::default(),
            hooks: None,
            waits: true,
            depth: Cell::new(0),
            #[cfg(test)]
            plan: Default::default(),
        }
    }

    /// The same with another guard than the locks themselves.
    pub fn with_guard(mut self, guard: Guard) -> Context {
        self.guard = guard;
        self
    }

    /// The same with something that runs at hook points.
    pub fn with_hooks(mut self, hooks: impl Hooks + 'static) -> Context {
        self.hooks = Some(Box::new(hooks));
        self
    }

    /// The same, but waiting for nobody: a lock that is not free within a microsecond is refused, with [`LockError::DeadlinePassed`], and
    /// without having looked as if it were waited for.
    pub fn that_never_waits(mut self) -> Context {
        self.waits = false;
        self.restart_limit = Duration::ZERO;
        self
    }

    /// How many hooks run now on this thread, one inside the other. 0 for an operation that is nobody's step.
    pub fn depth(&self) -> usize {
        self.depth.get()
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    #[cold]
    pub(crate) fn run_hook(&self, event: &Event<'_>) -> Result<(), Stopped> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        self.inside(|| hooks.run(self, event))
    }

    /// Runs `body` as a hook, for hook points that the caller of the core has around an operation: what it asks for are steps.
    pub fn inside<T>(&self, body: impl FnOnce() -> T) -> T {
        self.depth.set(self.depth() + 1);
        let result = body();
        self.depth.set(self.depth() - 1);
        result
    }

    /// The thread's lock context.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    /// The deadline of the operations that follow, until the next call: a lock that is not free by then is refused with
    /// [`LockError::DeadlinePassed`].
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline.get()
    }

    /// The length of the retry list, readable from any thread.
    pub fn retry_length(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.retry_length)
    }

    /// Tries at most `max` entries of the retry list again, each with one look at its lock, and says how many are left.
    /// The thread calls it whenever it is idle, and at least every few milliseconds while something is left.
    pub fn work_off(&self, max: usize) -> usize {
        let tries = max.min(self.retry.borrow().len());
        for _ in 0..tries {
            // The borrow ends before the work runs: it may put more on the list.
            let Some(work) = self.retry.borrow_mut().pop_front() else { break };
            work.retry(self);
        }
        let left = self.retry.borrow().len();
        // Relaxed: a count for people.
        self.retry_length.store(left as u64, Ordering::Relaxed);
        left
    }

    /// One piece of seeing to it that what this thread has retired is freed. Nobody else does: the thread calls it whenever
    /// it is idle, and does not sleep for good before it is [`Tidy::Done`]. Where nothing was retired that costs next to nothing.
    pub fn tidy(&self) -> Tidy {
        self.limbo.tidy()
    }

    /// Puts refused work off.
    pub(crate) fn put_off(&self, work: Work) {
        let mut retry = self.retry.borrow_mut();
        retry.push_back(work);
        self.retry_length.store(retry.len() as u64, Ordering::Relaxed);
    }

    #[cfg_attr(test, track_caller)]
    pub(crate) fn lock<'a>(
        &'a self,
        lock: &'a RawRqSpinLock,
        site: impl FnOnce() -> Site,
    ) -> Result<Held<'a>, Refusal> {
        let answer = match self.waits {
            true => lock.lock(&self.cpu, self.deadline.get()),
            false => self.try_for_a_moment(lock),
        };
        #[cfg(test)]
        self.plan.asked(&self.cpu);
        match answer {
            Ok(()) => Ok(Held { lock, cpu: &self.cpu }),
            Err(error) => Err(refusal(site(), error)),
        }
    }

    /// Most holders are gone after some 100 ns; one that is not may not be running.
    fn try_for_a_moment(&self, lock: &RawRqSpinLock) -> Result<(), LockError> {
        for look in 0..LOOKS {
            if lock.try_lock(&self.cpu) {
                return Ok(());
            }
            (0..1 << look).for_each(|_| std::hint::spin_loop());
        }
        Err(LockError::DeadlinePassed)
    }

    #[cfg_attr(test, track_caller)]
    pub(crate) fn try_lock<'a>(&'a self, lock: &'a RawRqSpinLock) -> Option<Held<'a>> {
        let had = lock.try_lock(&self.cpu);
        #[cfg(test)]
        self.plan.asked(&self.cpu);
        had.then(|| Held { lock, cpu: &self.cpu })
    }
}

impl Drop for Context {
    /// What the thread leaves behind is freed now, or by others that come by later if a reader is in the way.
    fn drop(&mut self) {
        for _try in 0..64 {
            if self.tidy() == Tidy::Done {
                return;
            }
            std::thread::yield_now();
        }
    }
}

#[cold]
fn refusal(site: Site, error: LockError) -> Refusal {
    Refusal { site, error }
}

/// A lock that is held. Dropping gives it back.
#[must_use]
pub(crate) struct Held<'a> {
    lock: &'a RawRqSpinLock,
    cpu: &'a Cpu,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // What it guards may be half done, so nobody sees it: whoever waits gets TimedOut. (No destructor in here takes a
            // lock, so the panic began while this one was held.)
            self.lock.abandon(self.cpu);
            return;
        }
        // SAFETY: acquired with this Cpu in `lock` or `try_lock`, and given back once, here.
        unsafe { self.lock.unlock(self.cpu) }
    }
}
