//! What stands before an operation: nothing, or what Linux had there before, to be seen side by side.
//!
//! ```text
//!                        rqspinlock     percpu-counter
//!   update, delete       ─► go on       ─► busy += 1 ──────────────────────────► go on ─► busy -= 1
//!   get-or-create,       ─► go on       ─► busy += 1 ─► was it 0? ── yes ──────► go on ─► busy -= 1
//!   and all in a hook                                      └─ no ─► busy -= 1 ─► back off
//! ```
//!
//! The counter was there against recursion, before the lock could see that itself: who finds somebody at work *on this processor* might be
//! inside that very operation. Mostly it is not: another thread was interrupted in the middle of one, and the refusal is spurious. Backing
//! off means: what can be answered without a lock is answered (an element that is there, one to delete that is not), the rest is `Busy`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;

/// The kinds of owners: each has a counter of its own.
pub const KINDS: usize = 2;

/// How operations are guarded against recursion.
#[derive(Clone, Debug, Default)]
pub enum Guard {
    /// By the locks alone: only who would wait for itself, or too long, is refused.
    #[default]
    RqSpinLock,
    /// By a counter of the operations under way on a processor, as Linux did before. Threads of the same processor share it.
    PerCpuCounter(Arc<Processor>),
}

/// The counters of a processor.
#[derive(Debug, Default)]
pub struct Processor {
    busy: [CachePadded<AtomicU32>; KINDS],
}

/// Somebody is at work on this processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

/// An operation is counted, until this is dropped.
#[must_use]
pub(crate) struct Counted<'a>(Option<&'a AtomicU32>);

impl Processor {
    /// Operations under way on the maps of a kind. 0 when all is quiet.
    pub fn busy(&self, kind: usize) -> u32 {
        // Relaxed: a count for people.
        self.busy[kind].load(Ordering::Relaxed)
    }
}

impl Guard {
    /// Counts an operation on a map of this kind, whoever is at work.
    pub(crate) fn count(&self, kind: usize) -> Counted<'_> {
        let Guard::PerCpuCounter(processor) = self else { return Counted(None) };
        // Relaxed: it guards nothing, the locks do.
        processor.busy[kind].fetch_add(1, Ordering::Relaxed);
        Counted(Some(&processor.busy[kind]))
    }

    /// The same, if nobody is.
    pub(crate) fn count_alone(&self, kind: usize) -> Result<Counted<'_>, Busy> {
        let Guard::PerCpuCounter(processor) = self else { return Ok(Counted(None)) };
        let counted = Counted(Some(&processor.busy[kind]));
        // Relaxed: as above.
        match processor.busy[kind].fetch_add(1, Ordering::Relaxed) {
            0 => Ok(counted),
            _ => Err(Busy),
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(busy) = self.0 {
            // Relaxed: as above.
            busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
