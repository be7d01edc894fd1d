//! Why an operation is refused: one enum an operation. Whatever it says, nothing has changed.

use rqspinlock::LockError;

use crate::guard::Busy;
use crate::hook::Stopped;

/// A lock that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lock of {site}: {error}")]
pub struct Refusal {
    /// Which lock.
    pub site: Site,
    /// Why.
    pub error: LockError,
}

/// Which lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// An owner's storage.
    Storage {
        /// The owner's id.
        owner: u64,
    },
    /// A bucket of a map.
    Bucket {
        /// The map's id.
        map: u64,
        /// The bucket.
        bucket: usize,
    },
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Site::Storage { owner } => write!(f, "the storage of owner {owner}"),
            Site::Bucket { map, bucket } => write!(f, "bucket {bucket} of map {map}"),
        }
    }
}

/// Whose bytes of value a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One owner's, in all maps.
    Owner,
    /// All owners', in all maps that share a [`Quota`](crate::Quota).
    Total,
}

impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Scope::Owner => "the owner holds",
            Scope::Total => "all owners together hold",
        })
    }
}

/// Why a map was not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateMapError {
    /// Values have at least one byte.
    #[error("a value has at least 1 byte")]
    ValueSizeZero,
    /// Without a room for one element a map is of no use.
    #[error("a map has room for at least 1 element")]
    NoElements,
    /// There are [`KINDS`](crate::KINDS) kinds of owners.
    #[error("there is no such kind of owner")]
    NoSuchKind,
    /// No memory for the buckets.
    #[error("no memory for {buckets} buckets")]
    OutOfMemory {
        /// How many were wanted.
        buckets: usize,
    },
}

/// Why a value was not created or updated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// The value's length is not the map's value size.
    #[error("the value has {actual} bytes, the map's values have {expected}")]
    ValueSize {
        /// The map's.
        expected: u32,
        /// The value's.
        actual: usize,
    },
    /// The owner has left, or is leaving and this would be a create.
    #[error("the owner has left")]
    OwnerGone,
    /// Wanted present, is absent.
    #[error("the owner has no element in this map")]
    NotFound,
    /// Wanted absent, is present.
    #[error("the owner has an element in this map already")]
    Exists {
        /// Its version.
        current: u64,
    },
    /// Another version than demanded.
    #[error("the element has version {current}")]
    VersionMismatch {
        /// Its version.
        current: u64,
    },
    /// The map has no room for another element.
    #[error("the map is full")]
    MapFull,
    /// The value would take its owner, or all owners together, over a limit on bytes of value.
    #[error("{scope} {used} bytes of value and may hold {limit}: the value does not fit")]
    Quota {
        /// Whose limit.
        scope: Scope,
        /// The limit, in bytes.
        limit: u64,
        /// The bytes that were there when it was refused.
        used: u64,
    },
    /// The map is being freed.
    #[error("the map is being freed")]
    MapFreeing,
    /// No memory for the element.
    #[error("no memory for the element")]
    OutOfMemory,
    /// A lock was refused.
    #[error(transparent)]
    Lock(#[from] Refusal),
    /// The storage came and went under our hands until the restart limit or the deadline.
    #[error("the owner's storage came and went too often")]
    Unsettled {
        /// Whether it was the caller's deadline that ended it.
        deadline: bool,
    },
    /// The legacy guard found somebody else at work on this processor: see [`Guard`](crate::Guard).
    #[error("an operation is under way on this processor")]
    Busy,
    /// A hook ended the operation.
    #[error("a hook ended the operation")]
    Stopped,
}

/// Why a value was not deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    /// The owner has left.
    #[error("the owner has left")]
    OwnerGone,
    /// There is nothing to delete, or another deleter was faster.
    #[error("the owner has no element in this map")]
    NotFound,
    /// Another version than demanded.
    #[error("the element has version {current}")]
    VersionMismatch {
        /// Its version.
        current: u64,
    },
    /// The map is being freed.
    #[error("the map is being freed")]
    MapFreeing,
    /// A lock was refused.
    #[error(transparent)]
    Lock(#[from] Refusal),
    /// The legacy guard found somebody else at work on this processor: see [`Guard`](crate::Guard).
    #[error("an operation is under way on this processor")]
    Busy,
    /// A hook ended the operation.
    #[error("a hook ended the operation")]
    Stopped,
}

impl From<Busy> for UpdateError {
    fn from(Busy: Busy) -> Self {
        UpdateError::Busy
    }
}

impl From<Stopped> for UpdateError {
    fn from(Stopped: Stopped) -> Self {
        UpdateError::Stopped
    }
}

impl From<Stopped> for DeleteError {
    fn from(Stopped: Stopped) -> Self {
        DeleteError::Stopped
    }
}
