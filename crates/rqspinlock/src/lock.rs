//! The lock itself: the raw word for embedding, the lock around a value, and its guard.

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Instant;

use crate::cpu::Cpu;
use crate::error::{LockError, LockId};
use crate::slow;
use crate::sync::Witness;
use crate::word::AtomicWord;

/// The lock without a value: four bytes, to be embedded.
///
/// **All-zero bytes are an unlocked lock**, so a table of locks may be allocated zeroed. It is known
/// by its address: it must not move while it is held or waited for.
#[cfg_attr(not(loom), repr(transparent))]
pub struct RawRqSpinLock {
    pub(crate) word: AtomicWord,
    /// Touched by the head of the queue only. Of size zero but in models.
    pub(crate) head: Witness,
}

impl RawRqSpinLock {
    /// An unlocked lock.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        RawRqSpinLock { word: AtomicWord::new(), head: Witness::new() }
    }

    /// An unlocked lock.
    #[cfg(loom)]
    pub fn new() -> Self {
        RawRqSpinLock { word: AtomicWord::new(), head: Witness::new() }
    }

    /// The identity of this lock, as [`Cycle::Abba`](crate::Cycle::Abba) names it.
    #[inline]
    pub fn id(&self) -> LockId {
        LockId::from_addr(std::ptr::from_ref(self).addr())
    }

    /// Takes the lock, waiting for it if necessary, until `deadline` if there is one.
    ///
    /// A waiter in the middle of the queue does not look at the time: it notices its deadline when
    /// it has become head, at most the head's timeout after those before it.
    ///
    /// # Errors
    /// [`LockError::Deadlock`] when waiting would never end, [`LockError::TimedOut`] when the head
    /// of the queue has waited for its timeout, [`LockError::DeadlinePassed`] when `deadline` is
    /// over by this Cpu's clock. Nothing is held then that was not held before.
    #[inline]
    pub fn lock(&self, cpu: &Cpu, deadline: Option<Instant>) -> Result<(), LockError> {
        #[cfg(feature = "fault-injection")]
        crate::fault::check(self, cpu)?;
        if self.word.lock_fast() {
            had_at_once(self, cpu);
        } else if cpu.streak.is_over() || !slow::try_steal(self, cpu) {
            return slow::lock(self, cpu, deadline);
        }
        Ok(())
    }

    /// Takes the lock if nobody holds it and nobody has claimed it.
    #[inline]
    pub fn try_lock(&self, cpu: &Cpu) -> bool {
        #[cfg(feature = "fault-injection")]
        if crate::fault::check(self, cpu).is_err() {
            return false;
        }
        if self.word.lock_fast() {
            had_at_once(self, cpu);
            return true;
        }
        slow::try_steal(self, cpu)
    }

    /// Releases the lock.
    ///
    /// Locks are released in the reverse order of their acquisition; debug builds assert it, in
    /// release builds another order is counted (`Events::out_of_order`) and works.
    ///
    /// # Safety
    /// `cpu` has acquired this lock and not released it since, and what the lock protects is not
    /// accessed on the strength of that acquisition any more. The lock outlives the call, and not only the release in it: others
    /// may hold it by the time this returns.
    #[inline]
    pub unsafe fn unlock(&self, cpu: &Cpu) {
        // SAFETY: as this function's.
        unsafe { self.unlock_at(cpu, cpu.held().count() - 1) }
    }

    /// The same by somebody who knows where in the table of held locks this one was put, if it still stands there.
    ///
    /// # Safety
    /// As of `unlock`.
    #[inline]
    unsafe fn unlock_at(&self, cpu: &Cpu, position: usize) {
        cpu.held().remove(self.id(), position, || out_of_order(cpu));
        self.word.release();
    }

    /// Instead of an unlock, when what the lock protects may be half changed: leaves the lock
    /// locked for ever and poisons `cpu`.
    ///
    /// That is what a [`Guard`] does that a panic drops, and what a guard built on the raw lock
    /// should do. Those who want the lock later get [`LockError::TimedOut`].
    #[cold]
    pub fn abandon(&self, cpu: &Cpu) {
        cpu.poison();
    }

    /// Does anybody hold it? True or false only of the past.
    pub fn is_locked(&self) -> bool {
        self.word.peek().is_locked()
    }
}

#[inline]
fn had_at_once(lock: &RawRqSpinLock, cpu: &Cpu) {
    cpu.counters().fast.bump();
    cpu.held().push(lock.id());
}

/// Before anything of that unlock is done.
#[cold]
fn out_of_order(cpu: &Cpu) {
    if cfg!(debug_assertions) && !std::thread::panicking() {
        // The lock is not released by this panic, so it stays locked and in the table, like any that a panic ends.
        cpu.poison();
        panic!("locks must be released in the reverse order of their acquisition");
    }
    cpu.counters().out_of_order.bump();
}

impl Default for RawRqSpinLock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for RawRqSpinLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawRqSpinLock({:?})", self.word.peek())
    }
}

