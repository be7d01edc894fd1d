//! The client: how it is set up, and the way of every call.

mod admin;
mod batch;
mod maps;
mod owners;
mod pipeline;
mod programs;
mod storage;

use std::future::Future;
use std::time::Duration;

use holdfast_proto::v1::admin_service_client::AdminServiceClient;
use holdfast_proto::v1::map_service_client::MapServiceClient;
use holdfast_proto::v1::owner_service_client::OwnerServiceClient;
use holdfast_proto::v1::program_service_client::ProgramServiceClient;
use holdfast_proto::v1::storage_service_client::StorageServiceClient;
use http::Uri;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use crate::retry::Retries;
use crate::transport::Channel;
use crate::{Endpoint, Error, Retry};

pub use batch::BatchExpect;
pub use maps::NewMap;
pub use pipeline::{Answer, Answers, Operations};
pub use storage::Expect;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// A longer one counts as this.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// Connecting takes at most this, and at most half of a call's time.
const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What an answer may need for its way back, at most: see [`servers_share`].
const MAX_RETURN_TIME: Duration = Duration::from_millis(200);
/// The largest answer that is taken, in bytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// A client of one server. Cheap to clone; clones share the connection and the retry budget.
///
/// Every method makes one call of the API; `proto/holdfast/v1/*.proto` tells what each one does and how it can be
/// refused. A map is named by its name.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    origin: Uri,
    channel: Channel,
    timeout: Duration,
    retries: Retries,
}

/// How a [`Client`] is set up.
#[derive(Clone, Debug)]
#[must_use = "a builder connects nothing by itself"]
pub struct Builder {
    endpoint: Endpoint,
    timeout: Duration,
    retry: Retry,
}

impl Builder {
    /// How long a call may take, its retries included: 10 s unless set, a day at most. Half of it, but no more than
    /// 5 s, may go into making a connection.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(MAX_TIMEOUT);
        self
    }

    /// Which refusals are tried again, and how often.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Connects and asks what answers for its identity, so that an endpoint that is not a Holdfast server's fails
    /// here.
    pub async fn connect(self) -> Result<Client, Error> {
        let client = self.connect_lazy();
        match client.info().await {
            // Whoever refuses with our reasons is a server.
            Ok(_) | Err(Error::Refused(_)) => Ok(client),
            Err(error) => Err(error),
        }
    }

    /// Leaves connecting to the first call. Needs to be called within a tokio runtime.
    pub fn connect_lazy(self) -> Client {
        let connect_timeout = (self.timeout / 2).min(MAX_CONNECT_TIMEOUT);
        Client {
            origin: Channel::origin(&self.endpoint),
            channel: Channel::new(&self.endpoint, connect_timeout),
            endpoint: self.endpoint,
            timeout: self.timeout,
            retries: Retries::new(self.retry),
        }
    }
}

/// Makes one call, with its retries: `rpc!(self.storage().get(request))`.
macro_rules! rpc {
    ($client:ident.$service:ident().$method:ident($request:expr)) => {
        $client.call($request, |request| {
            let mut service = $client.$service();
            async move { service.$method(request).await }
        })
    };
}
use rpc;

impl Client {
    /// Sets up a client of the server at `endpoint`: `http://HOST:PORT` or `unix:///PATH`.
    pub fn builder(endpoint: &str) -> Result<Builder, Error> {
        Ok(Builder { endpoint: endpoint.parse()?, timeout: DEFAULT_TIMEOUT, retry: Retry::default() })
    }

    /// Connects to the server at `endpoint` (`http://HOST:PORT` or `unix:///PATH`), with the default settings.
    pub async fn connect(endpoint: &str) -> Result<Self, Error> {
        Self::builder(endpoint)?.connect().await
    }

    /// The same client with another deadline for each call.
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout: timeout.min(MAX_TIMEOUT), ..self.clone() }
    }

    /// Where the server is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The way of every call: try, and while the refusal may pass by itself and the deadline is not over, try again.
    async fn call<Q, A, F, T>(&self, request: Q, send: F) -> Result<A, Error>
    where
        Q: Clone,
        F: Fn(Request<Q>) -> T,
        T: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        self.retries.begin();
        let mut attempt = 1;
        loop {
            let mut request = Request::new(request.clone());
            request.set_timeout(servers_share(deadline.saturating_duration_since(Instant::now())));
            let error = match tokio::time::timeout_at(deadline, send(request)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => Error::from_status(&status, &self.endpoint),
                Err(_) => return Err(self.no_answer()),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(delay) = self.retries.next(&error, attempt, left) else { return Err(error) };
            #[expect(clippy::disallowed_methods, reason = "the delay that the server asked for")]
            tokio::time::sleep(delay).await;
            attempt += 1;
        }
    }

    fn no_answer(&self) -> Error {
        let message = format!("{}: no answer within {:?}", self.endpoint, self.timeout);
        Error::Unknown { code: Code::DeadlineExceeded, message }
    }

    fn maps(&self) -> MapServiceClient<Channel> {
        MapServiceClient::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    fn storage(&self) -> StorageServiceClient<Channel> {
        StorageServiceClient::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    fn owners(&self) -> OwnerServiceClient<Channel> {
        OwnerServiceClient::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    fn programs(&self) -> ProgramServiceClient<Channel> {
        ProgramServiceClient::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::with_origin(self.channel.clone(), self.origin.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

/// How much of the `left` time the server is told that it has: a tenth less, so that its answer, which knows whether
/// the call ran, is back before the caller's own deadline.
fn servers_share(left: Duration) -> Duration {
    left - (left / 10).min(MAX_RETURN_TIME)
}
