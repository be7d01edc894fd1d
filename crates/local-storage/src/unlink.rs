//! The two paths that may not fail: an owner's destroy and a map's free.
//!
//! Both take elements off two lists under two locks, each of which may be refused. Each takes its own list first (destroy the
//! index, free the bucket), notes it in the element, and then visits the other list. What is refused is put off as [`Work`]
//! that names a *place*; whoever comes to that place next, takes out whatever is marked there.
//!
//! ```text
//!  destroy ─► DEAD ─► Storage ──lock──► index emptied, OFF_STORAGE ─► for each: Sweep(bucket) ──lock──► OFF_BUCKET
//!  free ─► freeing ─► Close(bucket) ──lock──► bucket emptied, OFF_BUCKET ─► for each: Entry(storage) ──lock──► OFF_STORAGE
//!                          any refused lock ──► retry list ──► the same again, one look at the lock at a time
//! ```

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::Owner;
use crate::context::Context;
use crate::element::{self, Element, OFF_BUCKET, OFF_STORAGE};
use crate::error::Refusal;
use crate::map::StorageMap;
use crate::reclaim::{Grace, Tidy};
use crate::storage::LocalStorage;

/// Owners that have left and whose elements may not be marked yet.
static LEAVING: CachePadded<AtomicU64> = CachePadded::new(AtomicU64::new(0));

/// Whether there is such an owner: then a lookup has to ask whether its own is one. Nearly always there is none, and it need
/// not look at the owner.
///
/// What it is for: nobody who may know that an owner has left finds a value of it. They know from DEAD in its slot, or because the
/// destroy has returned, and either happens after [`begin_leaving`]. So what they read here is 1 at least, or the count after its
/// [`end_leaving`]; and then they see the marks. An owner whose destroy is never finished (its worker panicked) counts for good:
/// lookups take the longer way from then on.
pub(crate) fn somebody_leaves() -> bool {
    // Acquire: pairs with the Release of each `end_leaving` (all changes are read-modify-writes, so that a 0 is in the release
    // sequence of every one of them).
    LEAVING.load(Ordering::Acquire) != 0
}

/// Before an owner is DEAD.
fn begin_leaving() {
    // Relaxed: before the Release that makes the slot DEAD, which is what others learn it from.
    LEAVING.fetch_add(1, Ordering::Relaxed);
}

/// All its elements are marked, or it had none.
pub(crate) fn end_leaving() {
    // Release: as `somebody_leaves` says.
    LEAVING.fetch_sub(1, Ordering::Release);
}

/// A visit to one list that is still to be done. Its references keep what it names.
pub(crate) enum Work {
    /// A dead owner's storage: take out everything.
    Storage(Arc<LocalStorage>),
    /// A bucket in which a dead owner's element may be left: take out what is off its storage. Such an element is only there to be
    /// taken out, whoever has marked it and however long after the refusal, so a late sweep never takes one too many.
    Sweep(Arc<StorageMap>, usize),
    /// A bucket of a map that is being freed: take out everything, for good.
    Close(Arc<StorageMap>, usize),
    /// A storage in which an element of a freed map may be left: the one that `close` has unlinked, or none. It cannot be a newer
    /// one: behind the close no element joins its bucket or is replaced there, as both look at the mark under that bucket's
    /// lock; a storage has one bucket in a map; and no other map ever has this one's id.
    Entry(Arc<LocalStorage>, Arc<StorageMap>),
}

/// How long a walk waits for a lock. After one refusal it only looks: a thousand elements must not wait for a thousand timeouts.
struct Patience {
    gone: Cell<bool>,
}

impl Patience {
    fn fresh() -> Patience {
        Patience { gone: Cell::new(false) }
    }

    fn none() -> Patience {
        Patience { gone: Cell::new(true) }
    }

    fn lock<T>(&self, wait: impl FnOnce() -> Result<T, Refusal>, look: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.gone.get() {
            return look();
        }
        let held = wait().ok();
        self.gone.set(held.is_none());
        held
    }
}

