//! Why the kernel refuses, by what it means instead of by number.

use std::io;

use crate::OwnerKind;

/// A refusal; nothing has changed then. The text says what was wrong, what was expected and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// EPERM, EACCES: no right to use bpf(2).
    #[error(
        "this process may not use bpf(2): run it as root or give it CAP_BPF (in a container: --cap-add BPF, and a seccomp profile \
         that lets bpf(2) through)"
    )]
    Denied,
    /// ENOSYS, or a type of map that the kernel does not know.
    #[error(
        "this kernel has no local storage for {kind}s: tasks need Linux 5.11, cgroups 6.2, both CONFIG_BPF_SYSCALL"
    )]
    Unsupported {
        /// Whose storage was asked for.
        kind: OwnerKind,
    },
    /// An argument is wrong: seen here, or EINVAL, or E2BIG.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which one.
        field: &'static str,
        /// What was wrong and what was expected.
        problem: String,
    },
    /// ENOENT: the owner has no value in this map, or has left. The kernel does not say which.
    #[error("there is no value: the owner has none in this map, or has left")]
    NotFound,
    /// EEXIST: the owner has a value in this map already.
    #[error("the owner has a value in this map already")]
    Exists,
    /// EBADF: the descriptor is not one of an owner of the map's kind.
    #[error("the descriptor names no owner of this map: expected {}", .expected.descriptor())]
    WrongOwner {
        /// Whose values the map holds.
        expected: OwnerKind,
    },
    /// EAGAIN: another create for the same owner was faster; the same call may well succeed now.
    #[error("another create for the same owner came first: try again")]
    Again,
    /// EBUSY: this processor was in local storage already (kernels whose local storage has per-CPU counters).
    #[error("this processor was busy in local storage already: try again")]
    Busy,
    /// EDEADLK: a lock on the way was refused because waiting would never end.
    #[error("a lock on the way was refused: waiting for it would be a deadlock")]
    Deadlock,
    /// ETIMEDOUT: a lock on the way was not had in time.
    #[error("a lock on the way was not free in time: try again after a pause")]
    TimedOut,
    /// ENOMEM: no memory for the value.
    #[error("the kernel has no memory for it")]
    OutOfMemory,
    /// EMFILE, ENFILE: a map is a descriptor, and there is none left.
    #[error("no descriptor is left for the map: free maps, or raise the limit of open files (ulimit -n)")]
    Descriptors,
    /// Anything else.
    #[error("bpf(2) failed: {}", io::Error::from_raw_os_error(*.errno))]
    Other {
        /// The number.
        errno: i32,
    },
}

/// What any call of bpf(2) may answer. `kind` is whose storage it was about.
pub(crate) fn refused(errno: i32, kind: OwnerKind) -> Error {
    match errno {
        libc::EPERM | libc::EACCES => Error::Denied,
        libc::ENOSYS => Error::Unsupported { kind },
        libc::ENOENT => Error::NotFound,
        libc::EEXIST => Error::Exists,
        libc::EBADF => Error::WrongOwner { expected: kind },
        libc::EAGAIN => Error::Again,
        libc::EBUSY => Error::Busy,
        libc::EDEADLK => Error::Deadlock,
        libc::ETIMEDOUT => Error::TimedOut,
        libc::ENOMEM => Error::OutOfMemory,
        libc::EMFILE | libc::ENFILE => Error::Descriptors,
        errno => Error::Other { errno },
    }
}
