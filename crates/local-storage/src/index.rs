//! A storage's elements by map: a few slots of its own, and from the fifth map on an open-addressing table, both of which
//! readers search without a lock and writers change under the storage's lock.
//!
//! ```text
//!   LocalStorage { grown: null,   own: [ map ─► element, … ] }              up to 4 maps: one step from the owner's slot
//!   LocalStorage { grown ─► Table { slots: [ map ─► element, … ] }, own }    more: `own` stays as it was, for old readers
//! ```
//!
//! Linux fills a small cache from the reader, and a lookup of the 17th map walks a list. Here readers never write, and a
//! lookup costs the same with 1 and with 1,000 maps. A key never moves or changes within one table: removing an element
//! leaves its key with a null pointer behind, inserting takes that place up again or a new one, and a table that is three
//! quarters full of keys (or the storage's own slots, when each has one) is replaced as a whole, by a table that has room
//! for twice the living.

use std::iter;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crossbeam_epoch::Guard;

use crate::element::Element;
use crate::reclaim::Retired;

/// Slots in the storage itself, each of which may be used: they are looked at one after the other.
const OWN: usize = 4;
/// Slots of the smallest table.
const SMALLEST: usize = 8;

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
#[repr(C)]
pub(crate) struct Index {
    /// Null: nothing but `own`.
    grown: AtomicPtr<Table>,
    /// Where it begins. Nobody looks here once there is a table, but readers who came before.
    own: [Slot; OWN],
}

/// Room for one more map, made before the first change, so that running out of memory changes nothing.
pub(crate) enum Room {
    /// There is a slot.
    Here,
    /// This table has it, and everything else that there is.
    Grown(Box<Table>),
}

impl Slot {
    const fn free() -> Slot {
        Slot { key: AtomicU64::new(0), element: AtomicPtr::new(ptr::null_mut()) }
    }
}

impl Table {
    fn with_slots(count: usize) -> Option<Box<Table>> {
        let mut slots = Vec::new();
        slots.try_reserve_exact(count).ok()?;
        slots.extend(iter::repeat_with(Slot::free).take(count));
        Some(Box::new(Table { slots: slots.into_boxed_slice(), keys: AtomicU64::new(0) }))
    }

    /// The slots in the order in which `map` is searched, starting anywhere: ids are handed out one after the other, and a
    /// multiplication spreads any other pattern.
    fn probe(&self, map: u64) -> impl Iterator<Item = &Slot> {
        let mask = self.slots.len() - 1;
        let start = (map.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize;
        (0..=mask).map(move |step| &self.slots[(start + step) & mask])
    }

    fn place(&self, map: u64, element: *mut Element) {
        if place(self.probe(map), map, element) {
            self.keys.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a quarter stays free with another key.
    fn takes_another(&self) -> bool {
        (self.keys.load(Ordering::Relaxed) + 1) * 4 <= self.slots.len() as u64 * 3
    }
}

/// The slot of `map`, among slots in the order in which it is searched.
fn search<'a>(slots: impl Iterator<Item = &'a Slot>, map: u64) -> Option<&'a Slot> {
    for slot in slots {
        // Acquire: pairs with the Release of `place`, so that the element of a key is there.
        match slot.key.load(Ordering::Acquire) {
            key if key == map => return Some(slot),
            0 => return None,
            _ => {}
        }
    }
    None
}

/// Puts `element` into the slot of `map`, or into the first free one, and says whether that was it.
fn place<'a>(slots: impl Iterator<Item = &'a Slot>, map: u64, element: *mut Element) -> bool {
    for slot in slots {
        // Relaxed: only we write keys.
        let key = slot.key.load(Ordering::Relaxed);
        if key == map || key == 0 {
            // Release: publishes the element's words and header to `get`.
            slot.element.store(element, Ordering::Release);
            if key == 0 {
                // Release: pairs with `search`.
                slot.key.store(map, Ordering::Release);
            }
            return key == 0;
        }
    }
    unreachable!("room was made under the same lock");
}

impl Index {
    /// An empty index.
    pub(crate) const fn new() -> Index {
        Index { grown: AtomicPtr::new(ptr::null_mut()), own: [const { Slot::free() }; OWN] }
    }

    /// The table that it has grown to.
    fn grown(&self) -> Option<&Table> {
        // SAFETY: null or from Box::into_raw; only `insert` replaces it, under the same lock as our caller, and through a grace
        // period; or our caller is pinned (`find`). Relaxed would do for the writer, Acquire is for `find`.
        unsafe { self.grown.load(Ordering::Acquire).as_ref() }
    }

    fn search(&self, map: u64) -> Option<&Slot> {
        match self.grown() {
            None => search(self.own.iter(), map),
            Some(table) => search(table.probe(map), map),
        }
    }

    fn slots(&self) -> &[Slot] {
        self.grown().map_or(&self.own, |table| &table.slots)
    }

    fn living(&self) -> impl Iterator<Item = (u64, NonNull<Element>)> {
        // Relaxed: called by the writer, who wrote all this or got it with the lock.
        self.slots().iter().filter_map(|slot| {
            NonNull::new(slot.element.load(Ordering::Relaxed))
                .map(|element| (slot.key.load(Ordering::Relaxed), element))
        })
    }

    /// The element of `map`, for a reader: it stays allocated until the guard goes.
    pub(crate) fn find(&self, map: u64, _guard: &Guard) -> Option<NonNull<Element>> {
        self.get(map)
    }

    /// The element of `map`, for the writer.
    pub(crate) fn get(&self, map: u64) -> Option<NonNull<Element>> {
        // Acquire: pairs with `place` and `put`: the element is seen whole.
        NonNull::new(self.search(map)?.element.load(Ordering::Acquire))
    }

