//! From refusals to gRPC statuses. `proto/README.md` has the same table for readers.
//!
//! Every status made here carries an `ErrorInfo` of the domain `holdfast`, and with that a promise: nothing has changed.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use engine::{Deadlock, Error, Invalid, LockPlace, QuotaOf};
use holdfast_proto::ERROR_DOMAIN;
use holdfast_proto::v1::Reason;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::authorize::Denied;

/// When to come back to a lock that somebody holds for long.
const RETRY_LOCK: Duration = Duration::from_millis(100);
/// When to come back to two locks of which another worker has one. It needs the time of its operation, and to be another time than the other's.
const RETRY_DEADLOCK: Duration = Duration::from_millis(10);
/// When to come back to a worker with a full mailbox: it empties thousands of jobs in that time.
const RETRY_OVERLOADED: Duration = Duration::from_millis(20);
/// The other call may have been interrupted in the middle: for a turn of the scheduler.
const RETRY_BUSY: Duration = Duration::from_millis(5);
/// When somebody else may have taken this server's place.
const RETRY_ELSEWHERE: Duration = Duration::from_secs(1);

/// The trailer by which a server asks gRPC's own retries to wait, in milliseconds.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The most bytes that tell what is wrong, and may quote what the caller sent. They travel in headers, encoded, and twice or
/// thrice; some clients take no more than 8 KiB of those, and lose the connection over it.
const LONGEST_TEXT: usize = 1000;

/// A refusal in the making.
struct Refusal {
    code: Code,
    reason: Reason,
    metadata: Vec<(&'static str, String)>,
    details: ErrorDetails,
    trailers: MetadataMap,
}

impl Refusal {
    fn new(code: Code, reason: Reason) -> Self {
        Self { code, reason, metadata: Vec::new(), details: ErrorDetails::new(), trailers: MetadataMap::new() }
    }

    /// A fact for programs.
    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.push((key, value.to_string()));
        self
    }

    fn retry_after(mut self, pause: Duration) -> Self {
        self.details.set_retry_info(Some(pause));
        self
    }

    /// gRPC's own retries look at UNAVAILABLE, and know no `RetryInfo`.
    fn push_back(mut self, pause: Duration) -> Self {
        self.trailers.insert(PUSHBACK, (pause.as_millis() as u64).into());
        self.retry_after(pause)
    }

    fn field(mut self, field: &str, problem: &str) -> Self {
        self.details.add_bad_request_violation(field, shortened(problem));
        self
    }

    fn quota(mut self, subject: String, limit: impl ToString, problem: &str) -> Self {
        self.details.add_quota_failure_violation(subject, shortened(problem));
        self.with("limit", limit)
    }

    fn told(self, message: String) -> Told {
        Told {
            code: self.code,
            reason: self.reason,
            message: shortened(&message).into_owned(),
            metadata: self.metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            retry_after: self.details.retry_info().and_then(|retry| retry.retry_delay),
        }
    }

    fn status(mut self, message: String) -> Status {
        let metadata = self.metadata.into_iter().map(|(key, value)| (key.to_owned(), value));
        let metadata: HashMap<_, _> = metadata.collect();
        self.details.set_error_info(self.reason.code_name(), ERROR_DOMAIN, metadata);
        Status::with_error_details_and_metadata(self.code, shortened(&message), self.details, self.trailers)
    }
}

/// Leaves out the middle of what is too long.
fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST_TEXT {
        return text.into();
    }
    let head = text.floor_char_boundary(LONGEST_TEXT / 2);
    let tail = text.ceil_char_boundary(text.len() - LONGEST_TEXT / 2);
    format!("{} ... {}", &text[..head], &text[tail..]).into()
}

/// What the engine refused.
pub fn refused(error: Error) -> Status {
    let message = error.to_string();
    match refusal(error) {
        Some(refusal) => refusal.status(message),
        None => internal(message),
    }
}

/// An error that was nobody's answer: what a step of a program met.
pub fn told(error: Error) -> Told {
    let message = error.to_string();
    match refusal(error) {
        Some(refusal) => refusal.told(message),
        None => Refusal::new(Code::Internal, Reason::Internal).told(message),
    }
}

/// What the engine refused of a stream: what [`refused`] would say, if it were a call.
pub fn item_refused(error: Error) -> Told {
    let message = error.to_string();
    match refusal(error) {
        Some(refusal) => refusal.told(message),
        None => told_by(&internal(message)),
    }
}

