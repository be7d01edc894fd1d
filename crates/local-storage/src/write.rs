//! Update, get-or-create and delete: all or nothing.
//!
//! ```text
//!  slot: dead ──► owner gone
//!        empty ─► make a storage, and lock it ─► bucket lock ─► map not freeing, room ─► publish the storage ─► link ─► done
//!        storage ─► storage lock ─► still the owner's? ─► look again ─► bucket lock ─► map not freeing, room ─► link or replace ─► done
//!                                        └─ no: start over
//! ```

use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

use crate::Owner;
use crate::context::Context;
use crate::element::{self, Element, Field, Fresh, OFF_BUCKET, OFF_STORAGE};
use crate::error::{DeleteError, UpdateError};
use crate::guard::{Busy, Counted};
use crate::hook::{Armed, HookPoint, Old};
use crate::map::{Mode, Room, StorageMap, Value, Version, Written};
use crate::slot::{Exiting, Found};
use crate::storage::LocalStorage;

/// What the locked part of an update came to.
enum Attempt<T> {
    Done(T),
    /// The storage is not the owner's any more, or another one was published first.
    StartOver,
}

/// What an update asks for.
#[derive(Clone, Copy)]
struct Wanted {
    mode: Mode,
    expected: Option<Version>,
}

/// An update, through all its attempts.
struct Update<'a> {
    value: &'a [u8],
    wanted: Wanted,
    /// The element to be. An attempt that starts over gives it back.
    fresh: Option<Fresh<'a>>,
    armed: &'a mut Armed,
}

impl<'a> Update<'a> {
    fn take_fresh(&mut self) -> Fresh<'a> {
        self.fresh.take().expect("an attempt that starts over gives it back")
    }
}

impl StorageMap {
    /// Puts `value` in the place of the owner's element, or makes it its first one, as `mode` allows. With `expected`, only
    /// if the present element has that version. A reader sees the old value or the new one, never none, never a mixture.
    ///
    /// Starts over when the owner's storage is detached meanwhile, until the context's deadline, or the restart limit where there is none.
    pub fn update(
        self: &Arc<Self>,
        cx: &Context,
        owner: &impl Owner,
        value: &[u8],
        mode: Mode,
        expected: Option<Version>,
    ) -> Result<Written, UpdateError> {
        self.check_size(value)?;
        let _counted = self.count(cx, cx.depth() > 0)?;
        self.update_counted(cx, owner, value, Wanted { mode, expected }, &mut self.attached.armed())
    }

    fn check_size(&self, value: &[u8]) -> Result<(), UpdateError> {
        match value.len() == self.spec().value_size as usize {
            true => Ok(()),
            false => Err(UpdateError::ValueSize { expected: self.spec().value_size, actual: value.len() }),
        }
    }

