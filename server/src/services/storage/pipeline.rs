//! Many operations over one call: a conversation.
//!
//! ```text
//!              ┌── room for one more ──┐                                 ┌── its worker has it, with others ──► waiting ──┐
//!   messages ──┴► begun (one at a time, in order) ───────────────────────┤                                                ├──► a frame
//!                                                                        └── done, or refused ────────────────────────────┘
//!   the client's end, the deadline, a drain, what is no message: nothing more is read, what was read is answered, and then the end
//! ```
//!
//! All of it happens in polling the answer's body: hyper does that as long as the client takes what is there. So a client that reads no
//! further is not read from either, and one that is gone takes what is queued with it.
//!
//! Past tonic's codec, as in [`direct`](crate::calls::direct): messages are decoded where they lie. What has come at once goes to the
//! workers at once, and what is answered at once is one frame: a poll reads whatever is there before it hands it over.

mod messages;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use engine::{Call, Error, Outcome, Pipeline};
use holdfast_proto::v1::pipeline_request::Operation;
use holdfast_proto::v1::pipeline_response::Result as Answer;
use holdfast_proto::v1::{
    CreateResponse, DeleteResponse, PipelineError, PipelineRequest, PipelineResponse, Reason, UpdateResponse,
};
use http::{HeaderMap, HeaderValue};
use hyper::body::{Body, Frame, Incoming};
use tokio::task::coop;
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::Status;

use self::messages::Messages;
use super::{Asked, Service, got, in_field, in_get, written};
use crate::authorize::Caller;
use crate::calls::direct;
use crate::status::{self, Told, invalid};

/// Operations that were read and are not answered.
pub const IN_FLIGHT: usize = 1024;

/// As many bytes of answers are a frame, whatever else there is.
const FRAME: usize = 16 * 1024;
/// The room for answers at first, and again when frames have used it up.
const ROOM: usize = 8 * 1024;

/// The answers of a Pipeline, as a body.
pub struct Conversation {
    service: Service,
    caller: Caller,
    /// When the caller stops waiting.
    until: Option<Instant>,
    incoming: Messages,
    pipeline: Pipeline<(u64, Of)>,
    /// Answers that have not gone out.
    answers: BytesMut,
    /// How it ends when everything is answered; none while it is read from.
    end: Option<Result<(), Status>>,
    is_over: bool,
    leaving: Pin<Box<WaitForCancellationFutureOwned>>,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Which call it would be.
#[derive(Clone, Copy)]
enum Of {
    Get,
    Create,
    Update,
    Delete,
}

impl Conversation {
    pub(super) fn new(service: &Service, caller: Caller, until: Option<Instant>, incoming: Incoming) -> Self {
        let limit = service.0.about.limits.max_message_bytes as usize;
        Self {
            pipeline: service.0.engine.pipeline(Call { deadline: until, caller: caller.credentials() }),
            leaving: Box::pin(service.0.leaving.clone().cancelled_owned()),
            service: service.clone(),
            caller,
            until,
            incoming: Messages::new(incoming, limit),
            answers: BytesMut::with_capacity(ROOM),
            end: None,
            is_over: false,
            deadline: until.map(|until| Box::pin(sleep_until(until.into()))),
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

    /// Answers what there is an answer to, until the frame is full.
    fn answer(&mut self, cx: &mut Context<'_>) {
        while !self.is_full()
            && let Poll::Ready(((id, of), result)) = self.pipeline.poll_answer(cx)
        {
            self.put(id, of.answer(result));
        }
    }

    /// Begins what is there to be read, until the frame is full.
    fn begin(&mut self, cx: &mut Context<'_>) {
        while !self.is_full()
            && self.pipeline.poll_ready(cx).is_ready()
            && let Poll::Ready(PipelineRequest { id, operation }) = self.poll_request(cx)
        {
            match self.asked(operation) {
                Ok((of, Asked { map, owner, operation, conditions })) => {
                    let expected = (conditions.expected_version, conditions.expected_map_id);
                    let answer = self.pipeline.begin((id, of), &map, owner, operation, expected);
                    if let Some((_, result)) = answer {
                        self.put(id, of.answer(result));
                    }
                }
                Err(status) => self.put(id, Answer::Error(error(status::told_by(&status)))),
            }
        }
    }

    /// The next operation, if there is room for it. Pending also at the end.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<PipelineRequest> {
        if self.end.is_some() || self.pipeline.in_flight() >= IN_FLIGHT {
            return Poll::Pending;
        }
        // Others on this thread have their turn, however much there is to read.
        let progress = ready!(coop::poll_proceed(cx));
        let next = ready!(self.incoming.poll_next(cx));
        progress.made_progress();
        match next.map(|message| message.and_then(direct::message)) {
            Some(Ok(request)) => return Poll::Ready(request),
            Some(Err(status)) => self.end = Some(Err(status)),
            None => self.end = Some(Ok(())),
        }
        Poll::Pending
    }

    fn asked(&self, operation: Option<Operation>) -> Result<(Of, Asked), Status> {
        let Self { service, caller, until, .. } = self;
        Ok(match operation {
            Some(Operation::Get(get)) => (Of::Get, service.asked_to_get(get, caller, *until)?),
            Some(Operation::Create(create)) => (Of::Create, service.asked_to_create(create, caller, *until)?),
            Some(Operation::Update(update)) => (Of::Update, service.asked_to_update(update, caller, *until)?),
            Some(Operation::Delete(delete)) => (Of::Delete, service.asked_to_delete(delete, caller, *until)?),
            None => {
                let problem = "there is none: give get, create, update or delete";
                return Err(invalid(Reason::InvalidArgument, "operation", problem));
            }
        })
    }

    fn put(&mut self, id: u64, answer: Answer) {
        direct::put(&mut self.answers, &PipelineResponse { id, result: Some(answer) });
    }

    fn is_full(&self) -> bool {
        self.answers.len() >= FRAME
    }
}

impl Body for Conversation {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        this.poll_end(cx);
        loop {
            this.answer(cx);
            this.begin(cx);
            // Before anything else, for the workers to begin; then once more, since somebody has to hear of the answers.
            if !this.pipeline.submit() {
                break;
            }
        }
        if !this.answers.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(this.answers.split().freeze()))));
        }
        match this.end.take() {
            Some(end) if this.pipeline.in_flight() == 0 => {
                this.is_over = true;
                Poll::Ready(Some(Ok(Frame::trailers(trailers(end)))))
            }
            end => {
                this.end = end;
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

/// What the call comes to.
fn trailers(end: Result<(), Status>) -> HeaderMap {
    let Err(status) = end else {
        return HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("0"))]);
    };
    let mut trailers = HeaderMap::new();
    // It fails for a status that is no header, which ours all are.
    if status.add_header(&mut trailers).is_err() {
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    trailers
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
