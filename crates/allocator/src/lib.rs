//! mimalloc, and a thread that gives back to the system what is free.
//!
//! ```text
//!  a page of blocks is all free ─► marked in its arena ── the keeper's next turn ─► madvise ─► the system's
//!                                       └── whoever wants a page meanwhile has it again
//!
//!  keeper:  waits for a second, or until somebody hurries it ─► gives back all that is marked ─► rests for 20 ms ─┐
//!           ▲─────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! By itself mimalloc does that second step in the middle of an allocation or a free, of whatever thread, once a second has passed: after
//! a large map was freed that holds up the thread, and the calls of all its connections, for up to 16 milliseconds at a time. Nor may the
//! keeper do that much at once: whoever is on its processor waits, whatever its priority. But to give back everything fifty times a second
//! takes a twentieth of what calls with half a MiB each can do: their buffers are free just for a moment, and then must be had from the
//! system again. So it hurries where much is left for good.
//!
//! Without huge pages, as Redis is: to have one cleared holds up a thread for longer than most calls take, and in pieces they cannot be
//! given back without the system putting them together again, for milliseconds of a processor. Batches are up to a twenty-fifth slower.

use std::sync::OnceLock;
use std::thread::Thread;
use std::time::Duration;
use std::{fs, io, thread};

use libmimalloc_sys::{mi_collect, mi_option_get, mi_option_set_default, mi_option_t};
pub use mimalloc::MiMalloc as Allocator;
use rustix::process::setpriority_process;
use rustix::thread::disable_transparent_huge_pages;

/// `mi_option_purge_delay`, which the bindings do not name.
const PURGE_DELAY: mi_option_t = 15;
/// Milliseconds after which whoever allocates or frees gives back what is free: so many that the keeper does before. (Not -1, by which
/// nothing would be marked.)
const NEVER: i32 = i32::MAX;
/// As long as mimalloc would wait.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two turns where the keeper is hurried: what a free of small values leaves meanwhile on a busy server is given back in a part of
/// a millisecond. (Of large ones it is more.)
const REST: Duration = Duration::from_millis(20);
/// The keeper's place behind the other threads: nice(2). Not SCHED_IDLE, by which it would have next to nothing of a busy processor while
/// it holds what others need who map memory.
const NICE: i32 = 10;

static KEEPER: OnceLock<Thread> = OnceLock::new();

/// Starts the keeper, the thread that gives free memory back, once a second or sooner ([`hurry`]), and does without huge pages: for a
/// process whose allocator is [`Allocator`], as its first thread beside main. With a `MIMALLOC_PURGE_DELAY` in the environment that is
/// obeyed, and there is no keeper.
///
/// # Errors
/// There are other threads already, or there can be no more.
pub fn keep() -> io::Result<()> {
    if fs::read_dir("/proc/self/task")?.count() > 1 {
        return Err(io::Error::other("there are other threads already"));
    }
    // Huge pages: mimalloc does not ask for them (its feature `no_thp`), but a system may give them to everybody. Where this is
    // forbidden it does.
    let _ = disable_transparent_huge_pages(true);
    // SAFETY: an option that there is, set to a number of milliseconds and read; nobody else is there who could read it meanwhile.
    let delay = unsafe {
        mi_option_set_default(PURGE_DELAY, NEVER.into());
        mi_option_get(PURGE_DELAY)
    };
    if delay != NEVER.into() {
        return Ok(());
    }
    let keeper = thread::Builder::new().name("holdfast-memory".to_owned()).spawn(|| {
        // Of this thread alone, on Linux. Where that is forbidden it is as important as others.
        let _ = setpriority_process(None, NICE);
        loop {
            thread::park_timeout(PAUSE);
            // SAFETY: any thread may call it at any time. It takes what is nobody's.
            unsafe { mi_collect(true) };
            #[expect(
                clippy::disallowed_methods,
                reason = "nobody waits for it; who hurries it meanwhile does so for the next turn"
            )]
            thread::sleep(REST);
        }
    })?;
    // Who calls this twice finds the first one's threads.
    let _ = KEEPER.set(keeper.thread().clone());
    Ok(())
}

/// Has the keeper take its next turn at once, or when it has rested: somebody has freed much. Without a keeper nothing is done.
pub fn hurry() {
    if let Some(keeper) = KEEPER.get() {
        keeper.unpark();
    }
}
