//! One worker's share of a batch: items that run one after the other, each an operation of its own.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::{Done, OwnerHandle, Reply, Worker};
use crate::error::Error;
use crate::maps::Map;
use crate::types::{Credentials, UpdateMode, Version};

/// Items of a batch that are one job, since all their owners are this worker's.
pub(crate) struct Share {
    pub(crate) map: Arc<Map>,
    pub(crate) what: What,
    pub(crate) items: Vec<Item>,
}

/// What is done with each of them.
#[derive(Clone)]
pub(crate) enum What {
    Get,
    /// The values of the whole batch, one behind the other.
    Update {
        values: Bytes,
        mode: UpdateMode,
    },
    Delete,
}

/// One of them.
pub(crate) struct Item {
    /// Its place in the batch.
    pub(crate) index: usize,
    pub(crate) owner: OwnerHandle,
    /// 0: whatever is there.
    pub(crate) expected: Version,
}

impl What {
    /// The value of the item with this index, of so many bytes; none where nothing is put.
    pub(crate) fn value(&self, index: usize, size: usize) -> &[u8] {
        match self {
            What::Update { values, .. } => &values[index * size..][..size],
            What::Get | What::Delete => &[],
        }
    }
}

impl Item {
    pub(crate) fn expected(&self) -> Option<Version> {
        (self.expected != 0).then_some(self.expected)
    }
}

/// What came of a share, item by item.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// 0 where it failed, and where a Get has found nothing.
    pub(crate) versions: Vec<Version>,
    /// What Gets have found, zeroes where they have not.
    pub(crate) values: Vec<u8>,
    /// Which failed (by place in the share), and why.
    pub(crate) failed: Vec<(usize, Error)>,
}

impl Worker {
    /// `deadline` was ahead when the job was taken up, and is looked at again before each item.
    pub(super) fn share(&self, share: &Share, caller: Option<Credentials>, deadline: Option<Instant>) -> Reply {
        let mut done = Shared { versions: Vec::with_capacity(share.items.len()), ..Shared::default() };
        for (place, item) in share.items.iter().enumerate() {
            let result = self.in_time(caller, deadline, || self.item(share, item, &mut done.values));
            let version = result.unwrap_or_else(|error| {
                done.failed.push((place, error));
                0
            });
            done.versions.push(version);
            if matches!(share.what, What::Get) {
                done.values.resize(done.versions.len() * share.map.spec.value_size as usize, 0);
            }
        }
        Ok(Done::Shared(done))
    }

    /// Each has its own table and budget of programs, as a call has.
    pub(super) fn in_time<T>(
        &self,
        caller: Option<Credentials>,
        deadline: Option<Instant>,
        body: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Error::DeadlinePassed);
        }
        self.runner.begin(caller);
        let result = body();
        self.runner.end();
        result
    }

    /// The version that it was about.
    fn item(&self, share: &Share, item: &Item, found: &mut Vec<u8>) -> Result<Version, Error> {
        let (map, owner, expected) = (&share.map, &item.owner, item.expected());
        match &share.what {
            What::Get => Ok(self.get(map, owner)?.map_or(0, |value| {
                found.extend_from_slice(&value.bytes);
                value.version
            })),
            What::Update { mode, .. } => {
                let value = share.what.value(item.index, map.spec.value_size as usize);
                Ok(self.update(map, owner, value, *mode, expected)?.version)
            }
            What::Delete => Ok(self.delete(map, owner, expected)?.version),
        }
    }
}
