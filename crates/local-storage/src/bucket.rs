//! A map's bucket: a lock and the list of the elements whose storage's serial falls into it.
//!
//! The list is doubly linked (a link back to the link that points here), so that an element is unlinked or replaced without
//! a walk. Readers follow `next` only. An element that is unlinked or replaced keeps its own `next`: a reader that stands on
//! it goes on to elements that were its followers, and meets everything that is in the list throughout.

use std::iter;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use crossbeam_epoch::Guard;
use rqspinlock::RawRqSpinLock;

use crate::element::Element;

/// All-zero bytes are an empty, unlocked bucket, so that a map's buckets cost no memory until they are used.
#[repr(C)]
pub(crate) struct Bucket {
    head: AtomicPtr<Element>,
    pub(crate) lock: RawRqSpinLock,
}

impl Bucket {
    /// `count` empty buckets; none when there is no memory.
    pub(crate) fn many(count: usize) -> Option<Box<[Bucket]>> {
        let layout = std::alloc::Layout::array::<Bucket>(count).ok().filter(|layout| layout.size() > 0)?;
        // SAFETY: the layout is not empty. Zeroed memory is valid for both fields: a null AtomicPtr, and a RawRqSpinLock that
        // its documentation says is unlocked when it is all zero. The Box frees with the same layout.
        unsafe {
            let first = NonNull::new(std::alloc::alloc_zeroed(layout))?.cast::<Bucket>();
            Some(Box::from_raw(ptr::slice_from_raw_parts_mut(first.as_ptr(), count)))
        }
    }

    /// Under the lock: puts an element at the head.
    pub(crate) fn push(&self, element: NonNull<Element>) {
        // SAFETY: ours until the store below, then kept by the lock.
        let header = unsafe { element.as_ref() };
        let first = self.head.load(Ordering::Relaxed);
        header.next.store(first, Ordering::Relaxed);
        header.prev.store(ptr::from_ref(&self.head).cast_mut(), Ordering::Relaxed);
        set_prev(first, &header.next);
        // Release: publishes the element to `readers`, who load with Acquire.
        self.head.store(element.as_ptr(), Ordering::Release);
    }

    /// Under the lock: puts `new` in the place of `old`.
    pub(crate) fn replace(&self, old: NonNull<Element>, new: NonNull<Element>) {
        // SAFETY: old is linked here and so kept by the lock; new is ours until the store below.
        let (old, header) = unsafe { (old.as_ref(), new.as_ref()) };
        let (prev, next) = (old.prev.load(Ordering::Relaxed), old.next.load(Ordering::Relaxed));
        header.next.store(next, Ordering::Relaxed);
        header.prev.store(prev, Ordering::Relaxed);
        set_prev(next, &header.next);
        // SAFETY: prev is the head of this bucket or the `next` of an element that is linked before us, kept by the lock.
        // Release: as in `push`.
        unsafe { (*prev).store(new.as_ptr(), Ordering::Release) };
    }

    /// Under the lock: takes an element out.
    pub(crate) fn unlink(&self, element: NonNull<Element>) {
        // SAFETY: linked here and so kept by the lock.
        let header = unsafe { element.as_ref() };
        let (prev, next) = (header.prev.load(Ordering::Relaxed), header.next.load(Ordering::Relaxed));
        // SAFETY: as in `replace`. Release: a reader that skips us meets `next`, which it may not have seen published.
        unsafe { (*prev).store(next, Ordering::Release) };
        if let Some(next) = NonNull::new(next) {
            // SAFETY: linked behind us, kept by the lock.
            unsafe { next.as_ref() }.prev.store(prev, Ordering::Relaxed);
        }
    }

    /// Under the lock: the elements. Each may be unlinked while the iterator stands behind it.
    pub(crate) fn elements(&self) -> impl Iterator<Item = NonNull<Element>> {
        self.walk()
    }

    /// Without the lock: the elements, for as long as the guard lives.
    pub(crate) fn readers<'g>(&self, _guard: &'g Guard) -> impl Iterator<Item = NonNull<Element>> + use<'_, 'g> {
        self.walk()
    }

    fn walk(&self) -> impl Iterator<Item = NonNull<Element>> + use<'_> {
        // Acquire: pairs with the Release stores of `push`, `replace` and `unlink`.
        let first = NonNull::new(self.head.load(Ordering::Acquire));
        iter::successors(first, |element| {
            // SAFETY: the caller's lock or guard keeps every element that it comes by.
            NonNull::new(unsafe { element.as_ref() }.next.load(Ordering::Acquire))
        })
    }
}

/// Tells `element`, if there is one, that `link` points to it now.
fn set_prev(element: *mut Element, link: &AtomicPtr<Element>) {
    if let Some(element) = NonNull::new(element) {
        // SAFETY: linked in this bucket, whose lock the caller holds.
        unsafe { element.as_ref() }.prev.store(ptr::from_ref(link).cast_mut(), Ordering::Relaxed);
    }
}
