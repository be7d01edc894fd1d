//! The engine: registries, routing, and the calls.

mod batch;
#[cfg(feature = "test-hooks")]
mod hooks;
mod inline;
mod owner;
mod pipeline;
mod programs;
mod start;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cpu_executor::{Executor, Refused, Seat, Workers};
use local_storage::{ByteLimits, OwnerSlot, Value, VersionClock};
use owners::{OwnerError, OwnerId, OwnerKind, OwnerRef, Registry};

pub use self::batch::{BATCH_ITEMS, Batch};
use self::inline::Inline;
pub use self::owner::SIMULATED_PER_CALL;
pub use self::pipeline::Pipeline;
use self::start::{Guards, build_worker};
use crate::config::{Config, StartError};
use crate::error::{Error, Invalid};
use crate::maps::{Limits, Map, Maps};
use crate::program::Programs;
use crate::refusal;
use crate::types::{
    Call, Conditions, Cursor, ElementPage, Got, Guard, ListedElement, MapId, MapInfo, MapSpec, Stats, UpdateMode,
    WorkerStats, Written,
};
use crate::worker::{Done, Gauges, Op, OwnerHandle, Reply, Request, Shared, Storage};

/// About how many bytes of value a page of a listing holds at most.
const PAGE_BYTES: usize = 1 << 20;
/// Buckets that every map has at least, for each worker.
const BUCKETS_PER_WORKER: usize = 16;

/// The engine. Cloning it is cheap and gives another handle to the same one.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    guard: Guard,
    lab_steps: bool,
    shared: Arc<Shared>,
    executor: Executor<Request, Reply>,
    inline: Arc<Inline>,
    workers: Mutex<Option<Workers>>,
}

impl Engine {
    /// Starts the pinned threads and the watch for exits.
    pub fn start(config: Config) -> Result<Engine, StartError> {
        let workers = config.executor.cpus.len() * config.executor.workers_per_cpu;
        if workers > VersionClock::INDEXES {
            return Err(StartError::TooManyWorkers { wanted: workers });
        }
        let limits = Limits {
            max_maps: config.max_maps,
            max_value_size: config.max_value_size,
            bytes: ByteLimits { owner: config.max_owner_bytes, total: config.max_bytes },
            default_max_elements: config.default_max_elements,
            min_buckets: BUCKETS_PER_WORKER * workers,
        };
        let gauges = std::iter::repeat_with(OnceLock::new).take(workers).collect();
        let shared = Arc::new(Shared {
            maps: Maps::new(limits),
            programs: Programs::default(),
            owners: OnceLock::new(),
            gauges,
            on_freed: config.on_freed,
        });
        let lock_timeout = config.lock_timeout;
        let guards = Guards::new(config.guard, &config.executor.cpus);
        let make = {
            let shared = Arc::clone(&shared);
            move |seat: &Seat| build_worker(seat, lock_timeout, guards.of(seat), &shared)
        };
        let (executor, workers) = Executor::start(config.executor, make)?;
        let registry = {
            let executor = executor.clone();
            Registry::start(config.owners, move |owner| deliver_exit(&executor, owner))?
        };
        let _ = shared.owners.set(registry);
        let (guard, lab_steps) = (config.guard, config.lab_steps);
        let inline = Inline::new(config.inline_mutations, guard, executor.workers().len());
        Ok(Engine(Arc::new(Inner { guard, lab_steps, shared, executor, inline, workers: Mutex::new(Some(workers)) })))
    }

    /// Ends the pinned threads and the watch for exits, waiting for each within `grace`. What is queued is refused with
    /// [`Error::ShuttingDown`], and so is what comes later. Blocks; a second call does nothing.
    pub fn stop(&self, grace: Duration) {
        let workers = self.0.workers.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(workers) = workers {
            if let Err(error) = workers.stop(grace) {
                tracing::error!(%error, "the workers did not stop cleanly");
            }
            if !self.owners().stop() {
                tracing::error!("the thread that watches for exits did not stop in time");
            }
        }
    }

