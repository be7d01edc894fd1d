//! What anybody may read of a worker while it runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

/// A counter that one thread writes and anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    // Relaxed throughout: counts for people and for tests that also wait for what they count.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn at_least(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) jobs: Counter,
    pub(crate) batches: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) expired: Counter,
    pub(crate) dropped: Counter,
    pub(crate) high_water: Counter,
}

/// One worker, as seen from outside. Cloning gives another view of the same one.
#[derive(Clone)]
pub struct WorkerInfo {
    index: usize,
    processor: usize,
    pub(crate) state: Arc<State>,
    pub(crate) counters: Arc<Counters>,
    queued: Arc<dyn Fn() -> usize + Send + Sync>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) pinned: AtomicBool,
    pub(crate) tid: AtomicI32,
    pub(crate) alive: AtomicBool,
}

impl WorkerInfo {
    pub(crate) fn new(
        index: usize,
        processor: usize,
        queued: impl Fn() -> usize + Send + Sync + 'static,
    ) -> WorkerInfo {
        WorkerInfo { index, processor, state: Arc::default(), counters: Arc::default(), queued: Arc::new(queued) }
    }

    /// Its number, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The processor that it was meant for.
    pub fn processor(&self) -> usize {
        self.processor
    }

    /// Whether it runs on that processor only.
    pub fn pinned(&self) -> bool {
        self.state.pinned.load(Ordering::Relaxed)
    }

    /// Its thread's id.
    pub fn tid(&self) -> i32 {
        self.state.tid.load(Ordering::Relaxed)
    }

    /// Whether it takes jobs. False after a stop, and after a panic in the worker.
    pub fn alive(&self) -> bool {
        self.state.alive.load(Ordering::Relaxed)
    }

    /// Jobs in its mailbox now.
    pub fn queued(&self) -> usize {
        (self.queued)()
    }

    /// The most jobs that it has found in its mailbox at once.
    pub fn high_water(&self) -> u64 {
        self.counters.high_water.get()
    }

    /// Jobs that it has run.
    pub fn jobs(&self) -> u64 {
        self.counters.jobs.get()
    }

    /// Batches in which it took them from the mailbox.
    pub fn batches(&self) -> u64 {
        self.counters.batches.get()
    }

    /// Jobs that were cancelled in the mailbox: by their deadline, or because nobody waited for them any more.
    pub fn cancelled(&self) -> u64 {
        self.counters.cancelled.get()
    }

    /// Jobs whose deadline had passed when their turn came.
    pub fn expired(&self) -> u64 {
        self.counters.expired.get()
    }

    /// Answers that the worker has forgotten.
    pub fn dropped(&self) -> u64 {
        self.counters.dropped.get()
    }
}

impl fmt::Debug for WorkerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WorkerInfo { index, processor, state, counters, .. } = self;
        f.debug_struct("WorkerInfo")
            .field("index", index)
            .field("processor", processor)
            .field("state", state)
            .field("counters", counters)
            .finish_non_exhaustive()
    }
}
