//! What the core promises, with owners that are nothing but a number and a slot.

mod busy;
mod grace;
mod histories;
mod hooks;
pub(crate) mod ledger;
mod limits;
mod model;
pub(crate) mod plan;
mod schedules;
mod sequential;
mod stress;
mod sweep;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rqspinlock::Cpu;

use crate::*;

pub(crate) struct TestOwner {
    id: u64,
    slot: OwnerSlot,
}

impl TestOwner {
    pub(crate) fn new() -> TestOwner {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        TestOwner::with_id(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// For owners and maps that only meet each other.
    fn with_id(id: u64) -> TestOwner {
        TestOwner { id, slot: OwnerSlot::new() }
    }
}

impl Owner for TestOwner {
    fn id(&self) -> u64 {
        self.id
    }

    fn slot(&self) -> &OwnerSlot {
        &self.slot
    }
}

impl Owner for Arc<TestOwner> {
    fn id(&self) -> u64 {
        self.id
    }

    fn slot(&self) -> &OwnerSlot {
        &self.slot
    }
}

pub(crate) fn context(index: usize) -> Context {
    let versions = VersionClock::new(index).expect("a small index");
    Context::new(Cpu::register().expect("few Cpus"), versions, Duration::from_millis(250))
}

/// Helps reclamation on, where the contexts have gone.
fn collect() {
    crossbeam_epoch::pin().flush();
}

/// One that waits for no lock.
fn hasty_context(index: usize) -> Context {
    context(index).that_never_waits()
}

/// One that waits so long for a lock that it is not a busy machine that ends the wait.
fn patient_context(index: usize) -> Context {
    let cpu = Cpu::builder().timeout(Duration::from_secs(60)).register().expect("few Cpus");
    Context::new(cpu, VersionClock::new(index).expect("a small index"), Duration::from_secs(60))
}

pub(crate) fn map(value_size: u32, max_elements: u64) -> Arc<StorageMap> {
    Arc::new(StorageMap::new(spec(value_size, max_elements)).expect("a small map"))
}

fn spec(value_size: u32, max_elements: u64) -> MapSpec {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    MapSpec { id, value_size, max_elements, kind: 0, min_buckets: 4 }
}

/// The value of a variable of the environment, if it is set.
fn asked(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|error| panic!("{variable}={value}: {error}")))
}

/// Drives a free to its end, within a minute.
fn free(cx: &Context, map: &Arc<StorageMap>) -> u64 {
    let mut free = MapFree::begin(map).expect("nobody else frees it");
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < limit, "a free that does not end: {map:?}");
        match free.step(cx, 64) {
            Progress::Done { freed } => return freed,
            Progress::More => {}
            Progress::Waiting => {
                cx.work_off(64);
                std::thread::yield_now();
            }
        }
    }
}

/// What is found by the owner's id; as soon as no other test's owner is leaving, within a minute.
fn by_id(map: &StorageMap, owner: &TestOwner) -> Option<Value> {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        let leaving = crate::unlink::somebody_leaves();
        let found = map.lookup_by_id(owner.id);
        if found.is_some() || !leaving {
            return found;
        }
        assert!(Instant::now() < limit, "an owner that never ends leaving");
        std::thread::yield_now();
    }
}

/// All elements of a listing by pages of `limit`.
fn listing(map: &StorageMap, limit: usize) -> Vec<Listed> {
    let mut all = Vec::new();
    let mut next = Some(Cursor::default());
    while let Some(cursor) = next {
        let page = map.list(cursor, limit, 1 << 20);
        assert!(page.elements.len() <= limit);
        all.extend(page.elements);
        next = page.next;
    }
    all
}
