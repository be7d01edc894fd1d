//! Histories of concurrent calls on one (map, owner), and whether they are linearizable: whether each call can have taken
//! effect at one moment between its call and its answer, so that all of them together make sense one after the other.
//!
//! ```text
//!   Client ──begin──► a call at random, with a stamp ──► the core, the engine or the server
//!     ▲                                                               │
//!     └──────end────────── the outcome, with a stamp ◄────────────────┘
//!     │
//!     └─► History ──► check ──► linearizable, or a Violation that tells which answer makes no sense
//!                       │
//!                       └─ Cell: what one element does when it is asked one call after the other
//! ```
//!
//! A test brings the middle part; [`survey`] repeats it. The same clients and the same check serve all three levels.
//!
//! # Outcomes
//!
//! An answer tells what the call found or did. A *refusal* promises that nothing has happened, and is held to it: its call
//! is no part of the history, so that an effect of it is an effect that nobody caused. After an *unknown* outcome (a caller
//! that went away, a lost connection) the call may have taken effect at any moment since it was made, or never; the values
//! that it would have written are unique, and its version is learned from whoever reads it.
//!
//! # Why no checker from elsewhere
//!
//! A write's version is drawn by who is asked, and nobody knows it where the outcome is unknown. stateright's tester
//! computes what a call without an answer returns, copies the rest of the history at every step and remembers nothing of
//! what it has tried; todc-utils' has no calls without an answer; lincheck's runs its own scenarios, under loom. None tells
//! which answer is wrong.

#![forbid(unsafe_code)]

mod call;
mod cell;
mod check;
mod client;
mod record;
mod survey;
mod violation;

pub use call::{Answer, Call, Mode, Outcome, Value, Version};
pub use check::check;
pub use client::{Client, abandon};
pub use record::{Clock, History, Record, Tally};
pub use survey::{CALLS, CLIENTS, measured, survey, wanted};
pub use violation::Violation;

#[cfg(test)]
mod tests;
