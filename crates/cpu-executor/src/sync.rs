//! The one place that knows whether the atomics of the hand-overs are real or loom's.

#[cfg(loom)]
pub(crate) use loom::{
    future::AtomicWaker,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU8, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU8, Ordering, fence},
};

#[cfg(not(loom))]
pub(crate) use futures_util::task::AtomicWaker;

#[cfg(not(loom))]
pub(crate) use std::thread;

#[cfg(loom)]
pub(crate) mod thread {
    pub(crate) use loom::thread::{Thread, current, park};

    /// loom knows no time: this sleep ends when it is told to.
    pub(crate) fn park_timeout(_limit: std::time::Duration) {
        park();
    }
}

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;

/// A cell with the face of loom's, which checks that its uses are ordered.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with_mut<R>(&self, body: impl FnOnce(*mut T) -> R) -> R {
        body(self.0.get())
    }
}

/// Whom to wake from now on.
pub(crate) fn register(place: &AtomicWaker, waker: &std::task::Waker) {
    #[cfg(loom)]
    place.register_by_ref(waker);
    #[cfg(not(loom))]
    place.register(waker);
}

/// Takes the waker out, if there is one.
pub(crate) fn take(waker: &AtomicWaker) -> Option<std::task::Waker> {
    #[cfg(loom)]
    return waker.take_waker();
    #[cfg(not(loom))]
    waker.take()
}
