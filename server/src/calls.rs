//! What happens to every call outside of its handler, in this order:
//!
//! 1. A span tells method and caller to everything that is logged on the way.
//! 2. While the server drains, calls of our own services are refused with SHUTTING_DOWN. Health and reflection answer.
//! 3. `grpc-timeout` becomes a [`Deadline`]; one that has passed is refused here.
//! 4. The request's message must be here before that, and within the time that any message may take.
//! 5. The usual calls for values go to their handlers [`direct`]ly; for the others tonic's routes lead to the handler, which
//!    finds the [`Caller`] and the [`Deadline`] in the request's extensions.
//! 6. A panic becomes INTERNAL. The incident behind any INTERNAL of ours is logged, with the number that the caller gets.
//! 7. tonic's refusals of messages, those that are too large and those that are none, get their reasons.

mod arriving;
pub mod direct;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use holdfast_proto::v1::Reason;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use hyper::body::{Frame, Incoming, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt;
use tracing::Instrument;

use self::arriving::Arriving;
use self::direct::{Asked, Direct, Method};
use crate::authorize::Caller;
use crate::status::{self, Incident};
use crate::transport::{Answer, Handler};

/// Calls of our own services begin so.
const OUR_SERVICES: &str = "/holdfast.v1.";

/// Calls that are conversations: how long they last is their parties' business.
const STREAMS: [&str; 3] =
    ["/grpc.health.v1.Health/Watch", "/grpc.reflection.", "/holdfast.v1.StorageService/Pipeline"];

const TIMEOUT: &str = "grpc-timeout";
const ENCODING: &str = "grpc-encoding";

/// When the caller stops waiting; none: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub Option<Instant>);

/// The way of all calls to their handlers. Cloning gives another handle.
#[derive(Debug)]
pub struct Calls<D>(Arc<Shared<D>>);

#[derive(Debug)]
struct Shared<D> {
    direct: D,
    routes: Routes,
    max_message_size: usize,
    /// How long the message of a request may take.
    transfer_timeout: Duration,
    draining: AtomicBool,
    in_flight: Arc<AtomicUsize>,
}

impl<D> Clone for Calls<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D> Calls<D> {
    /// The way to these routes, past them for the calls that `direct` answers, which have to be there as well.
    pub fn new(direct: D, routes: Routes, max_message_size: usize, transfer_timeout: Duration) -> Self {
        let (draining, in_flight) = (AtomicBool::new(false), Arc::default());
        let routes = routes.prepare();
        Self(Arc::new(Shared { direct, routes, max_message_size, transfer_timeout, draining, in_flight }))
    }

    /// Refuses calls of our own services from now on.
    pub fn refuse(&self) {
        // Relaxed: a call that comes at the same moment may still pass.
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Calls that have come and are not answered to the end.
    pub fn in_flight(&self) -> usize {
        // Relaxed: a number for the log.
        self.0.in_flight.load(Ordering::Relaxed)
    }
}

impl<D: Direct> Handler for Calls<D> {
    fn answer(self, caller: Caller, request: Request<Incoming>) -> impl Future<Output = Response<Answer>> + Send {
        let span = tracing::debug_span!("call", method = request.uri().path(), %caller);
        async move { self.0.answer(caller, request).await }.instrument(span)
    }

    fn is_stream(path: &str) -> bool {
        is_stream(path)
    }
}

fn is_stream(path: &str) -> bool {
    STREAMS.iter().any(|stream| path.starts_with(stream))
}

/// Makes an answer of tonic's to one of ours.
fn other(response: Response<Body>) -> Response<Answer> {
    response.map(Answer::Other)
}

impl<D: Direct> Shared<D> {
    async fn answer(&self, caller: Caller, request: Request<Incoming>) -> Response<Answer> {
        let began = Instant::now();
        let counted = InFlight::new(&self.in_flight);
        let deadline = match self.admit(&request, began) {
            Ok(deadline) => deadline,
            Err(status) => return other(status.into_http()),
        };
        let uri = request.uri().clone();
        let is_stream = is_stream(uri.path());
        // In one expression: what has a name has a place in the future of its own, and all of that is moved with every call.
        let answered = AssertUnwindSafe(self.lead(&caller, deadline, request, is_stream, began)).catch_unwind().await;
        let response = answered.unwrap_or_else(|panic| other(status::panicked(&*panic).into_http()));
        let response = self.finish(response, &uri, &caller, began);
        match is_stream {
            true => response.map(|body| Answer::Other(Body::new(Conversing { body, _counted: counted }))),
            false => response,
        }
    }