    // --- Maps ---

    /// Creates a map. Refused: `Invalid` (name, value size, value type), `MapExists`, `MapLimit`, `OutOfMemory`.
    pub fn create_map(&self, spec: MapSpec) -> Result<MapInfo, Error> {
        let shared = &self.0.shared;
        shared.maps.create(spec, |map| shared.programs.tell(map))
    }

    /// A map as it is now. Refused: `MapNotFound`.
    pub fn get_map(&self, name: &str) -> Result<MapInfo, Error> {
        Ok(self.0.shared.maps.find(name)?.info())
    }

    /// Whose values a map holds. Refused: as [`Engine::get_map`].
    pub fn map_kind(&self, name: &str) -> Result<OwnerKind, Error> {
        Ok(self.0.shared.maps.find(name)?.spec.kind)
    }

    /// At most `limit` maps with ids above `after`, in the order of their ids.
    pub fn list_maps(&self, after: MapId, limit: usize) -> Vec<MapInfo> {
        self.0.shared.maps.list(after, limit)
    }

    /// Frees a map with all its elements and says how many elements that were. Once it has begun it finishes, also when the
    /// caller is gone or its deadline passes; until then the map refuses everything, and afterwards its name is free.
    /// Refused: `MapNotFound`, `MapIdMismatch`, `MapFreeing`, and what [`Engine::update`] says of the way to a worker.
    pub async fn free_map(&self, name: &str, expected: Option<MapId>, deadline: Option<Instant>) -> Result<u64, Error> {
        let map = self.0.shared.maps.open(name, expected)?;
        let worker = self.worker_of(map.id());
        match self.submit(worker, Op::Free { map }, deadline.into()).await? {
            Done::Freed(freed) => Ok(freed),
            other => Err(mixed_up(&other)),
        }
    }

    // --- Elements ---

    /// Reads a value, on the calling thread: no lock, no hop, at most a few system calls where the owner is named by pid or
    /// path. By these reusable names it answers only for whoever has the name now: after the value was found the
    /// kernel is asked whether its owner is still there. By an owner's id it asks the map alone, and the registry only why there is none.
    /// Refused: `MapNotFound`, `MapFreeing`, `OwnerNotFound`, `OwnerExited`, `ElementNotFound`, `Invalid`, `OwnerDenied`.
    pub fn get(&self, map: &str, owner: &OwnerRef) -> Result<Got, Error> {
        if let Some(got) = self.look_by_id(map, owner) {
            return Ok(got);
        }
        let map = self.0.shared.maps.open(map, None)?;
        self.look(&map, owner)
    }

    /// None says nothing.
    fn look_by_id(&self, map: &str, owner: &OwnerRef) -> Option<Got> {
        let OwnerRef::Id(owner) = *owner else { return None };
        let look = |map: &Map| if map.hooks_reads() { None } else { map.core.lookup_by_id(owner.0) };
        let value = self.0.shared.maps.with(map, None, look)?;
        Some(Got { value: value.bytes, version: value.version, created: false, owner })
    }

    fn look(&self, map: &Map, owner: &OwnerRef) -> Result<Got, Error> {
        check_kind(map, ref_kind(owner))?;
        let found = self.find(map, owner)?;
        let value = map.core.lookup(found.attachment());
        read(map, owner, &found, value)
    }

