//! The real thing: task and cgroup local storage of the running kernel, through bpf(2).
//!
//! ```text
//!   KernelMap::create ── BTF_LOAD, MAP_CREATE ──► a descriptor of the map  ◄── dropping it frees the map
//!        │
//!        └── update, get, delete ── key: a descriptor of the owner ──► the value that the kernel keeps for
//!                                   (a pidfd, or a cgroup's directory)  this task or cgroup in this map
//! ```
//!
//! Holdfast is the userspace form of this. The kernel's own is here as an oracle (the engine's tests send both the same
//! operations and compare every answer) and as a peer in benchmarks; its surface follows the engine's, so that it can
//! become a second engine behind the same API.
//!
//! It needs CAP_BPF, and Linux 5.11 for tasks, 6.2 for cgroups: ask [`available`] first.
//!
//! # Where Holdfast and the kernel differ
//!
//! On purpose, and nowhere else, as far as the oracle looks (seen on Linux 6.18). It knows each row of the first table and counts what it
//! meets of it.
//!
//! | | the kernel | Holdfast |
//! |---|---|---|
//! | a task that is a zombie | is still there: its values can be read, written and deleted until it is reaped | has left: OWNER_EXITED |
//! | an owner that has left (reaped, removed) | ENOENT, as for an absent value | not found, with the reason OWNER_EXITED while it is remembered, OWNER_NOT_FOUND otherwise |
//! | an owner of the other kind | EBADF: no such descriptor | invalid argument: owner kind |
//! | a value of another length than the map's | cannot be said: bpf(2) takes as many bytes as the map wants, [`KernelMap::update`] refuses | invalid argument: value |
//! | a map's value size of 0, or over 65,407 bytes | EINVAL, E2BIG | invalid argument: value size (the limit can be raised) |
//!
//! What only one of the two has, so that there is nothing to compare:
//!
//! | | the kernel | Holdfast |
//! |---|---|---|
//! | a create that lost the race for an owner's first value, or met the end of its storage | EAGAIN | is tried again, until the deadline |
//! | a delete that lost the race to another | success | not found |
//! | a lock that was refused | EBUSY, or EDEADLK and ETIMEDOUT | DEADLOCK, LOCK_TIMEOUT; nothing has changed either way |
//! | versions, compare and swap | none | every element has one |
//! | get or create | for programs only | yes |
//! | listing (get_next_key) | ENOTSUPP | yes, in pages |
//! | max_elements | must be 0: memory is the limit | a limit, then MAP_FULL |
//! | names of maps | up to 15 bytes, for people only, need not be unique | up to 128 bytes, unique |
//! | freeing | closing the last descriptor; says nothing | a call, which says how many elements there were |
//! | directories of cgroup v1 | are taken | refused |
//! | flags | any 64 bits: unknown ones are EINVAL; BPF_F_LOCK for values with a bpf_spin_lock | a mode, so that there is no unknown one in here; gRPC checks |

#![cfg(target_os = "linux")]

mod btf;
mod error;
mod map;
mod sys;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use map::{KernelMap, KernelOwner, MAX_VALUE_SIZE, MapSpec, OwnerKind, UpdateMode, available};
