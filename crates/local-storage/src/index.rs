//! A storage's elements by map. Only whoever holds the storage's lock comes here: lookups go by the owner's number, through
//! the map ([`bucket`](crate::bucket)).

use std::mem;
use std::ptr::NonNull;

use smallvec::SmallVec;

use crate::element::Element;
use crate::map::MapId;

/// What an owner's second map makes room for.
const SOME: usize = 4;

/// In the order of the maps' ids. An owner with one map has its entry in here; memory for more is another allocation.
#[derive(Default)]
pub(crate) struct Index(SmallVec<[(MapId, NonNull<Element>); 1]>);

impl Index {
    fn search(&self, map: MapId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&map, |&(id, _)| id)
    }

    /// The element of a map.
    pub(crate) fn get(&self, map: MapId) -> Option<NonNull<Element>> {
        self.search(map).ok().map(|at| self.0[at].1)
    }

    /// Makes room for one more, so that running out of memory changes nothing; none when there is no memory.
    pub(crate) fn make_room(&mut self) -> Option<()> {
        match self.0.len() {
            full if full == self.0.capacity() => self.0.try_grow((full * 2).max(SOME)).ok(),
            _ => Some(()),
        }
    }

    /// Adds a map's element, or puts it in the place of the one before.
    pub(crate) fn put(&mut self, map: MapId, element: NonNull<Element>) {
        match self.search(map) {
            Ok(at) => self.0[at].1 = element,
            Err(at) => self.0.insert(at, (map, element)),
        }
    }

    /// Takes a map's element out.
    pub(crate) fn remove(&mut self, map: MapId) {
        if let Ok(at) = self.search(map) {
            self.0.remove(at);
        }
    }

    /// Takes every element out, for destroy.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = NonNull<Element>> + use<> {
        mem::take(&mut self.0).into_iter().map(|(_, element)| element)
    }
}

#[cfg(test)]
impl Index {
    /// What is in it.
    pub(crate) fn elements(&self) -> impl Iterator<Item = NonNull<Element>> {
        self.0.iter().map(|&(_, element)| element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_come_in_any_order() {
        let (mut index, mut words) = (Index::default(), [0_u64; 40]);
        // Never looked behind: any address will do.
        let mut address = |map: u64| NonNull::from(&mut words[map as usize % 40]).cast::<Element>();
        let order: Vec<u64> = (1..40).map(|step| step * 7 % 40).collect();
        for (&map, at) in order.iter().zip(1..) {
            index.make_room().unwrap();
            index.put(map, address(map));
            for &known in &order[..at] {
                assert_eq!(index.get(known), Some(address(known)), "{known} after {map}");
            }
            assert_eq!((index.get(0), index.elements().count()), (None, at));
        }
        index.put(order[3], address(order[4]));
        assert_eq!(index.get(order[3]), Some(address(order[4])), "replaced");
        for &gone in &order[10..] {
            index.remove(gone);
            assert_eq!(index.get(gone), None);
        }
        index.remove(100);
        assert_eq!(index.elements().count(), 10);
        assert_eq!(index.drain().count(), 10);
        assert_eq!((index.get(order[0]), index.elements().count()), (None, 0));
    }
}
