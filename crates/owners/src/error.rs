//! Why an owner could not be found or registered.

use std::io;

use crate::{Identity, OwnerId};

/// Why an owner could not be found, registered or created. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The owner exists on this machine, but nothing was ever stored for it.
    #[error("{identity} exists, but is not an owner yet: create or update a value for it first")]
    NotRegistered {
        /// Who it is.
        identity: Identity,
    },

    /// There is no such owner on this machine (any more), and none is remembered.
    #[error("{problem}")]
    NotFound {
        /// What was looked for, and what is there instead.
        problem: String,
    },

    /// It was an owner, and has exited: its values are gone or about to go.
    #[error("owner {id} has exited and its values went with it")]
    Exited {
        /// The id it had.
        id: OwnerId,
    },

    /// One more owner would exceed a bound.
    #[error("the limit of {limit} {what} is reached: end or remove owners, or raise the limit")]
    Limit {
        /// The bound, in units of `what`.
        limit: u64,
        /// What is counted.
        what: &'static str,
    },

    /// A simulated owner was named, but this registry does not allow them.
    #[error("simulated owners are off: start the server with --allow-simulated-owners, or name a task or a cgroup")]
    SimulatedOff,

    /// The reference itself is malformed.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field at fault, as the API names it: `task.pid`, `cgroup.path`, `cgroup.id`, ...
        field: &'static str,
        /// What was wrong and what is expected.
        problem: String,
    },

    /// The path belongs to a cgroup v1 hierarchy, which has no owners.
    #[error("{path:?} is under the cgroup v1 mount {mount:?}: only cgroup v2 directories are owners")]
    V1Cgroup {
        /// The path as given.
        path: String,
        /// The v1 mount that it is under.
        mount: String,
    },

    /// This machine or kernel cannot do it.
    #[error("{problem}")]
    Unsupported {
        /// What is missing, and since when Linux has it.
        problem: String,
    },

    /// The kernel refused us the right to look.
    #[error("{problem}")]
    Denied {
        /// What was refused.
        problem: String,
    },

    /// An unexpected error of a system call.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl OwnerError {
    pub(crate) fn not_found(problem: impl Into<String>) -> Self {
        Self::NotFound { problem: problem.into() }
    }

    pub(crate) fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }

    pub(crate) fn io(doing: &'static str, source: rustix::io::Errno) -> Self {
        Self::Io { doing, source: source.into() }
    }
}

/// Why a [`Registry`](crate::Registry) could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch for exits: {doing}: {source}")]
pub struct StartError {
    /// What was tried.
    pub doing: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

impl StartError {
    pub(crate) fn new(doing: &'static str, source: impl Into<io::Error>) -> Self {
        Self { doing, source: source.into() }
    }
}
