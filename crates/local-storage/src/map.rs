//! A map: its buckets, its count, lookups and listings. Changes are in `write`, the end in `unlink`.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam_epoch::Guard;
use rqspinlock::LockId;

use crate::Owner;
use crate::bucket::Buckets;
use crate::context::{Context, Held};
use crate::element::{self, Element};
use crate::error::{CreateMapError, Refusal, Site, UpdateError};
use crate::guard::KINDS;
use crate::hook::{Attached, HookPoint, Old, Stopped};
use crate::quota::Quota;
use crate::storage::LocalStorage;
use crate::unlink::somebody_leaves;

/// A map's number, never reused, above 0.
pub type MapId = u64;
/// A value's version: unique in its map, above 0, compared for equality only.
pub type Version = u64;

/// The most buckets that a map has.
const MOST_BUCKETS: u64 = 1 << 16;
/// The most chains that a map has: 32 MiB, as far as they are used. Where there are more elements, chains are longer than one.
const MOST_CHAINS: u64 = 1 << 22;
/// How many chains are looked through for a page of a listing: some milliseconds, for a map of the default size once.
const CHAINS_PER_PAGE: usize = 1 << 20;
/// Elements that a bucket is meant for, as long as there are not too many of them.
const ELEMENTS_PER_BUCKET: u64 = 4;

/// What a map is made with.
#[derive(Clone, Copy, Debug)]
pub struct MapSpec {
    /// Its number: the caller hands them out and never repeats one. Above 0.
    pub id: MapId,
    /// Bytes of a value.
    pub value_size: u32,
    /// How many elements it may hold.
    pub max_elements: u64,
    /// Which of the legacy guard's counters its operations use, one for each kind of owner: below [`KINDS`].
    pub kind: usize,
    /// Buckets it has at least, so that so many writers seldom meet. 16 a worker is a good value.
    pub min_buckets: usize,
}

/// A value and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// As many bytes as the map's value size.
    pub bytes: Vec<u8>,
    /// The version of these bytes.
    pub version: Version,
}

/// When an update may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Present or absent.
    Any,
    /// Only if absent.
    NoExist,
    /// Only if present.
    Exist,
}

/// An update that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The element's version from now on.
    pub version: Version,
    /// Whether there was no element before.
    pub created: bool,
}

/// Where a listing stands. The default is the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The bucket to go on with.
    pub bucket: u32,
    /// Storages up to this serial were listed in that bucket.
    pub serial: u64,
}

/// An element of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The id of its owner.
    pub owner: u64,
    /// What it has.
    pub value: Value,
}

/// A page of a listing.
#[derive(Clone, Debug)]
pub struct Page {
    /// What is on it.
    pub elements: Vec<Listed>,
    /// Where the next one begins; none after the last.
    pub next: Option<Cursor>,
}

/// A map. See the crate's documentation for how it hangs together.
pub struct StorageMap {
    spec: MapSpec,
    pub(crate) buckets: Buckets,
    /// Elements that have joined and not yet left: at most `max_elements`.
    elements: AtomicU64,
    /// Limits on bytes that it shares with other maps.
    quota: Option<Arc<Quota>>,
    freeing: AtomicBool,
    pub(crate) attached: Attached,
    /// Buckets that the free has emptied and closed.
    pub(crate) closed: AtomicUsize,
    /// Elements that the free has taken out.
    pub(crate) freed: AtomicU64,
}

// SAFETY: the raw pointers inside lead to elements, which are changed under the buckets' and the storages' locks and
// freed after a grace period, whatever thread does it.
unsafe impl Send for StorageMap {}
// SAFETY: as above; readers go through atomics only.
unsafe impl Sync for StorageMap {}

impl StorageMap {
    /// An empty map. Buckets follow `max_elements`: about one for four elements, at least `min_buckets`, but no more than elements, at most 65,536; a power of two.
    /// So do the links by which lookups go, 8 bytes for each element that there may be, at most 4,194,304 of them; they take memory when they are
    /// first used, and keep it.
    /// Bytes of value are not limited.
    pub fn new(spec: MapSpec) -> Result<StorageMap, CreateMapError> {
        StorageMap::make(spec, None)
    }