    /// Reads a value as [`Engine::get`]; but under the legacy guard, which counts reads, and where a program is attached that
    /// a read comes by, on the owner's worker.
    /// Refused: as [`Engine::get`], and then what [`Engine::update`] says of the way to a worker and of programs.
    pub async fn read(&self, map: &str, owner: &OwnerRef, call: impl Into<Call>) -> Result<Got, Error> {
        let counted = self.0.guard == Guard::PerCpuCounter;
        if !counted && let Some(got) = self.look_by_id(map, owner) {
            return Ok(got);
        }
        let map = self.0.shared.maps.open(map, None)?;
        if !counted && !map.hooks_reads() {
            return self.look(&map, owner);
        }
        check_kind(&map, ref_kind(owner))?;
        let found = self.find(&map, owner)?;
        self.learn_cgroup(&map, &found).await;
        let op = Op::Get { map: Arc::clone(&map), owner: Arc::clone(&found) };
        match self.submit(self.worker_of(found.id().0), op, call.into()).await? {
            Done::Read(value) => read(&map, owner, &found, value),
            other => Err(mixed_up(&other)),
        }
    }

    /// Reads a value, or creates it (from `initial`, or zeroes) where there is none.
    /// Refused: as [`Engine::get`] without `ElementNotFound`, as [`Engine::update`], and under the legacy guard `Busy`.
    pub async fn get_or_create(
        &self,
        map: &str,
        owner: &OwnerRef,
        initial: Option<Bytes>,
        call: impl Into<Call>,
    ) -> Result<Got, Error> {
        let opened = self.0.shared.maps.open(map, None)?;
        if let Some(initial) = &initial {
            check_value(&opened, initial)?;
        }
        if self.0.guard == Guard::RqSpinLock && !opened.hooks_reads() {
            match self.look(&opened, owner) {
                Err(Error::ElementNotFound { .. }) => {}
                answer => return answer,
            }
        }
        let owner = self.find_or_register(&opened, owner).await?;
        let call = call.into();
        if let Some(got) = self.get_or_create_inline(&opened, &owner, initial.as_deref(), call.deadline) {
            return got;
        }
        self.learn_cgroup(&opened, &owner).await;
        let worker = self.worker_of(owner.id().0);
        got(self.submit(worker, Op::GetOrCreate { map: opened, owner, initial }, call).await)
    }

    /// Creates a value where there is none. Refused: as [`Engine::update`].
    pub async fn create(
        &self,
        map: &str,
        owner: &OwnerRef,
        value: Bytes,
        conditions: Conditions,
    ) -> Result<Written, Error> {
        self.update(map, owner, value, UpdateMode::NoExist, conditions).await
    }

    /// Creates or replaces a value, as `mode` and `conditions` allow.
    ///
    /// Refused: `MapNotFound`, `MapIdMismatch`, `MapFreeing`, `MapFull`, `Quota`, `OwnerNotFound`, `OwnerExited`, `OwnerLimit`,
    /// `OwnerDenied`, `SimulatedOwnersOff`, `Invalid`, `ElementExists`, `ElementNotFound`, `VersionMismatch`, `OutOfMemory`;
    /// by a lock on the way: `LockTimeout`, `Deadlock`; on the way to the worker: `Overloaded`, `DeadlinePassed`,
    /// `ShuttingDown`; by a program: `Program`. Whatever it is, nothing has changed (but for what a program has done).
    pub async fn update(
        &self,
        map: &str,
        owner: &OwnerRef,
        value: Bytes,
        mode: UpdateMode,
        conditions: Conditions,
    ) -> Result<Written, Error> {
        let Conditions { expected_version: expected, expected_map_id, deadline, .. } = conditions;
        let here = |map: &Map, owner: &OwnerHandle| self.update_inline(map, owner, &value, mode, expected, deadline);
        if let Some(written) = self.by_id(map, owner, expected_map_id, here) {
            return written;
        }
        let map = self.0.shared.maps.open(map, expected_map_id)?;
        check_value(&map, &value)?;
        let creates = mode != UpdateMode::Exist && expected.is_none();
        check_kind(&map, ref_kind(owner))?;
        let found = match creates {
            true => self.find_or_register(&map, owner).await?,
            false => self.find(&map, owner)?,
        };
        if !is_id(owner)
            && let Some(written) = here(&map, &found)
        {
            return written;
        }
        let owner = found;
        self.learn_cgroup(&map, &owner).await;
        let worker = self.worker_of(owner.id().0);
        let op = Op::Update { map, owner, value, mode, expected };
        written(self.submit(worker, op, conditions.call()).await)
    }

