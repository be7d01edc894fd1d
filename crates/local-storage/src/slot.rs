//! Where an owner's storage hangs.
//!
//! ```text
//!   empty ◄──first create / last delete──► storage
//!     │ mark_exiting                          │ mark_exiting
//!     ▼                                       ▼
//!   empty+EXITING ◄──────last delete──── storage+EXITING      (lookups, replacements and deletes go on; creates are refused)
//!     │ kill                                  │ kill: the caller unlinks the elements
//!     └──────────────► DEAD ◄─────────────────┘
//! ```

use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use crossbeam_epoch::Guard;

use crate::context::Context;
use crate::reclaim::Retired;
use crate::storage::LocalStorage;

const EXITING: usize = 1;
const DEAD: usize = 2;

/// An owner's way to its storage: one tagged pointer that holds a strong reference to the storage while it names it.
///
/// A slot that still names a storage when it is dropped leaks that storage with its elements: [`destroy`](crate::destroy) comes first.
pub struct OwnerSlot(AtomicPtr<LocalStorage>);

/// What a slot holds at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// No value in any map.
    Empty,
    /// Values in at least one map (or in none any more, after a map was freed).
    Storage {
        /// The storage's serial: the owner's id.
        serial: u64,
        /// Elements in all maps.
        elements: u64,
        /// Bytes of value in all maps.
        bytes: u64,
    },
    /// The owner is leaving: creates are refused.
    Exiting,
    /// The owner has left.
    Dead,
}

/// What an operation finds in a slot.
pub(crate) enum Found {
    Empty,
    EmptyExiting,
    Storage(Arc<LocalStorage>),
    Dead,
}

impl OwnerSlot {
    /// An empty slot.
    pub const fn new() -> OwnerSlot {
        OwnerSlot(AtomicPtr::new(ptr::null_mut()))
    }

    /// What it holds at the moment.
    pub fn state(&self) -> SlotState {
        let guard = crossbeam_epoch::pin();
        // Acquire: pairs with the Release of `publish`.
        let raw = self.0.load(Ordering::Acquire);
        match raw.addr() {
            tag if tag & DEAD != 0 => SlotState::Dead,
            tag if tag & EXITING != 0 => SlotState::Exiting,
            _ => self.peek(&guard).map_or(SlotState::Empty, LocalStorage::usage),
        }
    }

    /// Whether the owner has left. Cheaper than the whole state.
    pub fn is_dead(&self) -> bool {
        // Acquire: as a call that sees DEAD in `names`.
        self.0.load(Ordering::Acquire).addr() & DEAD != 0
    }