    /// Counts an operation for the legacy guard. One that `backs_off` is refused where somebody is at work.
    fn count<'a>(&self, cx: &'a Context, backs_off: bool) -> Result<Counted<'a>, Busy> {
        let kind = self.spec().kind;
        if backs_off { cx.guard().count_alone(kind) } else { Ok(cx.guard().count(kind)) }
    }

    fn update_counted(
        self: &Arc<Self>,
        cx: &Context,
        owner: &impl Owner,
        value: &[u8],
        wanted: Wanted,
        armed: &mut Armed,
    ) -> Result<Written, UpdateError> {
        let Wanted { mode, expected } = wanted;
        armed.at(cx, HookPoint::UpdateEnter, self, owner, Old::Look, Some(value))?;
        let fresh = Some(Fresh::new(cx, value).ok_or(UpdateError::OutOfMemory)?);
        let mut update = Update { value, wanted, fresh, armed };
        let mut restarts = Restarts::new(cx);
        loop {
            let attempt = match owner.slot().find() {
                Found::Dead => return Err(UpdateError::OwnerGone),
                Found::Storage(storage) => self.update_storage(cx, owner, &storage, &mut update)?,
                Found::Empty | Found::EmptyExiting if mode == Mode::Exist || expected.is_some() => {
                    return Err(UpdateError::NotFound);
                }
                Found::EmptyExiting => return Err(UpdateError::OwnerGone),
                Found::Empty => self.create_storage(cx, owner, &mut update)?,
            };
            match attempt {
                Attempt::Done(written) => return Ok(written),
                Attempt::StartOver => restarts.again()?,
            }
        }
    }

    /// The owner's value, created from `initial` if there is none: the one call that tells which. A present element is
    /// answered without a lock, unless it comes to be while we look.
    pub fn get_or_create(
        self: &Arc<Self>,
        cx: &Context,
        owner: &impl Owner,
        initial: &[u8],
    ) -> Result<(Value, bool), UpdateError> {
        self.check_size(initial)?;
        let _counted = match self.count(cx, true) {
            Ok(counted) => counted,
            Err(Busy) => return self.lookup(owner).map(|present| (present, false)).ok_or(UpdateError::Busy),
        };
        let wanted = Wanted { mode: Mode::NoExist, expected: None };
        let (mut armed, mut restarts) = (self.attached.armed(), Restarts::new(cx));
        armed.at(cx, HookPoint::LookupEnter, self, owner, Old::Look, Some(initial))?;
        loop {
            if let Some(present) = self.lookup(owner) {
                return Ok((present, false));
            }
            match self.update_counted(cx, owner, initial, wanted, &mut armed) {
                Ok(written) => return Ok((Value { bytes: initial.to_vec(), version: written.version }, true)),
                // A free has taken it off its bucket, where lookups find it.
                Err(UpdateError::Exists { .. }) if self.is_freeing() => return Err(UpdateError::MapFreeing),
                // It came to be between the look and the lock: look again.
                Err(UpdateError::Exists { .. }) => restarts.again()?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Adds to a field of the owner's value, which is made of zeroes first where there is none: a get-or-create with its hooks and its
    /// refusals, then an addition in place, without a lock or a hook. Returns what the field is then, and the version. A replacement
    /// at the same moment may swallow it. The field is one of the map's values.
    pub fn add(
        self: &Arc<Self>,
        cx: &Context,
        owner: &impl Owner,
        field: Field,
        delta: u64,
    ) -> Result<(u64, Version), UpdateError> {
        let size = self.spec().value_size;
        assert!(field.fits(size), "the caller has checked {field:?} against {size} bytes");
        let zeroes = vec![0; size as usize];
        let mut restarts = Restarts::new(cx);
        loop {
            self.get_or_create(cx, owner, &zeroes)?;
            let guard = crossbeam_epoch::pin();
            // None: it was deleted again.
            if let Some(element) = self.find_element(owner.id(), &guard) {
                // SAFETY: found in this map under the guard, and the values of this map have the field.
                return Ok(unsafe { element::add(element, size, field, delta, |old| cx.versions.draw(old)) });
            }
            drop(guard);
            restarts.again()?;
        }
    }

    /// An owner's first element: the storage is made and published with it.
    fn create_storage<'a>(
        self: &Arc<Self>,
        cx: &'a Context,
        owner: &impl Owner,
        update: &mut Update<'a>,
    ) -> Result<Attempt<Written>, UpdateError> {
        let storage = Arc::new(LocalStorage::new(owner.id()));
        // Nobody else has it yet, so it is had at once. Whoever finds the storage published waits until the element is in its chain, too:
        // what they say of it is true of a lookup afterwards.
        let mut index = storage.lock(cx)?;
        index.make_room().ok_or(UpdateError::OutOfMemory)?;
        let bucket = self.bucket_of(&storage);
        let _held = self.lock(bucket, cx)?;
        if self.is_freeing() {
            return Err(UpdateError::MapFreeing);
        }
        // Whoever was first in this map has the same bucket, so this look keeps a loser from counting as an element for a
        // moment; only a first element in another map can still come between.
        if !owner.slot().is_empty() {
            return Ok(Attempt::StartOver);
        }
        let room = self.element_joins(&storage)?;
        update.armed.at(cx, HookPoint::BucketLocked, self, owner, Old::Linked(None), Some(update.value))?;
        let version = cx.versions.draw(0);
        let (map, whose) = element::join(self, &storage);
        let element = update.take_fresh().into_shared(whose, map, storage.serial(), version);
        index.put(self.id(), element);
        if owner.slot().publish(&storage) {
            // Under the same bucket lock, so that no reader ever sees an element that did not come to be.
            self.buckets.push(element);
            storage.charge(element);
            room.taken();
            return Ok(Attempt::Done(Written { version, created: true }));
        }
        // Lost against another first element, or the owner is leaving. (The room is given back.)
        // SAFETY: the storage was never published and the element is in no bucket: nobody else has seen it.
        update.fresh = Some(unsafe { element::unjoin(cx, element) });
        index.remove(self.id());
        Ok(Attempt::StartOver)
    }

    fn update_storage(
        self: &Arc<Self>,
        cx: &Context,
        owner: &impl Owner,
        storage: &Arc<LocalStorage>,
        update: &mut Update<'_>,
    ) -> Result<Attempt<Written>, UpdateError> {
        // Declared before the locks, so dropped after them.
        let _replaced;
        let written;
        {
            let mut index = storage.lock(cx)?;
            let Some(Exiting(exiting)) = owner.slot().names(storage) else { return Ok(Attempt::StartOver) };
            let old = index.get(self.id());
            let wanted = update.wanted;
            // SAFETY: in the index, whose lock we hold.
            let version_of = |old: NonNull<Element>| unsafe { old.as_ref() }.version();
            match (old.map(version_of), wanted.mode) {
                (Some(current), Mode::NoExist) => return Err(UpdateError::Exists { current }),
                (None, Mode::Exist) => return Err(UpdateError::NotFound),
                (None, _) if wanted.expected.is_some() => return Err(UpdateError::NotFound),
                (None, _) if exiting => return Err(UpdateError::OwnerGone),
                (Some(current), _) if wanted.expected.is_some_and(|expected| expected != current) => {
                    return Err(UpdateError::VersionMismatch { current });
                }
                _ => {}
            }
            update.armed.at(cx, HookPoint::StorageLocked, self, owner, Old::Linked(old), Some(update.value))?;
            if old.is_none() {
                index.make_room().ok_or(UpdateError::OutOfMemory)?;
            }
            let bucket = self.bucket_of(storage);
            let _bucket_held = self.lock(bucket, cx)?;
            // A free that marks the map after this look takes this bucket's lock after us and finds what we link.
            if self.is_freeing() {
                return Err(UpdateError::MapFreeing);
            }
            let room = old.is_none().then(|| self.element_joins(storage)).transpose()?;
            update.armed.at(cx, HookPoint::BucketLocked, self, owner, Old::Linked(old), Some(update.value))?;
            // Nothing is refused from here on. (Read again: a hook may have changed the value in place.)
            let version = cx.versions.draw(old.map_or(0, version_of));
            let fresh = update.take_fresh();
            match old {
                Some(old) => {
                    // SAFETY: in the index, whose lock we hold. The membership's holds pass to the new element.
                    let (whose, map) = unsafe { (old.as_ref().storage(), old.as_ref().map()) };
                    let new = fresh.into_shared(whose, map, storage.serial(), version);
                    self.buckets.replace(old, new);
                    index.put(self.id(), new);
                    // SAFETY: replaced in both lists, under both locks; once.
                    _replaced = unsafe { element::replaced(cx, old) };
                }
                None => {
                    let (map, whose) = element::join(self, storage);
                    let new = fresh.into_shared(whose, map, storage.serial(), version);
                    self.buckets.push(new);
                    index.put(self.id(), new);
                    storage.charge(new);
                    room.into_iter().for_each(Room::taken);
                }
            }
            written = Written { version, created: old.is_none() };
        }
        Ok(Attempt::Done(written))
    }

    /// Deletes the owner's element and says which version that was. With `expected`, only if it has that version. The
    /// owner's last element takes the storage with it.
    pub fn delete(
        self: &Arc<Self>,
        cx: &Context,
        owner: &impl Owner,
        expected: Option<Version>,
    ) -> Result<Version, DeleteError> {
        let _counted = match self.count(cx, cx.depth() > 0) {
            Ok(counted) => counted,
            Err(Busy) if self.lookup(owner).is_none() => return Err(DeleteError::NotFound),
            Err(Busy) => return Err(DeleteError::Busy),
        };
        self.attached.armed().at(cx, HookPoint::DeleteEnter, self, owner, Old::Look, None)?;
        let storage = match owner.slot().find() {
            Found::Dead => return Err(DeleteError::OwnerGone),
            Found::Empty | Found::EmptyExiting => return Err(DeleteError::NotFound),
            Found::Storage(storage) => storage,
        };
        // Declared before the locks, so dropped after them.
        let (_element, _storage);
        let mut index = storage.lock(cx)?;
        // A storage that was detached meanwhile is empty, and one whose owner has just gone is about to be: no look at the slot.
        let element = index.get(self.id()).ok_or(DeleteError::NotFound)?;
        // SAFETY: in the index, whose lock we hold.
        let header = unsafe { element.as_ref() };
        if expected.is_some_and(|expected| expected != header.version()) {
            return Err(DeleteError::VersionMismatch { current: header.version() });
        }
        self.attached.armed().at(cx, HookPoint::StorageLocked, self, owner, Old::Linked(Some(element)), None)?;
        let bucket = self.bucket_of(&storage);
        let _bucket_held = self.lock(bucket, cx)?;
        if self.is_freeing() {
            return Err(DeleteError::MapFreeing);
        }
        self.attached.armed().at(cx, HookPoint::BucketLocked, self, owner, Old::Linked(Some(element)), None)?;
        let (current, size) = (header.version(), header.size());
        self.buckets.unlink(element);
        // SAFETY: unlinked from the bucket, under its lock; still in the index, under its lock.
        let first = unsafe { element::mark_off(cx, element, OFF_BUCKET) };
        debug_assert!(first.is_none(), "it was in the index, so destroy has not had it");
        index.remove(self.id());
        // SAFETY: taken out of the index, under its lock. Not touched afterwards.
        _element = unsafe { element::mark_off(cx, element, OFF_STORAGE) };
        storage.discharge(size);
        _storage = storage.is_empty().then(|| owner.slot().detach(cx, &storage));
        Ok(current)
    }
}

/// Bounds the starting over: by the caller's deadline, or by the restart limit where there is none.
struct Restarts<'a> {
    cx: &'a Context,
    /// Read at the first restart only: hardly any operation has one.
    since: Option<Instant>,
}

