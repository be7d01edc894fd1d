//! Many values by one call. What is wrong with the request is refused as a whole, what befalls an item is its status.

use engine::{Batch, BatchItems, Call, UpdateMode};
use holdfast_proto::v1::{
    BatchDeleteRequest, BatchDeleteResponse, BatchGetRequest, BatchGetResponse, BatchUpdateRequest,
    BatchUpdateResponse, Reason,
};
use tonic::{Request, Response, Status};

use super::{Service, refused_here};
use crate::authorize::Action;
use crate::convert;
use crate::services::{allow, open};
use crate::status::{invalid, reason_of};

/// What an answer has besides its items.
const HEAD_BYTES: u64 = 64;

impl Service {
    pub(super) async fn get_many(
        &self,
        request: Request<BatchGetRequest>,
    ) -> Result<Response<BatchGetResponse>, Status> {
        let (caller, deadline, request) = open(request)?;
        let BatchGetRequest { map, owner_ids, owners, expected_map_id, with_versions } = request;
        allow(&caller, Action::ReadValues, Some(&map))?;
        let shape =
            Shape { count: convert::batch_count(&owner_ids, &owners)?, named: !owners.is_empty(), with_versions };
        let batch = self.0.engine.batch(&map, expected_map_id).map_err(refused_here)?;
        let value_size = batch.value_size();
        self.check_answer(&shape, value_size)?;
        let owners = convert::batch_owners(owner_ids, owners, &caller, batch.kind());
        let (map_id, call) = (batch.map_id(), Call { deadline, caller: caller.credentials() });
        let (values, items) = batch.get(owners, call).await.map_err(refused_here)?;
        let Columns { statuses, versions, owner_ids, failed } = shape.columns(&map, items);
        let values = values.into();
        Ok(Response::new(BatchGetResponse { values, value_size, statuses, versions, owner_ids, failed, map_id }))
    }

    pub(super) async fn update_many(
        &self,
        request: Request<BatchUpdateRequest>,
    ) -> Result<Response<BatchUpdateResponse>, Status> {
        let (caller, deadline, request) = open(request)?;
        let BatchUpdateRequest { map, owner_ids, owners, values, .. } = request;
        let BatchUpdateRequest { mode, expected_versions, expected_map_id, with_versions, .. } = request;
        allow(&caller, Action::WriteValues, Some(&map))?;
        let shape =
            Shape { count: convert::batch_count(&owner_ids, &owners)?, named: !owners.is_empty(), with_versions };
        let mode = convert::update_mode(mode)?;
        let expected = convert::expected_versions(expected_versions, shape.count, mode)?;
        let batch = self.writes(&map, expected_map_id, &shape)?;
        let owners = convert::batch_owners(owner_ids, owners, &caller, batch.kind());
        let (map_id, call) = (batch.map_id(), Call { deadline, caller: caller.credentials() });
        let items = batch.update(owners, values, mode, expected, call).await.map_err(refused_here)?;
        let Columns { statuses, versions, owner_ids, failed } = shape.columns(&map, items);
        Ok(Response::new(BatchUpdateResponse { statuses, versions, owner_ids, failed, map_id }))
    }

    pub(super) async fn delete_many(
        &self,
        request: Request<BatchDeleteRequest>,
    ) -> Result<Response<BatchDeleteResponse>, Status> {
        let (caller, deadline, request) = open(request)?;
        let BatchDeleteRequest { map, owner_ids, owners, expected_versions, expected_map_id, with_versions } = request;
        allow(&caller, Action::WriteValues, Some(&map))?;
        let shape =
            Shape { count: convert::batch_count(&owner_ids, &owners)?, named: !owners.is_empty(), with_versions };
        let expected = convert::expected_versions(expected_versions, shape.count, UpdateMode::Exist)?;
        let batch = self.writes(&map, expected_map_id, &shape)?;
        let owners = convert::batch_owners(owner_ids, owners, &caller, batch.kind());
        let (map_id, call) = (batch.map_id(), Call { deadline, caller: caller.credentials() });
        let items = batch.delete(owners, expected, call).await.map_err(refused_here)?;
        let Columns { statuses, versions, owner_ids, failed } = shape.columns(&map, items);
        Ok(Response::new(BatchDeleteResponse { statuses, versions, owner_ids, failed, map_id }))
    }

    fn writes(&self, map: &str, expected_map_id: Option<u64>, shape: &Shape) -> Result<Batch, Status> {
        let batch = self.0.engine.batch(map, expected_map_id).map_err(refused_here)?;
        // It has no values.
        self.check_answer(shape, 0)?;
        Ok(batch)
    }

    /// That the answer is a message that clients take. Before anything happens: afterwards it would be lost.
    fn check_answer(&self, shape: &Shape, value_size: u32) -> Result<(), Status> {
        let limit = self.0.about.limits.max_message_bytes;
        // A status is one byte.
        let each = u64::from(value_size) + 1 + 8 * (u64::from(shape.with_versions) + u64::from(shape.named));
        let fit = limit.saturating_sub(HEAD_BYTES) / each;
        if shape.count as u64 <= fit {
            return Ok(());
        }
        let field = if shape.named { "owners" } else { "owner_ids" };
        let problem = format!(
            "the answer for {} items of {each} bytes would be larger than {limit} bytes, the limit of messages: make \
             several calls, each for at most {fit} items",
            shape.count
        );
        Err(invalid(Reason::InvalidArgument, field, &problem))
    }
}

/// What a request asks for.
struct Shape {
    count: usize,
    named: bool,
    with_versions: bool,
}

/// What its answer has.
struct Columns {
    statuses: Vec<i32>,
    versions: Vec<u64>,
    owner_ids: Vec<u64>,
    failed: u32,
}

impl Shape {
    fn columns(&self, map: &str, items: BatchItems) -> Columns {
        let BatchItems { versions, owners, failed } = items;
        let mut statuses = vec![Reason::Unspecified.into(); if failed.is_empty() { 0 } else { self.count }];
        for (index, error) in &failed {
            let reason = reason_of(error);
            if reason == Reason::Internal {
                tracing::error!(map, index, "an item of a batch failed: {error}");
            }
            statuses[*index] = reason.into();
        }
        Columns {
            statuses,
            versions: if self.with_versions { versions } else { Vec::new() },
            owner_ids: owners.into_iter().map(|owner| owner.0).collect(),
            failed: failed.len() as u32,
        }
    }
}