    /// The storage, for a reader.
    pub(crate) fn peek<'g>(&self, _guard: &'g Guard) -> Option<&'g LocalStorage> {
        // Acquire: pairs with the Release of `publish`, so that the storage is seen whole.
        let raw = untag(self.0.load(Ordering::Acquire));
        // SAFETY: non-null untagged pointers come from `publish`. The slot's strong reference is dropped through a grace
        // period (`detach`, `kill`), and the guard was there before the load, so the storage outlives `'g`.
        unsafe { raw.as_ref() }
    }

    /// The storage, for an operation that is going to wait for its lock: with a reference of its own instead of a pin.
    pub(crate) fn find(&self) -> Found {
        let _guard = crossbeam_epoch::pin();
        // Acquire: as in `peek`.
        let raw = self.0.load(Ordering::Acquire);
        let tag = raw.addr();
        if tag & DEAD != 0 {
            return Found::Dead;
        }
        match NonNull::new(untag(raw)) {
            // SAFETY: it came from Arc::into_raw in `publish`, and the slot's own reference keeps the count above zero
            // until the pin ends, as in `peek`.
            Some(storage) => Found::Storage(unsafe {
                Arc::increment_strong_count(storage.as_ptr());
                Arc::from_raw(storage.as_ptr())
            }),
            None if tag & EXITING != 0 => Found::EmptyExiting,
            None => Found::Empty,
        }
    }

    /// Whether a storage could be published now.
    pub(crate) fn is_empty(&self) -> bool {
        // Relaxed: a hint; `publish` decides.
        self.0.load(Ordering::Relaxed).is_null()
    }

    /// Whether this storage is still the owner's, and if so whether the owner is leaving. Asked under the storage's lock.
    pub(crate) fn names(&self, storage: &LocalStorage) -> Option<Exiting> {
        // Relaxed would do for the pointer: detach happens under the lock that the caller holds, and kill is followed by
        // destroy's own turn at that lock. Acquire, so that a DEAD that we see comes with what its writer did before.
        let raw = self.0.load(Ordering::Acquire);
        let same = raw.addr() & DEAD == 0 && ptr::eq(untag(raw), storage);
        same.then_some(Exiting(raw.addr() & EXITING != 0))
    }

    /// Makes the storage public if the slot is empty and the owner is staying. The slot takes a reference of its own.
    pub(crate) fn publish(&self, storage: &Arc<LocalStorage>) -> bool {
        let raw = Arc::into_raw(Arc::clone(storage)).cast_mut();
        // Release: who finds the pointer sees the storage whole. (What is behind its lock comes with the lock.)
        match self.0.compare_exchange(ptr::null_mut(), raw, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => true,
            Err(_) => {
                // SAFETY: from into_raw above, and nobody has seen it.
                drop(unsafe { Arc::from_raw(raw) });
                false
            }
        }
    }

    /// Takes an empty storage off, unless destroy was faster. Called under the storage's lock; what it returns is the slot's
    /// reference.
    pub(crate) fn detach<'a>(&self, cx: &'a Context, storage: &LocalStorage) -> Option<Retired<'a>> {
        let mut raw = self.0.load(Ordering::Relaxed);
        while raw.addr() & DEAD == 0 && ptr::eq(untag(raw), storage) {
            let empty = ptr::without_provenance_mut(raw.addr() & EXITING);
            // Release: whoever finds the slot empty in `find`, and says so without a lock, sees that the elements have left their chains.
            match self.0.compare_exchange_weak(raw, empty, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return NonNull::new(untag(raw)).map(|storage| release(cx, storage)),
                Err(now) => raw = now,
            }
        }
        None
    }

    /// From now on creates are refused: the owner is leaving. A [`destroy`](crate::destroy) begins with it.
    pub fn mark_exiting(&self) {
        // Relaxed: creates see it in their own compare-exchange of this word, or under the storage's lock; until `kill` no one relies on more.
        self.0.fetch_or(EXITING, Ordering::Relaxed);
    }

    /// The end: nothing finds the storage any more. The caller unlinks its elements.
    pub(crate) fn kill(&self, cx: &Context) -> Option<Arc<LocalStorage>> {
        let dead = ptr::without_provenance_mut(DEAD);
        // AcqRel: Acquire takes the storage as its publisher left it; Release is for `names`.
        let raw = self.0.swap(dead, Ordering::AcqRel);
        let storage = NonNull::new(untag(raw))?;
        // SAFETY: the slot's reference is ours now and is only given back below, so the count is above zero.
        let ours = unsafe {
            Arc::increment_strong_count(storage.as_ptr());
            Arc::from_raw(storage.as_ptr())
        };
        drop(release(cx, storage));
        Some(ours)
    }
}

/// Whether the owner is leaving.
#[derive(Clone, Copy)]
pub(crate) struct Exiting(pub(crate) bool);

fn untag(raw: *mut LocalStorage) -> *mut LocalStorage {
    raw.map_addr(|addr| addr & !(EXITING | DEAD))
}

/// Gives the slot's reference back, after the readers that may have found it there.
fn release(cx: &Context, storage: NonNull<LocalStorage>) -> Retired<'_> {
    let end = |storage: NonNull<u8>| {
        // SAFETY: it came from Arc::into_raw in `publish`, and the slot has given this reference up.
        drop(unsafe { Arc::from_raw(storage.cast::<LocalStorage>().as_ptr()) });
        None
    };
    // SAFETY: the slot does not name it any more, so only pinned readers have it by this reference; and
    // Arc<LocalStorage> may be dropped on any thread (it is Send and Sync).
    unsafe { Retired::new(&cx.limbo, storage, size_of::<LocalStorage>(), end) }
}

impl Default for OwnerSlot {
    fn default() -> Self {
        OwnerSlot::new()
    }
}

impl fmt::Debug for OwnerSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnerSlot").field(&self.state()).finish()
    }
}

// The two low bits of a pointer to a storage are free for the tags.
const _: () = assert!(align_of::<LocalStorage>() > EXITING | DEAD);
