//! A map's elements by their owner's number: chains of them, some of which make up a bucket with one lock.
//!
//! ```text
//!   owner's number ─► chain ─► head ─► element ─► element …
//!                       │
//!                       └► bucket { lock }
//! ```
//!
//! As many chains as the map may have elements, so that a lookup has its element behind one link. Numbers are handed out one after the
//! other, so the chain is the number modulo chains, and each has its own; but moved on by a distance that each time round is another one:
//! a map that gets every 64th number, say, because 64 maps are filled in turn, would use a 64th of its chains.
//!
//! Fewer locks than chains, since freeing and listing go from bucket to bucket.
//!
//! Writers have the bucket's lock, readers follow `next`. An element that is replaced or unlinked keeps its own `next`: a reader
//! that stands on it goes on to elements that were its followers. So whatever a reader comes by was in the chain at some moment
//! since it began, and what is there throughout it meets, in one version or another.

use std::alloc::{Layout, alloc_zeroed};
use std::iter;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use crossbeam_epoch::Guard;
use rqspinlock::RawRqSpinLock;

use crate::element::Element;

/// What leads to an element: a chain's head, or the `next` of the element before. Null at the end.
pub(crate) type Link = AtomicPtr<Element>;

/// Four in a cache line, so that writers in different buckets seldom disturb each other.
#[repr(align(16))]
struct Lock(RawRqSpinLock);

/// 2^64 by the golden ratio.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// So many chains that follow each other are in buckets that follow each other; then come the same buckets again, until they have all
/// their chains, and are a group. So owners in a row do not meet at a lock, and the chains of a bucket are not far apart.
const ROW: usize = 64;

pub(crate) struct Buckets {
    locks: Box<[Lock]>,
    heads: Box<[Link]>,
    /// A chain's number without so many bits is that of its group.
    group_bits: u32,
    /// Groups that have ever had an element: the others need not be looked through.
    used: Box<[AtomicBool]>,
}

impl Buckets {
    /// Empty ones, both counts powers of two; none when there is no memory. They cost none until they are used.
    pub(crate) fn new(count: usize, chains: usize) -> Option<Buckets> {
        assert!(count.is_power_of_two() && chains.is_power_of_two() && count <= chains);
        let groups = count.div_ceil(ROW);
        let group_bits = (chains / groups).trailing_zeros();
        // SAFETY: all-zero bytes are an unlocked RawRqSpinLock, as its documentation says, a null AtomicPtr, and false.
        unsafe { Some(Buckets { locks: zeroed(count)?, heads: zeroed(chains)?, group_bits, used: zeroed(groups)? }) }
    }

    /// How many buckets there are.
    pub(crate) fn count(&self) -> usize {
        self.locks.len()
    }

    /// How many chains each of them has.
    pub(crate) fn chains_each(&self) -> usize {
        self.heads.len() >> self.count().trailing_zeros()
    }

    /// The bucket of an owner.
    pub(crate) fn of(&self, owner: u64) -> usize {
        let (chain, row) = (self.chain(owner), self.row());
        (chain >> self.group_bits) * row + (chain & (row - 1))
    }

    pub(crate) fn lock(&self, bucket: usize) -> &RawRqSpinLock {
        &self.locks[bucket].0
    }

    /// The chain of an owner.
    pub(crate) fn chain(&self, owner: u64) -> usize {
        let distance = match owner >> self.heads.len().trailing_zeros() {
            0 => 0,
            // A hash of two multiplications. (With one there are steps that fall together.)
            time_round => {
                let mixed = time_round.wrapping_mul(GOLDEN);
                (mixed ^ mixed >> 32).wrapping_mul(GOLDEN) >> 32
            }
        };
        owner.wrapping_add(distance) as usize & (self.heads.len() - 1)
    }

    fn head(&self, owner: u64) -> &Link {
        &self.heads[self.chain(owner)]
    }

    /// Whether a bucket may have elements. A false holds for what was in the map before the call, and for all buckets up to the next row's.
    pub(crate) fn is_used(&self, bucket: usize) -> bool {
        // Acquire: pairs with `push`: what follows comes after it, as the look at a head would.
        self.used[bucket / ROW].load(Ordering::Acquire)
    }

    /// The first bucket of the next row.
    pub(crate) fn next_row(bucket: usize) -> usize {
        (bucket / ROW + 1) * ROW
    }

    fn row(&self) -> usize {
        self.count().min(ROW)
    }

    fn heads(&self, bucket: usize) -> impl Iterator<Item = &Link> {
        let (row, within) = (self.row(), bucket & (self.row() - 1));
        let first = (bucket - within) * self.chains_each() + within;
        self.heads[first..].iter().step_by(row).take(self.chains_each())
    }

    /// Under the bucket's lock: puts an element at the head of its chain.
    pub(crate) fn push(&self, element: NonNull<Element>) {
        // SAFETY: ours until the store below, then kept by the lock.
        let header = unsafe { element.as_ref() };
        let chain = self.chain(header.owner());
        let used = &self.used[chain >> self.group_bits];
        // Looked at first: nearly always it is, and others look, too.
        if !used.load(Ordering::Relaxed) {
            // Release: as for the head, below.
            used.store(true, Ordering::Release);
        }
        let head = &self.heads[chain];
        header.next.store(head.load(Ordering::Relaxed), Ordering::Relaxed);
        // Release: publishes the element to readers, who load with Acquire.
        head.store(element.as_ptr(), Ordering::Release);
    }