impl Work {
    /// Another try, with one look at the lock.
    pub(crate) fn retry(self, cx: &Context) {
        self.run(cx, &Patience::none());
    }

    fn run(self, cx: &Context, patience: &Patience) {
        let done = match &self {
            Work::Storage(storage) => empty_storage(cx, storage, patience),
            Work::Sweep(map, bucket) => sweep(cx, map, *bucket, patience),
            Work::Close(map, bucket) => close(cx, map, *bucket, patience),
            Work::Entry(storage, map) => remove_entry(cx, storage, map, patience),
        };
        if !done {
            cx.put_off(self);
        }
    }
}

/// The end of an owner: its slot is DEAD from now on, and its elements leave both lists, now or as soon as the locks are had.
/// Never fails. A second call does nothing.
pub fn destroy(cx: &Context, owner: &impl Owner) {
    cx.set_deadline(None);
    owner.slot().mark_exiting();
    begin_leaving();
    match owner.slot().kill(cx) {
        Some(storage) => Work::Storage(storage).run(cx, &Patience::fresh()),
        None => end_leaving(),
    }
}

fn empty_storage(cx: &Context, storage: &Arc<LocalStorage>, patience: &Patience) -> bool {
    let mut sweeps = Vec::new();
    // Declared before the lock, so dropped after it.
    let mut retired = Vec::new();
    {
        let Some(mut index) = patience.lock(|| storage.lock(cx), || storage.try_lock(cx)) else { return false };
        for element in index.drain() {
            // SAFETY: it was in the index, whose lock we hold, so its membership lasts and holds the map.
            let (map, size) = unsafe { (map_of(element), element.as_ref().size()) };
            let bucket = map.bucket_of(storage);
            storage.discharge(size);
            // SAFETY: taken out of the index, under its lock; not touched afterwards: the sweep finds it in the bucket, if it is there.
            retired.extend(unsafe { element::mark_off(cx, element, OFF_STORAGE) });
            sweeps.push((map, bucket));
        }
        end_leaving();
    }
    for (map, bucket) in sweeps {
        Work::Sweep(map, bucket).run(cx, patience);
    }
    true
}

fn sweep(cx: &Context, map: &Arc<StorageMap>, bucket: usize, patience: &Patience) -> bool {
    let mut retired = Vec::new();
    let Some(_held) = patience.lock(|| map.lock(bucket, cx), || map.try_lock(bucket, cx)) else { return false };
    for element in map.buckets.elements(bucket) {
        // SAFETY: in the bucket, whose lock we hold.
        if unsafe { element.as_ref() }.is_off_storage() {
            map.buckets.unlink(element);
            // SAFETY: unlinked from the bucket, under its lock; not touched afterwards.
            retired.extend(unsafe { element::mark_off(cx, element, OFF_BUCKET) });
        }
    }
    true
}

fn close(cx: &Context, map: &Arc<StorageMap>, bucket: usize, patience: &Patience) -> bool {
    let mut entries = Vec::new();
    let mut retired = Vec::new();
    {
        let Some(_held) = patience.lock(|| map.lock(bucket, cx), || map.try_lock(bucket, cx)) else { return false };
        for element in map.buckets.elements(bucket) {
            // SAFETY: in the bucket, whose lock we hold, so its membership lasts and holds the storage.
            entries.push(unsafe { storage_of(element) });
            map.buckets.unlink(element);
            // SAFETY: unlinked from the bucket, under its lock; not touched afterwards: the entry is looked up in the index.
            retired.extend(unsafe { element::mark_off(cx, element, OFF_BUCKET) });
        }
    }
    // Relaxed: a count, read after `closed`.
    map.freed.fetch_add(entries.len() as u64, Ordering::Relaxed);
    // Release: pairs with `is_drained`. Nothing is linked here any more: whoever takes the lock from now on sees the mark.
    map.closed.fetch_add(1, Ordering::Release);
    for storage in entries {
        Work::Entry(storage, Arc::clone(map)).run(cx, patience);
    }
    true
}

