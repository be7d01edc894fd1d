//! The process-wide table of registered Cpus, and what each of them shares with the others.
//!
//! ```text
//!  slots    [ * | * | * | 0 | 0 | ...            ]   16,383, filled from the left
//!             |   |   |   ^ high-water mark: scans for a deadlock stop here
//!             v
//!           Context { in_use, held-lock table, four queue nodes }
//! ```
//!
//! A context is made when its index is first used and stays for the life of the process, so a tail
//! that was read from a word, however old, always leads to memory that is a node. An index is given
//! out again only when its Cpu has ended without holding a lock and without a node in a queue.

use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::cpu::CpuId;
use crate::error::RegisterError;
use crate::held::HeldTable;
use crate::sync::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Backoff, CPU_MAX, Futex, Ordering, Witness};
use crate::word::Tail;

/// Waits that one Cpu can have under way at once, each started inside of the one before.
pub(crate) const NODES: usize = 4;

/// A node of a queue: the waiter's place, and where the one before it leaves word.
///
/// | flag | set by |
/// |---|---|
/// | 0 waiting | the owner, before it enters the queue |
/// | 1 head | the head before it, on its way out |
/// | 2 flushed | a head whose time was up |
/// | 3 waiting, asleep | the owner, in place of 0 |
///
/// Who tells the owner swaps the flag in, wakes it if it sleeps, and never touches the node again: the
/// owner may already be in another queue with it.
pub(crate) struct Node {
    next: AtomicU32,
    flag: Futex,
    /// Touched by the owner between two uses; what others do to the node is a look.
    reuse: Witness,
}

/// What a queued waiter was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// It is the head of the queue.
    Head,
    /// The queue is gone and everyone in it has timed out.
    Flushed,
}

impl Turn {
    const WAITING: u32 = 0;
    const SLEEPING: u32 = 3;

    fn flag(self) -> u32 {
        match self {
            Turn::Head => 1,
            Turn::Flushed => 2,
        }
    }
}

impl Node {
    /// Nobody is behind this node, or nobody has linked itself yet.
    const UNLINKED: u32 = 0;

    fn new() -> Self {
        Node { next: AtomicU32::new(Node::UNLINKED), flag: Futex::new(Turn::WAITING), reuse: Witness::new() }
    }

    /// By the owner, before it enters a queue.
    pub(crate) fn reset(&self) {
        // Relaxed: published to the successor by the tail exchange (Q1) and to the predecessor by
        // the link (N1). Everyone who wrote here during the last use is done: the flag was the last
        // thing it wrote, and the owner has seen it; the link was awaited.
        self.reuse.touch();
        self.next.store(Node::UNLINKED, Ordering::Relaxed);
        self.flag.store(Turn::WAITING, Ordering::Relaxed);
    }

    /// By the successor: puts itself behind this node.
    pub(crate) fn link(&self, successor: Tail) {
        self.reuse.look();
        // N1, Release: pairs with the Acquire in `successor`. The successor's node has been reset
        // before anyone writes a flag into it.
        self.next.store(successor.bits(), Ordering::Release);
    }

    /// Waits for the node behind this one. Only for a node that has one: the waiter has seen a
    /// tail beyond it, so the link comes as soon as that thread runs.
    pub(crate) fn successor(&self) -> Tail {
        let mut backoff = Backoff::new();
        loop {
            if let Some(next) = self.linked() {
                return next;
            }
            backoff.wait();
        }
    }

    /// The node behind this one, if it has linked itself by now.
    pub(crate) fn linked(&self) -> Option<Tail> {
        // N1, the Acquire half.
        Tail::from_bits(self.next.load(Ordering::Acquire))
    }

    /// Wakes the owner of this node if it sleeps: its turn is near.
    pub(crate) fn rouse(&self) {
        self.flag.wake();
    }

    /// Tells the owner of this node what has become of it; the last access to the node but for a wake.
    pub(crate) fn tell(&self, turn: Turn) {
        self.reuse.look();
        // N2, Release: pairs with the Acquire in `turn`. What the old head did to the word and to
        // the queue comes before all that the new one does, and a flusher's read of `next` comes
        // before the owner's next reset. A swap, as the rule for this flag is that every writer
        // looks at what it replaces.
        let before = self.flag.swap(turn.flag(), Ordering::Release);
        debug_assert!(before == Turn::WAITING || before == Turn::SLEEPING, "a node was told its turn twice");
        if before == Turn::SLEEPING {
            // The owner may be in another queue with the node by now, and asleep: then this is a wake for no reason.
            self.flag.wake();
        }
    }