    /// Deletes a value and says which version that was. Refused: as [`Engine::update`].
    pub async fn delete(&self, map: &str, owner: &OwnerRef, conditions: Conditions) -> Result<Written, Error> {
        let Conditions { expected_version: expected, expected_map_id, deadline, .. } = conditions;
        let here = |map: &Map, owner: &OwnerHandle| self.delete_inline(map, owner, expected, deadline);
        if let Some(written) = self.by_id(map, owner, expected_map_id, here) {
            return written;
        }
        let map = self.0.shared.maps.open(map, expected_map_id)?;
        check_kind(&map, ref_kind(owner))?;
        let found = self.find(&map, owner)?;
        if !is_id(owner)
            && let Some(written) = here(&map, &found)
        {
            return written;
        }
        let owner = found;
        self.learn_cgroup(&map, &owner).await;
        let worker = self.worker_of(owner.id().0);
        let op = Op::Delete { map, owner, expected };
        written(self.submit(worker, op, conditions.call()).await)
    }

    /// A page of a map's elements. What is there from the first page to the last appears exactly once.
    /// Refused: `MapNotFound`, `MapIdMismatch`, `MapFreeing`.
    pub fn list_elements(
        &self,
        map: &str,
        expected: Option<MapId>,
        cursor: Cursor,
        limit: usize,
    ) -> Result<ElementPage, Error> {
        let map = self.0.shared.maps.open(map, expected)?;
        let from = local_storage::Cursor { bucket: cursor.bucket, serial: cursor.serial };
        let page = map.core.list(from, limit, PAGE_BYTES);
        let elements = page.elements.into_iter().filter_map(|listed| {
            // Gone: it left between the look at the element and this one.
            let owner = self.owners().get(OwnerId(listed.owner))?;
            let identity = owner.identity().clone();
            Some(ListedElement {
                owner: owner.id(),
                identity,
                value: listed.value.bytes,
                version: listed.value.version,
            })
        });
        let next = page.next.map(|next| Cursor { bucket: next.bucket, serial: next.serial });
        Ok(ElementPage { map: map.id(), elements: elements.collect(), next })
    }

    // --- Counters ---

    /// What stands before an operation.
    pub fn guard(&self) -> Guard {
        self.0.guard
    }

    /// The pinned workers.
    pub fn workers(&self) -> Vec<cpu_executor::WorkerInfo> {
        self.0.executor.workers().to_vec()
    }

    /// Counters of everything.
    pub fn stats(&self) -> Stats {
        let shared = &self.0.shared;
        let gauges = || shared.gauges.iter().filter_map(OnceLock::get);
        let (maps, elements, bytes) = shared.maps.totals();
        let workers = self.workers().into_iter().zip(gauges());
        Stats {
            workers: workers.map(worker_stats).collect(),
            inline: self.0.inline.stats(),
            maps,
            elements,
            bytes,
            owners: self.owners().counts(),
            retry_list: gauges().map(Gauges::retry_length).sum(),
            retired: local_storage::waiting(),
        }
    }

    // --- Inside ---

    fn owners(&self) -> &Registry<Storage> {
        self.0.shared.owners.get().expect("set before start returns")
    }

    fn worker_of(&self, number: u64) -> usize {
        route(&self.0.executor, number)
    }

    /// Does to an owner that is named by its id what this thread can do itself, under the guard of the maps' table: not to count a reference
    /// to the map spares a line that all threads write. (Not under that of the owners' table, whose writers are those who register and
    /// exit.) None: it cannot, or something is the matter, and the long way says what.
    fn by_id<R>(
        &self,
        map: &str,
        owner: &OwnerRef,
        expected: Option<MapId>,
        here: impl FnOnce(&Map, &OwnerHandle) -> Option<R>,
    ) -> Option<R> {
        let OwnerRef::Id(owner) = *owner else { return None };
        let owner = self.owners().get(owner)?;
        self.0.shared.maps.with(
            map,
            expected,
            |map| if owner.kind() == map.spec.kind { here(map, &owner) } else { None },
        )
    }

