//! The domain's vocabulary: what goes into the engine and what comes out.
//! Wire types are the server's business; nothing here knows gRPC.

use std::time::Instant;

use bytes::Bytes;
use owners::{Identity, OwnerId, OwnerKind, OwnerRef};

use crate::error::Error;

/// The number of a map: issued by the engine, never reused while it runs, starts at 1.
pub type MapId = u64;

/// The version of an element: unique within its map, never 0, compared for equality only.
pub type Version = u64;

/// How the workers are guarded against recursion: [`local_storage::Guard`] tells what each does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guard {
    /// By the locks alone.
    #[default]
    RqSpinLock,
    /// By a counter of the operations under way on each processor, as Linux did before. For comparison: it refuses what it need not.
    PerCpuCounter,
}

impl std::fmt::Display for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Guard::RqSpinLock => "rqspinlock",
            Guard::PerCpuCounter => "percpu-counter",
        })
    }
}

/// What a map is made of, as its creator asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// 1 to 128 bytes of `A-Z a-z 0-9 _ . : / -`, beginning with a letter or a digit.
    pub name: String,
    /// Who owns the values.
    pub kind: OwnerKind,
    /// Bytes per value, 1 to the server's limit (65,407 by default).
    pub value_size: u32,
    /// How many elements fit; 0 takes the server's default.
    pub max_elements: u64,
    /// What a value means, for people and tools: `u64`, `utf8`, or a name of the user's own, up to 128 bytes.
    pub value_type: String,
}

/// Whether a map takes operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapState {
    /// It does.
    Active,
    /// It is being freed: every operation is refused, the count falls to 0, then the map is gone.
    Freeing,
}

/// A map as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// Its number.
    pub id: MapId,
    /// What it was created with; `max_elements` is the effective one.
    pub spec: MapSpec,
    /// How many buckets it has.
    pub buckets: u32,
    /// Elements now.
    pub elements: u64,
    /// Bytes of value now: elements times value size.
    pub bytes: u64,
    /// Whether it takes operations.
    pub state: MapState,
}

/// When an update may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdateMode {
    /// Present or absent.
    #[default]
    Any,
    /// Only if absent.
    NoExist,
    /// Only if present.
    Exist,
}

impl From<UpdateMode> for local_storage::Mode {
    fn from(mode: UpdateMode) -> Self {
        match mode {
            UpdateMode::Any => Self::Any,
            UpdateMode::NoExist => Self::NoExist,
            UpdateMode::Exist => Self::Exist,
        }
    }
}

/// What every call on a storage may say beside map, owner and value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    /// The element must have this version.
    pub expected_version: Option<Version>,
    /// The name must still belong to this map.
    pub expected_map_id: Option<MapId>,
    /// When the caller stops waiting. Work that has not begun by then never runs.
    pub deadline: Option<Instant>,
    /// Who calls, for programs.
    pub caller: Option<Credentials>,
}

impl Conditions {
    /// What is no matter of the element.
    pub(crate) fn call(&self) -> Call {
        Call { deadline: self.deadline, caller: self.caller }
    }
}

/// What a call without conditions says beside map and owner.
#[derive(Clone, Copy, Debug, Default)]
pub struct Call {
    /// As in [`Conditions`].
    pub deadline: Option<Instant>,
    /// As in [`Conditions`].
    pub caller: Option<Credentials>,
}

impl From<Option<Instant>> for Call {
    fn from(deadline: Option<Instant>) -> Call {
        Call { deadline, caller: None }
    }
}

/// Who a caller on this machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its process id, as seen from here; 0 where it is not.
    pub pid: u32,
    /// Its user id.
    pub uid: u32,
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// The bytes; their number is the map's value size.
    pub value: Vec<u8>,
    /// The version that the value belongs to.
    pub version: Version,
    /// Whether this call created it.
    pub created: bool,
    /// The owner, for the next call.
    pub owner: OwnerId,
}

impl Got {
    /// What a get-or-create of the core has come to.
    pub(crate) fn of((value, created): (local_storage::Value, bool), owner: OwnerId) -> Got {
        Got { value: value.bytes, version: value.version, created, owner }
    }
}

/// A mutation that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The element's version from now on (for a delete: the version that was deleted).
    pub version: Version,
    /// The owner, for the next call.
    pub owner: OwnerId,
}

/// One operation on a value, as a pipeline has many.
#[derive(Clone, Debug)]
pub enum Operation {
    /// As [`Engine::read`](crate::Engine::read).
    Get,
    /// As [`Engine::get_or_create`](crate::Engine::get_or_create).
    GetOrCreate {
        /// Zeroes where there is none.
        initial: Option<Bytes>,
    },
    /// As [`Engine::update`](crate::Engine::update).
    Update {
        /// The value.
        value: Bytes,
        /// When it may happen.
        mode: UpdateMode,
    },
    /// As [`Engine::delete`](crate::Engine::delete).
    Delete,
}

