//! Many operations on one map by one call.
//!
//! ```text
//!   Get, no hop:  ids ──► map, 64 a pin, no memory of their own ──► one buffer        (misses: the registry says why)
//!
//!   the others:   owners ──find──► handles ──no lock to wait for, no program──► here, item by item ──────────────► by index
//!                    │                └────by worker──► 256 a job, in order ──► each worker, item by item ──► by index
//!                    └─not registered yet: one blocking task for all of them
//! ```
//!
//! An item is an operation of its own. Those of one owner are done in their order: here, up to the first that has to wait
//! ([`inline`](super::inline)), and from that on by one worker, whose mailbox keeps it; once it has
//! refused a job it gets none that comes after it, so that no later item of an owner happens where an earlier one was kept out.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use owners::{OwnerError, OwnerId, OwnerKind, OwnerRef};

use super::{Engine, blocking, check_kind, mixed_up, read, ref_kind};
use crate::error::{Error, Invalid};
use crate::maps::Map;
use crate::types::{BatchItems, BatchOwners, Call, Guard, MapId, UpdateMode, Version, Written};
use crate::worker::{BatchShared, Done, Item, Op, OwnerHandle, Share, Storage, What};

/// The most items that a batch should have: the server refuses more.
pub const BATCH_ITEMS: usize = 16_384;
/// Lookups under one pin of the epoch.
const PINNED: usize = 64;
/// Lookups by id that a calling thread does before it lets others have a turn: some 100 us.
const TURN: usize = 1024;
/// As [`TURN`], of names that take system calls.
const NAMED_TURN: usize = 64;
/// Items of one job: so long do others wait for the worker. (Some 100 us as well.)
const JOB: usize = 256;
/// Writes that a calling thread does before it lets others have a turn: some 100 us, too.
const WRITE_TURN: usize = 256;
/// And bytes of value.
const WRITE_BYTES: usize = 256 << 10;

/// The indexes of a job's items; with their owners, where a Get that finds nothing asks these why.
type Places = Vec<(usize, Option<OwnerHandle>)>;

/// A map, found for a batch. What is known of it can be checked before anything happens.
#[derive(Debug)]
pub struct Batch {
    engine: Engine,
    map: Arc<Map>,
}

impl Engine {
    /// Opens a map for one batch. Refused: `MapNotFound`, `MapIdMismatch`, `MapFreeing`, `Invalid` (the name).
    pub fn batch(&self, map: &str, expected: Option<MapId>) -> Result<Batch, Error> {
        Ok(Batch { engine: self.clone(), map: self.0.shared.maps.open(map, expected)? })
    }
}

impl Batch {
    /// The map's number.
    pub fn map_id(&self) -> MapId {
        self.map.id()
    }

    /// Whose values the map holds.
    pub fn kind(&self) -> OwnerKind {
        self.map.spec.kind
    }

    /// Bytes of one value.
    pub fn value_size(&self) -> u32 {
        self.map.spec.value_size
    }