    /// By the owner, while it waits: sleeps, at most for `timeout`, until it is told its turn.
    pub(crate) fn sleep(&self, timeout: Duration) {
        // P2, Relaxed: it only asks for a wake. Who tells the turn later swaps this out and sees it; where the turn has
        // been told, or sleeping was said before, nothing changes. And the kernel compares the flag again.
        let _ = self.flag.compare_exchange(Turn::WAITING, Turn::SLEEPING, Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.flag.sleep(Turn::SLEEPING, timeout);
    }

    /// What the owner has been told, if anything yet.
    pub(crate) fn turn(&self) -> Option<Turn> {
        // N2, the Acquire half.
        match self.flag.load(Ordering::Acquire) {
            Turn::WAITING | Turn::SLEEPING => None,
            flag if flag == Turn::Head.flag() => Some(Turn::Head),
            _ => Some(Turn::Flushed),
        }
    }
}

/// What a Cpu shares with all others.
pub(crate) struct Context {
    id: CpuId,
    in_use: AtomicBool,
    /// Written by its owner on every lock and unlock; read by those who look for a deadlock.
    pub(crate) held: CachePadded<HeldTable>,
    /// Written by its owner and its neighbours in a queue. One cache line for all four: more than
    /// one in use is rare.
    nodes: CachePadded<[Node; NODES]>,
}

impl Context {
    fn new(id: CpuId) -> Self {
        Context {
            id,
            in_use: AtomicBool::new(true),
            held: CachePadded::new(HeldTable::new()),
            nodes: CachePadded::new(std::array::from_fn(|_| Node::new())),
        }
    }

    pub(crate) fn id(&self) -> CpuId {
        self.id
    }

    pub(crate) fn node(&self, nesting: usize) -> &Node {
        &self.nodes[nesting]
    }

    /// Lets the next thread that registers have this index.
    pub(crate) fn release(&self) {
        // C1, Release: pairs with the Acquire in `claim`. The next owner starts from the table and
        // the nodes as this one left them.
        self.in_use.store(false, Ordering::Release);
    }

    fn claim(&self) -> bool {
        // C1, the Acquire half.
        self.in_use.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}

/// See the module. `N` is the number of slots.
pub(crate) struct Registry<const N: usize> {
    slots: [AtomicPtr<Context>; N],
    high_water: AtomicUsize,
}

#[cfg(not(loom))]
static REGISTRY: Registry<CPU_MAX> = Registry::new();

#[cfg(loom)]
crate::sync::checker::lazy_static! {
    static ref REGISTRY: Registry<CPU_MAX> = Registry::new();
}

/// The registry of this process.
pub(crate) fn registry() -> &'static Registry<CPU_MAX> {
    &REGISTRY
}

impl<const N: usize> Registry<N> {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Registry { slots: [const { AtomicPtr::new(std::ptr::null_mut()) }; N], high_water: AtomicUsize::new(0) }
    }

    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Registry {
            slots: std::array::from_fn(|_| AtomicPtr::new(std::ptr::null_mut())),
            high_water: AtomicUsize::new(0),
        }
    }

    /// Gives out the lowest free index.
    pub(crate) fn claim(&self) -> Result<&Context, RegisterError> {
        for (index, slot) in self.slots.iter().enumerate() {
            let context = match self.context(index) {
                Some(context) => context,
                None => {
                    let fresh = Box::into_raw(Box::new(Context::new(CpuId::from_index(index))));
                    // C2, Release: pairs with the Acquire in `context`: who finds the slot filled
                    // finds the context whole. Acquire on failure: somebody else's, likewise.
                    match slot.compare_exchange(std::ptr::null_mut(), fresh, Ordering::Release, Ordering::Acquire) {
                        Ok(_) => {
                            // Release: pairs with the Acquire in `others`.
                            self.high_water.fetch_max(index + 1, Ordering::Release);
                            // SAFETY: `fresh` is a live box that the slot owns since the line
                            // above, and a slot's box is freed only with the registry.
                            return Ok(unsafe { &*fresh });
                        }
                        Err(theirs) => {
                            // SAFETY: the exchange failed, so `fresh` is still ours alone.
                            drop(unsafe { Box::from_raw(fresh) });
                            // SAFETY: a filled slot stays filled, as in `context`.
                            unsafe { &*theirs }
                        }
                    }
                }
            };
            if context.claim() {
                return Ok(context);
            }
        }
        Err(RegisterError::TooManyCpus { limit: N })
    }

    /// The context of an index, if it was ever used.
    fn context(&self, index: usize) -> Option<&Context> {
        // C2, the Acquire half.
        let context = self.slots.get(index)?.load(Ordering::Acquire);
        // SAFETY: null, or a box that `claim` put there, never replaced, freed only when the
        // registry itself is dropped (which a borrow of it excludes); all shared access.
        unsafe { context.as_ref() }
    }

    /// The node that a tail names.
    pub(crate) fn node(&self, tail: Tail) -> &Node {
        // The tail was read with Acquire from a word or a link, and whoever put it there with
        // Release had registered before.
        let context = self.context(tail.cpu().index()).expect("a Cpu registers before it queues");
        context.node(tail.nesting())
    }

    /// Every context that may be in use, but for one.
    pub(crate) fn others(&self, than: CpuId) -> impl Iterator<Item = &Context> {
        // A Cpu that registers now and is missed is found by the next check, a millisecond later.
        let high_water = self.high_water.load(Ordering::Acquire);
        (0..high_water).filter(move |&index| index != than.index()).filter_map(|index| self.context(index))
    }
}

impl<const N: usize> Drop for Registry<N> {
    /// The one of the process is never dropped; those of models and tests are.
    fn drop(&mut self) {
        for slot in &self.slots {
            let context = slot.load(Ordering::Acquire);
            if !context.is_null() {
                // SAFETY: the slot owns the box, and nobody can borrow from a registry that is
                // being dropped.
                drop(unsafe { Box::from_raw(context) });
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
