//! What anybody may read of a worker while it runs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::mailbox::Door;

/// A count that anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Meter(AtomicU64);

impl Meter {
    // Relaxed throughout: counts for people, and for tests that also wait for what they count.
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn at_least(&self, value: u64) {
        // Nothing is lost between the two: only the worker itself calls this.
        if value > self.get() {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker's thread and its responders write.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    pub(crate) jobs: Meter,
    pub(crate) batches: Meter,
    pub(crate) cancelled: Meter,
    pub(crate) dropped: Meter,
    pub(crate) high_water: Meter,
    ended: AtomicBool,
}

impl Meters {
    pub(crate) fn end(&self) {
        // I1, partner I2. Relaxed: it comes before the mailbox's end, so that whoever was refused by that sees this.
        self.ended.store(true, Ordering::Relaxed);
    }

    fn ended(&self) -> bool {
        // I2, partner I1.
        self.ended.load(Ordering::Relaxed)
    }
}

/// What a worker has done so far. Each number is right by itself; together they are no snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Jobs that it has begun.
    pub jobs: u64,
    /// Batches in which it took them from the mailbox.
    pub batches: u64,
    /// Jobs that it did not run: their deadline had passed, or nobody waited for them any more.
    pub cancelled: u64,
    /// Answers that it has lost.
    pub dropped: u64,
    /// The most jobs that were in its mailbox at once.
    pub high_water: u64,
}

/// One worker, as seen from outside. Cloning gives another view of the same one; it may outlive the worker.
#[derive(Clone)]
pub struct WorkerInfo {
    pub(crate) index: usize,
    pub(crate) processor: usize,
    pub(crate) pinned: bool,
    pub(crate) tid: i32,
    pub(crate) meters: Arc<Meters>,
    pub(crate) door: Arc<dyn Door>,
}

impl WorkerInfo {
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
        self.pinned
    }

    /// Its thread's id, as in `/proc/self/task`. Linux may give it to another thread when the worker has ended.
    pub fn tid(&self) -> i32 {
        self.tid
    }

    /// Whether it takes jobs. False after a stop, and after a panic in the worker.
    pub fn alive(&self) -> bool {
        !self.meters.ended()
    }

    /// Jobs in its mailbox now, those that are many as what they are.
    pub fn queued(&self) -> usize {
        self.door.queued()
    }

    /// What it has done so far.
    pub fn counters(&self) -> Counters {
        let Meters { jobs, batches, cancelled, dropped, high_water, .. } = &*self.meters;
        Counters {
            jobs: jobs.get(),
            batches: batches.get(),
            cancelled: cancelled.get(),
            dropped: dropped.get(),
            // The worker notes it whenever it takes a job. What has come since is still there to be counted.
            high_water: high_water.get().max(self.queued() as u64),
        }
    }
}

impl fmt::Debug for WorkerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerInfo")
            .field("index", &self.index)
            .field("processor", &self.processor)
            .field("pinned", &self.pinned)
            .field("tid", &self.tid)
            .field("alive", &self.alive())
            .field("queued", &self.queued())
            .field("counters", &self.counters())
            .finish()
    }
}
