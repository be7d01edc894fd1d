//! Values.

mod batch;
mod pipeline;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use engine::{Call, Conditions, Cursor, Error, MapId, Operation, Outcome, OwnerRef, UpdateMode};
use holdfast_proto::v1::storage_service_server::StorageService;
use holdfast_proto::v1::{
    BatchDeleteRequest, BatchDeleteResponse, BatchGetRequest, BatchGetResponse, BatchUpdateRequest,
    BatchUpdateResponse, CreateRequest, CreateResponse, DeleteRequest, DeleteResponse, Element, GetRequest,
    GetResponse, ListElementsRequest, ListElementsResponse, PipelineRequest, PipelineResponse, UpdateRequest,
    UpdateResponse,
};
use hyper::body::Incoming;
use prost::Message;
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};

use self::pipeline::Conversation;
pub use self::pipeline::IN_FLIGHT as PIPELINE_IN_FLIGHT;
use super::{Node, allow, open};
use crate::authorize::{Action, Caller};
use crate::calls::Deadline;
use crate::calls::direct::{self, Direct, Method, framed};
use crate::convert;
use crate::pages::{self, Listing};
use crate::status::refused;

const PIPELINE: &str = "/holdfast.v1.StorageService/Pipeline";

#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Arc<Node>);

/// A page of elements, as it goes out.
struct Page {
    map: MapId,
    elements: Vec<Element>,
    next: Option<Cursor>,
}

impl Service {
    fn owner(
        &self,
        map: &str,
        owner: Option<impl Into<holdfast_proto::OwnerRef>>,
        caller: &Caller,
    ) -> Result<OwnerRef, Status> {
        convert::owner(owner, caller, || self.0.engine.map_kind(map).map_err(refused_here))
    }

    /// The engine bounds the bytes of the values; names of owners may be long too, and then a page gets shorter.
    fn page(&self, map: &str, place: Option<[u64; 3]>, mut size: usize) -> Result<Page, Status> {
        let (expected, cursor) = match place {
            None => (None, Cursor::default()),
            Some([map_id, bucket, serial]) => {
                let bucket = u32::try_from(bucket).map_err(|_| pages::bad_token())?;
                (Some(map_id), Cursor { bucket, serial })
            }
        };
        loop {
            let page = self.0.engine.list_elements(map, expected, cursor, size).map_err(|error| match error {
                Error::MapIdMismatch { .. } => pages::bad_token(),
                error => refused_here(error),
            })?;
            let elements: Vec<_> = page.elements.into_iter().map(convert::element).collect();
            let bytes: usize = elements.iter().map(Message::encoded_len).sum();
            if bytes <= pages::MAX_BYTES || elements.len() <= 1 {
                return Ok(Page { map: page.map, elements, next: page.next });
            }
            size = elements.len() / 2;
        }
    }
}

/// These requests have the map's name in another field than those of maps.
fn refused_here(error: Error) -> Status {
    refused(in_field(error, "name", "map"))
}

/// The engine speaks of the field `from`; in this request it is `to`.
fn in_field(error: Error, from: &str, to: &'static str) -> Error {
    match error {
        Error::Invalid { field, kind, problem } if field == from => Error::Invalid { field: to, kind, problem },
        error => error,
    }
}

/// What an operation is about, checked as far as its request goes.
struct Asked {
    map: String,
    owner: OwnerRef,
    operation: Operation,
    conditions: Conditions,
}

/// Each asks for permission first.
impl Service {
    fn asked_to_get(&self, request: GetRequest, caller: &Caller, deadline: Option<Instant>) -> Result<Asked, Status> {
        let GetRequest { map, owner, create_if_missing, initial_value } = request;
        let action = if create_if_missing { Action::WriteValues } else { Action::ReadValues };
        allow(caller, action, Some(&map))?;
        let initial = convert::initial_value(initial_value, create_if_missing)?;
        let owner = self.owner(&map, owner, caller)?;
        let operation = if create_if_missing { Operation::GetOrCreate { initial } } else { Operation::Get };
        let conditions = Conditions { deadline, caller: caller.credentials(), ..Conditions::default() };
        Ok(Asked { map, owner, operation, conditions })
    }

