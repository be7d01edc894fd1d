//! The laboratory: what the two guards of local storage do with the same work, in this process and without a server.
//!
//! The work is that of threads that know nothing of each other: each makes and deletes a value of an owner of its own. Nothing recurs, so that
//! every refusal is spurious. See [`spurious`].

#![forbid(unsafe_code)]

mod plot;
pub mod spurious;

pub use plot::{PlotError, plot};
