//! Dedicated pinned threads and the border between them and tokio.
