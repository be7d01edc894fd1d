//! The server from outside: over sockets, as a client meets it.

mod bad_input;
mod batch;
mod bounds;
mod crowd;
mod descriptors;
mod discovery;
mod drain;
mod fuzz;
mod harness;
mod histories;
mod hostile;
mod http2;
mod listings;
mod load;
mod machine;
mod memory;
mod owners;
mod pipeline;
mod process;
mod raw;
mod status_table;
mod systemd;
mod transport;
mod values;
mod warnings;
