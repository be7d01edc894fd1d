//! Linux tasks and cgroups as owners: identity, liveness, exit events.
