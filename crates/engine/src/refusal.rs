//! From the refusals of the crates below to the one of the domain, where names take the place of numbers.

use std::cell::{Ref, RefCell};
use std::fmt::Display;
use std::sync::{Arc, OnceLock};

use local_storage::{DeleteError, Refusal, Scope, Site, UpdateError};
use owners::{OwnerError, OwnerId};
use rqspinlock::{Cycle, LockError};

use crate::error::{Deadlock, Error, Invalid, LockPlace, QuotaOf};
use crate::maps::Map;
use crate::worker::{Gauges, OwnerHandle};

/// Where an operation is that was just refused: what it takes to say why.
pub(crate) struct Scene<'a> {
    pub(crate) worker: usize,
    pub(crate) map: &'a Map,
    pub(crate) owner: &'a OwnerHandle,
    /// Those where something is attached, the outermost first; it may be one of them.
    pub(crate) operations: Ref<'a, Vec<(Arc<Map>, OwnerHandle)>>,
    /// Of all workers.
    pub(crate) gauges: &'a [OnceLock<Gauges>],
    /// Why a program stopped the operation.
    pub(crate) stopped: &'a RefCell<Option<Error>>,
}

impl Scene<'_> {
    /// `expected` is the version that the caller demanded; a mismatch can only come from there.
    pub(crate) fn update(&self, error: UpdateError, expected: Option<u64>) -> Error {
        let owner = self.owner.id();
        match error {
            UpdateError::Lock(refusal) => self.lock(refusal),
            UpdateError::Stopped => self.stop_reason(),
            UpdateError::Unsettled { deadline: false } => {
                Error::LockTimeout { worker: self.worker, place: LockPlace::Storage { owner } }
            }
            error => update(error, self.map, owner, expected),
        }
    }

    pub(crate) fn delete(&self, error: DeleteError, expected: Option<u64>) -> Error {
        match error {
            DeleteError::Lock(refusal) => self.lock(refusal),
            DeleteError::Stopped => self.stop_reason(),
            error => delete(error, self.map, self.owner.id(), expected),
        }
    }

    /// What a program said that has stopped the operation.
    pub(crate) fn stop_reason(&self) -> Error {
        let unsaid = || Error::Internal { problem: "an operation was stopped, and nobody said why".to_owned() };
        self.stopped.take().unwrap_or_else(unsaid)
    }

    fn lock(&self, refusal: Refusal) -> Error {
        let (worker, place) = (self.worker, self.place(refusal.site));
        match refusal.error {
            LockError::TimedOut => Error::LockTimeout { worker, place },
            LockError::DeadlinePassed => Error::DeadlinePassed,
            LockError::Deadlock(Cycle::Aa) => Error::Deadlock { worker, place, cycle: Deadlock::Aa },
            LockError::Deadlock(Cycle::Nesting) => Error::Deadlock { worker, place, cycle: Deadlock::Nesting },
            LockError::Deadlock(Cycle::Abba { wanted, other }) => {
                let other =
                    self.gauges.iter().position(|gauges| gauges.get().is_some_and(|gauges| gauges.cpu == other));
                // It is a lock of one of these operations: without a program there is no ABBA.
                let mut sites = self.operations.iter().rev();
                let held = sites.find_map(|(map, owner)| map.core.site_of(owner.attachment(), wanted));
                let held = held.map(|site| self.place(site));
                Error::Deadlock { worker, place, cycle: Deadlock::Abba { other, held } }
            }
        }
    }

    fn place(&self, site: Site) -> LockPlace {
        match site {
            Site::Storage { owner } => LockPlace::Storage { owner: OwnerId(owner) },
            Site::Bucket { map: id, .. } => {
                let mut maps = self.operations.iter().map(|(map, _)| &**map).chain([self.map]);
                let name = maps.find(|map| map.id() == id).map(|map| map.spec.name.clone());
                LockPlace::Bucket { map: name.unwrap_or_default() }
            }
        }
    }
}

/// An update that was refused where no lock and no program had part in it.
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
        UpdateError::Busy => Error::Busy,
        UpdateError::Unsettled { deadline: true } => Error::DeadlinePassed,
        UpdateError::Lock(_) | UpdateError::Stopped | UpdateError::Unsettled { deadline: false } => out_of_place(error),
    }
}

/// The same of a delete.
pub(crate) fn delete(error: DeleteError, map: &Map, owner: OwnerId, expected: Option<u64>) -> Error {
    let name = || map.spec.name.clone();
    match error {
        DeleteError::OwnerGone => Error::OwnerExited { owner },
        DeleteError::NotFound => Error::ElementNotFound { map: name() },
        DeleteError::VersionMismatch { current } => {
            Error::VersionMismatch { expected: expected.unwrap_or_default(), current }
        }
        DeleteError::MapFreeing => Error::MapFreeing { name: name() },
        DeleteError::Busy => Error::Busy,
        DeleteError::Lock(_) | DeleteError::Stopped => out_of_place(error),
    }
}

/// What takes no lock and runs no program has come to one.
fn out_of_place(error: impl Display) -> Error {
    Error::Internal { problem: format!("what takes no lock and runs no program came to one: {error}") }
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