/// A resilient queued spinlock around a value.
///
/// ```
/// use rqspinlock::{Cpu, Cycle, LockError, RqSpinLock};
///
/// static HITS: RqSpinLock<u64> = RqSpinLock::new(0);
///
/// let cpu = Cpu::register()?;
/// let mut hits = HITS.lock(&cpu)?;
/// *hits += 1;
/// assert_eq!(HITS.lock(&cpu).err(), Some(LockError::Deadlock(Cycle::Aa)));
/// # drop(hits);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RqSpinLock<T: ?Sized> {
    raw: RawRqSpinLock,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands out access to the value to one thread at a time (`raw`), so sharing the
// lock moves the value between threads and never shares it: `Send` is what that takes.
unsafe impl<T: ?Sized + Send> Sync for RqSpinLock<T> {}

impl<T> RqSpinLock<T> {
    /// An unlocked lock around `value`.
    #[cfg(not(loom))]
    pub const fn new(value: T) -> Self {
        RqSpinLock { raw: RawRqSpinLock::new(), value: UnsafeCell::new(value) }
    }

    /// An unlocked lock around `value`.
    #[cfg(loom)]
    pub fn new(value: T) -> Self {
        RqSpinLock { raw: RawRqSpinLock::new(), value: UnsafeCell::new(value) }
    }

    /// The value. Also of a lock that a panic has left locked.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> RqSpinLock<T> {
    /// Takes the lock, waiting for it if necessary.
    ///
    /// # Errors
    /// [`LockError::Deadlock`] when waiting would never end, [`LockError::TimedOut`] when it did
    /// not end in time. The locks that `cpu` held before are held still.
    #[inline]
    pub fn lock<'a>(&'a self, cpu: &'a Cpu) -> Result<Guard<'a, T>, LockError> {
        self.raw.lock(cpu, None)?;
        Ok(Guard::new(self, cpu))
    }

    /// Takes the lock, waiting for it until `deadline` at most; see [`RawRqSpinLock::lock`].
    ///
    /// # Errors
    /// As [`lock`](Self::lock), and [`LockError::DeadlinePassed`]. Only this caller gives up then:
    /// those behind it in the queue wait on.
    #[inline]
    pub fn lock_until<'a>(&'a self, cpu: &'a Cpu, deadline: Instant) -> Result<Guard<'a, T>, LockError> {
        self.raw.lock(cpu, Some(deadline))?;
        Ok(Guard::new(self, cpu))
    }

    /// Takes the lock if nobody holds it and nobody has claimed it.
    #[inline]
    pub fn try_lock<'a>(&'a self, cpu: &'a Cpu) -> Option<Guard<'a, T>> {
        self.raw.try_lock(cpu).then(|| Guard::new(self, cpu))
    }

    /// The value, without locking: whoever has `&mut` to the lock has it alone.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// The identity of this lock, as [`Cycle::Abba`](crate::Cycle::Abba) names it.
    pub fn id(&self) -> LockId {
        self.raw.id()
    }

    #[cfg(test)]
    pub(crate) fn raw(&self) -> &RawRqSpinLock {
        &self.raw
    }
}

impl<T: Default> Default for RqSpinLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized> fmt::Debug for RqSpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RqSpinLock").field("word", &self.raw.word.peek()).finish_non_exhaustive()
    }
}

/// A lock that is held; dropping it releases the lock.
///
/// It borrows the [`Cpu`] that acquired it, and so stays on that thread. Drop guards in the reverse
/// order of their acquisition.
///
/// A guard that a panic drops does **not** release the lock: what it protects may be half changed.
/// The lock stays locked, those who want it get [`LockError::TimedOut`], and the Cpu is
/// [poisoned](Cpu::is_poisoned). (A guard that was acquired during the unwinding, by a destructor,
/// is released as usual.)
///
/// ```compile_fail
/// # use rqspinlock::{Cpu, RqSpinLock};
/// let cpu = Cpu::register().unwrap();
/// let lock = RqSpinLock::new(0);
/// let guard = lock.lock(&cpu).unwrap();
/// std::thread::scope(|s| { s.spawn(move || drop(guard)); }); // `Guard` cannot be sent
/// ```
#[must_use = "the lock is released as soon as the guard is dropped"]
pub struct Guard<'a, T: ?Sized> {
    lock: &'a RqSpinLock<T>,
    cpu: &'a Cpu,
    position: usize,
    taken_in_panic: bool,
}

impl<'a, T: ?Sized> Guard<'a, T> {
    #[inline]
    fn new(lock: &'a RqSpinLock<T>, cpu: &'a Cpu) -> Self {
        Guard { lock, cpu, position: cpu.held().count() - 1, taken_in_panic: std::thread::panicking() }
    }
}

impl<T: ?Sized> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a guard exists only while its lock is held, by the thread of its Cpu, so nobody
        // else has a reference to the value; `&self` excludes a `&mut` out of this guard.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `&mut self` excludes any other reference out of this guard.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() && !self.taken_in_panic {
            self.lock.raw.abandon(self.cpu);
            return;
        }
        // SAFETY: this guard was made by an acquisition of this lock by this Cpu, is being dropped,
        // and cannot be dropped twice; references to the value do not outlive it.
        unsafe { self.lock.raw.unlock_at(self.cpu, self.position) }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Guard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
