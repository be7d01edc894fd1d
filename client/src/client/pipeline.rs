//! Many operations in flight over one call.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::v1::pipeline_request::Operation;
use holdfast_proto::v1::{
    CreateRequest, DeleteRequest, GetRequest, PipelineError, PipelineRequest, PipelineResponse, UpdateRequest,
    pipeline_response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::{Client, Expect};
use crate::{
    CreateResponse, DeleteResponse, Endpoint, Error, GetResponse, Owner, Reason, Refusal, UpdateMode, UpdateResponse,
};

/// Operations on their way to the server; it has room for more of its own.
const OUTGOING: usize = 256;

/// The side of a pipeline that asks. Dropping it says that nothing more comes; what was asked is answered all the same.
///
/// Each method waits until there is room for one more operation, and returns its number. The server takes no more than
/// 1,024 that are not answered (`max_pipeline_in_flight` of [`Client::info`]'s limits): whoever asks more has to
/// [read answers](Answers::next) meanwhile.
#[derive(Debug)]
pub struct Operations {
    requests: mpsc::Sender<PipelineRequest>,
    next_id: u64,
    endpoint: Endpoint,
}

/// The side of a pipeline that is answered. Dropping it ends the pipeline: what has not begun does not happen.
pub struct Answers {
    answers: Streaming<PipelineResponse>,
    endpoint: Endpoint,
}

/// What an operation of a pipeline came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Of [`Operations::get`] and [`Operations::get_or_create`].
    Get(GetResponse),
    /// Of [`Operations::create`].
    Create(CreateResponse),
    /// Of [`Operations::update`] and [`Operations::update_if`].
    Update(UpdateResponse),
    /// Of [`Operations::delete`] and [`Operations::delete_if`].
    Delete(DeleteResponse),
}

impl Client {
    /// Begins a pipeline: many operations over one call, each answered for itself, in the order in which they are done.
    /// Operations on the same owner happen in the order in which they were asked.
    ///
    /// It has no deadline, but its beginning has the client's; and nothing of it is retried.
    ///
    /// ```no_run
    /// # async fn example(client: holdfast::Client) -> Result<(), holdfast::Error> {
    /// let (mut operations, mut answers) = client.pipeline().await?;
    /// let asking = tokio::spawn(async move {
    ///     for pid in [4711, 4712, 4713] {
    ///         operations.update("tenant", &holdfast::Owner::task(pid), &42_u64.to_le_bytes()).await?;
    ///     }
    ///     Ok::<(), holdfast::Error>(())
    /// });
    /// while let Some((number, answer)) = answers.next().await? {
    ///     match answer {
    ///         Ok(answer) => println!("{number}: {answer:?}"),
    ///         Err(refusal) => println!("{number} was refused: {refusal}"),
    ///     }
    /// }
    /// asking.await.expect("no panic")
    /// # }
    /// ```
    pub async fn pipeline(&self) -> Result<(Operations, Answers), Error> {
        let (requests, outgoing) = mpsc::channel(OUTGOING);
        let mut storage = self.storage();
        let begun = tokio::time::timeout(self.timeout, storage.pipeline(ReceiverStream::new(outgoing))).await;
        let answers = match begun {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(Error::from_status(&status, &self.endpoint)),
            Err(_) => return Err(self.no_answer()),
        };
        let endpoint = self.endpoint.clone();
        Ok((Operations { requests, next_id: 1, endpoint: endpoint.clone() }, Answers { answers, endpoint }))
    }
}

impl Operations {
    /// Reads the owner's value.
    pub async fn get(&mut self, map: &str, owner: &Owner) -> Result<u64, Error> {
        let owner = Some(owner.0.clone().into());
        self.ask(Operation::Get(GetRequest { map: map.to_owned(), owner, ..GetRequest::default() })).await
    }

    /// Reads the owner's value, and creates it where there is none: as `initial`, or as zeroes.
    pub async fn get_or_create(&mut self, map: &str, owner: &Owner, initial: Option<&[u8]>) -> Result<u64, Error> {
        let owner = Some(owner.0.clone().into());
        let initial_value = initial.map(Bytes::copy_from_slice);
        let get = GetRequest { map: map.to_owned(), owner, create_if_missing: true, initial_value };
        self.ask(Operation::Get(get)).await
    }

