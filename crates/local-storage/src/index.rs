//! A storage's elements by map: an open-addressing table that readers search without a lock and writers change under the
//! storage's lock.
//!
//! Linux fills a small cache from the reader, and a lookup of the 17th map walks a list. Here readers never write, and a
//! lookup costs the same with 1 and with 1,000 maps. A key never moves or changes within one table: removing an element
//! leaves its key with a null pointer behind, inserting takes that place up again or a new one, and a table that is three
//! quarters full of keys is replaced as a whole, by one that has room for twice the living.

use std::iter;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crossbeam_epoch::Guard;

use crate::element::Element;
use crate::reclaim::Retired;

/// Slots of the first table: three maps fit.
const SMALLEST: usize = 4;

struct Slot {
    /// A map's id; 0 is free, which no map has.
    key: AtomicU64,
    /// Null: that map has no element here.
    element: AtomicPtr<Element>,
}

pub(crate) struct Table {
    /// A power of two of them, a quarter free at least, so that every search ends.
    slots: Box<[Slot]>,
    /// Keys in use, with or without an element. Under the storage's lock.
    keys: AtomicU64,
}

/// The index. Every method that changes it is called under the storage's lock, or while the storage is private.
pub(crate) struct Index {
    table: AtomicPtr<Table>,
}

/// Room for one more map, made before the first change, so that running out of memory changes nothing.
pub(crate) enum Room {
    /// The table has it.
    Here,
    /// This table has it, and everything else that the old one has.
    Grown(Box<Table>),
}

impl Table {
    fn with_slots(count: usize) -> Option<Box<Table>> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(count).ok()?;
        slots.extend(iter::repeat_with(|| Slot { key: AtomicU64::new(0), element: AtomicPtr::default() }).take(count));
        Some(Box::new(Table { slots: slots.into_boxed_slice(), keys: AtomicU64::new(0) }))
    }

    /// The slots in the order in which `map` is searched, starting anywhere: ids are handed out one after the other, and a
    /// multiplication spreads any other pattern.
    fn probe(&self, map: u64) -> impl Iterator<Item = &Slot> {
        let mask = self.slots.len() - 1;
        let start = (map.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize;
        (0..=mask).map(move |step| &self.slots[(start + step) & mask])
    }

    fn search(&self, map: u64) -> Option<&Slot> {
        for slot in self.probe(map) {
            // Acquire: pairs with the Release of `place`, so that the element of a key is there.
            match slot.key.load(Ordering::Acquire) {
                key if key == map => return Some(slot),
                0 => return None,
                _ => {}
            }
        }
        None
    }

    /// Whether `map` has a key here or may get one.
    fn takes(&self, map: u64) -> bool {
        self.search(map).is_some() || (self.keys.load(Ordering::Relaxed) + 1) * 4 <= self.slots.len() as u64 * 3
    }

    fn place(&self, map: u64, element: *mut Element) {
        for slot in self.probe(map) {
            // Relaxed: only we write keys.
            let key = slot.key.load(Ordering::Relaxed);
            if key == map || key == 0 {
                // Release: publishes the element's words and header to `get`.
                slot.element.store(element, Ordering::Release);
                if key == 0 {
                    // Release: pairs with `search`.
                    slot.key.store(map, Ordering::Release);
                    self.keys.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
        }
        unreachable!("room was made under the same lock");
    }

    fn living(&self) -> impl Iterator<Item = (u64, NonNull<Element>)> {
        // Relaxed: called by the writer, who wrote all this or got it with the lock.
        self.slots.iter().filter_map(|slot| {
            NonNull::new(slot.element.load(Ordering::Relaxed))
                .map(|element| (slot.key.load(Ordering::Relaxed), element))
        })
    }
}

impl Index {
    /// An empty index; none when there is no memory.
    pub(crate) fn new() -> Option<Index> {
        Table::with_slots(SMALLEST).map(|table| Index { table: AtomicPtr::new(Box::into_raw(table)) })
    }

    /// The table, for the writer.
    fn table(&self) -> &Table {
        // SAFETY: always from Box::into_raw; only `insert` replaces it, under the same lock as our caller, and through a grace
        // period; or our caller is pinned (`find`). Relaxed would do for the writer, Acquire is for `find`.
        unsafe { &*self.table.load(Ordering::Acquire) }
    }

    /// The element of `map`, for a reader: it stays allocated until the guard goes.
    pub(crate) fn find(&self, map: u64, _guard: &Guard) -> Option<NonNull<Element>> {
        self.get(map)
    }

    /// The element of `map`, for the writer.
    pub(crate) fn get(&self, map: u64) -> Option<NonNull<Element>> {
        // Acquire: pairs with `place` and `put`: the element is seen whole.
        NonNull::new(self.table().search(map)?.element.load(Ordering::Acquire))
    }

    /// Makes room for one element of `map`; none when there is no memory. Nothing has changed yet.
    pub(crate) fn room(&self, map: u64) -> Option<Room> {
        let table = self.table();
        if table.takes(map) {
            return Some(Room::Here);
        }
        let living = table.living().count() + 1;
        let grown = Table::with_slots((living * 2).next_power_of_two().max(SMALLEST))?;
        table.living().for_each(|(map, element)| grown.place(map, element.as_ptr()));
        Some(Room::Grown(grown))
    }

    /// Adds the first element of `map`, with the room that was made under the same lock.
    #[must_use = "it is dropped after the locks"]
    pub(crate) fn insert(&self, map: u64, element: NonNull<Element>, room: Room) -> Option<Retired<Table>> {
        match room {
            Room::Here => {
                self.table().place(map, element.as_ptr());
                None
            }
            Room::Grown(grown) => {
                grown.place(map, element.as_ptr());
                // AcqRel: Release publishes the new table as a whole; Acquire because we free what we take out. A reader
                // that has the old table sees what was true when it loaded it.
                let old = self.table.swap(Box::into_raw(grown), Ordering::AcqRel);
                let old = NonNull::new(old).expect("an index always has a table");
                // SAFETY: from Box::into_raw, reachable by pinned readers only; a Table owns nothing but its slots.
                Some(unsafe { Retired::new(old, |old| drop(Box::from_raw(old.as_ptr()))) })
            }
        }
    }

    /// Puts another element, or none, where one of `map` is.
    pub(crate) fn put(&self, map: u64, element: Option<NonNull<Element>>) {
        let slot = self.table().search(map).expect("put follows a get under the same lock");
        // Release: publishes the new element to `get`.
        slot.element.store(element.map_or(ptr::null_mut(), NonNull::as_ptr), Ordering::Release);
    }

    /// Takes every element out, for destroy.
    pub(crate) fn drain(&self) -> Vec<NonNull<Element>> {
        let table = self.table();
        let elements = table.living().map(|(_, element)| element).collect();
        // Release for form's sake: null publishes nothing.
        table.slots.iter().for_each(|slot| slot.element.store(ptr::null_mut(), Ordering::Release));
        elements
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // SAFETY: from Box::into_raw; the storage is being dropped, after a grace period if it ever was public.
        drop(unsafe { Box::from_raw(*self.table.get_mut()) });
    }
}

#[cfg(test)]
impl Index {
    /// What is in it.
    pub(crate) fn elements(&self) -> Vec<NonNull<Element>> {
        self.table().living().map(|(_, element)| element).collect()
    }

    /// Slots of the table now.
    pub(crate) fn slots(&self) -> usize {
        self.table().slots.len()
    }
}
