//! The laboratory: what the two guards of local storage do with the same work.
//!
//! * [`spurious`]: threads that know nothing of each other, in this process and on the core itself. Nothing recurs, so that every refusal
//!   is spurious.
//! * [`conformance`]: the cases of recursion with the numbers that each must come to, over gRPC.
//! * [`deadlock`]: how soon callers are told of a deadlock, and what everybody else gets meanwhile, over gRPC.
//!
//! The last two work on a [`Target`]: any server that runs, or a [`Server`] that they start in this process, for each guard one. Their programs
//! go through the public API and its text form alone.
//!
//! ```text
//!   Server ──► Target ──► World (what one case makes, and takes away again) ──► case, or kind of deadlock
//!              clients,    maps, programs, owners: one prefix
//!              GetInfo
//! ```

#![forbid(unsafe_code)]

pub mod conformance;
pub mod deadlock;
mod failed;
mod plot;
mod server;
pub mod spurious;
mod target;
mod world;

pub use failed::{Failed, Refused};
pub use plot::{PlotError, plot, plot_times};
pub use server::{Server, ServerError};
pub use target::{ConnectError, Guard, Target};
