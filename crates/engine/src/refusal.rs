//! From the refusals of the crates below to the one of the domain, where names take the place of numbers.

use local_storage::{DeleteError, Refusal, Scope, Site, UpdateError};
use owners::{OwnerError, OwnerId};
use rqspinlock::LockError;

use crate::error::{Error, Invalid, LockPlace, QuotaOf};
use crate::maps::Map;

fn lock(refusal: Refusal, map: &Map) -> Error {
    let place = match refusal.site {
        Site::Storage { owner } => LockPlace::Storage { owner: OwnerId(owner) },
        Site::Bucket { .. } => LockPlace::Bucket { map: map.spec.name.clone() },
    };
    match refusal.error {
        LockError::Deadlock(cycle) => Error::Deadlock { place, cycle },
        LockError::TimedOut => Error::LockTimeout { place },
        LockError::DeadlinePassed => Error::DeadlinePassed,
    }
}

/// `expected` is the version that the caller demanded; a mismatch can only come from there.
pub(crate) fn update(error: UpdateError, map: &Map, owner: OwnerId, expected: Option<u64>) -> Error {
    let name = || map.spec.name.clone();
    match error {
        UpdateError::ValueSize { expected, actual } => value_size(expected, actual),
        UpdateError::OwnerGone => Error::OwnerExited { owner },
        UpdateError::NotFound => Error::ElementNotFound { map: name() },
        UpdateError::Exists { current } => Error::ElementExists { map: name(), current },
        UpdateError::VersionMismatch { current } => {
            Error::VersionMismatch { expected: expected.unwrap_or_default(), current }
        }
        UpdateError::MapFull => Error::MapFull { name: name(), max_elements: map.spec.max_elements },
        UpdateError::Quota { scope: Scope::Owner, limit, used } => {
            Error::Quota { of: QuotaOf::Owner { owner }, limit, used }
        }
        UpdateError::Quota { scope: Scope::Total, limit, used } => Error::Quota { of: QuotaOf::Server, limit, used },
        UpdateError::MapFreeing => Error::MapFreeing { name: name() },
        UpdateError::OutOfMemory => Error::OutOfMemory,
        UpdateError::Lock(refusal) => lock(refusal, map),
        UpdateError::Busy => Error::Busy,
        UpdateError::Stopped => stopped(),
        UpdateError::Unsettled { deadline: true } => Error::DeadlinePassed,
        UpdateError::Unsettled { deadline: false } => Error::LockTimeout { place: LockPlace::Storage { owner } },
    }
}

pub(crate) fn delete(error: DeleteError, map: &Map, owner: OwnerId, expected: Option<u64>) -> Error {
    match error {
        DeleteError::OwnerGone => Error::OwnerExited { owner },
        DeleteError::NotFound => Error::ElementNotFound { map: map.spec.name.clone() },
        DeleteError::VersionMismatch { current } => {
            Error::VersionMismatch { expected: expected.unwrap_or_default(), current }
        }
        DeleteError::MapFreeing => Error::MapFreeing { name: map.spec.name.clone() },
        DeleteError::Lock(refusal) => lock(refusal, map),
        DeleteError::Busy => Error::Busy,
        DeleteError::Stopped => stopped(),
    }
}

/// Nothing is attached to any map yet.
pub(crate) fn stopped() -> Error {
    Error::Internal { problem: "an operation was ended by a hook, and there are none".to_owned() }
}

pub(crate) fn value_size(expected: u32, actual: usize) -> Error {
    Error::Invalid {
        field: "value",
        kind: Invalid::Value,
        problem: format!("it has {actual} bytes, and the map's values have {expected}"),
    }
}

impl From<OwnerError> for Error {
    fn from(error: OwnerError) -> Error {
        let problem = error.to_string();
        match error {
            OwnerError::NotRegistered { .. } | OwnerError::NotFound { .. } => Error::OwnerNotFound { problem },
            OwnerError::Exited { id } => Error::OwnerExited { owner: id },
            OwnerError::Limit { limit, .. } => Error::OwnerLimit { limit, problem },
            OwnerError::SimulatedOff => Error::SimulatedOwnersOff,
            OwnerError::Invalid { field, problem } => Error::Invalid { field, kind: Invalid::Owner, problem },
            OwnerError::V1Cgroup { .. } => Error::Invalid { field: "cgroup.path", kind: Invalid::Owner, problem },
            OwnerError::Unsupported { .. } => Error::Invalid { field: "owner", kind: Invalid::Owner, problem },
            OwnerError::Denied { .. } => Error::OwnerDenied { problem },
            OwnerError::Io { .. } => Error::Internal { problem },
        }
    }
}
