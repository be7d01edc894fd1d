//! Owners of the real machine: child processes, threads, cgroup directories.

mod bounds;
mod cgroups;
mod peers;
mod pid_reuse;
mod simulated;
mod stress;
mod support;
mod tasks;
