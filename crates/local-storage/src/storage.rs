//! One owner's elements.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rqspinlock::RawRqSpinLock;

use crate::context::{Context, Held};
use crate::element::Element;
use crate::error::{Refusal, Site};
use crate::index::Index;
use crate::slot::SlotState;

/// One owner's elements, by map. Its serial is the owner's id.
#[repr(C)]
pub(crate) struct LocalStorage {
    /// First, so that the first slots share a cache line with the way to them: all that a reader needs.
    pub(crate) index: Index,
    owner: u64,
    /// Guards every change of the index and the two counts.
    lock: RawRqSpinLock,
    elements: AtomicU32,
    bytes: AtomicU64,
    #[cfg(test)]
    _counted: crate::tests::ledger::Counted,
}

// SAFETY: the raw pointers inside (in the index) lead to elements, which are changed under the storage's and the buckets'
// locks and freed after a grace period, whatever thread does it.
unsafe impl Send for LocalStorage {}
// SAFETY: as above; readers go through atomics only.
unsafe impl Sync for LocalStorage {}

impl LocalStorage {
    /// An empty one.
    pub(crate) fn new(owner: u64) -> LocalStorage {
        let (elements, bytes) = (AtomicU32::new(0), AtomicU64::new(0));
        LocalStorage {
            index: Index::new(),
            owner,
            lock: RawRqSpinLock::new(),
            elements,
            bytes,
            #[cfg(test)]
            _counted: Default::default(),
        }
    }

    /// The number that chooses its bucket in every map.
    pub(crate) fn serial(&self) -> u64 {
        self.owner
    }

    #[cfg_attr(test, track_caller)]
    pub(crate) fn lock<'a>(&'a self, cx: &'a Context) -> Result<Held<'a>, Refusal> {
        cx.lock(&self.lock, || Site::Storage { owner: self.owner })
    }

    #[cfg_attr(test, track_caller)]
    pub(crate) fn try_lock<'a>(&'a self, cx: &'a Context) -> Option<Held<'a>> {
        cx.try_lock(&self.lock)
    }

    /// Under the lock, or while private: one element more.
    pub(crate) fn charge(&self, element: NonNull<Element>) {
        // SAFETY: the caller has just linked it, under the lock.
        let size = unsafe { element.as_ref() }.size();
        // Relaxed: counts; those who decide by them hold the lock.
        self.elements.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size.into(), Ordering::Relaxed);
    }

    /// Bytes of value. Those who decide by it hold the lock, or have the storage to themselves.
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
