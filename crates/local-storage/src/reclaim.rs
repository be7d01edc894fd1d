//! Memory that readers may still see is used again after a grace period: a limbo list for each context, whose ends crossbeam's epochs
//! tell.
//!
//! ```text
//!  retired ─► the open batch ── it is full, or the thread tidies up ─► sealed ── two epochs later ─► ended ─► spare ─► the next element
//!                                   behind it a mark in crossbeam's queue            by its own thread   └─► freed: beyond a few
//! ```
//!
//! Who retires is who frees, so that a reader does no more than set marks (and, where a context has gone with a reader in its way, end
//! a few batches of what that has left); and a thread that replaces one element after the other asks the allocator for none: its
//! elements go round. (An allocator has to give back to the one thread what the other has freed; bpf_mem_alloc, which Linux's own local
//! storage uses, keeps lists a processor for the same reason.)

use std::alloc::{Layout, alloc, dealloc};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// Objects in a batch at most. Each batch costs a mark and a look at the epochs; what is in three or four of them waits.
const BATCH: usize = 256;
/// Bytes of objects in a batch, about, and at most of what is spare.
const BATCH_BYTES: usize = 256 << 10;
/// Objects that are ended at a time, about.
const PIECE: u64 = 512;
/// At so many spare blocks a look is taken for one that fits: so many sizes may take turns.
const LOOKS: usize = 8;

/// Retired by anyone, ever.
static RETIRED: Tally = Tally::new();
/// Freed by anyone, ever.
static FREED: Tally = Tally::new();

/// How many threads count each for itself; more of them share.
const SHARES: usize = 16;

/// A count in shares, each in a line of its own: every update adds to one of these, and threads that change different values would meet
/// here alone.
struct Tally([CachePadded<AtomicU64>; SHARES]);

impl Tally {
    const fn new() -> Tally {
        Tally([const { CachePadded::new(AtomicU64::new(0)) }; SHARES])
    }

    fn add(&self, count: u64, order: Ordering) {
        self.0[SHARE.with(|share| *share)].fetch_add(count, order);
    }

    /// What was counted before is in it; of what is counted meanwhile, some.
    fn sum(&self, order: Ordering) -> u64 {
        self.0.iter().map(|share| share.load(order)).sum()
    }
}

thread_local! {
    /// Which share is this thread's.
    static SHARE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        // Relaxed: they are spread, that is all.
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARES
    };
}

/// An object that nobody finds any more.
#[derive(Clone, Copy)]
struct Object {
    at: NonNull<u8>,
    /// Bytes of it, about.
    size: usize,
    /// Ends it, and gives back its memory unless that has gone with it.
    end: unsafe fn(NonNull<u8>) -> Option<Block>,
}

/// Memory that nobody uses.
pub(crate) struct Block {
    at: NonNull<u8>,
    layout: Layout,
}

impl Block {
    /// None: there is no memory.
    pub(crate) fn new(layout: Layout) -> Option<Block> {
        assert!(layout.size() > 0, "a block is of some size");
        // SAFETY: not of size 0.
        let at = NonNull::new(unsafe { alloc(layout) })?;
        Some(Block { at, layout })
    }

    /// The block that was given away by [`into_raw`](Self::into_raw).
    ///
    /// # Safety
    /// It was, with this layout, once.
    pub(crate) unsafe fn from_raw(at: NonNull<u8>, layout: Layout) -> Block {
        Block { at, layout }
    }

    pub(crate) fn into_raw(self) -> NonNull<u8> {
        let at = self.at;
        mem::forget(self);
        at
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: it came from `alloc` with this layout, and is ours alone.
        unsafe { dealloc(self.at.as_ptr(), self.layout) }
    }
}

/// Something that was taken out of sight. Dropping it begins its grace period, after which it is ended; others are ended on this
/// occasion, which may free more things on the way, so it happens after the locks are released.
#[must_use = "it is dropped after the locks"]
pub(crate) struct Retired<'a> {
    limbo: &'a Limbo,
    object: Object,
}

