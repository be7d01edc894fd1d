//! Calls about owners.

use holdfast_proto::v1::{
    CreateSimulatedOwnersRequest, DestroySimulatedOwnersRequest, GetOwnerRequest, ListOwnersRequest,
};

use super::{Client, rpc};
use crate::{Error, MapKind, Owner, OwnerDetails, Pages};

impl Client {
    /// Describes an owner: its identity, whether it is alive, which worker serves it. `kind` is needed for
    /// [`Owner::simulated`] alone.
    pub async fn get_owner(&self, owner: &Owner, kind: Option<MapKind>) -> Result<OwnerDetails, Error> {
        let request = GetOwnerRequest { owner: Some(owner.0.clone().into()), kind: kind.unwrap_or_default().into() };
        let answer = rpc!(self.owners().get_owner(request)).await?;
        answer.owner.ok_or_else(|| Error::malformed(&self.endpoint, "owner"))
    }

    /// Lists the registered owners that have not exited, of one kind or of both, in no order.
    pub fn list_owners(&self, kind: Option<MapKind>) -> Pages<OwnerDetails> {
        let (client, kind) = (self.clone(), kind.unwrap_or_default().into());
        Pages::new(move |page_size, page_token| {
            let client = client.clone();
            async move {
                let request = ListOwnersRequest { page_size, page_token, kind };
                let answer = rpc!(client.owners().list_owners(request)).await?;
                Ok((answer.owners, answer.next_page_token))
            }
        })
    }

    /// Creates `count` simulated owners with the ids `first_id`, `first_id + 1` and so on, for load tests. Returns how
    /// many did not exist before.
    pub async fn create_simulated_owners(&self, kind: MapKind, first_id: u64, count: u64) -> Result<u64, Error> {
        let request = CreateSimulatedOwnersRequest { kind: kind.into(), first_id, count };
        Ok(rpc!(self.owners().create_simulated_owners(request)).await?.created)
    }

    /// Ends simulated owners with all their elements, as an exit ends a task. Returns how many there were.
    pub async fn destroy_simulated_owners(&self, kind: MapKind, first_id: u64, count: u64) -> Result<u64, Error> {
        let request = DestroySimulatedOwnersRequest { kind: kind.into(), first_id, count };
        Ok(rpc!(self.owners().destroy_simulated_owners(request)).await?.destroyed)
    }
}
