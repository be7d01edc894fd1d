//! Calls about many values.

use bytes::Bytes;
use holdfast_proto::v1::{BatchDeleteRequest, BatchGetRequest, BatchUpdateRequest};

use super::{Client, rpc};
use crate::{BatchDeleteResponse, BatchGetResponse, BatchUpdateResponse, Error, Owners, UpdateMode};

/// What the writes of a batch expect to find; what is not so is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchExpect {
    /// For each item the version that its element has, 0 for any; or nothing at all.
    pub versions: Vec<u64>,
    /// The map of the name is the one with this id; if not, the whole batch is refused.
    pub map_id: Option<u64>,
}

impl BatchExpect {
    /// Expects the elements to have these versions.
    pub fn versions(versions: impl Into<Vec<u64>>) -> Self {
        Self { versions: versions.into(), ..Self::default() }
    }
}

/// For all batches: at most 16,384 items (`max_batch_items` of [`Client::info`]'s limits), results by index, items of one
/// owner in their order, and nothing atomic but each item. An error means that no item was done, or that nobody knows;
/// what came of each item is in the answer.
impl Client {
    /// Reads the owners' values: [`BatchGetResponse::value`] has each of them, or why there is none.
    pub async fn batch_get(&self, map: &str, owners: impl Into<Owners>) -> Result<BatchGetResponse, Error> {
        self.batch_read(map, owners.into(), false).await
    }

    /// Reads the owners' values and their versions.
    pub async fn batch_get_versions(&self, map: &str, owners: impl Into<Owners>) -> Result<BatchGetResponse, Error> {
        self.batch_read(map, owners.into(), true).await
    }

    async fn batch_read(&self, map: &str, owners: Owners, with_versions: bool) -> Result<BatchGetResponse, Error> {
        let (owner_ids, owners) = owners.into_fields();
        let request = BatchGetRequest { map: map.to_owned(), owner_ids, owners, expected_map_id: None, with_versions };
        rpc!(self.storage().batch_get(request)).await
    }

    /// Creates or replaces the owners' values. `values` has one behind the other, with nothing in between.
    pub async fn batch_update(
        &self,
        map: &str,
        owners: impl Into<Owners>,
        values: impl Into<Bytes>,
    ) -> Result<BatchUpdateResponse, Error> {
        let (owner_ids, owners) = owners.into().into_fields();
        let request = BatchUpdateRequest {
            map: map.to_owned(),
            owner_ids,
            owners,
            values: values.into(),
            ..BatchUpdateRequest::default()
        };
        rpc!(self.storage().batch_update(request)).await
    }

    /// Writes the owners' values where what is there is what `mode` and `expect` demand, and tells the versions.
    pub async fn batch_update_if(
        &self,
        map: &str,
        owners: impl Into<Owners>,
        values: impl Into<Bytes>,
        mode: UpdateMode,
        expect: BatchExpect,
    ) -> Result<BatchUpdateResponse, Error> {
        let (owner_ids, owners) = owners.into().into_fields();
        let request = BatchUpdateRequest {
            map: map.to_owned(),
            owner_ids,
            owners,
            values: values.into(),
            mode: mode.into(),
            expected_versions: expect.versions,
            expected_map_id: expect.map_id,
            with_versions: true,
        };
        rpc!(self.storage().batch_update(request)).await
    }

    /// Deletes the owners' values.
    pub async fn batch_delete(&self, map: &str, owners: impl Into<Owners>) -> Result<BatchDeleteResponse, Error> {
        let (owner_ids, owners) = owners.into().into_fields();
        let request = BatchDeleteRequest { map: map.to_owned(), owner_ids, owners, ..BatchDeleteRequest::default() };
        rpc!(self.storage().batch_delete(request)).await
    }

    /// Deletes the owners' values where they are what `expect` demands, and tells the versions.
    pub async fn batch_delete_if(
        &self,
        map: &str,
        owners: impl Into<Owners>,
        expect: BatchExpect,
    ) -> Result<BatchDeleteResponse, Error> {
        let (owner_ids, owners) = owners.into().into_fields();
        let request = BatchDeleteRequest {
            map: map.to_owned(),
            owner_ids,
            owners,
            expected_versions: expect.versions,
            expected_map_id: expect.map_id,
            with_versions: true,
        };
        rpc!(self.storage().batch_delete(request)).await
    }
}
