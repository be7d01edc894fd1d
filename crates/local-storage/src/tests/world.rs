//! A few owners and maps that only meet each other, and the audit of what operations leave behind.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ptr::NonNull;

use super::ledger::Ledger;
use super::*;
use crate::element::Element;
use crate::slot::Found;
use crate::storage::LocalStorage;

/// Bytes of a value.
const SIZE: u32 = 8;
/// Elements of a map.
pub(super) const MAX: u64 = 5;

pub(super) struct World {
    pub(super) owners: Vec<Arc<TestOwner>>,
    /// The last owner and the last map, when they are somebody else's business.
    pub(super) aside: bool,
    pub(super) maps: Vec<Arc<StorageMap>>,
    pub(super) ledger: &'static Ledger,
}

/// Everything that anybody can see.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    slots: Vec<SlotState>,
    values: Vec<Vec<Option<Value>>>,
    counts: Vec<(u64, u64)>,
    listings: Vec<Vec<Listed>>,
    live: i64,
}

/// A map of four buckets.
pub(super) fn small_map(id: MapId) -> Arc<StorageMap> {
    Arc::new(StorageMap::new(MapSpec { id, ..spec(SIZE, MAX) }).expect("a small map"))
}

/// The owner's storage, with a hold on it.
pub(super) fn storage_of(owner: &TestOwner) -> Option<Arc<LocalStorage>> {
    match owner.slot.find() {
        Found::Storage(storage) => Some(storage),
        _ => None,
    }
}

/// Works retry lists off, within a minute.
pub(super) fn settle(contexts: &[Context]) {
    let limit = Instant::now() + Duration::from_secs(60);
    while contexts.iter().map(|cx| cx.work_off(64)).sum::<usize>() > 0 {
        assert!(Instant::now() < limit, "a retry list that does not end");
        std::thread::yield_now();
    }
    for cx in contexts {
        assert_eq!(cx.retry_length().load(Ordering::Relaxed), 0, "what the gauge says of an empty list");
    }
}

/// Drives a free, not to the grace period: only until no element is left.
pub(super) fn drain(contexts: &[Context], free: &mut MapFree) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !free.map().is_drained() {
        assert!(Instant::now() < limit, "a free that does not end: {:?}", free.map());
        free.step(&contexts[0], 64);
        settle(contexts);
    }
}

fn sum_of_sizes(elements: &BTreeSet<NonNull<Element>>) -> u64 {
    // SAFETY: nobody else is in this world while it is audited, so what is linked stays so.
    elements.iter().map(|element| u64::from(unsafe { element.as_ref() }.size())).sum()
}

impl World {
    /// Owners with these ids (of which two share a bucket if they are the same modulo 4), and so many maps.
    pub(super) fn new(owners: &[u64], maps: u64, ledger: &'static Ledger) -> World {
        ledger.enter();
        World {
            owners: owners.iter().map(|&id| Arc::new(TestOwner::with_id(id))).collect(),
            aside: false,
            maps: (1..=maps).map(small_map).collect(),
            ledger,
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let (owners, maps) = self.compared();
        Snapshot {
            slots: owners.iter().map(|owner| owner.slot.state()).collect(),
            values: maps.iter().map(|map| owners.iter().map(|owner| map.lookup(owner)).collect()).collect(),
            counts: maps.iter().map(|map| (map.elements(), map.bytes())).collect(),
            listings: maps.iter().map(|map| listing(map, 2)).collect(),
            live: self.ledger.live(),
        }
    }

    fn compared(&self) -> (&[Arc<TestOwner>], &[Arc<StorageMap>]) {
        let but = usize::from(self.aside);
        (&self.owners[..self.owners.len() - but], &self.maps[..self.maps.len() - but])
    }

    /// With nothing under way and nothing put off: what the indexes reach, what the buckets reach, what is allocated and what is
    /// counted are the same, and the bytes charged are theirs.
    pub(super) fn audit(&self) {
        let mut indexed = BTreeSet::new();
        for owner in &self.owners {
            let Some(storage) = storage_of(owner) else { continue };
            let own: BTreeSet<_> = storage.index().elements().collect();
            let SlotState::Storage { elements, bytes, .. } = storage.usage() else { panic!("that is a storage's") };
            assert_eq!((elements, bytes), (own.len() as u64, sum_of_sizes(&own)), "charged to owner {}", owner.id);
            indexed.extend(own);
        }
        let mut listed = BTreeSet::new();
        for map in &self.maps {
            let own: BTreeSet<_> = (0..map.buckets()).flat_map(|at| map.buckets.elements(at)).collect();
            assert_eq!((map.elements(), map.bytes()), (own.len() as u64, sum_of_sizes(&own)), "counted by {map:?}");
            listed.extend(own);
        }
        assert_eq!(indexed, listed, "an element is in both of its lists or in none");
        assert_eq!(self.ledger.live(), listed.len() as i64, "allocated, and reachable");
        assert_eq!(self.ledger.twice(), 0, "elements were retired twice");
    }

    /// Audits it, then lets everybody leave: nothing stays.
    pub(super) fn end(self, contexts: &[Context]) {
        self.audit();
        self.owners.iter().for_each(|owner| destroy(&contexts[0], owner));
        settle(contexts);
        self.audit();
        assert_eq!(self.ledger.live(), 0);
    }
}

type Interruption<'a> = Box<dyn FnOnce() + 'a>;

/// An owner that lets something else happen when its slot is asked for.
pub(super) struct Interrupted<'a> {
    owner: &'a TestOwner,
    /// How often the slot is asked for until then.
    asks: Cell<u32>,
    what: RefCell<Option<Interruption<'a>>>,
}

impl<'a> Interrupted<'a> {
    /// Before the slot is handed out for the `at`-th time, `what` happens.
    pub(super) fn new(owner: &'a TestOwner, at: u32, what: impl FnOnce() + 'a) -> Self {
        Interrupted { owner, asks: Cell::new(at), what: RefCell::new(Some(Box::new(what))) }
    }

    /// It was.
    pub(super) fn assert_interrupted(self) {
        assert!(self.what.borrow().is_none(), "the slot was not asked for so often");
    }
}

impl Owner for Interrupted<'_> {
    fn id(&self) -> u64 {
        self.owner.id
    }

    fn slot(&self) -> &OwnerSlot {
        self.asks.set(self.asks.get().saturating_sub(1));
        if self.asks.get() == 0
            && let Some(what) = self.what.take()
        {
            what();
        }
        &self.owner.slot
    }
}
