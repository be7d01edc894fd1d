//! A job of operations that came at once by a pipeline: whatever each is, and on whatever map.
//!
//! Most of them are updates of one map. What the threads have to pass to each other for one of these is little: no count of the
//! map's references, which all threads would change, and of the answer the version.

use std::sync::Arc;
use std::time::Instant;

use super::{Done, OwnerHandle, Reply, Worker};
use crate::error::Error;
use crate::maps::Map;
use crate::types::{Credentials, Operation, Version};

/// Operations whose owners are all this worker's, in their order.
#[derive(Default)]
pub(crate) struct Each {
    maps: Vec<Arc<Map>>,
    ops: Vec<EachOp>,
}

/// One of them.
pub(crate) struct EachOp {
    pub(crate) owner: OwnerHandle,
    pub(crate) operation: Operation,
    pub(crate) expected: Option<Version>,
    /// Which of the maps.
    map: usize,
}

/// What came of them.
#[derive(Debug)]
pub(crate) struct EachDone {
    /// Of those that have written; 0 for the others.
    pub(crate) versions: Vec<Version>,
    /// The answers of the others, in order.
    pub(crate) others: Vec<Reply>,
}

impl Each {
    /// With room for so many.
    pub(crate) fn with_capacity(count: usize) -> Each {
        Each { maps: Vec::with_capacity(1), ops: Vec::with_capacity(count) }
    }

    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    pub(crate) fn push(&mut self, map: &Arc<Map>, owner: OwnerHandle, operation: Operation, expected: Option<Version>) {
        if self.maps.last().is_none_or(|last| !Arc::ptr_eq(last, map)) {
            self.maps.push(Arc::clone(map));
        }
        self.ops.push(EachOp { owner, operation, expected, map: self.maps.len() - 1 });
    }

    /// Leaves out those behind the first so many.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.ops.truncate(count);
    }
}

impl Worker {
    pub(super) fn each(&self, each: &Each, caller: Option<Credentials>, deadline: Option<Instant>) -> Reply {
        let mut done = EachDone { versions: Vec::with_capacity(each.len()), others: Vec::new() };
        for op in &each.ops {
            let map = &each.maps[op.map];
            let version = match self.in_time(caller, deadline, || self.one(map, op)) {
                Ok(Done::Written(written)) => written.version,
                other => {
                    done.others.push(other);
                    0
                }
            };
            done.versions.push(version);
        }
        Ok(Done::Each(done))
    }

    fn one(&self, map: &Arc<Map>, EachOp { owner, operation, expected, .. }: &EachOp) -> Result<Done, Error> {
        match operation {
            Operation::Get => self.get(map, owner).map(Done::Read),
            Operation::GetOrCreate { initial } => self.get_or_create(map, owner, initial.as_deref()),
            Operation::Update { value, mode } => self.update(map, owner, value, *mode, *expected).map(Done::Written),
            Operation::Delete => self.delete(map, owner, *expected).map(Done::Written),
        }
    }
}