    /// Under the bucket's lock: puts `new` in the place of `old`, of the same owner.
    pub(crate) fn replace(&self, old: NonNull<Element>, new: NonNull<Element>) {
        // SAFETY: old is linked and so kept by the lock; new is ours until the store below.
        let next = unsafe { old.as_ref() }.next.load(Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { new.as_ref() }.next.store(next, Ordering::Relaxed);
        // Release: as in `push`.
        self.link_to(old).store(new.as_ptr(), Ordering::Release);
    }

    /// Under the bucket's lock: takes an element out.
    pub(crate) fn unlink(&self, element: NonNull<Element>) {
        // SAFETY: linked and so kept by the lock.
        let next = unsafe { element.as_ref() }.next.load(Ordering::Relaxed);
        // Release: a reader that skips it meets `next`, which it may not have seen published.
        self.link_to(element).store(next, Ordering::Release);
    }

    /// Under the bucket's lock: the link that leads to an element, which is in its chain.
    fn link_to(&self, element: NonNull<Element>) -> &Link {
        // SAFETY: linked and so kept by the lock.
        let mut link = self.head(unsafe { element.as_ref() }.owner());
        // Relaxed: only writers change links, and the lock is ours.
        while let Some(other) = NonNull::new(link.load(Ordering::Relaxed)).filter(|&found| found != element) {
            // SAFETY: linked and so kept by the lock, for as long as the borrow of `self` in the callers, who change one link.
            link = unsafe { &(*other.as_ptr()).next };
        }
        assert_eq!(link.load(Ordering::Relaxed), element.as_ptr(), "it is in its chain");
        link
    }

    /// The elements of a bucket. Under its lock; each may be unlinked while the iterator stands behind it.
    pub(crate) fn elements(&self, bucket: usize) -> impl Iterator<Item = NonNull<Element>> {
        // Under the lock of its bucket an element and this are seen together.
        let chains = self.is_used(bucket).then(|| self.heads(bucket));
        chains.into_iter().flatten().flat_map(walk)
    }

    /// The elements of a bucket without its lock, for as long as the guard lives.
    pub(crate) fn readers<'g>(
        &self,
        bucket: usize,
        _guard: &'g Guard,
    ) -> impl Iterator<Item = NonNull<Element>> + use<'_, 'g> {
        self.heads(bucket).flat_map(walk)
    }

    /// The element of an owner without the lock: it stays allocated until the guard goes.
    pub(crate) fn find(&self, owner: u64, _guard: &Guard) -> Option<NonNull<Element>> {
        // SAFETY: kept by the guard.
        walk(self.head(owner)).find(|element| unsafe { element.as_ref() }.owner() == owner)
    }
}

/// From link to link. Whoever walks has the bucket's lock, or a guard from before the first step.
fn walk(head: &Link) -> impl Iterator<Item = NonNull<Element>> + use<> {
    // Acquire: pairs with the Release stores of `push`, `replace` and `unlink`.
    let first = NonNull::new(head.load(Ordering::Acquire));
    iter::successors(first, |element| {
        // SAFETY: the caller's lock or guard keeps every element that it comes by.
        NonNull::new(unsafe { element.as_ref() }.next.load(Ordering::Acquire))
    })
}

/// `count` times zero; none when there is no memory.
///
/// # Safety
/// All-zero bytes are a `T`.
unsafe fn zeroed<T>(count: usize) -> Option<Box<[T]>> {
    let layout = Layout::array::<T>(count).ok().filter(|layout| layout.size() > 0)?;
    // SAFETY: the layout is not empty, and the caller says that zeroes do. The Box frees with the same layout.
    unsafe {
        let first = NonNull::new(alloc_zeroed(layout))?.cast::<T>();
        Some(Box::from_raw(ptr::slice_from_raw_parts_mut(first.as_ptr(), count)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const SHAPES: [(usize, usize); 6] = [(1, 1), (1, 8), (4, 8), (64, 64), (256, 1024), (1024, 16_384)];

    #[test]
    fn every_chain_has_a_head_of_its_own_in_its_bucket() {
        for (count, chains) in SHAPES {
            let buckets = Buckets::new(count, chains).unwrap();
            let mut met = BTreeSet::new();
            for owner in 0..chains as u64 {
                let head = ptr::from_ref(buckets.head(owner));
                assert!(met.insert(head), "{owner} of {chains} in {count}");
                assert!(buckets.heads(buckets.of(owner)).any(|own| ptr::eq(own, head)));
            }
            assert_eq!((0..count).map(|bucket| buckets.heads(bucket).count()).sum::<usize>(), chains);
        }
    }

    /// How many elements a lookup looks at, on average, and at most.
    fn looked_at(buckets: &Buckets, owners: impl Iterator<Item = u64>) -> (f64, u32) {
        let mut lengths = BTreeMap::<_, u32>::new();
        owners.for_each(|owner| *lengths.entry(buckets.chain(owner)).or_default() += 1);
        let all: u32 = lengths.values().sum();
        let sum: u32 = lengths.values().map(|length| length * (length + 1) / 2).sum();
        (f64::from(sum) / f64::from(all), *lengths.values().max().unwrap())
    }

    #[test]
    fn owners_in_a_row_have_a_chain_each_and_others_are_spread() {
        let buckets = Buckets::new(1024, 4096).unwrap();
        assert_eq!(looked_at(&buckets, 1..4096), (1.0, 1));
        for first in [1, 4000, 12_345_678, 1 << 40] {
            let row = looked_at(&buckets, first..first + 3072);
            assert!(row.1 <= 2, "{row:?} from {first}");
            for step in (2..66).chain([100, 127, 128, 255, 256, 333, 1000, 1024, 2048, 4095, 4096, 4097, 65_536]) {
                let spread = looked_at(&buckets, (first..).step_by(step).take(3072));
                assert!(spread.0 < 2.0 && spread.1 <= 8, "{spread:?} from {first} in steps of {step}");
            }
        }
    }
}
