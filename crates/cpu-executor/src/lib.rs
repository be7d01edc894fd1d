//! Dedicated pinned threads, and the border between them and tokio.
//!
//! ```text
//!  tokio task ── submit ──► bounded mailbox ── batches ──► pinned thread: Worker::run(Job) ─┐
//!      ▲                                                        └─ in between: Worker::background
//!      └────────────── Ticket ◄──────────── Responder::send ◄────────────────────────────────┘
//! ```
//!
//! A job's life, one compare-exchange for each arrow out of *queued*, so that exactly one happens:
//!
//! ```text
//!   queued ── the worker's turn ──────────────► running ── Responder::send ──► answered
//!      │                                           └─ Responder dropped ─────► answered with Refused::Dropped, counted
//!      └── deadline passed, or Ticket dropped ──► cancelled (never runs)
//! ```
//!
//! * Work that was cancelled never runs. Work that runs is awaited, also when its deadline passes meanwhile: an answer that
//!   says "deadline passed" means that nothing has happened.
//! * A mailbox has a bound. A full one refuses at once ([`Refused::Overloaded`]); tokio's threads never wait for room.
//! * A worker is built on its own thread and never leaves it, so it may own what is not `Send`.
//! * A worker that panics ends with its thread: what it was changing may be half done, so nobody goes on with it. Its
//!   mailbox refuses from then on ([`Refused::Stopped`]), which is logged and shown by [`WorkerInfo::alive`].
//!
//! The shape (handle, worker, and a message of request, responder, span and enqueue time between them) is that of linkerd2-proxy's
//! balancer queue; the responder that cannot be forgotten is crucible's.

mod executor;
mod info;
mod job;
mod phase;
mod placement;
mod thread;
mod ticket;

pub use executor::{Config, Executor, StartError, StopError, Workers};
pub use info::WorkerInfo;
pub use job::{Job, Refused, Responder};
pub use placement::{allowed_cpus, default_cpus};
pub use thread::{Background, Seat, Worker};
pub use ticket::Ticket;