    /// To its handler.
    async fn lead(
        &self,
        caller: &Caller,
        deadline: Deadline,
        request: Request<Incoming>,
        is_stream: bool,
        began: Instant,
    ) -> Response<Answer> {
        let path = request.uri().path();
        let is_plain = request.headers().get(ENCODING).is_none_or(|encoding| encoding == "identity");
        if is_stream {
            let (head, body) = request.into_parts();
            let begun =
                if is_plain { self.direct.converse(head.uri.path(), body, caller, deadline) } else { Err(body) };
            return match begun {
                Ok(answers) => Answer::stream(answers),
                Err(body) => Box::pin(self.route(caller, deadline, Request::from_parts(head, Body::new(body)))).await,
            };
        }
        let method = if is_plain { Method::of(path) } else { None };
        let (head, body) = request.into_parts();
        let body = self.arriving(body, deadline, began);
        let Some(method) = method else {
            return Box::pin(self.route(caller, deadline, Request::from_parts(head, Body::new(body)))).await;
        };
        match direct::read(body, self.max_message_size).await {
            Asked::Message(message) => match self.direct.answer(method, message, caller, deadline).await {
                Ok(message) => Answer::message(message),
                Err(status) => other(status.into_http()),
            },
            Asked::Other(body) => {
                Box::pin(self.route(caller, deadline, Request::from_parts(head, Body::new(body)))).await
            }
        }
    }

    /// By tonic's routes.
    async fn route(&self, caller: &Caller, deadline: Deadline, mut request: Request<Body>) -> Response<Answer> {
        request.extensions_mut().insert(deadline);
        request.extensions_mut().insert(caller.clone());
        match self.routes.clone().oneshot(request).await {
            Ok(response) => other(response),
            Err(never) => match never {},
        }
    }

    fn admit(&self, request: &Request<Incoming>, now: Instant) -> Result<Deadline, Status> {
        // Relaxed: see `Calls::refuse`.
        if self.draining.load(Ordering::Relaxed) && request.uri().path().starts_with(OUR_SERVICES) {
            return Err(status::shutting_down());
        }
        deadline(request.headers(), now)
    }

    /// The body, bounded by whichever comes first.
    fn arriving(&self, body: Incoming, Deadline(deadline): Deadline, now: Instant) -> Arriving {
        let latest = now + self.transfer_timeout;
        match deadline {
            Some(deadline) if deadline < latest => Arriving::new(body, deadline.into(), status::deadline_passed),
            _ => Arriving::new(body, latest.into(), status::message_too_late),
        }
    }

    fn finish(&self, response: Response<Answer>, method: &Uri, caller: &Caller, began: Instant) -> Response<Answer> {
        // An error without a body has its status in the headers, and tonic leaves the Status itself beside it.
        let Some(status) = response.extensions().get::<Status>() else {
            tracing::debug!(took = ?began.elapsed(), "answered");
            return response;
        };
        tracing::debug!(took = ?began.elapsed(), code = ?status.code(), message = status.message(), "refused");
        if let Some(Incident { id, problem }) = Incident::of(status) {
            tracing::error!(incident = id, method = method.path(), %caller, "{problem}");
        }
        match status::of_decoder(status, self.max_message_size) {
            Some(status) => other(status.into_http()),
            None => response,
        }
    }
}

/// Counts a call while it lives.
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The answer of a conversation: the call is in flight until it ends.
struct Conversing {
    body: Answer,
    _counted: InFlight,
}

impl hyper::body::Body for Conversing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// When the caller stops waiting, as its headers say.
fn deadline(headers: &HeaderMap, now: Instant) -> Result<Deadline, Status> {
    let Some(header) = headers.get(TIMEOUT) else {
        return Ok(Deadline(None));
    };
    let Some(timeout) = timeout(header) else {
        let problem = format!("{header:?} is no timeout: expected one to eight digits and a unit of H, M, S, m, u, n");
        return Err(status::invalid(Reason::InvalidArgument, TIMEOUT, &problem));
    };
    if timeout.is_zero() {
        return Err(status::deadline_passed());
    }
    // A time that the clock cannot express is as good as never.
    Ok(Deadline(now.checked_add(timeout)))
}

/// As gRPC writes it: `TimeoutValue TimeoutUnit`.
fn timeout(header: &HeaderValue) -> Option<Duration> {
    let text = header.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 60 * 60)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
