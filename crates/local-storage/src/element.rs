//! One value, with its links and its state bits. The states are drawn in the crate's documentation.

use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::bucket::Link;
use crate::context::Context;
use crate::map::{StorageMap, Value};
use crate::reclaim::{Block, Limbo, Retired};
use crate::storage::LocalStorage;

/// The element is in no bucket's list any more. Set under the bucket's lock.
pub(crate) const OFF_BUCKET: u8 = 1;
/// The element is in no storage's index any more. Set under the storage's lock.
pub(crate) const OFF_STORAGE: u8 = 2;

/// The fixed part. The value follows it in the same allocation, as 8-byte words in little-endian order, the last one padded
/// with zeroes. Words are atomic because a program may add to one in place while readers copy them.
///
/// An element is handed around as `NonNull<Element>` from its own allocation, never as a pointer made from a reference:
/// a reference's provenance ends with the header.
#[repr(C)]
pub(crate) struct Element {
    /// Whose it is. Set before publication, then constant. Null while private.
    storage: *const LocalStorage,
    /// As `storage`.
    map: *const StorageMap,
    /// Next in the chain. Written under the bucket's lock, read by anyone. What a lookup reads begins here, and ends with the value:
    /// two cache lines for 64 bytes, as glibc places it.
    pub(crate) next: Link,
    /// The owner's number, as `storage`.
    owner: u64,
    /// 0 while private.
    version: AtomicU64,
    /// Bytes of value.
    size: u32,
    /// `OFF_BUCKET` and `OFF_STORAGE`.
    state: AtomicU8,
    #[cfg(test)]
    token: crate::tests::ledger::Token,
}

impl Element {
    /// The storage that it belongs to; it lives as long as the element may be seen.
    pub(crate) fn storage(&self) -> *const LocalStorage {
        self.storage
    }

    /// The map that it belongs to; it lives as long as the element may be seen.
    pub(crate) fn map(&self) -> *const StorageMap {
        self.map
    }

    /// The number of its owner.
    pub(crate) fn owner(&self) -> u64 {
        self.owner
    }

    /// The version of the value.
    pub(crate) fn version(&self) -> u64 {
        // Relaxed: published together with the element; a program that changes the value in place changes it after the words.
        self.version.load(Ordering::Relaxed)
    }

    /// Bytes of value.
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Whether destroy or delete took it off its storage.
    pub(crate) fn is_off_storage(&self) -> bool {
        // Acquire: pairs with `mark_off`, so that a reader who misses one value of an owner that leaves finds none of those that
        // were marked before.
        self.state.load(Ordering::Acquire) & OFF_STORAGE != 0
    }
}

fn layout(size: u32) -> Layout {
    let words = Layout::array::<AtomicU64>(size.div_ceil(8) as usize).expect("4 GiB of words fit the address space");
    let (layout, offset) = Layout::new::<Element>().extend(words).expect("a header more fits, too");
    debug_assert_eq!(offset, size_of::<Element>());
    layout
}

/// The words of the value.
///
/// # Safety
/// `element` comes from [`Fresh::new`], with a value of `size` bytes, and stays allocated for `'a`.
unsafe fn words<'a>(element: NonNull<Element>, size: u32) -> &'a [AtomicU64] {
    // SAFETY: the caller keeps it allocated; Fresh::new has initialised the header and `size.div_ceil(8)` words right behind
    // it (`layout` asserts that there is no gap), and the pointer has the provenance of the whole allocation.
    unsafe {
        let count = size.div_ceil(8) as usize;
        slice::from_raw_parts(element.as_ptr().add(1).cast::<AtomicU64>(), count)
    }
}

/// Copies the value out, with its version. The caller knows the size from the map: read from the element it would hold up all
/// that depends on it, the room for the copy for one, until the element has come from memory.
///
/// # Safety
/// `element` is published in a map whose values have `size` bytes, and the caller holds a lock or a pin under which it found it.
pub(crate) unsafe fn read(element: NonNull<Element>, size: u32) -> Value {
    // SAFETY: the caller's lock or pin keeps it allocated.
    let (header, words) = unsafe { (element.as_ref(), words(element, size)) };
    let size = size as usize;
    // The version first: if a program changes the value in place meanwhile, a compare-and-swap on what we read then fails.
    let version = header.version.load(Ordering::Acquire);
    let mut bytes = Vec::<u8>::with_capacity(words.len() * 8);
    for (word, room) in words.iter().zip(bytes.spare_capacity_mut().as_chunks_mut().0) {
        // Relaxed: initialised before the Release store that published the element, which the caller's Acquire load has seen.
        *room = word.load(Ordering::Relaxed).to_le_bytes().map(MaybeUninit::new);
    }
    // SAFETY: the capacity has room for every word, all of them were written, and `size` ends in the last one.
    unsafe { bytes.set_len(size) };
    Value { bytes, version }
}