    /// Reads all these values, as [`Engine::read`] does each: those that are there are in the vector, at their index times the
    /// value's size, in between are zeroes.
    ///
    /// Refused as a whole, as are the others: what [`Engine::update`] says of the way to a worker, if no item has begun.
    pub async fn get(self, owners: BatchOwners, call: Call) -> Result<(Vec<u8>, BatchItems), Error> {
        let mut items = BatchItems::new(&owners);
        let mut values = vec![0; owners.len() * self.size()];
        if self.engine.0.guard == Guard::PerCpuCounter || self.map.hooks_reads() {
            let found = self.find(&owners, &mut items, |_| false).await?;
            self.engine.learn_cgroups(&self.map, found.iter().map(|(_, owner)| owner)).await;
            let what = found.into_iter().map(|(index, owner)| Item { index, owner, expected: 0 }).collect();
            self.run(What::Get, what, &owners, &mut values, &mut items, call).await?;
            return Ok((values, items.sorted()));
        }
        let (count, turn) = (owners.len(), if matches!(owners, BatchOwners::Ids(_)) { TURN } else { NAMED_TURN });
        for from in (0..count).step_by(turn) {
            if call.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                if from == 0 {
                    return Err(Error::DeadlinePassed);
                }
                items.failed.extend((from..count).map(|index| (index, Error::DeadlinePassed)));
                break;
            }
            if from > 0 {
                tokio::task::yield_now().await;
            }
            let range = from..count.min(from + turn);
            match &owners {
                BatchOwners::Ids(ids) => self.look_by_ids(ids, range, &mut values, &mut items),
                BatchOwners::Refs(refs) => range.for_each(|index| self.look(refs, index, &mut values, &mut items)),
            }
        }
        Ok((values, items.sorted()))
    }

    /// Creates or replaces all these values, as [`Engine::update`] does each. `values` has one behind the other; `expected` is
    /// empty, or has a version for each item, 0 for none.
    pub async fn update(
        self,
        owners: BatchOwners,
        values: Bytes,
        mode: UpdateMode,
        expected: Vec<Version>,
        call: Call,
    ) -> Result<BatchItems, Error> {
        self.check_values(owners.len(), values.len())?;
        let creates = |index| mode != UpdateMode::Exist && expected.get(index).is_none_or(|version| *version == 0);
        self.write(What::Update { values, mode }, owners, creates, &expected, call).await
    }

    /// Deletes all these values, as [`Engine::delete`] does each. `expected` as for [`Batch::update`].
    pub async fn delete(self, owners: BatchOwners, expected: Vec<Version>, call: Call) -> Result<BatchItems, Error> {
        self.write(What::Delete, owners, |_| false, &expected, call).await
    }

    async fn write(
        &self,
        what: What,
        owners: BatchOwners,
        creates: impl Fn(usize) -> bool,
        expected: &[Version],
        call: Call,
    ) -> Result<BatchItems, Error> {
        let mut items = BatchItems::new(&owners);
        let found = self.find(&owners, &mut items, creates).await?;
        let item = |(index, owner)| Item { index, owner, expected: expected.get(index).copied().unwrap_or_default() };
        let found = found.into_iter().map(item).collect();
        let rest = self.write_inline(&what, found, &mut items, call.deadline).await;
        // Behind it: a program may have been attached meanwhile.
        self.engine.learn_cgroups(&self.map, rest.iter().map(|item| &item.owner)).await;
        self.run(what, rest, &owners, &mut [], &mut items, call).await?;
        Ok(items.sorted())
    }

    /// Does what this thread can do itself, and gives back the rest: behind an item that a worker has to do are the later ones of its
    /// owner.
    async fn write_inline(
        &self,
        what: &What,
        all: Vec<Item>,
        items: &mut BatchItems,
        deadline: Option<Instant>,
    ) -> Vec<Item> {
        if !self.engine.is_inline(&self.map) {
            return all;
        }
        let (mut rest, mut left) = (Vec::new(), HashSet::new());
        let turn = WRITE_TURN.min(WRITE_BYTES / self.size()).max(1);
        for (place, item) in all.into_iter().enumerate() {
            if place > 0 && place % turn == 0 {
                tokio::task::yield_now().await;
            }
            let written = match left.contains(&item.owner.id()) {
                true => None,
                false => self.write_one_inline(what, &item, deadline),
            };
            match written {
                Some(Ok(written)) => items.versions[item.index] = written.version,
                Some(Err(error)) => items.failed.push((item.index, error)),
                None => {
                    left.insert(item.owner.id());
                    rest.push(item);
                }
            }
        }
        rest
    }

    fn write_one_inline(&self, what: &What, item: &Item, deadline: Option<Instant>) -> Option<Result<Written, Error>> {
        let (engine, map, owner) = (&self.engine, &self.map, &item.owner);
        match what {
            What::Get => None,
            What::Update { mode, .. } => {
                let value = what.value(item.index, self.size());
                engine.update_inline(map, owner, value, *mode, item.expected(), deadline)
            }
            What::Delete => engine.delete_inline(map, owner, item.expected(), deadline),
        }
    }

    fn size(&self) -> usize {
        self.value_size() as usize
    }

    fn check_values(&self, count: usize, bytes: usize) -> Result<(), Error> {
        let size = self.size();
        if bytes == count * size {
            return Ok(());
        }
        let problem = format!("they have {bytes} bytes, and {count} values of {size} bytes have {}", count * size);
        Err(Error::Invalid { field: "values", kind: Invalid::Value, problem })
    }

    // --- On the calling thread ---

    fn look_by_ids(&self, ids: &[u64], range: Range<usize>, values: &mut [u8], items: &mut BatchItems) {
        let (size, end) = (self.size(), range.end);
        let mut missed = Vec::new();
        for from in range.step_by(PINNED) {
            let ids = &ids[from..end.min(from + PINNED)];
            let room = &mut values[from * size..][..ids.len() * size];
            let mut index = from;
            self.map.core.copy_by_ids(ids, room, |version| {
                match version {
                    Some(version) => items.versions[index] = version,
                    None => missed.push(index),
                }
                index += 1;
            });
        }
        for index in missed {
            let owner = OwnerRef::Id(OwnerId(ids[index]));
            self.found(index, self.engine.look(&self.map, &owner), values, items);
        }
    }

    fn look(&self, refs: &[Result<OwnerRef, Error>], index: usize, values: &mut [u8], items: &mut BatchItems) {
        let got = refs[index].as_ref().map_err(Error::clone).and_then(|owner| {
            check_kind(&self.map, ref_kind(owner))?;
            let found = self.engine.find(&self.map, owner)?;
            items.owners[index] = found.id();
            read(&self.map, owner, &found, self.map.core.lookup(found.attachment()))
        });
        self.found(index, got, values, items);
    }

    fn found(&self, index: usize, got: Result<crate::types::Got, Error>, values: &mut [u8], items: &mut BatchItems) {
        match got {
            Ok(got) => {
                values[index * self.size()..][..self.size()].copy_from_slice(&got.value);
                items.versions[index] = got.version;
            }
            Err(error) => items.failed.push((index, error)),
        }
    }

    // --- On the workers ---

    /// The owners that are there, or are registered now, in the order of their indexes.
    async fn find(
        &self,
        owners: &BatchOwners,
        items: &mut BatchItems,
        creates: impl Fn(usize) -> bool,
    ) -> Result<Vec<(usize, OwnerHandle)>, Error> {
        let mut found = Vec::with_capacity(owners.len());
        match owners {
            BatchOwners::Ids(ids) => {
                for (index, &id) in ids.iter().enumerate() {
                    if index > 0 && index % TURN == 0 {
                        tokio::task::yield_now().await;
                    }
                    match self.engine.find(&self.map, &OwnerRef::Id(OwnerId(id))) {
                        Ok(owner) => found.push((index, owner)),
                        Err(error) => items.failed.push((index, error)),
                    }
                }
            }
            BatchOwners::Refs(refs) => {
                let mut unknown = Vec::new();
                for (index, owner) in refs.iter().enumerate() {
                    if index > 0 && index % NAMED_TURN == 0 {
                        tokio::task::yield_now().await;
                    }
                    match self.find_named(owner) {
                        Ok(Some(owner)) => found.push((index, owner)),
                        Ok(None) if creates(index) => unknown.extend(owner.iter().map(|owner| (index, owner.clone()))),
                        Ok(None) => {
                            items.failed.push((index, Error::ElementNotFound { map: self.map.spec.name.clone() }))
                        }
                        Err(error) => items.failed.push((index, error)),
                    }
                }
                self.register(unknown, &mut found, items).await?;
                found.iter().for_each(|(index, owner)| items.owners[*index] = owner.id());
            }
        }
        Ok(found)
    }

    /// None: it is there, and not registered.
    fn find_named(&self, owner: &Result<OwnerRef, Error>) -> Result<Option<OwnerHandle>, Error> {
        let owner = owner.as_ref().map_err(Error::clone)?;
        check_kind(&self.map, ref_kind(owner))?;
        match self.engine.owners().find(owner) {
            Ok(owner) => check_kind(&self.map, Some(owner.kind())).map(|()| Some(owner)),
            Err(OwnerError::NotRegistered { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// All of them in one task.
    async fn register(
        &self,
        unknown: Vec<(usize, OwnerRef)>,
        found: &mut Vec<(usize, OwnerHandle)>,
        items: &mut BatchItems,
    ) -> Result<(), Error> {
        if unknown.is_empty() {
            return Ok(());
        }
        let (engine, map) = (self.engine.clone(), Arc::clone(&self.map));
        let register = move |(index, owner): (usize, OwnerRef)| {
            let registered = engine.check_room(&map, &owner).and_then(|()| {
                let owner = engine.owners().register(&owner, Storage::new)?;
                check_kind(&map, Some(owner.kind())).map(|()| owner)
            });
            (index, registered)
        };
        let registered: Vec<_> = blocking(move || Ok(unknown.into_iter().map(register).collect())).await?;
        for (index, owner) in registered {
            match owner {
                Ok(owner) => found.push((index, owner)),
                Err(error) => items.failed.push((index, error)),
            }
        }
        // One that was not known a moment ago may be by now, to a later item.
        found.sort_by_key(|(index, _)| *index);
        Ok(())
    }

    /// Has every worker run its items, and waits for all of them.
    async fn run(
        &self,
        what: What,
        all: Vec<Item>,
        owners: &BatchOwners,
        values: &mut [u8],
        items: &mut BatchItems,
        call: Call,
    ) -> Result<(), Error> {
        let reads = matches!(what, What::Get).then_some(owners);
        let mut by_worker: Vec<Vec<Item>> = Vec::new();
        by_worker.resize_with(self.engine.0.executor.workers().len(), Vec::new);
        all.into_iter().for_each(|item| by_worker[self.engine.worker_of(item.owner.id().0)].push(item));

        let mut jobs = Vec::new();
        let mut kept_out: Vec<(Places, Error)> = Vec::new();
        for (worker, share) in by_worker.into_iter().enumerate() {
            let mut refused = None;
            let mut share = share.into_iter();
            while share.len() > 0 {
                let items: Vec<_> = share.by_ref().take(JOB).collect();
                let places = items.iter().map(|item| (item.index, reads.map(|_| Arc::clone(&item.owner)))).collect();
                let queued = match refused.take() {
                    Some(error) => Err(error),
                    None => {
                        let share = Share { map: Arc::clone(&self.map), what: what.clone(), items };
                        self.engine.queue(worker, Op::Share(Box::new(share)), call)
                    }
                };
                match queued {
                    Ok(answer) => jobs.push((places, answer)),
                    Err(error) => {
                        refused = Some(error.clone());
                        kept_out.push((places, error));
                    }
                }
            }
        }
        // Some of it may have happened on this thread.
        let mut begun = items.versions.iter().any(|version| *version != 0);
        for (places, answer) in jobs {
            match answer.await {
                Ok(Done::Shared(done)) => {
                    begun = true;
                    self.take(done, places, reads, values, items);
                }
                Ok(other) => return Err(mixed_up(&other)),
                Err(error) => {
                    // (A worker that has lost an answer may have begun.)
                    begun |= matches!(error, Error::Internal { .. });
                    kept_out.push((places, error));
                }
            }
        }
        if let (false, Some((_, error))) = (begun, kept_out.first()) {
            return Err(error.clone());
        }
        for (places, error) in kept_out {
            items.failed.extend(places.into_iter().map(|(index, _)| (index, error.clone())));
        }
        Ok(())
    }

    /// What a worker says of a job.
    fn take(
        &self,
        done: BatchShared,
        places: Places,
        reads: Option<&BatchOwners>,
        values: &mut [u8],
        items: &mut BatchItems,
    ) {
        let size = self.size();
        let mut failed = done.failed.into_iter().peekable();
        for (place, ((index, owner), version)) in places.into_iter().zip(done.versions).enumerate() {
            if let Some((_, error)) = failed.next_if(|(failed, _)| *failed == place) {
                items.failed.push((index, error));
                continue;
            }
            items.versions[index] = version;
            let (Some(owners), Some(owner)) = (reads, owner) else { continue };
            match self.absent(owners, index, &owner, version != 0) {
                Some(error) => {
                    items.versions[index] = 0;
                    items.failed.push((index, error));
                }
                None => values[index * size..][..size].copy_from_slice(&done.values[place * size..][..size]),
            }
        }
    }

    /// Why a Get has no value for its caller, though it may have found one.
    fn absent(&self, owners: &BatchOwners, index: usize, found: &OwnerHandle, value: bool) -> Option<Error> {
        let by_id = OwnerRef::Id(found.id());
        let named = match owners {
            BatchOwners::Ids(_) => &by_id,
            BatchOwners::Refs(refs) => refs[index].as_ref().unwrap_or(&by_id),
        };
        super::why_not(&self.map, named, found, value)
    }
}