/// The same of a status of ours. An incident is logged here: no call ends with it.
pub fn told_by(status: &Status) -> Told {
    if let Some(Incident { id, problem }) = Incident::of(status) {
        tracing::error!(incident = id, "an operation of a stream: {problem}");
    }
    let details = status.get_error_details();
    let info = details.error_info();
    Told {
        code: status.code(),
        reason: info.and_then(|info| Reason::from_code_name(&info.reason)).unwrap_or_default(),
        message: status.message().to_owned(),
        metadata: info.map(|info| info.metadata.clone()).unwrap_or_default(),
        retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
    }
}

/// What can be told of an error.
#[derive(Debug)]
pub struct Told {
    /// The code that a call would end with.
    pub code: Code,
    /// Why.
    pub reason: Reason,
    /// In words.
    pub message: String,
    /// Facts for programs.
    pub metadata: HashMap<String, String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// The reason alone: what a batch says of an item.
pub fn reason_of(error: &Error) -> Reason {
    coded(error).map_or(Reason::Internal, |(_, reason)| reason)
}

/// Code and reason; none for what is a bug, or a failure of the machine.
fn coded(error: &Error) -> Option<(Code, Reason)> {
    Some(match error {
        Error::Deadlock { cycle: Deadlock::Aa, .. } => (Code::Aborted, Reason::LockDeadlockAa),
        Error::Deadlock { cycle: Deadlock::Nesting, .. } => (Code::Aborted, Reason::LockNesting),
        Error::Deadlock { cycle: Deadlock::Abba { .. }, .. } => (Code::Aborted, Reason::LockDeadlockAbba),
        Error::LockTimeout { .. } => (Code::Unavailable, Reason::LockTimeout),
        Error::Busy => (Code::Unavailable, Reason::StorageBusy),
        Error::Program { error, .. } => return coded(error),
        Error::ProgramDepth { .. } => (Code::Aborted, Reason::ProgramDepth),
        Error::ProgramBudget { .. } => (Code::ResourceExhausted, Reason::ProgramBudget),
        Error::DeadlinePassed => (Code::DeadlineExceeded, Reason::RequestDeadline),
        Error::Overloaded { .. } => (Code::ResourceExhausted, Reason::Overloaded),
        Error::ShuttingDown => (Code::Unavailable, Reason::ShuttingDown),
        Error::MapNotFound { .. } | Error::BoundMapGone { .. } => (Code::NotFound, Reason::MapNotFound),
        Error::MapExists { .. } => (Code::AlreadyExists, Reason::MapExists),
        Error::MapIdMismatch { .. } => (Code::Aborted, Reason::MapIdMismatch),
        Error::MapFreeing { .. } => (Code::FailedPrecondition, Reason::MapFreeing),
        Error::MapLimit { .. } => (Code::ResourceExhausted, Reason::MapLimit),
        Error::ProgramExists { .. } => (Code::AlreadyExists, Reason::ProgramExists),
        Error::ProgramNotFound { .. } => (Code::NotFound, Reason::ProgramNotFound),
        Error::ProgramLimit { .. } => (Code::ResourceExhausted, Reason::ProgramLimit),
        Error::InvalidProgram { .. } => (Code::InvalidArgument, Reason::InvalidProgram),
        Error::LabStepsOff => (Code::FailedPrecondition, Reason::LabStepsOff),
        Error::MapFull { .. } => (Code::ResourceExhausted, Reason::MapFull),
        Error::Quota { .. } => (Code::ResourceExhausted, Reason::Quota),
        Error::OwnerLimit { .. } => (Code::ResourceExhausted, Reason::OwnerLimit),
        Error::ElementNotFound { .. } => (Code::NotFound, Reason::ElementNotFound),
        Error::ElementExists { .. } => (Code::AlreadyExists, Reason::ElementExists),
        Error::VersionMismatch { .. } => (Code::Aborted, Reason::VersionMismatch),
        Error::OwnerNotFound { .. } => (Code::NotFound, Reason::OwnerNotFound),
        Error::OwnerExited { .. } => (Code::NotFound, Reason::OwnerExited),
        Error::OwnerDenied { .. } => (Code::PermissionDenied, Reason::PermissionDenied),
        Error::SimulatedOwnersOff => (Code::FailedPrecondition, Reason::SimulatedOwnersOff),
        Error::Invalid { kind, .. } => (Code::InvalidArgument, invalid_reason(*kind)),
        // What is left of memory is the machine's matter, and the operator's.
        Error::OutOfMemory | Error::Internal { .. } => return None,
    })
}

/// With all that is told besides. None as for [`coded`].
fn refusal(error: Error) -> Option<Refusal> {
    let (code, reason) = coded(&error)?;
    let message = error.to_string();
    let refusal = Refusal::new(code, reason);
    Some(match error {
        Error::Deadlock { worker, place, cycle } => deadlock(cycle, at(worker, place, refusal)),
        Error::LockTimeout { worker, place } => at(worker, place, refusal).push_back(RETRY_LOCK),
        Error::Busy => refusal.push_back(RETRY_BUSY),
        Error::Program { program, id, step, at, error } => self::refusal(*error)?
            .with("program", program)
            .with("program_id", id)
            .with("step", step + 1)
            .with("hook", at.hook)
            .with("hook_map", at.map)
            .with("hook_owner_id", at.owner),
        Error::ProgramDepth { program, limit } => refusal.with("skipped", program).with("limit", limit),
        Error::Overloaded { worker, queued } => {
            refusal.with("worker", worker).with("queued", queued).retry_after(RETRY_OVERLOADED)
        }
        Error::ShuttingDown => refusal.push_back(RETRY_ELSEWHERE),
        Error::MapNotFound { name } | Error::BoundMapGone { name } | Error::MapFreeing { name } => {
            refusal.with("map", name)
        }
        Error::MapExists { name, id } => refusal.with("map", name).with("map_id", id),
        Error::MapIdMismatch { name, expected: _, actual } => refusal.with("map", name).with("current_map_id", actual),
        Error::MapLimit { limit } => refusal.quota("server:maps".to_owned(), limit, &message),
        Error::ProgramExists { name, id } => refusal.with("program", name).with("program_id", id),
        Error::ProgramNotFound { name } => refusal.with("program", name),
        Error::ProgramLimit { limit } => refusal.quota("server:programs".to_owned(), limit, &message),
        Error::InvalidProgram { field, problem } => refusal.field(&field, &problem),
        Error::MapFull { name, max_elements } => {
            refusal.quota(format!("map:{name}"), max_elements, &message).with("map", name)
        }
        Error::Quota { of, limit, used } => whose(of, limit, &message, refusal).with("used", used),
        Error::OwnerLimit { limit, problem } => refusal.quota("server:owners".to_owned(), limit, &problem),
        Error::ElementNotFound { map } => refusal.with("map", map),
        Error::ElementExists { map, current } => refusal.with("map", map).with("current_version", current),
        Error::VersionMismatch { expected: _, current } => refusal.with("current_version", current),
        Error::OwnerExited { owner } => refusal.with("owner_id", owner),
        Error::Invalid { field, kind: _, problem } => refusal.field(field, &problem),
        Error::ProgramBudget { .. }
        | Error::DeadlinePassed
        | Error::LabStepsOff
        | Error::OwnerNotFound { problem: _ }
        | Error::OwnerDenied { problem: _ }
        | Error::SimulatedOwnersOff
        | Error::OutOfMemory
        | Error::Internal { problem: _ } => refusal,
    })
}

/// What the other one has, of a cycle of two.
fn deadlock(cycle: Deadlock, refusal: Refusal) -> Refusal {
    let Deadlock::Abba { other, held } = cycle else { return refusal };
    let mut refusal = refusal.retry_after(RETRY_DEADLOCK);
    if let Some(other) = other {
        refusal = refusal.with("other_worker", other);
    }
    match held {
        None => refusal,
        Some(LockPlace::Storage { owner }) => refusal.with("held_lock", "storage").with("held_owner_id", owner),
        Some(LockPlace::Bucket { map }) => refusal.with("held_lock", "bucket").with("held_map", map),
    }
}

/// Which lock it was.
fn at(worker: usize, place: LockPlace, refusal: Refusal) -> Refusal {
    let refusal = refusal.with("worker", worker);
    match place {
        LockPlace::Storage { owner } => refusal.with("lock", "storage").with("owner_id", owner),
        LockPlace::Bucket { map } => refusal.with("lock", "bucket").with("map", map),
    }
}

/// Whose bytes it was.
fn whose(of: QuotaOf, limit: u64, message: &str, refusal: Refusal) -> Refusal {
    match of {
        QuotaOf::Owner { owner } => refusal.quota(format!("owner:{owner}"), limit, message).with("owner_id", owner),
        QuotaOf::Server => refusal.quota("server:bytes".to_owned(), limit, message),
    }
}

fn invalid_reason(kind: Invalid) -> Reason {
    match kind {
        Invalid::Name => Reason::InvalidName,
        Invalid::ValueSize => Reason::InvalidValueSize,
        Invalid::Value => Reason::InvalidValue,
        Invalid::Argument => Reason::InvalidArgument,
        Invalid::Owner => Reason::InvalidOwner,
        Invalid::OwnerKind => Reason::InvalidOwnerKind,
    }
}

/// A field of the request is wrong: which, what was found and what was expected.
pub fn invalid(reason: Reason, field: &str, problem: &str) -> Status {
    Refusal::new(Code::InvalidArgument, reason).field(field, problem).status(format!("{field}: {problem}"))
}

/// The caller's deadline had passed when the call came.
pub fn deadline_passed() -> Status {
    refused(Error::DeadlinePassed)
}

/// The message had not come when its time was up.
pub fn message_too_late() -> Status {
    let message = "the request's message did not come in time: send it faster, or start the server with a higher \
                   --transfer-timeout-s";
    Refusal::new(Code::DeadlineExceeded, Reason::RequestDeadline).status(message.to_owned())
}

/// The message is none: bytes that do not decode, or no bytes where there must be a message.
pub fn invalid_message(problem: &str) -> Status {
    let problem = format!("it is not one whole message of this call's type: {problem}");
    invalid(Reason::InvalidMessage, "request", &problem)
}

/// The server is going down.
pub fn shutting_down() -> Status {
    refused(Error::ShuttingDown)
}

/// The message is over the limit.
pub fn message_too_large(limit: usize) -> Status {
    Refusal::new(Code::ResourceExhausted, Reason::MessageTooLarge)
        .with("limit", limit)
        .status(format!("the message is larger than {limit} bytes, the limit: send less, or start the server with a higher --max-message-size"))
}

/// What tonic's decoder means by a status, if it is one of its own; it has no reason then.
pub fn of_decoder(status: &Status, limit: usize) -> Option<Status> {
    match status.code() {
        // Nothing but the decoder says OUT_OF_RANGE, and only for this.
        Code::OutOfRange => Some(message_too_large(limit)),
        // What a handler calls internal has its incident in the details. Without: tonic's word for a message that it
        // cannot decode, or that is not there.
        Code::Internal if status.details().is_empty() => Some(invalid_message(status.message())),
        _ => None,
    }
}

/// A bug, or a failure of the machine. The caller gets a number; the log gets the same number and `problem`, when the
/// answer goes out (see [`Incident::of`]).
pub fn internal(problem: String) -> Status {
    // Every RandomState has other keys: the hash of anything is a random number.
    let incident = Incident { id: format!("{:016x}", RandomState::new().hash_one(0)), problem };
    let message = format!("internal error: the server's log has it as incident {}", incident.id);
    let mut status = Refusal::new(Code::Internal, Reason::Internal).with("incident", &incident.id).status(message);
    status.set_source(Arc::new(incident));
    status
}

/// A handler panicked; this is what it said.
pub fn panicked(payload: &(dyn Any + Send)) -> Status {
    internal(format!("a handler panicked: {}", said(payload)))
}

/// What a panic said.
pub fn said(payload: &(dyn Any + Send)) -> &str {
    let said = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    said.unwrap_or("(it did not say why)")
}

/// What is behind an internal error. Never sent.
#[derive(Debug, thiserror::Error)]
#[error("{problem}")]
pub struct Incident {
    /// The number that the caller got.
    pub id: String,
    /// What happened.
    pub problem: String,
}

impl Incident {
    /// The incident behind a status, if it has one.
    pub fn of(status: &Status) -> Option<&Incident> {
        std::error::Error::source(status)?.downcast_ref()
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Status {
        Refusal::new(Code::PermissionDenied, Reason::PermissionDenied).status(denied.problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lock_nesting() {
        let place = LockPlace::Bucket { map: "m".to_owned() };
        let status = refused(Error::Deadlock { worker: 3, place, cycle: Deadlock::Nesting });
        let info = status.get_details_error_info().expect("every error of ours has one");
        assert_eq!((status.code(), &*info.reason, &*info.metadata["worker"]), (Code::Aborted, "LOCK_NESTING", "3"));
        assert!(status.get_details_retry_info().is_none());
    }
}
