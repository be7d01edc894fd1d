//! What a call may end in, and why a case fails.

use std::fmt;

use holdfast_proto::ERROR_DOMAIN;
use holdfast_proto::v1::Reason;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// An answer, or why there is none. No call is tried again: the refusals are what is looked at.
pub(crate) type Answer<T> = Result<T, Refused>;

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refused {
    /// The status code.
    pub code: Code,
    /// The server's reason; [`Reason::Unspecified`] if it is none that this version knows, or if it was not the server who said so.
    pub reason: Reason,
    /// In words.
    pub message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.word(), self.message)
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Refused {
        let info = status.get_details_error_info().filter(|info| info.domain == ERROR_DOMAIN);
        let reason = info.and_then(|info| Reason::from_code_name(&info.reason)).unwrap_or_default();
        Refused { code: status.code(), reason, message: status.message().to_owned() }
    }
}

/// Why something did not come out as it must: what was seen, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub(crate) String);

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Failed {
        Failed(format!("a call was refused: {refused}"))
    }
}

impl Refused {
    /// As one word: the reason, or else the code.
    pub(crate) fn word(&self) -> String {
        match self.reason {
            Reason::Unspecified => code_name(self.code),
            reason => reason.code_name().to_owned(),
        }
    }
}

/// How an answer ended, as one word: `ok`, or as [`Refused::word`].
pub(crate) fn ending<T>(answer: &Answer<T>) -> String {
    answer.as_ref().map_or_else(Refused::word, |_| "ok".to_owned())
}

/// As gRPC writes it: `DEADLINE_EXCEEDED`.
pub(crate) fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn only_our_own_reasons_are_taken_for_reasons() {
        let said = |domain: &str| {
            let details = ErrorDetails::with_error_info("LOCK_TIMEOUT", domain, HashMap::new());
            Refused::from(Status::with_error_details(Code::Unavailable, "so it is", details))
        };
        assert_eq!((said(ERROR_DOMAIN).reason, said(ERROR_DOMAIN).code), (Reason::LockTimeout, Code::Unavailable));
        assert_eq!(said(ERROR_DOMAIN).to_string(), "LOCK_TIMEOUT: so it is");
        assert_eq!(said("elsewhere").to_string(), "UNAVAILABLE: so it is");
        assert_eq!(ending::<()>(&Err(said("elsewhere"))), "UNAVAILABLE");
        assert_eq!(code_name(Code::DeadlineExceeded), "DEADLINE_EXCEEDED");
        assert_eq!(ending(&Ok(())), "ok");
    }
}
