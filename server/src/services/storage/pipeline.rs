//! Many operations over one call: a conversation.
//!
//! ```text
//!              ┌── room for one more ──┐                    ┌── a worker has it ──► waiting ──┐
//!   incoming ──┴► starting (one at a time, in order) ───────┤                                 ├──► answers
//!                                                           └── done, or refused ─────────────┘
//!   the client's end, the deadline, a drain, what is no message: nothing more is read, what was read is answered, and then the end
//! ```
//!
//! All of it happens in polling the answer's body: hyper does that as long as the client takes what is there. So a client that reads no
//! further is not read from either, and one that is gone takes what is queued with it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use engine::{Begun, Error, Outcome, Pipeline, Queued};
use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use holdfast_proto::v1::pipeline_request::Operation;
use holdfast_proto::v1::pipeline_response::Result as Answer;
use holdfast_proto::v1::{
    CreateResponse, DeleteResponse, PipelineError, PipelineRequest, PipelineResponse, Reason, UpdateResponse,
};
use tokio::task::coop;
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::{ReusableBoxFuture, WaitForCancellationFutureOwned};
use tonic::{Status, Streaming};

use super::{Asked, Service, got, in_field, in_get, written};
use crate::authorize::Caller;
use crate::status::{self, Told, invalid};

/// Operations that were read and are not answered.
pub const IN_FLIGHT: usize = 1024;

/// The answers of a Pipeline, as a stream.
pub struct Conversation {
    shared: Arc<Shared>,
    incoming: Streaming<PipelineRequest>,
    /// The operation that was read last, until it has its place.
    starting: ReusableBoxFuture<'static, Started>,
    is_starting: bool,
    waiting: FuturesUnordered<Waiting>,
    /// How it ends when everything is answered; none while it is read from.
    end: Option<Result<(), Status>>,
    leaving: Pin<Box<WaitForCancellationFutureOwned>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

struct Shared {
    service: Service,
    pipeline: Pipeline,
    caller: Caller,
    deadline: Option<Instant>,
}

/// What has become of an operation.
enum Started {
    Answered(PipelineResponse),
    Waiting(Waiting),
}

/// Which call it would be.
#[derive(Clone, Copy)]
enum Of {
    Get,
    Create,
    Update,
    Delete,
}

/// An operation that a worker has.
struct Waiting {
    id: u64,
    of: Of,
    queued: Queued,
}

impl Conversation {
    pub(super) fn new(
        service: &Service,
        caller: Caller,
        deadline: Option<Instant>,
        incoming: Streaming<PipelineRequest>,
    ) -> Self {
        let pipeline = service.0.engine.pipeline();
        let leaving = Box::pin(service.0.leaving.clone().cancelled_owned());
        let shared = Arc::new(Shared { service: service.clone(), pipeline, caller, deadline });
        Self {
            shared,
            incoming,
            starting: ReusableBoxFuture::new(std::future::pending()),
            is_starting: false,
            waiting: FuturesUnordered::new(),
            end: None,
            leaving,
            deadline: deadline.map(|deadline| Box::pin(sleep_until(deadline.into()))),
        }
    }

    /// Looks whether it is over, as far as reading goes.
    fn poll_end(&mut self, cx: &mut Context<'_>) {
        if self.end.is_some() {
            return;
        }
        if self.leaving.as_mut().poll(cx).is_ready() {
            self.end = Some(Err(status::shutting_down()));
        } else if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.end = Some(Err(status::deadline_passed()));
        }
    }

    /// The next operation, if there is room for it. Pending also at the end.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<PipelineRequest> {
        if self.end.is_some() || self.waiting.len() >= IN_FLIGHT {
            return Poll::Pending;
        }
        // Others on this thread have their turn, however much there is to read.
        let progress = ready!(coop::poll_proceed(cx));
        let next = ready!(Pin::new(&mut self.incoming).poll_next(cx));
        progress.made_progress();
        match next {
            Some(Ok(request)) => return Poll::Ready(request),
            Some(Err(status)) => {
                let limit = self.shared.service.0.about.limits.max_message_bytes as usize;
                self.end = Some(Err(status::of_decoder(&status, limit).unwrap_or(status)));
            }
            None => self.end = Some(Ok(())),
        }
        Poll::Pending
    }
}