    /// Creates the owner's value; refused if there is one.
    pub async fn create(&mut self, map: &str, owner: &Owner, value: &[u8]) -> Result<u64, Error> {
        let (owner, value) = (Some(owner.0.clone().into()), Bytes::copy_from_slice(value));
        self.ask(Operation::Create(CreateRequest { map: map.to_owned(), owner, value })).await
    }

    /// Creates the owner's value or replaces it.
    pub async fn update(&mut self, map: &str, owner: &Owner, value: &[u8]) -> Result<u64, Error> {
        self.update_if(map, owner, value, UpdateMode::Any, Expect::default()).await
    }

    /// Writes the owner's value if what is there is what `mode` and `expect` demand.
    pub async fn update_if(
        &mut self,
        map: &str,
        owner: &Owner,
        value: &[u8],
        mode: UpdateMode,
        expect: Expect,
    ) -> Result<u64, Error> {
        let update = UpdateRequest {
            map: map.to_owned(),
            owner: Some(owner.0.clone().into()),
            value: Bytes::copy_from_slice(value),
            mode: mode.into(),
            expected_version: expect.version,
            expected_map_id: expect.map_id,
        };
        self.ask(Operation::Update(update)).await
    }

    /// Deletes the owner's value.
    pub async fn delete(&mut self, map: &str, owner: &Owner) -> Result<u64, Error> {
        self.delete_if(map, owner, Expect::default()).await
    }

    /// Deletes the owner's value if it is what `expect` demands.
    pub async fn delete_if(&mut self, map: &str, owner: &Owner, expect: Expect) -> Result<u64, Error> {
        let (map, owner) = (map.to_owned(), Some(owner.0.clone().into()));
        let (expected_version, expected_map_id) = (expect.version, expect.map_id);
        self.ask(Operation::Delete(DeleteRequest { map, owner, expected_version, expected_map_id })).await
    }

    /// The number is used up only if it was sent.
    async fn ask(&mut self, operation: Operation) -> Result<u64, Error> {
        let id = self.next_id;
        let request = PipelineRequest { id, operation: Some(operation) };
        if self.requests.send(request).await.is_err() {
            let message = format!("{}: the pipeline has ended, and its answers tell why", self.endpoint);
            return Err(Error::Unknown { code: Code::Cancelled, message });
        }
        self.next_id += 1;
        Ok(id)
    }
}

impl Answers {
    /// The next answer, with the number of its operation; none when all are there and [`Operations`] is dropped.
    ///
    /// If the server refuses the pipeline as a whole ([`Error::Refused`], as when it goes down), what has no answer has
    /// not happened; after [`Error::Unknown`] nobody knows.
    pub async fn next(&mut self) -> Result<Option<(u64, Result<Answer, Refusal>)>, Error> {
        let answer = self.answers.message().await.map_err(|status| Error::from_status(&status, &self.endpoint))?;
        let Some(PipelineResponse { id, result }) = answer else { return Ok(None) };
        let result = result.ok_or_else(|| Error::malformed(&self.endpoint, "result"))?;
        Ok(Some((id, answer_of(result))))
    }
}

fn answer_of(result: pipeline_response::Result) -> Result<Answer, Refusal> {
    match result {
        pipeline_response::Result::Get(got) => Ok(Answer::Get(got)),
        pipeline_response::Result::Create(created) => Ok(Answer::Create(created)),
        pipeline_response::Result::Update(updated) => Ok(Answer::Update(updated)),
        pipeline_response::Result::Delete(deleted) => Ok(Answer::Delete(deleted)),
        pipeline_response::Result::Error(error) => Err(refusal(error)),
    }
}

fn refusal(error: PipelineError) -> Refusal {
    let reason = Reason::try_from(error.reason).unwrap_or_default();
    Refusal {
        code: Code::from(error.code),
        reason,
        reason_name: match reason {
            // One of a later version: all that is known of it.
            Reason::Unspecified => format!("reason {}", error.reason),
            reason => reason.code_name().to_owned(),
        },
        message: error.message,
        metadata: error.metadata.into_iter().collect(),
        retry_after: error.retry_after_ms.map(|pause| Duration::from_millis(pause.into())),
        violations: Vec::new(),
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
