//! The domain API of Holdfast: maps and owners by name, operations on them, and the way of each to where it runs.
//!
//! ```text
//!   caller (tokio) ── get, lists ──► maps, owners (registries) ──► local-storage, lock-free, on the calling thread
//!        │
//!        ├─ create, update, delete ──► local-storage, on the calling thread, if it has a Cpu and every lock is free
//!        │                                │ else
//!        └─ free ─────────────────────────┴──► Op + deadline ──► cpu-executor ──► Worker (pinned: owns a Cpu) ──► local-storage
//!   exit thread ── Op::Destroy ─────────────────────────────────────┘
//! ```
//!
//! * An operation on an owner that has to wait for a lock, or runs a program, does so on the worker that the owner's id hashes to: those that
//!   wait keep their order, and one that waits holds up no thread that serves others ([`Engine::run_inline`]).
//! * A [`Batch`] and a [`Pipeline`] keep the order of their operations on an owner. What is left to a worker goes there as a few jobs of many.
//! * A map's free runs on the worker that its id hashes to, in steps between other operations.
//! * Only a create registers an owner, on a blocking thread; everything else only looks.
//! * A call by a reusable name (pid, path) answers only for whoever has the name now: see [`Engine::get`].
//!
//! Invariant: no lock that can be waited for is taken on the caller's thread. Invariant: nothing here knows gRPC.

#![forbid(unsafe_code)]

mod config;
mod engine;
mod error;
mod maps;
mod operations;
pub mod program;
mod refusal;
mod types;
mod worker;

pub use crate::engine::{BATCH_ITEMS, Batch, Engine, Pipeline, SIMULATED_PER_CALL};
pub use config::{Config, StartError};
/// For whoever configures an engine: where its threads may go.
pub use cpu_executor;
pub use cpu_executor::WorkerInfo;
pub use error::{Deadlock, Error, Failure, Invalid, LockPlace, QuotaOf};
/// For whoever configures an engine: its owners, and who a peer on a socket is.
pub use owners;
pub use owners::{Counts as OwnerCounts, Identity, OwnerId, OwnerKind, OwnerRef, Peer};
pub use rqspinlock::Events as LockEvents;
pub use types::{
    BatchItems, BatchOwners, Call, Conditions, Credentials, Cursor, ElementPage, Got, Guard, InlineStats,
    ListedElement, MapId, MapInfo, MapSpec, MapState, Operation, Outcome, OwnerInfo, OwnerState, Stats, UpdateMode,
    Version, WorkerStats, Written,
};
