//! The calls about owners.

use local_storage::SlotState;
use owners::{OwnerError, OwnerId, OwnerKind, OwnerRef};

use super::{Engine, blocking, slot_of};
use crate::error::{Error, Invalid};
use crate::types::{OwnerInfo, OwnerState};
use crate::worker::{Op, OwnerHandle, Storage};

/// How many simulated owners one call may make or end.
pub const SIMULATED_PER_CALL: u64 = 1_000_000;
/// How many owners one destroy operation takes: some 100 us of a worker's time.
const DESTROY_CHUNK: usize = 256;

impl Engine {
    /// An owner as it is now. Refused: `OwnerNotFound` (also where it exists, but never had a value), `OwnerExited`, `Invalid`.
    pub fn get_owner(&self, owner: &OwnerRef) -> Result<OwnerInfo, Error> {
        Ok(self.owner_info(&self.owners().find(owner)?))
    }

    /// Who a reference leads to, also where it is no owner yet. Refused: as [`Engine::get_owner`].
    pub fn identify(&self, owner: &OwnerRef) -> Result<Result<OwnerInfo, owners::Identity>, Error> {
        match self.owners().find(owner) {
            Ok(found) => Ok(Ok(self.owner_info(&found))),
            Err(OwnerError::NotRegistered { identity }) => Ok(Err(identity)),
            Err(error) => Err(error.into()),
        }
    }

    /// At most `limit` owners with ids above `after`, in the order of their ids.
    pub fn list_owners(&self, after: OwnerId, limit: usize) -> Vec<OwnerInfo> {
        self.owners().list(after, limit).iter().map(|owner| self.owner_info(owner)).collect()
    }

    /// Makes simulated owners and says how many of them are new. All or none. Refused: `SimulatedOwnersOff`, `OwnerLimit`, `Invalid`.
    pub async fn create_simulated_owners(&self, kind: OwnerKind, first_id: u64, count: u64) -> Result<u64, Error> {
        check_simulated(count)?;
        let this = self.clone();
        blocking(move || Ok(this.owners().create_simulated(kind, first_id, count, Storage::new)?)).await
    }

    /// Ends simulated owners and says how many there were, once their values are gone. It finishes also when the caller is gone.
    /// Refused: `SimulatedOwnersOff`, `Invalid`, `ShuttingDown`.
    pub async fn destroy_simulated_owners(&self, kind: OwnerKind, first_id: u64, count: u64) -> Result<u64, Error> {
        check_simulated(count)?;
        let this = self.clone();
        blocking(move || {
            let removed = this.owners().remove_simulated(kind, first_id, count)?;
            let count = removed.len() as u64;
            let mut by_worker: Vec<Vec<OwnerHandle>> = vec![Vec::new(); this.0.executor.workers().len()];
            removed.into_iter().for_each(|owner| by_worker[this.worker_of(owner.id().0)].push(owner));
            for (worker, owners) in by_worker.into_iter().enumerate() {
                for owners in owners.chunks(DESTROY_CHUNK) {
                    // They have left already.
                    this.submit_wait(worker, || Op::Destroy { owners: owners.to_vec() })?;
                }
            }
            Ok(count)
        })
        .await
    }

    fn owner_info(&self, owner: &OwnerHandle) -> OwnerInfo {
        let (storage_serial, elements, bytes) = match slot_of(owner).state() {
            SlotState::Storage { serial, elements, bytes } => (Some(serial), elements, bytes),
            SlotState::Empty | SlotState::Exiting | SlotState::Dead => (None, 0, 0),
        };
        OwnerInfo {
            id: owner.id(),
            identity: owner.identity().clone(),
            state: state_of(owner),
            storage_serial,
            worker: self.worker_of(owner.id().0),
            elements,
            bytes,
        }
    }
}

fn state_of(owner: &OwnerHandle) -> OwnerState {
    match slot_of(owner).state() {
        SlotState::Dead => OwnerState::Exited,
        SlotState::Exiting => OwnerState::Exiting,
        SlotState::Empty | SlotState::Storage { .. } => OwnerState::Live,
    }
}

fn check_simulated(count: u64) -> Result<(), Error> {
    if (1..=SIMULATED_PER_CALL).contains(&count) {
        return Ok(());
    }
    let problem = format!("{count} is not between 1 and {SIMULATED_PER_CALL}: make several calls");
    Err(Error::Invalid { field: "count", kind: Invalid::Argument, problem })
}
