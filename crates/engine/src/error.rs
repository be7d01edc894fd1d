//! Why the engine refuses. One enum for the whole domain API, so that the server's status table is one exhaustive match;
//! each method's documentation names the variants that it may return. Every variant means: nothing has changed.

use owners::OwnerId;

use crate::types::{MapId, Version};

/// A refusal. The text says what was wrong, what was expected and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A lock on the way was refused because waiting would never end.
    #[error("deadlock on the lock of {place}: {cycle}")]
    Deadlock {
        /// Which lock.
        place: LockPlace,
        /// Which kind of cycle.
        cycle: rqspinlock::Cycle,
    },
    /// A lock on the way was not had in time.
    #[error(
        "the lock of {place} was not free within the lock timeout; its holder is stalled or very slow: try again after a pause"
    )]
    LockTimeout {
        /// Which lock.
        place: LockPlace,
    },
    /// The legacy guard: another operation was under way on the same processor.
    #[error(
        "another operation was under way on the same processor, and the server's guard is percpu-counter, which then refuses what may create, \
         whether that is recursion or not: try again, or start the server with --guard rqspinlock"
    )]
    Busy,
    /// The caller's deadline passed before the operation took effect.
    #[error("the deadline passed before the operation began to take effect; nothing has changed: give it more time")]
    DeadlinePassed,
    /// The worker's mailbox is full.
    #[error("worker {worker} has {queued} operations waiting and takes no more: slow down and try again")]
    Overloaded {
        /// Whose mailbox.
        worker: usize,
        /// How much it holds.
        queued: usize,
    },
    /// The server is going down.
    #[error("the server is shutting down: try another one, or this one after its restart")]
    ShuttingDown,
    /// No map has this name.
    #[error("there is no map named {name:?}: create it first, or list the maps to see their names")]
    MapNotFound {
        /// The name asked for.
        name: String,
    },
    /// A map of this name is there already.
    #[error("a map named {name:?} exists already (map_id {id}): free it first or choose another name")]
    MapExists {
        /// The name.
        name: String,
        /// The map that has it.
        id: MapId,
    },
    /// The name belongs to another map now.
    #[error(
        "map {name:?} has map_id {actual}, not the expected {expected}: it was freed and created anew; read it again"
    )]
    MapIdMismatch {
        /// The name.
        name: String,
        /// What the caller expected.
        expected: MapId,
        /// What it is.
        actual: MapId,
    },
    /// The map is being freed.
    #[error("map {name:?} is being freed: wait until it is gone")]
    MapFreeing {
        /// The name.
        name: String,
    },
    /// No more maps may be created.
    #[error("the server holds {limit} maps, its limit: free one first, or start it with a higher --max-maps")]
    MapLimit {
        /// The limit.
        limit: usize,
    },
    /// The map is full.
    #[error("map {name:?} holds its {max_elements} elements: delete some, or create a map with a larger max_elements")]
    MapFull {
        /// The name.
        name: String,
        /// The limit.
        max_elements: u64,
    },
    /// No more bytes of value are allowed.
    #[error("{of} {used} bytes of value and may have {limit}, so that this one does not fit: delete some, or start the server with a higher {}", of.flag())]
    Quota {
        /// Whose.
        of: QuotaOf,
        /// The limit, in bytes.
        limit: u64,
        /// What there was when it was refused, in bytes.
        used: u64,
    },
    /// The machine has no memory left for the value.
    #[error("the server could not allocate memory for the value")]
    OutOfMemory,
    /// The owner has no value in this map.
    #[error("the owner has no value in map {map:?}")]
    ElementNotFound {
        /// The map's name.
        map: String,
    },
    /// The owner has a value in this map already.
    #[error("the owner has a value in map {map:?} already (version {current})")]
    ElementExists {
        /// The map's name.
        map: String,
        /// The version that is there.
        current: Version,
    },
    /// The element has another version than the caller demanded.
    #[error("the element's version is {current}, not the expected {expected}: read it again")]
    VersionMismatch {
        /// What the caller demanded.
        expected: Version,
        /// What is there.
        current: Version,
    },
    /// No such owner.
    #[error("{problem}")]
    OwnerNotFound {
        /// What was looked for.
        problem: String,
    },
    /// The owner has left; its values are gone.
    #[error("the owner (owner_id {owner}) has exited and its values are gone")]
    OwnerExited {
        /// The owner that was.
        owner: OwnerId,
    },
    /// No more owners may be registered.
    #[error("{problem}")]
    OwnerLimit {
        /// The limit.
        limit: u64,
        /// What it is a limit of, and what to do.
        problem: String,
    },
    /// The kernel denies the server a look at this owner.
    #[error("{problem}")]
    OwnerDenied {
        /// What was denied.
        problem: String,
    },
    /// Simulated owners are not allowed on this server.
    #[error("simulated owners are off: start the server with --allow-simulated-owners")]
    SimulatedOwnersOff,
    /// An argument is wrong.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field, as the API spells it.
        field: &'static str,
        /// Which kind of wrong.
        kind: Invalid,
        /// What was wrong and what was expected.
        problem: String,
    },
    /// A bug or a failure of the machine; the text is for the log.
    #[error("{problem}")]
    Internal {
        /// What happened.
        problem: String,
    },
}

/// Kinds of wrong arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A map's name.
    Name,
    /// A map's value size.
    ValueSize,
    /// A value whose length is not the map's value size.
    Value,
    /// Any other number or text.
    Argument,
    /// How an owner was named.
    Owner,
    /// A task in a cgroup map or the reverse.
    OwnerKind,
}

/// Whose bytes of value a quota counts, over all maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaOf {
    /// One owner's.
    Owner {
        /// Which.
        owner: OwnerId,
    },
    /// Everybody's.
    Server,
}

impl QuotaOf {
    /// How the server's command line calls the limit.
    fn flag(self) -> &'static str {
        match self {
            QuotaOf::Owner { .. } => "--max-owner-bytes",
            QuotaOf::Server => "--max-bytes",
        }
    }
}

impl std::fmt::Display for QuotaOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            QuotaOf::Owner { owner } => write!(f, "the owner (owner_id {owner}) has in all maps together"),
            QuotaOf::Server => f.write_str("the server has in all maps together"),
        }
    }
}

/// Which lock an operation met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockPlace {
    /// The lock of an owner's storage.
    Storage {
        /// The owner.
        owner: OwnerId,
    },
    /// The lock of one bucket of a map.
    Bucket {
        /// The map's name.
        map: String,
    },
}

impl std::fmt::Display for LockPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LockPlace::Storage { owner } => write!(f, "the storage of owner_id {owner}"),
            LockPlace::Bucket { map } => write!(f, "a bucket of map {map:?}"),
        }
    }
}
