//! The client library against servers that say what the test wants, and the command line against the real one.

mod batch;
mod cgroups;
mod client;
mod command_line;
mod examples;
mod fake;
#[cfg(feature = "lab")]
mod lab;
mod library;
mod programs;
mod readme;
mod server;
mod session;
mod tour;

use std::fmt::Display;
use std::io::{self, Write};

/// Says aloud that something was not tested here, and why. Not with println, which the test harness keeps to itself where a test passes.
fn skipped(what: &str, why: impl Display) {
    let _ = io::stderr().write_all(format!("SKIPPED {what}: {why}\n").as_bytes());
}
