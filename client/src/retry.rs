//! Which refusals are tried again, when, and how often.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower::retry::budget::{Budget as _, TpsBudget};

use crate::{Error, Reason};

/// The first delay where the server names none.
const DEFAULT_DELAY: Duration = Duration::from_millis(50);
/// The longest delay between two tries, unless the server asks for more.
const MAX_DELAY: Duration = Duration::from_secs(5);
/// For how long a call counts in the budget.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);
/// Retries a second that a client always has, also one that calls rarely.
const BUDGET_RESERVE_PER_SECOND: u32 = 5;
/// Retries allowed for each call beyond that.
const BUDGET_RATIO: f32 = 0.2;

/// Which refusals are tried again: the ones that the API's table allows (LOCK_DEADLOCK_ABBA, LOCK_TIMEOUT, STORAGE_BUSY, OVERLOADED,
/// SHUTTING_DOWN), and only when the server's own `ErrorInfo` says so, since then nothing has happened.
///
/// The delay is the one that the server asks for, doubled with each try, and up to half as long again at random, so
/// that clients refused together do not come back together. Retries end with the call's deadline, with
/// `max_attempts`, and when the budget is spent: per client (clones share it) one retry for every five calls of the
/// last ten seconds, and five a second in any case, so that an overloaded server is not held under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    max_attempts: u32,
}

impl Retry {
    /// Every call is tried once.
    pub const OFF: Self = Self { max_attempts: 1 };

    /// At most so many tries, the first included; 0 counts as 1.
    pub const fn max_attempts(attempts: u32) -> Self {
        Self { max_attempts: attempts }
    }

    /// How long to wait before the next try, None if there is to be none. `attempt` is the number of the try that
    /// failed, from 1; `random` is in [0, 1).
    fn delay(&self, error: &Error, attempt: u32, random: f64) -> Option<Duration> {
        let Error::Refused(refusal) = error else { return None };
        if !may_pass(refusal.reason) || attempt >= self.max_attempts {
            return None;
        }
        let asked = refusal.retry_after.unwrap_or(DEFAULT_DELAY);
        let grown = asked.saturating_mul(1_u32.checked_shl(attempt - 1).unwrap_or(u32::MAX)).min(MAX_DELAY.max(asked));
        Some(grown.saturating_add(grown.min(MAX_DELAY).mul_f64(random / 2.0)))
    }
}

impl Default for Retry {
    /// Four tries.
    fn default() -> Self {
        Self::max_attempts(4)
    }
}

/// Whether the same call may succeed a little later, as the table of `proto/README.md` says.
fn may_pass(reason: Reason) -> bool {
    match reason {
        Reason::LockDeadlockAbba
        | Reason::LockTimeout
        | Reason::StorageBusy
        | Reason::Overloaded
        | Reason::ShuttingDown => true,
        Reason::Unspecified
        | Reason::LockDeadlockAa
        | Reason::LockNesting
        | Reason::ProgramDepth
        | Reason::ProgramBudget
        | Reason::RequestDeadline
        | Reason::MessageTooLarge
        | Reason::MapFull
        | Reason::Quota
        | Reason::OwnerLimit
        | Reason::MapLimit
        | Reason::ProgramLimit
        | Reason::ElementExists
        | Reason::MapExists
        | Reason::MapNotFound
        | Reason::OwnerNotFound
        | Reason::OwnerExited
        | Reason::ElementNotFound
        | Reason::VersionMismatch
        | Reason::MapIdMismatch
        | Reason::MapFreeing
        | Reason::ProgramExists
        | Reason::ProgramNotFound
        | Reason::InvalidArgument
        | Reason::InvalidName
        | Reason::InvalidMapKind
        | Reason::InvalidValueSize
        | Reason::InvalidValue
        | Reason::InvalidOwner
        | Reason::InvalidOwnerKind
        | Reason::InvalidMode
        | Reason::InvalidPageSize
        | Reason::InvalidPageToken
        | Reason::InvalidMessage
        | Reason::InvalidProgram
        | Reason::PermissionDenied
        | Reason::SimulatedOwnersOff
        | Reason::LabStepsOff
        | Reason::Internal => false,
    }
}

/// The policy and what is left to spend. Clones share the budget.
#[derive(Clone)]
pub(crate) struct Retries {
    policy: Retry,
    budget: Arc<TpsBudget>,
}

impl Retries {
    pub(crate) fn new(policy: Retry) -> Self {
        Self { policy, budget: Arc::new(TpsBudget::new(BUDGET_WINDOW, BUDGET_RESERVE_PER_SECOND, BUDGET_RATIO)) }
    }

    /// Counts one call, which earns its part of a retry.
    pub(crate) fn begin(&self) {
        self.budget.deposit();
    }

    /// How long to wait before the next try, None if there is to be none. A retry that would begin when `left` of
    /// the deadline is over is not worth the wait, nor a token.
    pub(crate) fn next(&self, error: &Error, attempt: u32, left: Duration) -> Option<Duration> {
        let delay = self.policy.delay(error, attempt, fastrand::f64())?;
        (delay < left && self.budget.withdraw()).then_some(delay)
    }
}

impl fmt::Debug for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retries").field("policy", &self.policy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
