//! The rules of the repository that no compiler keeps, and the command line of `cargo xtask`.
//!
//! Each rule is a table and a pure function that returns what breaks it. One test runs the
//! function over this repository; others run it over a small broken example, to show that it sees.
#![forbid(unsafe_code)]

mod arrows;
mod cli;
mod ignored;
mod length;
mod links;
mod repository;
mod root;
mod unsafe_code;

/// Fails with one line for each thing that breaks the rule.
#[track_caller]
fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}\n  {}\n", broken.join("\n  "));
}