    /// Makes room for one element of `map`; none when there is no memory. Nothing has changed yet.
    pub(crate) fn room(&self, map: u64) -> Option<Room> {
        let takes_another = match self.grown() {
            // Relaxed: only we write keys.
            None => self.own.iter().any(|slot| slot.key.load(Ordering::Relaxed) == 0),
            Some(table) => table.takes_another(),
        };
        if takes_another || self.search(map).is_some() {
            return Some(Room::Here);
        }
        let living = self.living().count() + 1;
        let grown = Table::with_slots((living * 2).next_power_of_two().max(SMALLEST))?;
        self.living().for_each(|(map, element)| grown.place(map, element.as_ptr()));
        Some(Room::Grown(grown))
    }

    /// Adds the first element of `map`, with the room that was made under the same lock.
    #[must_use = "it is dropped after the locks"]
    pub(crate) fn insert(&self, map: u64, element: NonNull<Element>, room: Room) -> Option<Retired<Table>> {
        match (room, self.grown()) {
            (Room::Here, None) => {
                place(self.own.iter(), map, element.as_ptr());
                None
            }
            (Room::Here, Some(table)) => {
                table.place(map, element.as_ptr());
                None
            }
            (Room::Grown(grown), _) => {
                grown.place(map, element.as_ptr());
                // AcqRel: Release publishes the new table as a whole; Acquire because we free what we take out. A reader
                // that has the old table, or our own slots, sees what was true when it looked for a table.
                let old = self.grown.swap(Box::into_raw(grown), Ordering::AcqRel);
                // SAFETY: from Box::into_raw, reachable by pinned readers only; a Table owns nothing but its slots.
                NonNull::new(old).map(|old| unsafe { Retired::new(old, |old| drop(Box::from_raw(old.as_ptr()))) })
            }
        }
    }

    /// Puts another element, or none, where one of `map` is.
    pub(crate) fn put(&self, map: u64, element: Option<NonNull<Element>>) {
        let slot = self.search(map).expect("put follows a get under the same lock");
        // Release: publishes the new element to `get`.
        slot.element.store(element.map_or(ptr::null_mut(), NonNull::as_ptr), Ordering::Release);
    }

    /// Takes every element out, for destroy.
    pub(crate) fn drain(&self) -> Vec<NonNull<Element>> {
        let elements = self.living().map(|(_, element)| element).collect();
        // Release for form's sake: null publishes nothing.
        self.slots().iter().for_each(|slot| slot.element.store(ptr::null_mut(), Ordering::Release));
        elements
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let grown = *self.grown.get_mut();
        if !grown.is_null() {
            // SAFETY: from Box::into_raw; the storage is being dropped, after a grace period if it ever was public.
            drop(unsafe { Box::from_raw(grown) });
        }
    }
}

#[cfg(test)]
impl Index {
    /// What is in it.
    pub(crate) fn elements(&self) -> Vec<NonNull<Element>> {
        self.living().map(|(_, element)| element).collect()
    }

    /// Slots that are searched now.
    pub(crate) fn slot_count(&self) -> usize {
        self.slots().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Found;
    use crate::tests::{TestOwner, context, map};
    use crate::{Mode, Owner, destroy};

    #[test]
    fn four_maps_fit_into_the_storage_and_the_fifth_makes_a_table() {
        let (cx, owner) = (context(0), TestOwner::new());
        let maps: Vec<_> = (0..40).map(|_| map(8, 10)).collect();
        let mut slots = Vec::new();
        for (number, map) in (1..=40_u64).zip(&maps) {
            map.update(&cx, &owner, &number.to_le_bytes(), Mode::Any, None).unwrap();
            let Found::Storage(storage) = owner.slot().find() else { panic!("it has an element") };
            slots.push(storage.index.slot_count());
            for (number, map) in (1..=number).zip(&maps) {
                assert_eq!(map.lookup(&owner).unwrap().bytes, number.to_le_bytes());
            }
        }
        let expected = (1..=40).map(|maps| match maps {
            1..=4 => 4,
            5..=12 => 16,
            13..=24 => 32,
            _ => 64,
        });
        assert_eq!(slots, expected.collect::<Vec<_>>());
        destroy(&cx, &owner);
    }

    /// A reader may have looked for a table before there was one, and go on in the storage's own slots: they are left alone.
    #[test]
    fn the_own_slots_stay_as_they_were_when_there_is_a_table() {
        let (cx, owner) = (context(0), TestOwner::new());
        let maps: Vec<_> = (0..5).map(|_| map(8, 10)).collect();
        for map in &maps[..4] {
            map.update(&cx, &owner, &[1; 8], Mode::Any, None).unwrap();
        }
        let Found::Storage(storage) = owner.slot().find() else { panic!("it has elements") };
        let own = || {
            storage
                .index
                .own
                .each_ref()
                .map(|slot| (slot.key.load(Ordering::Relaxed), slot.element.load(Ordering::Relaxed)))
        };
        let before = own();
        maps[4].update(&cx, &owner, &[1; 8], Mode::Any, None).unwrap();
        maps[0].update(&cx, &owner, &[2; 8], Mode::Any, None).unwrap();
        maps[1].delete(&cx, &owner, None).unwrap();
        assert_eq!(own(), before);
        assert_eq!((maps[0].lookup(&owner).unwrap().bytes, maps[1].lookup(&owner)), (vec![2; 8], None));
        destroy(&cx, &owner);
        assert_eq!(own(), before, "nor by a destroy");
    }
}