impl Stream for Conversation {
    type Item = Result<PipelineResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.poll_end(cx);
        loop {
            if let Poll::Ready(Some(answer)) = Pin::new(&mut this.waiting).poll_next(cx) {
                return Poll::Ready(Some(Ok(answer)));
            }
            if this.is_starting {
                let Poll::Ready(started) = this.starting.poll(cx) else { return Poll::Pending };
                this.is_starting = false;
                match started {
                    Started::Answered(answer) => return Poll::Ready(Some(Ok(answer))),
                    // And polled, since somebody has to hear of its answer.
                    Started::Waiting(waiting) => this.waiting.push(waiting),
                }
                continue;
            }
            match this.poll_request(cx) {
                Poll::Ready(request) => {
                    this.starting.set(Arc::clone(&this.shared).start(request));
                    this.is_starting = true;
                }
                Poll::Pending => break,
            }
        }
        match this.end.take() {
            Some(end) if this.waiting.is_empty() => {
                this.end = Some(Ok(()));
                Poll::Ready(end.err().map(Err))
            }
            end => {
                this.end = end;
                Poll::Pending
            }
        }
    }
}

impl Shared {
    async fn start(self: Arc<Self>, PipelineRequest { id, operation }: PipelineRequest) -> Started {
        let answered = |result| Started::Answered(PipelineResponse { id, result: Some(result) });
        let (of, asked) = match self.asked(operation) {
            Ok(asked) => asked,
            Err(status) => return answered(Answer::Error(error(status::told_by(&status)))),
        };
        let Asked { map, owner, operation, conditions } = asked;
        match self.pipeline.begin(&map, &owner, operation, conditions).await {
            Begun::Done(result) => answered(of.answer(result)),
            Begun::Queued(queued) => Started::Waiting(Waiting { id, of, queued }),
        }
    }

    fn asked(&self, operation: Option<Operation>) -> Result<(Of, Asked), Status> {
        let Shared { service, caller, deadline, .. } = self;
        Ok(match operation {
            Some(Operation::Get(get)) => (Of::Get, service.asked_to_get(get, caller, *deadline)?),
            Some(Operation::Create(create)) => (Of::Create, service.asked_to_create(create, caller, *deadline)?),
            Some(Operation::Update(update)) => (Of::Update, service.asked_to_update(update, caller, *deadline)?),
            Some(Operation::Delete(delete)) => (Of::Delete, service.asked_to_delete(delete, caller, *deadline)?),
            None => {
                let problem = "there is none: give get, create, update or delete";
                return Err(invalid(Reason::InvalidArgument, "operation", problem));
            }
        })
    }
}

impl Of {
    fn answer(self, result: Result<Outcome, Error>) -> Answer {
        let outcome = match (self, result) {
            (_, Ok(outcome)) => outcome,
            (Of::Get, Err(refused)) => return Answer::Error(error(status::item_refused(in_get(refused)))),
            (_, Err(refused)) => {
                return Answer::Error(error(status::item_refused(in_field(refused, "name", "map"))));
            }
        };
        let (version, owner_id) = written(&outcome);
        match self {
            Of::Get => Answer::Get(got(outcome)),
            Of::Create => Answer::Create(CreateResponse { version, owner_id }),
            Of::Update => Answer::Update(UpdateResponse { version, owner_id }),
            Of::Delete => Answer::Delete(DeleteResponse { owner_id }),
        }
    }
}

fn error(Told { code, reason, message, metadata, retry_after }: Told) -> PipelineError {
    let retry_after_ms = retry_after.map(|pause| pause.as_millis() as u32);
    PipelineError { reason: reason.into(), code: code.into(), message, metadata, retry_after_ms }
}

impl Future for Waiting {
    type Output = PipelineResponse;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<PipelineResponse> {
        let result = ready!(Pin::new(&mut self.queued).poll(cx));
        Poll::Ready(PipelineResponse { id: self.id, result: Some(self.of.answer(result)) })
    }
}