/// As [`read`], into `room`, which has `size` bytes; returns the version.
///
/// # Safety
/// As [`read`].
pub(crate) unsafe fn copy(element: NonNull<Element>, size: u32, room: &mut [u8]) -> u64 {
    // SAFETY: the caller's lock or pin keeps it allocated.
    let (header, words) = unsafe { (element.as_ref(), words(element, size)) };
    // The version first: as in `read`.
    let version = header.version.load(Ordering::Acquire);
    for (word, room) in words.iter().zip(room.chunks_mut(8)) {
        // Relaxed: as in `read`.
        let bytes = word.load(Ordering::Relaxed).to_le_bytes();
        match room.as_mut_array::<8>() {
            Some(room) => *room = bytes,
            // The last one.
            None => room.copy_from_slice(&bytes[..room.len()]),
        }
    }
    version
}

/// An integer in a value: 1, 2, 4 or 8 bytes, little-endian, none of them beyond the 8-byte word in which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    word: usize,
    shift: u32,
    mask: u64,
}

impl Field {
    /// The field of `width` bytes at `offset`; none where there cannot be one.
    pub fn new(offset: u32, width: u32) -> Option<Field> {
        if !matches!(width, 1 | 2 | 4 | 8) || offset % 8 + width > 8 {
            return None;
        }
        Some(Field { word: offset as usize / 8, shift: offset % 8 * 8, mask: u64::MAX >> (64 - width * 8) })
    }

    /// Whether values of this size have it.
    pub fn fits(&self, value_size: u32) -> bool {
        let end = self.word * 8 + (self.shift as usize + self.mask.count_ones() as usize) / 8;
        end <= value_size as usize
    }

    fn get(&self, word: u64) -> u64 {
        word >> self.shift & self.mask
    }

    fn with(&self, word: u64, field: u64) -> u64 {
        word & !(self.mask << self.shift) | (field & self.mask) << self.shift
    }
}

/// Adds to a field of the value, wrapping around, and gives the value another version; returns what the field is then, and the version.
/// Whoever replaces the element at the same moment may not see it.
///
/// # Safety
/// As [`read`]; and values of `size` bytes have the field.
pub(crate) unsafe fn add(
    element: NonNull<Element>,
    size: u32,
    field: Field,
    delta: u64,
    draw: impl Fn(u64) -> u64,
) -> (u64, u64) {
    // SAFETY: the caller's lock or pin keeps it allocated.
    let (header, words) = unsafe { (element.as_ref(), words(element, size)) };
    let word = &words[field.word];
    let mut before = word.load(Ordering::Relaxed);
    let sum = loop {
        let sum = field.get(before).wrapping_add(delta) & field.mask;
        // Relaxed: the version that follows publishes it.
        match word.compare_exchange_weak(before, field.with(before, sum), Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => break sum,
            Err(now) => before = now,
        }
    };
    let mut old = header.version.load(Ordering::Relaxed);
    let version = loop {
        let version = draw(old);
        // Release: whoever reads this version (with Acquire, before the words) sees the sum.
        match header.version.compare_exchange_weak(old, version, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => break version,
            Err(now) => old = now,
        }
    };
    (sum, version)
}

/// An element that nobody else has seen: dropping it gives its memory back for the next one.
pub(crate) struct Fresh<'a> {
    element: NonNull<Element>,
    limbo: &'a Limbo,
}