    /// As [`StorageMap::new`], for a map that keeps to `quota`.
    pub fn with_quota(spec: MapSpec, quota: &Arc<Quota>) -> Result<StorageMap, CreateMapError> {
        StorageMap::make(spec, Some(Arc::clone(quota)))
    }

    fn make(spec: MapSpec, quota: Option<Arc<Quota>>) -> Result<StorageMap, CreateMapError> {
        if spec.value_size == 0 {
            return Err(CreateMapError::ValueSizeZero);
        }
        if spec.kind >= KINDS {
            return Err(CreateMapError::NoSuchKind);
        }
        if spec.max_elements == 0 {
            return Err(CreateMapError::NoElements);
        }
        let wanted = (spec.max_elements / ELEMENTS_PER_BUCKET).max(spec.min_buckets as u64);
        let wanted = wanted.min(spec.max_elements).clamp(1, MOST_BUCKETS);
        let count = wanted.next_power_of_two() as usize;
        let chains = spec.max_elements.clamp(count as u64, MOST_CHAINS).next_power_of_two() as usize;
        let buckets = Buckets::new(count, chains).ok_or(CreateMapError::OutOfMemory { buckets: count })?;
        Ok(StorageMap {
            spec,
            buckets,
            elements: AtomicU64::new(0),
            quota,
            freeing: AtomicBool::new(false),
            attached: Attached::default(),
            closed: AtomicUsize::new(0),
            freed: AtomicU64::new(0),
        })
    }

    /// What it was made with.
    pub fn spec(&self) -> &MapSpec {
        &self.spec
    }

    /// Its number.
    pub fn id(&self) -> MapId {
        self.spec.id
    }

    /// How many buckets it has.
    pub fn buckets(&self) -> usize {
        self.buckets.count()
    }

    /// Elements now.
    pub fn elements(&self) -> u64 {
        self.elements.load(Ordering::Relaxed)
    }

    /// Bytes of value now.
    pub fn bytes(&self) -> u64 {
        self.elements() * u64::from(self.spec.value_size)
    }

    /// Whether it is being freed.
    pub fn is_freeing(&self) -> bool {
        // Relaxed: what matters is asked under a bucket's lock, which the free takes after its mark.
        self.freeing.load(Ordering::Relaxed)
    }

    /// The mark of a free: true for the one who sets it.
    pub(crate) fn mark_freeing(&self) -> bool {
        // Relaxed: as above.
        !self.freeing.swap(true, Ordering::Relaxed)
    }

    /// The owner's value. Takes no lock, waits for nothing and cannot be refused; any thread may call it.
    pub fn lookup(&self, owner: &(impl Owner + ?Sized)) -> Option<Value> {
        if somebody_leaves() && owner.slot().is_dead() {
            return None;
        }
        self.find(owner.id())
    }

    /// The value of the owner with this number, for whoever has not got the owner at hand. None says nothing: there may be no value, or
    /// some owner is just leaving, perhaps this one. [`StorageMap::lookup`] knows.
    #[inline]
    pub fn lookup_by_id(&self, owner: u64) -> Option<Value> {
        if somebody_leaves() { None } else { self.find(owner) }
    }

    /// As [`StorageMap::lookup_by_id`] for many owners, without room of their own for the values: each goes to its place in `values`,
    /// which has one of the map's size for every owner. Says the version of each, in order; the place of one without is left as it was.
    ///
    /// Reclamation waits for all of it: some dozens of owners at a time are enough to gain what there is to gain.
    ///
    /// # Panics
    /// If `values` is shorter than that.
    pub fn copy_by_ids(&self, owners: &[u64], values: &mut [u8], mut told: impl FnMut(Option<Version>)) {
        let size = self.spec.value_size as usize;
        let guard = crossbeam_epoch::pin();
        for (owner, room) in owners.iter().zip(values[..owners.len() * size].chunks_exact_mut(size)) {
            let element = if somebody_leaves() { None } else { self.find_element(*owner, &guard) };
            // SAFETY: found in this map under the guard, which is still there.
            told(element.map(|element| unsafe { element::copy(element, self.spec.value_size, room) }));
        }
    }