impl<'a> Restarts<'a> {
    fn new(cx: &'a Context) -> Self {
        Restarts { cx, since: None }
    }

    fn again(&mut self) -> Result<(), UpdateError> {
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        match self.cx.deadline() {
            Some(deadline) if now >= deadline => Err(UpdateError::Unsettled { deadline: true }),
            None if now.duration_since(since) >= self.cx.restart_limit => {
                Err(UpdateError::Unsettled { deadline: false })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{TestOwner, context, map};
    use crate::{SlotState, destroy};

    fn update<'a>(cx: &'a Context, armed: &'a mut Armed) -> Update<'a> {
        let wanted = Wanted { mode: Mode::Any, expected: None };
        Update { value: b"2", wanted, fresh: Fresh::new(cx, b"2"), armed }
    }

    /// The schedule that the check under the storage's lock is for: an updater has found the storage, then the last
    /// element goes (or the owner), then the updater has its turn at the lock.
    #[test]
    fn an_update_that_found_a_detached_storage_starts_over() {
        let (cx, map) = (context(0), map(1, 10));
        for owner_leaves in [false, true] {
            let owner = TestOwner::new();
            map.update(&cx, &owner, b"1", Mode::Any, None).unwrap();
            let Found::Storage(storage) = owner.slot().find() else { panic!("it has an element") };
            match owner_leaves {
                true => destroy(&cx, &owner),
                false => drop(map.delete(&cx, &owner, None).unwrap()),
            }
            let mut armed = map.attached.armed();
            let mut update = update(&cx, &mut armed);
            let attempt = map.update_storage(&cx, &owner, &storage, &mut update).unwrap();
            assert!(matches!(attempt, Attempt::StartOver));
            assert!(update.fresh.is_some(), "the next attempt needs it");
            assert_eq!(map.elements(), 0);
        }
    }

    /// As above for a first element: another one was published, or the owner began to leave, in between.
    #[test]
    fn a_first_create_that_lost_starts_over_and_leaves_nothing() {
        let (cx, map, other) = (context(0), map(1, 10), map(1, 10));
        let owner = TestOwner::new();
        other.update(&cx, &owner, b"1", Mode::Any, None).unwrap();
        let mut armed = map.attached.armed();
        let mut update = update(&cx, &mut armed);
        assert!(matches!(map.create_storage(&cx, &owner, &mut update).unwrap(), Attempt::StartOver));
        let leaving = TestOwner::new();
        leaving.slot().mark_exiting();
        assert!(matches!(map.create_storage(&cx, &leaving, &mut update).unwrap(), Attempt::StartOver));
        assert_eq!((map.elements(), leaving.slot().state()), (0, SlotState::Exiting));
        assert!(matches!(owner.slot().state(), SlotState::Storage { elements: 1, .. }));
    }
}