impl<'a> Retired<'a> {
    /// An object of about `size` bytes.
    ///
    /// # Safety
    /// `at` can be reached by readers that are pinned now and by nobody else; `end` may be called with it on any thread,
    /// and touches nothing that is not owned by what it ends.
    pub(crate) unsafe fn new<T>(
        limbo: &'a Limbo,
        at: NonNull<T>,
        size: usize,
        end: unsafe fn(NonNull<u8>) -> Option<Block>,
    ) -> Retired<'a> {
        // Relaxed: a count. Whoever sees it among the freed has got this from us, by `FREED`.
        RETIRED.add(1, Ordering::Relaxed);
        Retired { limbo, object: Object { at: at.cast(), size, end } }
    }
}

impl Drop for Retired<'_> {
    fn drop(&mut self) {
        self.limbo.take(self.object);
    }
}

/// How many objects wait for a grace period, in the whole process.
pub fn waiting() -> u64 {
    // FREED first, and Acquire: what is counted there is in the RETIRED that is read afterwards, whatever shares the two are in.
    let freed = FREED.sum(Ordering::Acquire);
    RETIRED.sum(Ordering::Relaxed).saturating_sub(freed)
}

/// How far something is that ends with a grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tidy {
    /// It has ended.
    Done,
    /// There is more to free before it: call again soon, other work may run in between.
    More,
    /// Nothing to do but wait for a reader, or for what may still be retired in a moment. Call again in a moment.
    Waiting,
}

/// Set when no reader has any more what was out of sight when it was made.
struct Mark(Arc<AtomicBool>);

impl Mark {
    fn new() -> Mark {
        let over = Arc::new(AtomicBool::new(false));
        let mark = Arc::clone(&over);
        let guard = crossbeam_epoch::pin();
        // Release: pairs with `is_over`.
        guard.defer(move || mark.store(true, Ordering::Release));
        // Into the queue of all threads, where whoever looks at the epochs sets it.
        guard.flush();
        Mark(over)
    }

    fn is_over(&self) -> bool {
        // Acquire: the readers of the time before are behind us.
        self.0.load(Ordering::Acquire)
    }
}

/// Each call can end one epoch, and a mark needs two.
fn help() {
    crossbeam_epoch::pin().flush();
}

#[derive(Default)]
struct Batch {
    objects: Vec<Object>,
    size: usize,
}

impl Batch {
    /// Ends its objects, and gives the memory that they leave to `keep`. How many they were.
    ///
    /// # Safety
    /// No reader is pinned any more that was when the last of them was retired.
    unsafe fn end(self, keep: impl Fn(Block)) -> u64 {
        let count = self.objects.len() as u64;
        for object in self.objects {
            // SAFETY: whoever retired it promised that only readers pinned by then could reach it. Once: the batch is ours by value.
            unsafe { (object.end)(object.at) }.into_iter().for_each(&keep);
        }
        // Release: pairs with `waiting`.
        FREED.add(count, Ordering::Release);
        count
    }
}

/// What one thread has retired, in its order, and what it may use again.
#[derive(Default)]
pub(crate) struct Limbo(RefCell<Inner>);

#[derive(Default)]
struct Inner {
    open: Batch,
    sealed: VecDeque<(Batch, Mark)>,
    spare: Spare,
    /// Something was retired since it last tidied up.
    is_busy: bool,
}

#[derive(Default)]
struct Spare {
    blocks: Vec<Block>,
    size: usize,
}

impl Spare {
    fn keep(&mut self, block: Block) {
        let size = self.size + block.layout.size();
        if size <= BATCH_BYTES {
            self.size = size;
            self.blocks.push(block);
        }
    }

    /// One of this layout. Where none of the last ones is, the last one goes: others are wanted now.
    fn take(&mut self, layout: Layout) -> Option<Block> {
        let fits = self.blocks.iter().rev().take(LOOKS).position(|block| block.layout == layout);
        let from_the_end = fits.unwrap_or(0) + 1;
        let block = self.blocks.swap_remove(self.blocks.len().checked_sub(from_the_end)?);
        self.size -= block.layout.size();
        fits.map(|_| block)
    }
}

impl Limbo {
    fn take(&self, object: Object) {
        let is_full = {
            let Inner { open, is_busy, .. } = &mut *self.0.borrow_mut();
            if open.objects.is_empty() {
                open.objects.reserve(BATCH);
            }
            *is_busy = true;
            open.size += object.size;
            open.objects.push(object);
            open.objects.len() >= BATCH || open.size >= BATCH_BYTES
        };
        if is_full {
            self.seal();
            self.end(PIECE);
        }
    }

