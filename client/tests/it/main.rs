//! The client library against servers that say what the test wants, and the command line against the real one.

mod client;
mod command_line;
mod fake;
mod library;
mod readme;
mod server;
mod tour;