    /// The caller has made sure that the owner has not left, or that its elements are marked.
    #[inline]
    fn find(&self, owner: u64) -> Option<Value> {
        let guard = crossbeam_epoch::pin();
        let element = self.find_element(owner, &guard)?;
        // SAFETY: found in this map under the guard, which is still there.
        Some(unsafe { element::read(element, self.spec.value_size) })
    }

    /// As `find`: it stays allocated until the guard goes.
    #[inline]
    pub(crate) fn find_element(&self, owner: u64, guard: &Guard) -> Option<NonNull<Element>> {
        // SAFETY: kept by the guard.
        self.buckets.find(owner, guard).filter(|element| !unsafe { element.as_ref() }.is_off_storage())
    }

    /// Says at which points hooks run from now on, in place of what was said before. An operation that is under way may miss it.
    pub fn set_hooks(&self, points: impl IntoIterator<Item = HookPoint>) {
        self.attached.set(points);
    }

    /// What runs when an owner leaves, before its destroy: if one is attached here and the owner has a value. The slot is marked before.
    pub fn owner_exits(self: &Arc<Self>, cx: &Context, owner: &impl Owner) {
        if self.attached.has(HookPoint::OwnerExit) && self.lookup(owner).is_some() {
            let _ = self.attached.armed().at(cx, HookPoint::OwnerExit, self, owner, Old::Look, None);
        }
    }

    /// The owner's value, by a call that runs hooks and is counted by the legacy guard; both are for a pinned thread.
    pub fn get(self: &Arc<Self>, cx: &Context, owner: &impl Owner) -> Result<Option<Value>, Stopped> {
        let _counted = cx.guard().count(self.spec.kind);
        self.attached.armed().at(cx, HookPoint::LookupEnter, self, owner, Old::Look, None)?;
        Ok(self.lookup(owner))
    }

    /// A page of at most `limit` elements and about `bytes` of value. Takes no lock; any thread may call it. An element that
    /// is there from the first page to the last is on exactly one of them, also when it is updated meanwhile. Where there is much to
    /// look through (more than a million of possible elements) a page ends early, perhaps with nothing on it.
    pub fn list(&self, from: Cursor, limit: usize, bytes: usize) -> Page {
        let most = (bytes / self.spec.value_size as usize).clamp(1, limit.max(1));
        let mut elements = Vec::new();
        let mut from = from;
        let mut left = CHAINS_PER_PAGE / self.buckets.chains_each();
        while (from.bucket as usize) < self.buckets() {
            if !self.buckets.is_used(from.bucket as usize) {
                from = Cursor { bucket: Buckets::next_row(from.bucket as usize) as u32, serial: 0 };
                continue;
            }
            if left == 0 {
                return Page { elements, next: Some(from) };
            }
            left -= 1;
            // One pin a bucket: a long page must not hold up reclamation.
            let guard = crossbeam_epoch::pin();
            let mut found: Vec<(u64, NonNull<Element>)> = self
                .buckets
                .readers(from.bucket as usize, &guard)
                .filter_map(|element| {
                    // SAFETY: kept by the guard.
                    let header = unsafe { element.as_ref() };
                    let serial = header.owner();
                    (serial > from.serial && !header.is_off_storage()).then_some((serial, element))
                })
                .collect();
            // By serial, so that a page may end within a bucket.
            found.sort_unstable_by_key(|&(serial, _)| serial);
            for (serial, element) in found {
                if elements.len() == most {
                    return Page { elements, next: Some(from) };
                }
                // SAFETY: found in this map, and kept by the guard.
                let value = unsafe { element::read(element, self.spec.value_size) };
                elements.push(Listed { owner: serial, value });
                from.serial = serial;
            }
            from = Cursor { bucket: from.bucket + 1, serial: 0 };
        }
        Page { elements, next: None }
    }