/// What an operation has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A value was read, or created.
    Got(Got),
    /// One was written, or deleted.
    Written(Written),
}

impl From<Got> for Outcome {
    fn from(got: Got) -> Outcome {
        Outcome::Got(got)
    }
}

impl From<Written> for Outcome {
    fn from(written: Written) -> Outcome {
        Outcome::Written(written)
    }
}

/// Whom the items of a batch are about.
#[derive(Clone, Debug)]
pub enum BatchOwners {
    /// By their ids: the fast way.
    Ids(Vec<u64>),
    /// By any name; or why something is none.
    Refs(Vec<Result<OwnerRef, Error>>),
}

impl BatchOwners {
    /// How many items there are.
    pub fn len(&self) -> usize {
        match self {
            BatchOwners::Ids(ids) => ids.len(),
            BatchOwners::Refs(refs) => refs.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What came of the items of a batch, by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchItems {
    /// The version that each item has read, written or deleted; 0 where it failed.
    pub versions: Vec<Version>,
    /// Of items by name: who each is; 0 where that is not known. Empty for items by id.
    pub owners: Vec<OwnerId>,
    /// Those that failed, by rising index.
    pub failed: Vec<(usize, Error)>,
}

impl BatchItems {
    pub(crate) fn new(owners: &BatchOwners) -> BatchItems {
        let named = if matches!(owners, BatchOwners::Refs(_)) { owners.len() } else { 0 };
        BatchItems { versions: vec![0; owners.len()], owners: vec![OwnerId(0); named], failed: Vec::new() }
    }

    pub(crate) fn sorted(mut self) -> BatchItems {
        self.failed.sort_unstable_by_key(|(index, _)| *index);
        self
    }
}

/// Where a listing of elements stands. Opaque to clients; the server wraps it in its page token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The bucket to go on with.
    pub bucket: u32,
    /// Storages up to this serial were shown already in that bucket.
    pub serial: u64,
}

/// One element of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedElement {
    /// Whose it is.
    pub owner: OwnerId,
    /// Who that is.
    pub identity: Identity,
    /// The bytes.
    pub value: Vec<u8>,
    /// Their version.
    pub version: Version,
}

/// One page of a listing of elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementPage {
    /// The map that the page is of.
    pub map: MapId,
    /// At most as many as were asked for, and about 1 MiB of values at most.
    pub elements: Vec<ListedElement>,
    /// Where to go on; none means that was the last page.
    pub next: Option<Cursor>,
}

/// Where an owner is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// It runs; its storage takes operations.
    Live,
    /// It has left; its storage is being destroyed.
    Exiting,
    /// It has left and its storage is gone.
    Exited,
}

/// An owner as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerInfo {
    /// Its number.
    pub id: OwnerId,
    /// Who it is.
    pub identity: Identity,
    /// Where it is in its life.
    pub state: OwnerState,
    /// The serial of its storage, when it has one.
    pub storage_serial: Option<u64>,
    /// The pinned worker that runs its mutations.
    pub worker: usize,
    /// Elements it has, in all maps.
    pub elements: u64,
    /// Bytes of value it has, in all maps.
    pub bytes: u64,
}

/// Counters of the whole engine. Each is read on its own: together they are a picture, not a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// One entry a pinned worker, by index.
    pub workers: Vec<WorkerStats>,
    /// One entry a thread that does mutations itself.
    pub inline: Vec<InlineStats>,
    /// Maps now, those that are being freed included.
    pub maps: u64,
    /// Elements in all maps now.
    pub elements: u64,
    /// Bytes of value in all maps now.
    pub bytes: u64,
    /// What the registry of owners counts.
    pub owners: owners::Counts,
    /// Unlinking work that a refused lock has put off. Falls to 0 by itself.
    pub retry_list: u64,
    /// Objects that readers may still see and that wait for a grace period.
    pub retired: u64,
}

/// Counters of one pinned worker.
#[derive(Clone, Debug)]
pub struct WorkerStats {
    /// What the border counts.
    pub border: cpu_executor::WorkerInfo,
    /// What the lock counts.
    pub lock: rqspinlock::Events,
    /// How often frees of maps have paused, so that others have the processor.
    pub gave_way: u64,
}

/// Counters of a thread that does mutations itself.
#[derive(Clone, Copy, Debug)]
pub struct InlineStats {
    /// Mutations it has done, or refused for good.
    pub done: u64,
    /// Those that it has left to a worker, because it would have had to wait.
    pub handed_over: u64,
    /// What the lock counts.
    pub lock: rqspinlock::Events,
}
