//! The Holdfast server: task and cgroup storage maps over gRPC.