    fn find(&self, map: &Map, owner: &OwnerRef) -> Result<OwnerHandle, Error> {
        let found = self.owners().find(owner).map_err(|error| match error {
            // It is there, it just has no value anywhere.
            OwnerError::NotRegistered { .. } => Error::ElementNotFound { map: map.spec.name.clone() },
            other => other.into(),
        })?;
        check_kind(map, Some(found.kind()))?;
        Ok(found)
    }

    async fn find_or_register(&self, map: &Map, owner: &OwnerRef) -> Result<OwnerHandle, Error> {
        let found = match self.owners().find(owner) {
            Err(OwnerError::NotRegistered { .. }) => {
                self.check_room(map, owner)?;
                let (this, owner) = (self.clone(), owner.clone());
                blocking(move || Ok(this.owners().register(&owner, Storage::new)?)).await?
            }
            found => found?,
        };
        check_kind(map, Some(found.kind()))?;
        Ok(found)
    }

    /// An owner that is not registered yet is not going to be for a value that has no room: it would stay until it exits.
    fn check_room(&self, map: &Map, owner: &OwnerRef) -> Result<(), Error> {
        let Err(refused) = map.core.check_room() else { return Ok(()) };
        // Not registered still: so it had no value when there was no room, and this is no replacement.
        match self.owners().find(owner) {
            // It has no id yet, and is not who is refused: the map is full, or the server.
            Err(OwnerError::NotRegistered { .. }) => Err(refusal::update(refused, map, OwnerId(0), None)),
            _ => Ok(()),
        }
    }

    async fn submit(&self, worker: usize, op: Op, call: Call) -> Reply {
        self.queue(worker, op, call)?.await
    }

    /// Has it queued now; the future is the answer, and cancels it if it is dropped before it runs.
    fn queue(
        &self,
        worker: usize,
        op: Op,
        Call { deadline, caller }: Call,
    ) -> Result<impl Future<Output = Reply> + use<>, Error> {
        let ticket = self.0.executor.submit(worker, Request { op, caller }, deadline);
        let ticket = ticket.map_err(|refused| self.refused(worker, refused))?;
        let this = self.clone();
        Ok(async move { ticket.await.map_err(|refused| this.refused(worker, refused))? })
    }

    /// On a blocking thread: waits as long as it takes.
    fn submit_wait(&self, worker: usize, op: impl Fn() -> Op) -> Result<(), Error> {
        loop {
            match self.0.executor.submit_wait(worker, op().into(), None) {
                Ok(reply) => return reply.map(drop),
                Err(Refused::Overloaded) => {}
                Err(refused) => return Err(self.refused(worker, refused)),
            }
        }
    }

