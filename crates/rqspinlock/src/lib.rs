//! A resilient queued spinlock for userspace: lock() may fail with Deadlock or TimedOut.
