//! Simulated owners: made and removed in bulk by a client, for load tests.

use std::ops::Range;
use std::sync::Arc;

use super::{Registry, Shared, lock};
use crate::index::Index;
use crate::owner::{Life, Name};
use crate::{Identity, Owner, OwnerError, OwnerId, OwnerKind};

/// How many simulated owners are added between two chances for others.
const SIMULATED_CHUNK: u64 = 1024;

impl<A: Send + Sync + 'static> Registry<A> {
    /// Makes the simulated owners `first_id .. first_id + count`, and returns how many of them are new: those that are
    /// there already are left alone, so that the call can be repeated. All or none: when the new ones do not fit into
    /// `max_owners`, none is made. A million take seconds: for a thread that may block.
    pub fn create_simulated(
        &self,
        kind: OwnerKind,
        first_id: u64,
        count: u64,
        mut make: impl FnMut(OwnerId) -> A,
    ) -> Result<u64, OwnerError> {
        let shared = &*self.shared;
        shared.check_simulated(first_id, count)?;
        let max = shared.config.max_owners as u64;
        if count > max {
            return Err(OwnerError::Limit { limit: max, what: "owners" });
        }
        let _one_at_a_time = lock(&self.simulated);
        // While we hold that mutex no simulated name comes or goes.
        let is_new = |id: &u64| !shared.names.contains_key(&Name::Simulated(kind, *id));
        let new_ids = |offsets: Range<u64>| offsets.map(|offset| first_id + offset).filter(is_new);
        let new = new_ids(0..count).count();
        let mut promise = shared.promise(new)?;
        let mut from = 0;
        while from < count {
            let to = count.min(from + SIMULATED_CHUNK);
            let mut index = shared.lock_index();
            for id in new_ids(from..to) {
                let owner_id = index.next_id();
                let identity = Identity::Simulated { kind, id };
                shared.insert(&mut index, Owner::new(owner_id, identity, Life::Simulated, make(owner_id)));
                promise.keep_one(&mut index);
            }
            from = to;
        }
        Ok(new as u64)
    }

    /// Ends the simulated owners `first_id .. first_id + count` that exist and returns them. Their names are free at
    /// once; the caller destroys their storage and calls [`Registry::retire`] for each. For a thread that may block,
    /// like the creation.
    pub fn remove_simulated(
        &self,
        kind: OwnerKind,
        first_id: u64,
        count: u64,
    ) -> Result<Vec<Arc<Owner<A>>>, OwnerError> {
        let shared = &*self.shared;
        shared.check_simulated(first_id, count)?;
        let _one_at_a_time = lock(&self.simulated);
        let mut removed = Vec::new();
        for offset in 0..count {
            let name = Name::Simulated(kind, first_id + offset);
            let Some(owner) = shared.lookup(&name) else {
                continue;
            };
            owner.mark_exited();
            // Remembered before its name goes, so that a lookup in between says "exited".
            shared.remember(&owner);
            shared.names.remove(&name);
            removed.push(owner);
        }
        Ok(removed)
    }
}

impl<A> Shared<A> {
    fn promise(&self, count: usize) -> Result<Promise<'_, A>, OwnerError> {
        self.lock_index().reserve_room(count, self.config.max_owners)?;
        Ok(Promise { shared: self, left: count })
    }

    /// That they are allowed, and that the last of them has an id.
    fn check_simulated(&self, first_id: u64, count: u64) -> Result<(), OwnerError> {
        if !self.config.simulated {
            return Err(OwnerError::SimulatedOff);
        }
        if first_id.checked_add(count.saturating_sub(1)).is_none() {
            let problem = format!("{first_id} and the {count} ids from there on do not fit into 64 bits");
            return Err(OwnerError::invalid("first_id", problem));
        }
        Ok(())
    }
}

/// Room for simulated owners that are about to be made. What is left of it at the end is given back.
struct Promise<'a, A> {
    shared: &'a Shared<A>,
    left: usize,
}

impl<A> Promise<'_, A> {
    fn keep_one(&mut self, index: &mut Index<A>) {
        index.release_room(1);
        self.left -= 1;
    }
}

impl<A> Drop for Promise<'_, A> {
    fn drop(&mut self) {
        if self.left > 0 {
            self.shared.lock_index().release_room(self.left);
        }
    }
}
