//! The Holdfast server: gRPC in front of the [`engine`].
//!
//! ```text
//!   bytes ──▶ transport ──▶ calls ──▶ tonic's routes ──▶ services ──▶ engine
//!             connections,   span, drain,                 authorize, convert,
//!             bounds, ends   deadline, panics             one call, convert back; status
//! ```
//!
//! [`config::CommandLine`] → [`config::Config`] → [`app::App`] → [`app::Serving`], which the binary and the tests share.
//!
//! Invariants: wire types stay in `services`, `convert`, `status` and `pages`. No lock of the domain is waited for here:
//! reads are lock-free, a mutation is done here as long as its locks are free,
//! and everything else runs on the engine's pinned workers.

#![forbid(unsafe_code)]

pub mod app;
pub mod authorize;
pub mod calls;
pub mod config;
mod convert;
pub mod logging;
mod pages;
mod services;
mod status;
pub mod systemd;
pub mod transport;
