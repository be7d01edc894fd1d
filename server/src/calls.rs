//! What happens to every call outside of its handler, in this order:
//!
//! 1. A span tells method and caller to everything that is logged on the way.
//! 2. While the server drains, calls of our own services are refused with SHUTTING_DOWN. Health and reflection answer.
//! 3. `grpc-timeout` becomes a [`Deadline`]; one that has passed is refused here.
//! 4. tonic's routes lead to the handler, which finds the [`Caller`] and the [`Deadline`] in the request's extensions.
//! 5. A panic becomes INTERNAL. The incident behind any INTERNAL of ours is logged, with the number that the caller gets.
//! 6. tonic's refusal of a message that is too large gets its reason.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use holdfast_proto::v1::Reason;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt;
use tracing::Instrument;

use crate::authorize::Caller;
use crate::status::{self, Incident};
use crate::transport::Handler;

/// Calls of our own services begin so.
const OUR_SERVICES: &str = "/holdfast.v1.";

const TIMEOUT: &str = "grpc-timeout";

/// When the caller stops waiting; none: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub Option<Instant>);

/// The way of all calls to their handlers. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    routes: Routes,
    max_message_size: usize,
    draining: AtomicBool,
    in_flight: AtomicUsize,
}

impl Calls {
    /// The way to these routes.
    pub fn new(routes: Routes, max_message_size: usize) -> Self {
        let (draining, in_flight) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self(Arc::new(Shared { routes: routes.prepare(), max_message_size, draining, in_flight }))
    }

    /// Refuses calls of our own services from now on.
    pub fn refuse(&self) {
        // Relaxed: a call that comes at the same moment may still pass.
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Calls that have come and are not answered.
    pub fn in_flight(&self) -> usize {
        // Relaxed: a number for the log.
        self.0.in_flight.load(Ordering::Relaxed)
    }
}

impl Handler for Calls {
    async fn answer(self, caller: Caller, request: Request<Incoming>) -> Response<Body> {
        let span = tracing::debug_span!("call", method = request.uri().path(), %caller);
        self.0.answer(caller, request).instrument(span).await
    }
}

impl Shared {
    async fn answer(&self, caller: Caller, mut request: Request<Incoming>) -> Response<Body> {
        let began = Instant::now();
        let _counted = InFlight::new(&self.in_flight);
        let method = request.uri().clone();
        if let Err(status) = self.admit(&mut request, began) {
            return status.into_http();
        }
        request.extensions_mut().insert(caller.clone());
        let answering = AssertUnwindSafe(self.routes.clone().oneshot(request)).catch_unwind();
        let response = match answering.await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(panic) => status::panicked(&*panic).into_http(),
        };
        self.finish(response, &method, &caller, began)
    }

    fn admit(&self, request: &mut Request<Incoming>, now: Instant) -> Result<(), Status> {
        // Relaxed: see `Calls::refuse`.
        if self.draining.load(Ordering::Relaxed) && request.uri().path().starts_with(OUR_SERVICES) {
            return Err(status::shutting_down());
        }
        let deadline = deadline(request.headers(), now)?;
        request.extensions_mut().insert(deadline);
        Ok(())
    }

    fn finish(&self, response: Response<Body>, method: &Uri, caller: &Caller, began: Instant) -> Response<Body> {
        // An error without a body has its status in the headers, and tonic leaves the Status itself beside it.
        let Some(status) = response.extensions().get::<Status>() else {
            tracing::debug!(took = ?began.elapsed(), "answered");
            return response;
        };
        tracing::debug!(took = ?began.elapsed(), code = ?status.code(), message = status.message(), "refused");
        if let Some(Incident { id, problem }) = Incident::of(status) {
            tracing::error!(incident = id, method = method.path(), %caller, "{problem}");
        }
        // Nothing but tonic's decoder says OUT_OF_RANGE, and only for this.
        if status.code() == tonic::Code::OutOfRange {
            return status::message_too_large(self.max_message_size).into_http();
        }
        response
    }
}

/// Counts a call while it lives.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
