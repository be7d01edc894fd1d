//! One owner's elements.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rqspinlock::{LockId, RawRqSpinLock};

use crate::context::{Context, Held};
use crate::element::Element;
use crate::error::{Refusal, Site};
use crate::index::Index;
use crate::slot::SlotState;

/// One owner's elements, by map. Its serial is the owner's id.
pub(crate) struct LocalStorage {
    owner: u64,
    /// Guards the index and every change of the two counts.
    lock: RawRqSpinLock,
    index: UnsafeCell<Index>,
    elements: AtomicU32,
    bytes: AtomicU64,
    #[cfg(test)]
    _counted: crate::tests::ledger::Counted,
}

// SAFETY: the raw pointers inside (in the index) lead to elements, which are changed under the storage's and the buckets'
// locks and freed after a grace period, whatever thread does it.
unsafe impl Send for LocalStorage {}
// SAFETY: as above; only whoever has the lock gets at the index.
unsafe impl Sync for LocalStorage {}

/// A storage's lock, held, and with it the index.
#[must_use]
pub(crate) struct Locked<'a> {
    storage: &'a LocalStorage,
    _held: Held<'a>,
}

impl LocalStorage {
    /// An empty one.
    pub(crate) fn new(owner: u64) -> LocalStorage {
        LocalStorage {
            owner,
            lock: RawRqSpinLock::new(),
            index: UnsafeCell::default(),
            elements: AtomicU32::new(0),
            bytes: AtomicU64::new(0),
            #[cfg(test)]
            _counted: Default::default(),
        }
    }

    /// The owner's id, which chooses its chain in every map.
    pub(crate) fn serial(&self) -> u64 {
        self.owner
    }

    /// Its lock's identity.
    pub(crate) fn lock_id(&self) -> LockId {
        self.lock.id()
    }

    #[cfg_attr(test, track_caller)]
    pub(crate) fn lock<'a>(&'a self, cx: &'a Context) -> Result<Locked<'a>, Refusal> {
        let held = cx.lock(&self.lock, || Site::Storage { owner: self.owner })?;
        Ok(Locked { storage: self, _held: held })
    }

    #[cfg_attr(test, track_caller)]
    pub(crate) fn try_lock<'a>(&'a self, cx: &'a Context) -> Option<Locked<'a>> {
        Some(Locked { storage: self, _held: cx.try_lock(&self.lock)? })
    }

    /// Under the lock: one element more.
    pub(crate) fn charge(&self, element: NonNull<Element>) {
        // SAFETY: the caller has just linked it, under the lock.
        let size = unsafe { element.as_ref() }.size();
        // Relaxed: counts; those who decide by them hold the lock.
        self.elements.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size.into(), Ordering::Relaxed);
    }

    /// Bytes of value. Those who decide by it hold the lock.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Under the lock: one element less.
    pub(crate) fn discharge(&self, size: u32) {
        self.elements.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(size.into(), Ordering::Relaxed);
    }

    /// Under the lock: whether the last element has gone.
    pub(crate) fn is_empty(&self) -> bool {
        self.elements.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn usage(&self) -> SlotState {
        SlotState::Storage {
            serial: self.serial(),
            elements: self.elements.load(Ordering::Relaxed).into(),
            bytes: self.bytes(),
        }
    }
}

impl Deref for Locked<'_> {
    type Target = Index;

    fn deref(&self) -> &Index {
        // SAFETY: `Locked` is only made with the storage's lock, which nobody has twice, and lasts no longer than it is held.
        unsafe { &*self.storage.index.get() }
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Index {
        // SAFETY: as in `deref`; `&mut self` keeps its other borrows out.
        unsafe { &mut *self.storage.index.get() }
    }
}

#[cfg(test)]
impl LocalStorage {
    /// The index, where a test has the storage to itself.
    pub(crate) fn index(&self) -> &Index {
        // SAFETY: nobody changes it: the caller's world stands still.
        unsafe { &*self.index.get() }
    }
}
