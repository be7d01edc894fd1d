//! The server from outside: over sockets, as a client meets it.

mod drain;
mod harness;
mod machine;
mod owners;
mod process;
mod raw;
mod status_table;
mod transport;
