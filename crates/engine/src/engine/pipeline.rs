//! Many operations of one caller in flight, in order for each owner.
//!
//! ```text
//!   begin ──► owner found (or registered: the next begin waits) ──► its worker's mailbox ──► in the order of begins
//!     └─ a read: none of ours writes to the owner ──► at once, as ever
//!                one does ──► behind it, through the mailbox
//! ```

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use foldhash::fast::RandomState;
use owners::{OwnerId, OwnerRef};

use super::{Engine, check_kind, check_value, got, read, ref_kind, written};
use crate::error::Error;
use crate::types::{Conditions, Guard, Operation, Outcome};
use crate::worker::Op;

/// Operations of one caller. Whoever awaits each [`Pipeline::begin`] before the next one has those on one owner happen in this order,
/// by whatever names and in whatever maps. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct Pipeline {
    engine: Engine,
    writes: Writes,
}

/// How far an operation has come.
#[derive(Debug)]
pub enum Begun {
    /// It has an answer already.
    Done(Result<Outcome, Error>),
    /// A worker has it.
    Queued(Queued),
}

/// An operation that a worker has. Its answer is awaited; dropped, it is cancelled if it has not begun to run.
#[must_use = "dropping it cancels the operation"]
pub struct Queued {
    answer: Pin<Box<dyn Future<Output = Result<Outcome, Error>> + Send>>,
    /// Dropped when there is an answer: a read that comes later sees what was written.
    _write: Option<Write>,
}

/// Which owners' values may change by what is queued, and how many times.
#[derive(Clone, Debug, Default)]
struct Writes(Arc<Mutex<HashMap<OwnerId, usize, RandomState>>>);

/// One of them, counted.
#[derive(Debug)]
struct Write(Writes, OwnerId);

impl Engine {
    /// A pipeline, with nothing in it.
    pub fn pipeline(&self) -> Pipeline {
        Pipeline { engine: self.clone(), writes: Writes::default() }
    }
}

impl Pipeline {
    /// Begins an operation: as soon as it stands behind all those on the same owner that were begun before, or is done.
    /// It is refused as the call that it is.
    pub async fn begin(&self, map: &str, owner: &OwnerRef, operation: Operation, conditions: Conditions) -> Begun {
        let begun = match operation {
            Operation::Get => self.read(map, owner, conditions).await,
            Operation::GetOrCreate { initial } => self.get_or_create(map, owner, initial, conditions).await,
            Operation::Update { value, mode } => {
                let prepared = self.engine.prepare_update(map, owner, value, mode, &conditions).await;
                prepared.and_then(|(owner, op)| self.write(owner, op, conditions, written))
            }
            Operation::Delete => {
                let prepared = self.engine.prepare_delete(map, owner, &conditions).await;
                prepared.and_then(|(owner, op)| self.write(owner, op, conditions, written))
            }
        };
        begun.unwrap_or_else(|error| Begun::Done(Err(error)))
    }

    async fn read(&self, map: &str, owner: &OwnerRef, conditions: Conditions) -> Result<Begun, Error> {
        let engine = &self.engine;
        let counted = engine.0.guard == Guard::PerCpuCounter;
        if let OwnerRef::Id(id) = owner
            && !counted
            && !self.writes.may_change(*id)
            && let Some(got) = engine.look_by_id(map, owner)
        {
            return Ok(Begun::Done(Ok(Outcome::Got(got))));
        }
        let map = engine.0.shared.maps.open(map, None)?;
        check_kind(&map, ref_kind(owner))?;
        let found = engine.find(&map, owner)?;
        if !counted && !map.hooks_reads() && !self.writes.may_change(found.id()) {
            let value = map.core.lookup(found.attachment());
            return Ok(Begun::Done(read(&map, owner, &found, value).map(Outcome::Got)));
        }
        engine.learn_cgroup(&map, &found).await;
        let owner = owner.clone();
        let answer = engine.queue_read(map, owner, found, conditions.call())?;
        let answer = Box::pin(async move { answer.await.map(Outcome::Got) });
        Ok(Begun::Queued(Queued { answer, _write: None }))
    }

    async fn get_or_create(
        &self,
        map: &str,
        owner: &OwnerRef,
        initial: Option<bytes::Bytes>,
        conditions: Conditions,
    ) -> Result<Begun, Error> {
        let engine = &self.engine;
        let map = engine.0.shared.maps.open(map, None)?;
        if let Some(initial) = &initial {
            check_value(&map, initial)?;
        }
        if engine.0.guard == Guard::RqSpinLock && !map.hooks_reads() {
            // As a read, where there is something.
            check_kind(&map, ref_kind(owner))?;
            match engine.find(&map, owner) {
                Ok(found) if self.writes.may_change(found.id()) => {}
                Ok(found) => match read(&map, owner, &found, map.core.lookup(found.attachment())) {
                    Err(Error::ElementNotFound { .. }) => {}
                    answer => return Ok(Begun::Done(answer.map(Outcome::Got))),
                },
                Err(Error::ElementNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let owner = engine.find_or_register(&map, owner).await?;
        engine.learn_cgroup(&map, &owner).await;
        self.write(owner.id(), Op::GetOrCreate { map, owner, initial }, conditions, got)
    }

    fn write<T: Into<Outcome> + 'static>(
        &self,
        owner: OwnerId,
        op: Op,
        conditions: Conditions,
        what: fn(crate::worker::Reply) -> Result<T, Error>,
    ) -> Result<Begun, Error> {
        let answer = self.engine.queue(self.engine.worker_of(owner.0), op, conditions.call())?;
        let answer = Box::pin(async move { what(answer.await).map(Into::into) });
        Ok(Begun::Queued(Queued { answer, _write: Some(self.writes.count(owner)) }))
    }
}

impl Writes {
    fn may_change(&self, owner: OwnerId) -> bool {
        self.lock().contains_key(&owner)
    }

    fn count(&self, owner: OwnerId) -> Write {
        *self.lock().entry(owner).or_default() += 1;
        Write(self.clone(), owner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OwnerId, usize, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let Write(writes, owner) = self;
        let mut writes = writes.lock();
        match writes.get_mut(owner) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(writes.remove(owner)),
        }
    }
}

impl Future for Queued {
    type Output = Result<Outcome, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for Queued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queued").finish_non_exhaustive()
    }
}
