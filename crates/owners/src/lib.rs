//! Owners: the Linux tasks and cgroups that storage hangs on, and simulated ones for load tests.
//!
//! A [`Registry`] knows every owner that has been registered, tells when it has exited, and keeps one *attachment* of
//! the caller's for each (the storage core's slot). It knows nothing of storage itself.
//!
//! # The life of an owner
//!
//! ```text
//!                 register() or create_simulated()
//!   (on the machine) ─────────────────────────────▶ REGISTERED ── found by pid, path, id, owner id
//!                                                       │
//!          pidfd readable, directory removed,           │  from here on `has_exited()` is true,
//!          or remove_simulated()                        │  whether the exit thread has seen it or not
//!                                                       ▼
//!                                                     EXITED ──── on_exit(owner), once, on "holdfast-exits"
//!                                                       │         (simulated: returned to the caller instead)
//!                     retire(), when its storage        │
//!                     has been destroyed                ▼
//!                                                  REMEMBERED ── only its names: lookups say "exited"
//!                                                       │
//!                     `exited_kept` later ones          ▼
//!                                                  (forgotten) ── lookups say "not found"
//! ```
//!
//! # Who is who
//!
//! A pid is a name, not an identity: it is reused. A task's identity is the inode number of its pidfd where the kernel
//! has pidfs (Linux 6.9: one number per task, never reused until reboot), elsewhere the pid together with the start
//! time of `/proc/PID/stat`, whose tick of 10 ms can hold two tasks; then the pidfds tell them apart. A cgroup's
//! identity is its v2 id, which is the inode number of its directory.
//!
//! Two rules keep a new owner from ever seeing what belonged to an old one:
//!
//! 1. A lookup by a reusable name (pid, path) asks the kernel whether the registered owner is still there, and if not,
//!    whether the name belongs to somebody else now.
//! 2. Exit events may come late. Whoever reads an owner's value asks [`Owner::has_exited`] *after* the lookup.
//!
//! Threads are tasks of their own, named by their tid. The pid of a process stands for the whole process, which exits
//! with its last thread. When a thread calls execve(2) its process goes on under the pid, and the owner of its tid exits.
//!
//! # Threads and blocking
//!
//! [`Registry::find`] and [`Registry::get`] are for asynchronous workers: at most a few system calls that do not sleep.
//! [`Registry::register`] reads `/proc` and walks the cgroup directory and belongs on a blocking thread. One dedicated
//! thread, `holdfast-exits`, waits for all exits with epoll.

#![cfg(target_os = "linux")]

pub mod cgroup;
mod error;
mod exits;
mod index;
mod owner;
mod peer;
mod registry;
mod remembered;
mod system;
mod task;

pub use error::{OwnerError, StartError};
pub use owner::{Identity, Owner, OwnerId, OwnerKind, OwnerRef};
pub use peer::{Peer, peer_of};
pub use registry::{Config, Counts, Registry};
pub use system::{
    give_back_memory, in_initial_cgroup_namespace, in_initial_pid_namespace, pid_namespace_inode,
    raise_descriptor_limit,
};