    fn asked_to_create(
        &self,
        request: CreateRequest,
        caller: &Caller,
        deadline: Option<Instant>,
    ) -> Result<Asked, Status> {
        let CreateRequest { map, owner, value } = request;
        allow(caller, Action::WriteValues, Some(&map))?;
        let owner = self.owner(&map, owner, caller)?;
        let conditions = Conditions { deadline, caller: caller.credentials(), ..Conditions::default() };
        Ok(Asked { map, owner, operation: Operation::Update { value, mode: UpdateMode::NoExist }, conditions })
    }

    fn asked_to_update(
        &self,
        request: UpdateRequest,
        caller: &Caller,
        deadline: Option<Instant>,
    ) -> Result<Asked, Status> {
        let UpdateRequest { map, owner, value, mode, expected_version, expected_map_id } = request;
        allow(caller, Action::WriteValues, Some(&map))?;
        let mode = convert::update_mode(mode)?;
        let expected_version = convert::expected_version(expected_version, mode)?;
        let owner = self.owner(&map, owner, caller)?;
        let conditions = Conditions { expected_version, expected_map_id, deadline, caller: caller.credentials() };
        Ok(Asked { map, owner, operation: Operation::Update { value, mode }, conditions })
    }

    fn asked_to_delete(
        &self,
        request: DeleteRequest,
        caller: &Caller,
        deadline: Option<Instant>,
    ) -> Result<Asked, Status> {
        let DeleteRequest { map, owner, expected_version, expected_map_id } = request;
        allow(caller, Action::WriteValues, Some(&map))?;
        let expected_version = convert::expected_version(expected_version, UpdateMode::Exist)?;
        let owner = self.owner(&map, owner, caller)?;
        let conditions = Conditions { expected_version, expected_map_id, deadline, caller: caller.credentials() };
        Ok(Asked { map, owner, operation: Operation::Delete, conditions })
    }

    /// Does it by itself. Only a Get has a value to tell.
    async fn perform(&self, asked: Asked) -> Result<Outcome, Error> {
        let Asked { map, owner, operation, conditions } = asked;
        let engine = &self.0.engine;
        let call = Call { deadline: conditions.deadline, caller: conditions.caller };
        Ok(match operation {
            Operation::Get => engine.read(&map, &owner, call).await?.into(),
            Operation::GetOrCreate { initial } => engine.get_or_create(&map, &owner, initial, call).await?.into(),
            Operation::Update { value, mode } => engine.update(&map, &owner, value, mode, conditions).await?.into(),
            Operation::Delete => engine.delete(&map, &owner, conditions).await?.into(),
        })
    }
}

/// A Get's value has another name than that of those who write.
fn in_get(error: Error) -> Error {
    in_field(in_field(error, "value", "initial_value"), "name", "map")
}

fn got(outcome: Outcome) -> GetResponse {
    match outcome {
        Outcome::Got(got) => {
            GetResponse { value: got.value.into(), version: got.version, created: got.created, owner_id: got.owner.0 }
        }
        Outcome::Written(written) => {
            GetResponse { version: written.version, owner_id: written.owner.0, ..GetResponse::default() }
        }
    }
}

/// Version and owner.
fn written(outcome: &Outcome) -> (u64, u64) {
    match outcome {
        Outcome::Got(got) => (got.version, got.owner.0),
        Outcome::Written(written) => (written.version, written.owner.0),
    }
}

/// The calls for one value.
impl Service {
    async fn get_value(
        &self,
        request: GetRequest,
        caller: &Caller,
        deadline: Option<Instant>,
    ) -> Result<GetResponse, Status> {
        let asked = self.asked_to_get(request, caller, deadline)?;
        Ok(got(self.perform(asked).await.map_err(|error| refused(in_get(error)))?))
    }

    async fn create_value(
        &self,
        request: CreateRequest,
        caller: &Caller,
        deadline: Option<Instant>,
    ) -> Result<CreateResponse, Status> {
        let asked = self.asked_to_create(request, caller, deadline)?;
        let (version, owner_id) = written(&self.perform(asked).await.map_err(refused_here)?);
        Ok(CreateResponse { version, owner_id })
    }