    fn refused(&self, worker: usize, refused: Refused) -> Error {
        match refused {
            Refused::Overloaded => {
                let queued = self.0.executor.workers().get(worker).map_or(0, |worker| worker.queued());
                Error::Overloaded { worker, queued }
            }
            Refused::DeadlinePassed => Error::DeadlinePassed,
            Refused::Stopped => Error::ShuttingDown,
            Refused::Dropped => Error::Internal { problem: format!("worker {worker} lost a reply") },
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("workers", &self.0.executor.workers().len()).finish_non_exhaustive()
    }
}

fn worker_stats((border, gauges): (cpu_executor::WorkerInfo, &Gauges)) -> WorkerStats {
    WorkerStats { border, lock: gauges.lock.snapshot(), gave_way: gauges.gave_way() }
}

fn written(reply: Reply) -> Result<Written, Error> {
    match reply? {
        Done::Written(written) => Ok(written),
        other => Err(mixed_up(&other)),
    }
}

fn got(reply: Reply) -> Result<Got, Error> {
    match reply? {
        Done::Got(got) => Ok(got),
        other => Err(mixed_up(&other)),
    }
}

/// What a read by this name comes to, once the map was asked.
fn read(map: &Map, owner: &OwnerRef, found: &OwnerHandle, value: Option<Value>) -> Result<Got, Error> {
    match (why_not(map, owner, found, value.is_some()), value) {
        (None, Some(value)) => {
            Ok(Got { value: value.bytes, version: value.version, created: false, owner: found.id() })
        }
        (Some(error), _) => Err(error),
        (None, None) => Err(Error::ElementNotFound { map: map.spec.name.clone() }),
    }
}

/// Why a read by this name has no value for its caller: the owner may have left meanwhile, or the name have passed on. None only where
/// there is a value.
fn why_not(map: &Map, owner: &OwnerRef, found: &OwnerHandle, value: bool) -> Option<Error> {
    if !matches!(owner, OwnerRef::Id(_)) && found.has_exited() || slot_of(found).is_dead() {
        return Some(Error::OwnerExited { owner: found.id() });
    }
    match value {
        true => None,
        // A free that began meanwhile has taken it out.
        false if map.core.is_freeing() => Some(Error::MapFreeing { name: map.spec.name.clone() }),
        false => Some(Error::ElementNotFound { map: map.spec.name.clone() }),
    }
}

/// On the exit thread: an exit must not be lost, so a full mailbox is waited for.
fn deliver_exit(executor: &Executor<Request, Reply>, owner: OwnerHandle) {
    let worker = route(executor, owner.id().0);
    loop {
        match executor.submit_detached(worker, Op::Destroy { owners: vec![Arc::clone(&owner)] }.into()) {
            Ok(()) => return,
            Err(Refused::Overloaded) => {}
            Err(refused) => {
                // The server is stopping, or the worker has died: its values go with the process.
                tracing::debug!(?refused, owner_id = %owner.id(), "an exit was not delivered");
                return;
            }
        }
    }
}

/// The worker that an owner's or a map's number leads to. Multiplicative hashing by the high bits, so that it does not follow
/// the buckets, which go by the low ones.
fn route(executor: &Executor<Request, Reply>, number: u64) -> usize {
    let hash = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    ((hash * executor.workers().len() as u64) >> 32) as usize
}

fn slot_of(owner: &OwnerHandle) -> &OwnerSlot {
    local_storage::Owner::slot(owner.attachment())
}

/// The kind of owner that a reference is bound to lead to, where it says so by itself.
fn ref_kind(owner: &OwnerRef) -> Option<OwnerKind> {
    match owner {
        OwnerRef::Task { .. } | OwnerRef::Peer(_) => Some(OwnerKind::Task),
        OwnerRef::CgroupPath(_) | OwnerRef::CgroupId(_) => Some(OwnerKind::Cgroup),
        OwnerRef::Simulated { kind, .. } => Some(*kind),
        OwnerRef::Id(_) => None,
    }
}

fn is_id(owner: &OwnerRef) -> bool {
    matches!(owner, OwnerRef::Id(_))
}

fn check_kind(map: &Map, kind: Option<OwnerKind>) -> Result<(), Error> {
    match kind {
        Some(kind) if kind != map.spec.kind => Err(Error::Invalid {
            field: "owner",
            kind: Invalid::OwnerKind,
            problem: format!("it is a {kind}, and map {:?} is for {}s", map.spec.name, map.spec.kind),
        }),
        _ => Ok(()),
    }
}

fn check_value(map: &Map, value: &[u8]) -> Result<(), Error> {
    match value.len() == map.spec.value_size as usize {
        true => Ok(()),
        false => Err(refusal::value_size(map.spec.value_size, value.len())),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or_else(|error| Err(Error::Internal { problem: format!("a blocking task ended early: {error}") }))
}

fn mixed_up(done: &Done) -> Error {
    Error::Internal { problem: format!("a worker answered {done:?} to another question") }
}
