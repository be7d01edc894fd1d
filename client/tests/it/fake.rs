//! A server of `StorageService` that gives the answers it is told to, and notes what it was asked.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast::v1::storage_service_server::{StorageService, StorageServiceServer};
use holdfast::v1::{
    BatchDeleteRequest, BatchDeleteResponse, BatchGetRequest, BatchGetResponse, BatchUpdateRequest,
    BatchUpdateResponse, CreateRequest, CreateResponse, DeleteRequest, DeleteResponse, Element, GetRequest,
    GetResponse, ListElementsRequest, ListElementsResponse, PipelineRequest, PipelineResponse, UpdateRequest,
    UpdateResponse,
};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

/// What an Update is answered.
pub enum Say {
    Done,
    Refuse(Status),
}

/// A refusal as the server makes it.
pub fn refusal(code: Code, reason: &str, retry_after: Option<std::time::Duration>) -> Say {
    let mut details = ErrorDetails::with_error_info(reason, "holdfast", [("map".to_owned(), "m".to_owned())]);
    if let Some(delay) = retry_after {
        details.set_retry_info(Some(delay));
    }
    Say::Refuse(Status::with_error_details(code, "so says the test", details))
}

#[derive(Clone, Default)]
struct Script {
    /// What the next Updates are answered; `Say::Done` when it is over.
    answers: Arc<Mutex<VecDeque<Say>>>,
    seen: Arc<Mutex<Vec<MetadataMap>>>,
}

/// The server, listening on a Unix socket until it is dropped.
pub struct Fake {
    script: Script,
    task: JoinHandle<()>,
}

impl Fake {
    pub fn start(socket: &Path, answers: impl IntoIterator<Item = Say>) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        let script = Script { answers, seen: Arc::default() };
        let incoming = UnixListenerStream::new(UnixListener::bind(socket).expect("the socket is free"));
        let service = Server::builder().add_service(StorageServiceServer::new(script.clone()));
        let task = tokio::spawn(async move {
            service.serve_with_incoming(incoming).await.expect("served until the test ends");
        });
        Self { script, task }
    }

    /// The headers of the calls that have arrived.
    pub fn seen(&self) -> Vec<MetadataMap> {
        self.script.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tonic::async_trait]
impl StorageService for Script {
    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(request.metadata().clone());
        let answer = self.answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        match answer.unwrap_or(Say::Done) {
            Say::Done => Ok(Response::new(UpdateResponse { version: 12, owner_id: 7 })),
            Say::Refuse(status) => Err(status),
        }
    }

    /// Three pages, the second one empty.
    async fn list_elements(
        &self,
        request: Request<ListElementsRequest>,
    ) -> Result<Response<ListElementsResponse>, Status> {
        let element = |version| Element { version, ..Element::default() };
        let (elements, next) = match request.into_inner().page_token.as_str() {
            "" => (vec![element(1), element(2)], "second"),
            "second" => (vec![], "third"),
            "third" => (vec![element(3)], ""),
            token => return Err(Status::invalid_argument(format!("a forged token: {token}"))),
        };
        Ok(Response::new(ListElementsResponse { elements, next_page_token: next.to_owned(), map_id: 1 }))
    }

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn create(&self, _: Request<CreateRequest>) -> Result<Response<CreateResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn batch_get(&self, _: Request<BatchGetRequest>) -> Result<Response<BatchGetResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn batch_update(&self, _: Request<BatchUpdateRequest>) -> Result<Response<BatchUpdateResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn batch_delete(&self, _: Request<BatchDeleteRequest>) -> Result<Response<BatchDeleteResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    type PipelineStream = tokio_stream::Pending<Result<PipelineResponse, Status>>;

    async fn pipeline(&self, _: Request<Streaming<PipelineRequest>>) -> Result<Response<Self::PipelineStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}
