//! Dedicated pinned threads, and the border between them and tokio.
//!
//! A *worker* is a value that lives on a thread of its own, bound to one processor. It is built there, so it may own what
//! is not `Send`. The rest of the program hands it jobs through a bounded mailbox and gets the answers as futures:
//!
//! ```text
//!  tokio task ── submit ──► bounded mailbox ── batches ──► pinned thread: Worker::run(Job) ─┐
//!      ▲                                                        └─ in between: Worker::background
//!      └────────────── Ticket ◄──────────── Responder::send ◄────────────────────────────────┘
//! ```
//!
//! # A job's life
//!
//! One compare-exchange (`slot.rs`) for each arrow out of *queued*, so that exactly one happens:
//!
//! ```text
//!  submit ─── the mailbox is full ──────────────────────────────────────► Overloaded
//!     │   └── the executor stops, or the worker has ended ──────────────► Stopped
//!     ▼
//!  queued ─── the worker's turn ──► running ─── Responder::send ────────► the reply
//!     │                                └─────── Responder dropped ──────► Dropped, counted
//!     ├────── the deadline passes (seen by the ticket or the worker) ───► DeadlinePassed    ┐ cancelled:
//!     ├────── the ticket is dropped ────────────────────────────────────► nobody asks       ├ never runs
//!     └────── the worker ends, and its mailbox with it ─────────────────► Stopped           ┘
//! ```
//!
//! * Work that was cancelled never runs. Work that runs is awaited, also when its deadline passes meanwhile: so of all
//!   refusals only [`Refused::Dropped`] leaves open what has happened; the others mean that nothing has.
//! * A mailbox has a bound. A full one refuses at once ([`Refused::Overloaded`]); tokio's threads never wait for room.
//!   Cancelled jobs keep their place until the worker gets to them.
//!
//! # A worker's life
//!
//! ```text
//!  pinned ──► built ──► a batch of jobs ──► one piece of background work ──► parked ──► ...
//!                          │ panic               │ stop                        │ stop
//!                          └─────────────────────┴─────────────────────────────┴──► ended ──► joined
//! ```
//!
//! * A worker that panics ends with its thread: what it was changing may be half done, so nobody goes on with it. Its
//!   mailbox refuses from then on ([`Refused::Stopped`]), which is logged, and shown by [`WorkerInfo::alive`]; the other
//!   workers go on. It is not replaced: a new one would meet what the old one has left (a lock that is held for ever, say).
//! * A thread that may not run where it should (no right, no such processor) runs anywhere; one warning tells of all.
//!
//! # Waking
//!
//! Both sides put off their wake-ups and wake what belongs together once: [`together`], [`deliver`]. A worker that is going to
//! wait inside of a job delivers before, so that no answer that is there waits with it.
//!
//! The shape (handle, worker, and a message of request, responder, span and enqueue time between them) is that of
//! linkerd2-proxy's balancer queue; the responder that cannot be forgotten is crucible's.

mod bell;
mod config;
mod error;
mod executor;
mod gate;
mod info;
mod job;
mod mailbox;
mod placement;
mod slot;
mod sync;
mod thread;
mod ticket;
mod wakes;
mod worker;
mod workers;

pub use config::Config;
pub use error::{Refused, StartError, StopError};
pub use executor::Executor;
pub use info::{Counters, WorkerInfo};
pub use job::{Job, Responder};
pub use placement::{allowed_cpus, default_cpus};
pub use ticket::Ticket;
pub use wakes::{deliver, idle, ring_when_idle, together};
pub use worker::{Background, Seat, Worker};
pub use workers::Workers;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
