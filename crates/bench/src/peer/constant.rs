//! Handlers that answer what they always answer.

use bytes::Bytes;
use futures_util::stream::Empty;
use holdfast_proto::v1::storage_service_server::StorageService;
use holdfast_proto::v1::{
    BatchDeleteRequest, BatchDeleteResponse, BatchGetRequest, BatchGetResponse, BatchUpdateRequest,
    BatchUpdateResponse, CreateRequest, CreateResponse, DeleteRequest, DeleteResponse, GetRequest, GetResponse,
    ListElementsRequest, ListElementsResponse, PipelineRequest, PipelineResponse, UpdateRequest, UpdateResponse,
};
use holdfastd::authorize::Caller;
use holdfastd::calls::Deadline;
use holdfastd::calls::direct::{Direct, Method, framed, message};
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

/// As long on the wire as those that a server gives after a while.
const VERSION: u64 = 1 << 20;
const OWNER: u64 = 500;

#[derive(Clone)]
pub struct Constant {
    value: Bytes,
}

impl Constant {
    /// Values are so many zeroes.
    pub fn new(value: usize) -> Self {
        Constant { value: vec![0; value].into() }
    }
}

/// Past tonic's codec, by the transport of holdfastd.
impl Direct for Constant {
    async fn answer(&self, method: Method, request: Bytes, _: &Caller, _: Deadline) -> Result<Bytes, Status> {
        Ok(match method {
            Method::Get => framed(self.get(asked::<GetRequest>(request)?).await?.get_ref()),
            Method::Create => framed(self.create(asked::<CreateRequest>(request)?).await?.get_ref()),
            Method::Update => framed(self.update(asked::<UpdateRequest>(request)?).await?.get_ref()),
            Method::Delete => framed(self.delete(asked::<DeleteRequest>(request)?).await?.get_ref()),
        })
    }
}

fn asked<M: Message + Default>(request: Bytes) -> Result<Request<M>, Status> {
    message(request).map(Request::new)
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl StorageService for Constant {
    async fn get(&self, _: Request<GetRequest>) -> Answer<GetResponse> {
        let value = self.value.clone();
        Ok(Response::new(GetResponse { value, version: VERSION, created: false, owner_id: OWNER }))
    }

    async fn create(&self, _: Request<CreateRequest>) -> Answer<CreateResponse> {
        Ok(Response::new(CreateResponse { version: VERSION, owner_id: OWNER }))
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Answer<UpdateResponse> {
        Ok(Response::new(UpdateResponse { version: VERSION, owner_id: OWNER }))
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Answer<DeleteResponse> {
        Ok(Response::new(DeleteResponse { owner_id: OWNER }))
    }

    async fn list_elements(&self, _: Request<ListElementsRequest>) -> Answer<ListElementsResponse> {
        Ok(Response::new(ListElementsResponse::default()))
    }

    async fn batch_get(&self, _: Request<BatchGetRequest>) -> Answer<BatchGetResponse> {
        Err(Status::unimplemented("not measured"))
    }

    async fn batch_update(&self, _: Request<BatchUpdateRequest>) -> Answer<BatchUpdateResponse> {
        Err(Status::unimplemented("not measured"))
    }

    async fn batch_delete(&self, _: Request<BatchDeleteRequest>) -> Answer<BatchDeleteResponse> {
        Err(Status::unimplemented("not measured"))
    }

    type PipelineStream = Empty<Result<PipelineResponse, Status>>;

    async fn pipeline(&self, _: Request<Streaming<PipelineRequest>>) -> Answer<Self::PipelineStream> {
        Err(Status::unimplemented("not measured"))
    }
}
