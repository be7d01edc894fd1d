//! mimalloc, and a thread that gives back to the system what is free.
//!
//! ```text
//!  a page of blocks is all free ─► marked in its arena ── the keeper's next turn ─► madvise ─► the system's
//!                                       └── whoever wants a page meanwhile has it again
//! ```
//!
//! By itself mimalloc does that second step in the middle of an allocation, of whatever thread, once a second has passed: after a large
//! map was freed that holds up the thread, and the calls of all its connections, for up to 16 milliseconds at a time.

use std::time::Duration;
use std::{fs, io, thread};

use libmimalloc_sys::{mi_collect, mi_option_get, mi_option_set_default, mi_option_t};
pub use mimalloc::MiMalloc as Allocator;
use rustix::process::setpriority_process;

/// `mi_option_purge_delay`, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;
/// Milliseconds after which an allocation gives back by itself what is free: so many that the keeper does before. (Not -1, by which
/// nothing would be marked.)
const NEVER: i32 = i32::MAX;
/// As long as mimalloc would wait.
const PAUSE: Duration = Duration::from_secs(1);
/// The keeper's place behind the other threads: nice(2). Not SCHED_IDLE, by which it would have next to nothing of a busy processor while
/// it holds what others need who map memory.
const NICE: i32 = 10;

/// Starts the keeper, the thread that gives free memory back, once a second: for a process whose allocator is [`Allocator`], as its first
/// thread beside main. With a `MIMALLOC_PURGE_DELAY` in the environment that is obeyed, and there is no keeper.
///
/// # Errors
/// There are other threads already, or there can be no more.
pub fn keep() -> io::Result<()> {
    if fs::read_dir("/proc/self/task")?.count() > 1 {
        return Err(io::Error::other("there are other threads already"));
    }
    // SAFETY: an option that there is, set to a number of milliseconds and read; nobody else is there who could read it meanwhile.
    let delay = unsafe {
        mi_option_set_default(PURGE_DELAY, NEVER.into());
        mi_option_get(PURGE_DELAY)
    };
    if delay != NEVER.into() {
        return Ok(());
    }
    thread::Builder::new().name("holdfast-memory".to_owned()).spawn(|| {
        // Of this thread alone, on Linux. Where that is forbidden it is as important as others.
        let _ = setpriority_process(None, NICE);
        loop {
            thread::park_timeout(PAUSE);
            // SAFETY: any thread may call it at any time. It takes what is nobody's.
            unsafe { mi_collect(true) };
        }
    })?;
    Ok(())
}
