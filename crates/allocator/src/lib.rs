//! mimalloc, and a thread that gives back to the system what is free.
//!
//! ```text
//!  a page of blocks is all free ─► marked in its arena ── the keeper's next turn ─► madvise ─► the system's
//!                                       └── whoever wants a page meanwhile has it again
//! ```
//!
//! By itself mimalloc does that second step in the middle of an allocation, of whatever thread, once a second has passed: after a large
//! map was freed that holds up the thread, and the calls of all its connections, for up to 16 milliseconds at a time.

use std::io;
use std::thread;
use std::time::Duration;

use libmimalloc_sys::{mi_collect, mi_option_set_default, mi_option_t};
pub use mimalloc::MiMalloc as Allocator;

/// `mi_option_purge_delay`, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;
/// Milliseconds after which an allocation gives back by itself what is free: so many that the keeper does before. (Not -1, by which
/// nothing would be marked.)
const NEVER: i32 = i32::MAX;
/// As long as mimalloc would wait.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts the keeper, the thread that gives free memory back, once a second: for a process whose allocator is [`Allocator`], before its
/// other threads. `MIMALLOC_PURGE_DELAY` in the environment is obeyed instead.
pub fn keep() -> io::Result<()> {
    // SAFETY: an option that there is, set to a number of milliseconds, before there is another thread that reads it.
    unsafe { mi_option_set_default(PURGE_DELAY, NEVER.into()) };
    thread::Builder::new().name("holdfast-memory".to_owned()).spawn(|| {
        stand_back();
        loop {
            thread::park_timeout(PAUSE);
            // SAFETY: any thread may call it at any time. It takes what is nobody's.
            unsafe { mi_collect(true) };
        }
    })?;
    Ok(())
}

/// From now on this thread runs where nobody else wants to: a processor that it has counts as idle to the scheduler, which else would leave
/// who wakes to the other ones for the milliseconds that it takes.
fn stand_back() {
    // All that the kernel's `sched_param` has. (musl's function of this name does nothing.)
    let priority: libc::c_int = 0;
    // SAFETY: 0 is the calling thread, and the kernel reads the one number only. Where that is forbidden it stays as important as others.
    unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_IDLE, &raw const priority) };
}