impl<'a> Fresh<'a> {
    /// A private copy of `value`; none when there is no memory.
    pub(crate) fn new(cx: &'a Context, value: &[u8]) -> Option<Fresh<'a>> {
        let size = u32::try_from(value.len()).ok()?;
        let element = cx.limbo.block(layout(size))?.into_raw().cast::<Element>();
        // SAFETY: a block of this layout: room for the header and for the words behind it, written once each
        // before anything reads them; nobody else has the pointer.
        unsafe {
            element.write(Element {
                storage: ptr::null(),
                map: ptr::null(),
                next: Link::default(),
                owner: 0,
                version: AtomicU64::new(0),
                size,
                state: AtomicU8::new(0),
                #[cfg(test)]
                token: Default::default(),
            });
            let first = element.as_ptr().add(1).cast::<AtomicU64>();
            let (whole, rest) = value.as_chunks();
            for (i, word) in whole.iter().enumerate() {
                first.add(i).write(AtomicU64::new(u64::from_le_bytes(*word)));
            }
            if !rest.is_empty() {
                let mut word = [0; 8];
                word[..rest.len()].copy_from_slice(rest);
                first.add(whole.len()).write(AtomicU64::new(u64::from_le_bytes(word)));
            }
        }
        Some(Fresh { element, limbo: &cx.limbo })
    }

    /// Says whose it is and gives up the private hold. The caller publishes it by a Release store next, under the locks.
    pub(crate) fn into_shared(
        self,
        storage: *const LocalStorage,
        map: *const StorageMap,
        owner: u64,
        version: u64,
    ) -> NonNull<Element> {
        let mut element = self.element;
        std::mem::forget(self);
        // SAFETY: still private: `self` was the only handle.
        let header = unsafe { element.as_mut() };
        header.storage = storage;
        header.map = map;
        header.owner = owner;
        header.version = AtomicU64::new(version);
        element
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        // SAFETY: never published: into_shared forgets the handle.
        unsafe { end(self.element.cast()) }.into_iter().for_each(|block| self.limbo.keep(block));
    }
}

/// # Safety
/// `element` comes from [`Fresh::new`], nobody can reach it any more, and it is ended once.
unsafe fn end(element: NonNull<u8>) -> Option<Block> {
    // SAFETY: the caller says that it is still there; nothing in it needs dropping.
    let header = unsafe { element.cast::<Element>().as_ref() };
    #[cfg(test)]
    header.token.free();
    // SAFETY: Fresh::new made it in a block for a value of this size.
    Some(unsafe { Block::from_raw(element, layout(header.size)) })
}

/// Retires an element whose place a newer one has taken. The holds on map and storage pass to the newer one.
///
/// # Safety
/// The caller, under both locks, has just replaced it in both lists, and calls this once.
pub(crate) unsafe fn replaced(cx: &Context, element: NonNull<Element>) -> Retired<'_> {
    #[cfg(test)]
    // SAFETY: just replaced, and freed after a grace period that begins below.
    unsafe { element.as_ref() }.token.retire();
    // SAFETY: out of both lists, so only readers that are pinned now can have it.
    unsafe { Retired::new(&cx.limbo, element, layout(element.as_ref().size).size(), end) }
}

/// Takes note that `element` is off one list; the call that completes the pair ends its membership: it leaves the
/// map's count, and after a grace period its memory and its hold on map and storage go.
///
/// # Safety
/// The caller holds the lock of the list that `bit` names, has just unlinked the element there, and calls this once a bit.
/// It does not touch the element afterwards, unless it is still linked in the other list under that list's lock.
#[must_use = "it is dropped after the locks"]
pub(crate) unsafe fn mark_off(cx: &Context, element: NonNull<Element>, bit: u8) -> Option<Retired<'_>> {
    // SAFETY: it was linked in the list whose lock the caller holds, so it has not been completed before.
    let header = unsafe { element.as_ref() };
    let map = header.map;
    // AcqRel: Release hands our unlinking to whoever completes the pair; Acquire takes the other's.
    let before = header.state.fetch_or(bit, Ordering::AcqRel);
    debug_assert_eq!(before & bit, 0, "a list lets go of an element once");
    if before | bit != OFF_BUCKET | OFF_STORAGE {
        return None;
    }
    #[cfg(test)]
    header.token.retire();
    // SAFETY: the membership's hold on the map lasts until the element is freed.
    unsafe { (*map).element_left() };
    // SAFETY: off both lists, so only readers that are pinned now can have it; once, because exactly one fetch_or completes
    // the pair. Map and storage are Send and Sync, so their holds may be given back on any thread.
    Some(unsafe {
        Retired::new(&cx.limbo, element, layout(header.size).size(), |element| {
            let header = element.cast::<Element>().as_ref();
            // The holds that `join` took.
            drop(Arc::from_raw(header.map));
            drop(Arc::from_raw(header.storage));
            end(element)
        })
    })
}

/// Takes the holds on map and storage that a new membership has until [`mark_off`] completes; a replacement inherits them.
pub(crate) fn join(map: &Arc<StorageMap>, storage: &Arc<LocalStorage>) -> (*const StorageMap, *const LocalStorage) {
    (Arc::into_raw(Arc::clone(map)), Arc::into_raw(Arc::clone(storage)))
}

/// Undoes [`join`] and makes the element private again.
///
/// # Safety
/// Nobody but the caller has ever seen it.
pub(crate) unsafe fn unjoin(cx: &Context, element: NonNull<Element>) -> Fresh<'_> {
    // SAFETY: still allocated; the holds are those of `join`, given back once.
    unsafe {
        drop(Arc::from_raw(element.as_ref().map));
        drop(Arc::from_raw(element.as_ref().storage));
    }
    Fresh { element, limbo: &cx.limbo }
}

#[cfg(test)]
mod tests {
    use crate::tests::{TestOwner, context, map};
    use crate::{Mode, destroy};

    #[test]
    fn values_of_every_length_come_back_whole() {
        let cx = context(0);
        for length in 1..=70_u8 {
            let (owner, map) = (TestOwner::new(), map(length.into(), 10));
            let value: Vec<_> = (1..=length).collect();
            map.update(&cx, &owner, &value, Mode::Any, None).unwrap();
            assert_eq!(map.lookup(&owner).unwrap().bytes, value);
            destroy(&cx, &owner);
        }
    }
}
