//! Owners of the real machine: child processes, threads, cgroup directories.