    /// Memory for an object of this layout; none: there is none.
    pub(crate) fn block(&self, layout: Layout) -> Option<Block> {
        let spare = self.0.borrow_mut().spare.take(layout);
        spare.or_else(|| Block::new(layout))
    }

    /// Memory that is not used after all.
    pub(crate) fn keep(&self, block: Block) {
        self.0.borrow_mut().spare.keep(block);
    }

    /// Nothing joins the open batch any more: its grace period begins.
    fn seal(&self) {
        let batch = mem::take(&mut self.0.borrow_mut().open);
        if !batch.objects.is_empty() {
            // (Not borrowed: what contexts have left that have gone may be ended in here.)
            let mark = Mark::new();
            self.0.borrow_mut().sealed.push_back((batch, mark));
        }
    }

    /// Whether there is a batch whose grace period is over.
    fn can_end(&self) -> bool {
        self.0.borrow().sealed.front().is_some_and(|(_, mark)| mark.is_over())
    }

    /// Ends the batches whose grace period is over, about so many objects at most. How many they were.
    fn end(&self, budget: u64) -> u64 {
        let mut ended = 0;
        while ended < budget {
            let next = self.0.borrow_mut().sealed.pop_front_if(|(_, mark)| mark.is_over());
            let Some((batch, _)) = next else { break };
            // SAFETY: its mark was made after the last of it was retired, and is over.
            ended += unsafe { batch.end(|block| self.keep(block)) };
        }
        ended
    }

    /// One piece of tidying up.
    pub(crate) fn tidy(&self) -> Tidy {
        {
            let inner = self.0.borrow();
            if inner.open.objects.is_empty() && inner.sealed.is_empty() && inner.spare.blocks.is_empty() {
                return Tidy::Done;
            }
        }
        if mem::take(&mut self.0.borrow_mut().is_busy) {
            // More may follow in a moment, and one grace period does for all of it. But what can be ended goes now, here between
            // two operations: else it does in the middle of one.
            help();
            self.end(PIECE);
            return Tidy::Waiting;
        }
        self.seal();
        let tidy = self.help_on(|| self.0.borrow().sealed.is_empty());
        if tidy == Tidy::Done {
            self.0.borrow_mut().spare = Spare::default();
        }
        tidy
    }

    /// Bounded: it ends some 1,000 objects at most.
    fn help_on(&self, is_done: impl Fn() -> bool) -> Tidy {
        let mut ended = 0;
        for _epoch in 0..2 {
            help();
            ended += self.end(PIECE);
            if is_done() {
                return Tidy::Done;
            }
        }
        match ended {
            0 => Tidy::Waiting,
            _ => Tidy::More,
        }
    }
}

#[cfg(test)]
impl Limbo {
    /// How many batches wait.
    pub(crate) fn sealed(&self) -> usize {
        self.0.borrow().sealed.len()
    }

    /// Bytes that are kept for later.
    pub(crate) fn spare(&self) -> usize {
        let spare = &self.0.borrow().spare;
        assert_eq!(spare.blocks.iter().map(|block| block.layout.size()).sum::<usize>(), spare.size);
        spare.size
    }
}

impl Drop for Limbo {
    /// What is left is ended by whoever comes by, some batches at a time.
    fn drop(&mut self) {
        let Inner { open, sealed, .. } = mem::take(self.0.get_mut());
        let left = sealed.into_iter().map(|(batch, _)| batch).chain([open]);
        for batch in left.filter(|batch| !batch.objects.is_empty()) {
            let guard = crossbeam_epoch::pin();
            // SAFETY: the closure runs after all readers that are pinned now, once, and may run on any thread, as whoever retired each
            // has promised.
            unsafe { guard.defer_unchecked(move || _ = batch.end(drop)) };
            guard.flush();
        }
    }
}

/// A grace period that has begun. It ends when no reader has any more what was out of sight by then, and what the context had retired by
/// then is freed, where the same one helps that it began with.
pub(crate) struct Grace(Mark);

impl Grace {
    pub(crate) fn begin(limbo: &Limbo) -> Grace {
        limbo.seal();
        Grace(Mark::new())
    }

    /// Helps it to its end. Bounded: it frees some 1,000 objects at most.
    pub(crate) fn help(&self, limbo: &Limbo) -> Tidy {
        // The mark is behind those of the batches that were sealed before, and so over after them (but for one that another thread
        // is just about to set).
        limbo.help_on(|| self.0.is_over() && !limbo.can_end())
    }
}