fn remove_entry(cx: &Context, storage: &Arc<LocalStorage>, map: &Arc<StorageMap>, patience: &Patience) -> bool {
    let _retired;
    let Some(mut index) = patience.lock(|| storage.lock(cx), || storage.try_lock(cx)) else { return false };
    // Gone: destroy was here first and has completed it.
    if let Some(element) = index.get(map.id()) {
        // SAFETY: in the index, whose lock we hold.
        let size = unsafe { element.as_ref() }.size();
        index.remove(map.id());
        storage.discharge(size);
        // SAFETY: taken out of the index, under its lock; not touched afterwards.
        let completed = unsafe { element::mark_off(cx, element, OFF_STORAGE) };
        debug_assert!(completed.is_some(), "its bucket was closed before: it is off that");
        _retired = completed;
    }
    true
}

/// A hold on the element's map.
///
/// # Safety
/// The caller holds the lock of a list that the element is in.
unsafe fn map_of(element: NonNull<Element>) -> Arc<StorageMap> {
    // SAFETY: the membership's hold, which `join` took from an Arc, lasts until the element is off both lists.
    unsafe {
        let map = element.as_ref().map();
        Arc::increment_strong_count(map);
        Arc::from_raw(map)
    }
}

/// A hold on the element's storage.
///
/// # Safety
/// As [`map_of`].
unsafe fn storage_of(element: NonNull<Element>) -> Arc<LocalStorage> {
    // SAFETY: as in `map_of`.
    unsafe {
        let storage = element.as_ref().storage();
        Arc::increment_strong_count(storage);
        Arc::from_raw(storage)
    }
}

/// The map is being freed by somebody else already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the map is being freed already")]
pub struct AlreadyFreeing;

/// How far a free is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do: call again soon, other work may run in between.
    More,
    /// Nothing to do but wait: for refused locks on some worker's retry list, or for a grace period. Call again in a moment.
    Waiting,
    /// The map is empty and no reader sees any of its elements any more.
    Done {
        /// How many elements the free has taken out.
        freed: u64,
    },
}

/// The free of a map, in steps. Once begun it is driven to its end: dropping it halfway leaves the map refusing everything.
#[must_use]
pub struct MapFree {
    map: Arc<StorageMap>,
    bucket: usize,
    patience: Patience,
    grace: Option<Grace>,
}

impl MapFree {
    /// Marks the map: from now on it refuses every operation.
    pub fn begin(map: &Arc<StorageMap>) -> Result<MapFree, AlreadyFreeing> {
        if !map.mark_freeing() {
            return Err(AlreadyFreeing);
        }
        Ok(MapFree { map: Arc::clone(map), bucket: 0, patience: Patience::fresh(), grace: None })
    }

    /// The map.
    pub fn map(&self) -> &Arc<StorageMap> {
        &self.map
    }

    /// Goes on for about `budget` elements or as many buckets, and for one bucket at least. Always by the same context, which keeps
    /// what is taken out: the grace period at the end is helped along where that is.
    pub fn step(&mut self, cx: &Context, budget: u64) -> Progress {
        cx.set_deadline(None);
        let budget = budget.max(1);
        let before = self.map.freed.load(Ordering::Relaxed);
        let mut visited = 0;
        while self.bucket < self.map.buckets() {
            if visited + self.map.freed.load(Ordering::Relaxed).saturating_sub(before) >= budget {
                return Progress::More;
            }
            Work::Close(Arc::clone(&self.map), self.bucket).run(cx, &self.patience);
            self.bucket += 1;
            visited += 1;
        }
        if !self.map.is_drained() {
            return Progress::Waiting;
        }
        // Everything was out of sight before `is_drained` said so.
        match self.grace.get_or_insert_with(|| Grace::begin(&cx.limbo)).help(&cx.limbo) {
            Tidy::Done => Progress::Done { freed: self.map.freed.load(Ordering::Relaxed) },
            Tidy::More => Progress::More,
            Tidy::Waiting => Progress::Waiting,
        }
    }
}
