//! Automation of the repository: `cargo xtask ci` and its parts.
fn main() {}