    async fn update_value(
        &self,
        request: UpdateRequest,
        caller: &Caller,
        deadline: Option<Instant>,
    ) -> Result<UpdateResponse, Status> {
        let asked = self.asked_to_update(request, caller, deadline)?;
        let (version, owner_id) = written(&self.perform(asked).await.map_err(refused_here)?);
        Ok(UpdateResponse { version, owner_id })
    }

    async fn delete_value(
        &self,
        request: DeleteRequest,
        caller: &Caller,
        deadline: Option<Instant>,
    ) -> Result<DeleteResponse, Status> {
        let asked = self.asked_to_delete(request, caller, deadline)?;
        let (_, owner_id) = written(&self.perform(asked).await.map_err(refused_here)?);
        Ok(DeleteResponse { owner_id })
    }
}

impl Direct for Service {
    fn converse(&self, path: &str, body: Incoming, caller: &Caller, deadline: Deadline) -> Result<Body, Incoming> {
        if path != PIPELINE {
            return Err(body);
        }
        let Deadline(deadline) = deadline;
        Ok(Body::new(Conversation::new(self, caller.clone(), deadline, body)))
    }

    async fn answer(
        &self,
        method: Method,
        message: Bytes,
        caller: &Caller,
        Deadline(deadline): Deadline,
    ) -> Result<Bytes, Status> {
        Ok(match method {
            Method::Get => framed(&self.get_value(direct::message(message)?, caller, deadline).await?),
            Method::Create => framed(&self.create_value(direct::message(message)?, caller, deadline).await?),
            Method::Update => framed(&self.update_value(direct::message(message)?, caller, deadline).await?),
            Method::Delete => framed(&self.delete_value(direct::message(message)?, caller, deadline).await?),
        })
    }
}

#[tonic::async_trait]
impl StorageService for Service {
    type PipelineStream = futures_util::stream::Empty<Result<PipelineResponse, Status>>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (caller, deadline, request) = open(request)?;
        Ok(Response::new(self.get_value(request, &caller, deadline).await?))
    }

    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateResponse>, Status> {
        let (caller, deadline, request) = open(request)?;
        Ok(Response::new(self.create_value(request, &caller, deadline).await?))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        let (caller, deadline, request) = open(request)?;
        Ok(Response::new(self.update_value(request, &caller, deadline).await?))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let (caller, deadline, request) = open(request)?;
        Ok(Response::new(self.delete_value(request, &caller, deadline).await?))
    }

    async fn list_elements(
        &self,
        request: Request<ListElementsRequest>,
    ) -> Result<Response<ListElementsResponse>, Status> {
        let (caller, _, request) = open(request)?;
        let ListElementsRequest { map, page_size, page_token } = request;
        allow(&caller, Action::ReadValues, Some(&map))?;
        let size = pages::size(page_size)?;
        let place = self.0.tokens.read(Listing::Elements, &page_token)?;
        let page = self.page(&map, place, size)?;
        let next_page_token = page.next.map(|Cursor { bucket, serial }| {
            self.0.tokens.issue(Listing::Elements, [page.map, u64::from(bucket), serial])
        });
        Ok(Response::new(ListElementsResponse {
            elements: page.elements,
            next_page_token: next_page_token.unwrap_or_default(),
            map_id: page.map,
        }))
    }

    async fn batch_get(&self, request: Request<BatchGetRequest>) -> Result<Response<BatchGetResponse>, Status> {
        self.get_many(request).await
    }

    async fn batch_update(
        &self,
        request: Request<BatchUpdateRequest>,
    ) -> Result<Response<BatchUpdateResponse>, Status> {
        self.update_many(request).await
    }

    async fn batch_delete(
        &self,
        request: Request<BatchDeleteRequest>,
    ) -> Result<Response<BatchDeleteResponse>, Status> {
        self.delete_many(request).await
    }

    async fn pipeline(&self, _: Request<Streaming<PipelineRequest>>) -> Result<Response<Self::PipelineStream>, Status> {
        // tonic has refused those that are encoded, which are all that come here.
        Err(crate::status::internal("a Pipeline came past the way that its conversation begins at".to_owned()))
    }
}