    /// Which of the locks of an operation on this owner's value that is, if it is one.
    pub fn site_of(&self, owner: &impl Owner, lock: LockId) -> Option<Site> {
        let bucket = self.buckets.of(owner.id());
        if self.buckets.lock(bucket).id() == lock {
            return Some(Site::Bucket { map: self.id(), bucket });
        }
        let guard = crossbeam_epoch::pin();
        let storage = owner.slot().peek(&guard)?;
        (storage.lock_id() == lock).then(|| Site::Storage { owner: owner.id() })
    }

    /// The bucket of a storage.
    pub(crate) fn bucket_of(&self, storage: &LocalStorage) -> usize {
        self.buckets.of(storage.serial())
    }

    #[cfg_attr(test, track_caller)]
    pub(crate) fn lock<'a>(&'a self, bucket: usize, cx: &'a Context) -> Result<Held<'a>, Refusal> {
        cx.lock(self.buckets.lock(bucket), || Site::Bucket { map: self.id(), bucket })
    }

    #[cfg_attr(test, track_caller)]
    pub(crate) fn try_lock<'a>(&'a self, bucket: usize, cx: &'a Context) -> Option<Held<'a>> {
        cx.try_lock(self.buckets.lock(bucket))
    }

    /// Whether an owner without any value would be refused one now, for want of room in the map or among all bytes. Only a
    /// look: it takes nothing.
    pub fn check_room(&self) -> Result<(), UpdateError> {
        if self.elements() >= self.spec.max_elements {
            return Err(UpdateError::MapFull);
        }
        self.quota.as_ref().map_or(Ok(()), |quota| quota.check_total(self.spec.value_size))
    }

    /// Counts an element of `storage` that is about to be linked, if there is room for it: with its owner, in this map, and in
    /// all maps. Under the storage's lock, or while it is private. Nobody else gets its room, until it is given back.
    pub(crate) fn element_joins(&self, storage: &LocalStorage) -> Result<Room<'_>, UpdateError> {
        let MapSpec { value_size, max_elements, .. } = self.spec;
        if let Some(quota) = &self.quota {
            quota.check_owner(storage.bytes(), value_size)?;
        }
        // Relaxed: the exactness comes from the compare-exchange, not from an order.
        self.elements
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < max_elements).then_some(count + 1))
            .map_err(|_| UpdateError::MapFull)?;
        if let Some(quota) = &self.quota
            && let Err(refused) = quota.reserve(value_size)
        {
            // Relaxed: nothing has joined, so that nobody learns anything from it.
            self.elements.fetch_sub(1, Ordering::Relaxed);
            return Err(refused);
        }
        Ok(Room(self))
    }

    /// Counts an element that has left both lists, or that was not linked after all.
    pub(crate) fn element_left(&self) {
        if let Some(quota) = &self.quota {
            quota.give_back(self.spec.value_size);
        }
        // Release: pairs with `is_drained`: who sees 0 knows that the leaving is done, and the bytes given back.
        self.elements.fetch_sub(1, Ordering::Release);
    }

    /// Whether a free has closed every bucket and every element has left both its lists.
    pub(crate) fn is_drained(&self) -> bool {
        // Acquire: pairs with the Release of whoever closed the last bucket, and with `element_left`.
        self.closed.load(Ordering::Acquire) == self.buckets() && self.elements.load(Ordering::Acquire) == 0
    }
}

/// Room for one element. Dropped, it is given back: by an operation that a hook has stopped, or that has lost the race for its owner's
/// slot. That comes before its bucket's lock is given back, and a free that is under way counts what is left behind that lock.
#[must_use]
pub(crate) struct Room<'a>(&'a StorageMap);

impl Room<'_> {
    /// An element has it now.
    pub(crate) fn taken(self) {
        std::mem::forget(self);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.element_left();
    }
}

#[cfg(feature = "test-hooks")]
impl StorageMap {
    /// For tests: runs `body` while this thread holds the lock of the bucket that a storage with this serial falls into.
    pub fn hold_bucket(&self, cx: &Context, serial: u64, body: impl FnOnce()) {
        let _held = self.lock(self.buckets.of(serial), cx).expect("a test's lock is free");
        body();
    }
}

impl std::fmt::Debug for StorageMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorageMap")
            .field("spec", &self.spec)
            .field("elements", &self.elements())
            .finish_non_exhaustive()
    }
}
