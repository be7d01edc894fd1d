//! How a call can fail.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use holdfast_proto::ERROR_DOMAIN;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::transport::transport_error;
use crate::{Endpoint, Reason};

/// How a call can fail. Only after [`Error::Unknown`] may a write have happened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The call was never made: an argument cannot be right.
    #[error("{0}")]
    Usage(String),
    /// No connection could be made, so that nothing was sent.
    #[error("cannot connect to {endpoint}: {message}")]
    Connect {
        /// Where to.
        endpoint: Endpoint,
        /// What went wrong, such as `Connection refused`.
        message: String,
    },
    /// The server refused, and says why: nothing has changed.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// Nobody knows whether the call happened: the deadline passed without an answer, the connection broke, or what
    /// answered is not the server (a proxy, say). A read may be repeated at will; a write if it carries an expected
    /// version, or if doing it twice does no harm.
    #[error("{message} ({code:?})")]
    Unknown {
        /// The gRPC status code.
        code: Code,
        /// What went wrong.
        message: String,
    },
}

/// A refusal of the server: nothing has changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The gRPC status code.
    pub code: Code,
    /// Why; [`Reason::Unspecified`] if this version of the client does not know the server's word for it.
    pub reason: Reason,
    /// The server's word for why, such as `OWNER_EXITED`.
    pub reason_name: String,
    /// What was wrong and what was expected, in words.
    pub message: String,
    /// More about it, as `proto/README.md` tells for the reason: `current_version`, for example.
    pub metadata: BTreeMap<String, String>,
    /// How long to wait before the next try. None where a retry makes no sense.
    pub retry_after: Option<Duration>,
    /// The fields of the request that were wrong.
    pub violations: Vec<FieldViolation>,
}

/// A field of a request that was wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's name in the request, such as `value` or `task.pid`.
    pub field: String,
    /// What was expected.
    pub description: String,
}

impl Error {
    /// The reason, if the server refused and gave one that this version of the client knows.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason).filter(|reason| *reason != Reason::Unspecified),
            Self::Usage(_) | Self::Connect { .. } | Self::Unknown { .. } => None,
        }
    }

    /// Whether a write that failed like this may have happened all the same.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// Only an `ErrorInfo` of our domain makes a refusal; everything else leaves the outcome open.
    pub(crate) fn from_status(status: &Status, endpoint: &Endpoint) -> Self {
        if let Some(error) = transport_error(status) {
            // hyper's own words add nothing to the cause.
            let message = chain(error.source().unwrap_or(error));
            return match error.is_connect() {
                true => Self::Connect { endpoint: endpoint.clone(), message },
                false => Self::Unknown { code: Code::Unavailable, message: format!("{endpoint}: {message}") },
            };
        }
        let details = status.get_error_details();
        let Some(info) = details.error_info().filter(|info| info.domain == ERROR_DOMAIN) else {
            let message = match status.message() {
                "" => format!("{endpoint} answered without a reason"),
                message => format!("{endpoint}: {message}"),
            };
            return Self::Unknown { code: status.code(), message };
        };
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        Self::Refused(Box::new(Refusal {
            code: status.code(),
            reason: Reason::from_code_name(&info.reason).unwrap_or_default(),
            reason_name: info.reason.clone(),
            message: status.message().to_owned(),
            metadata: info.metadata.clone().into_iter().collect(),
            retry_after: details.retry_info().and_then(|retry| retry.retry_delay),
            violations: violations
                .iter()
                .map(|v| FieldViolation { field: v.field.clone(), description: v.description.clone() })
                .collect(),
        }))
    }

    /// The answer lacks what the API promises.
    pub(crate) fn malformed(endpoint: &Endpoint, missing: &str) -> Self {
        Self::Unknown { code: Code::Internal, message: format!("{endpoint}: the answer has no {missing}") }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason_name, self.message)?;
        for violation in &self.violations {
            // The message often is the description of its only violation.
            if !self.message.contains(&violation.description) {
                write!(f, "; {}: {}", violation.field, violation.description)?;
            }
        }
        Ok(())
    }
}

impl StdError for Refusal {}

/// The error and its sources in one line, each only if it adds something.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
